"""The local bar store: incremental is as good as anew, and a kill costs a fetch, never a wrong bar."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from desk.barfiles import ParquetFolder, locked
from desk.barstore import BarStore, UpdateReport
from desk.errors import BadInput, Transient
from desk.market import Quote

SESSIONS = [
    date(2019, 1, 21) + timedelta(days=n) for n in range(60) if (date(2019, 1, 21) + timedelta(days=n)).weekday() < 5
]
COLUMNS = ["symbol", "session", "open", "high", "low", "close", "volume"]


@dataclass
class Vendor:
    """Market data in memory. A split rewrites the past of its symbol, as a vendor's adjustment does."""

    bars: dict[tuple[str, date], tuple[float, float, float, float, int]] = field(default_factory=dict)
    asked: list[tuple[tuple[str, ...], date, date]] = field(default_factory=list)

    @classmethod
    def of(cls, symbols: Iterable[str]) -> Vendor:
        vendor = cls()
        for at, symbol in enumerate(symbols):
            for n, day in enumerate(SESSIONS):
                close = 20.0 + 7 * at + n * 0.25
                vendor.bars[symbol, day] = (close - 0.1, close + 0.3, close - 0.4, close, 1000 + n)
        return vendor

    def split(self, symbol: str, ex_date: date, ratio: int) -> None:
        for (name, day), bar in list(self.bars.items()):
            if name == symbol and day < ex_date:
                self.bars[name, day] = (*(price / ratio for price in bar[:4]), bar[4] * ratio)  # type: ignore[assignment]

    def daily_bars(self, symbols: Sequence[str], start: date, end: date) -> pd.DataFrame:
        self.asked.append((tuple(symbols), start, end))
        rows = [
            (symbol, day, *bar)
            for (symbol, day), bar in sorted(self.bars.items())
            if symbol in symbols and start <= day <= end
        ]
        return pd.DataFrame(rows, columns=COLUMNS)

    def quotes(self, symbols: Iterable[str]) -> Mapping[str, Quote]:
        return {}


def stored(store: BarStore, symbols: Sequence[str], through: date, history: int) -> pd.DataFrame:
    frame = store.load(_start(through, history), through)
    return frame[frame["symbol"].isin(symbols)].reset_index(drop=True)


def offered(vendor: Vendor, symbols: Sequence[str], through: date, history: int) -> pd.DataFrame:
    return vendor.daily_bars(symbols, _start(through, history), through)


def _start(through: date, history: int) -> date:
    return SESSIONS[max(0, SESSIONS.index(through) - history + 1)]


def assert_same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    def rows(frame: pd.DataFrame) -> list[tuple[object, ...]]:
        days = pd.to_datetime(frame["session"]).dt.date
        return list(zip(frame["symbol"], days, *(frame[name] for name in COLUMNS[2:]), strict=True))

    assert rows(left) == rows(right)


def test_the_first_update_fetches_the_whole_history(tmp_path: Path) -> None:
    vendor = Vendor.of(["AAA", "BBB"])
    store = BarStore(tmp_path)

    report = store.update(vendor, ["BBB", "AAA", "NONE"], SESSIONS[30], SESSIONS, 20)

    assert report == UpdateReport(SESSIONS[30], 40, ("AAA", "BBB", "NONE"), (), ("NONE",))
    assert vendor.asked == [(("AAA", "BBB", "NONE"), SESSIONS[11], SESSIONS[30])]
    assert_same(store.load(SESSIONS[0], SESSIONS[-1]), offered(vendor, ["AAA", "BBB"], SESSIONS[30], 20))


def test_the_next_session_costs_itself_and_one_overlapping_session(tmp_path: Path) -> None:
    vendor = Vendor.of(["AAA", "BBB"])
    store = BarStore(tmp_path)
    store.update(vendor, ["AAA", "BBB"], SESSIONS[30], SESSIONS, 20)
    vendor.asked.clear()

    report = store.update(vendor, ["AAA", "BBB"], SESSIONS[31], SESSIONS, 20)

    assert vendor.asked == [(("AAA", "BBB"), SESSIONS[30], SESSIONS[31])]
    assert (report.added, report.new, report.refetched, report.absent) == (2, (), (), ())


def test_a_repeated_update_asks_for_nothing(tmp_path: Path) -> None:
    vendor = Vendor.of(["AAA"])
    BarStore(tmp_path).update(vendor, ["AAA"], SESSIONS[30], SESSIONS, 20)
    vendor.asked.clear()

    report = BarStore(tmp_path).update(vendor, ["AAA"], SESSIONS[30], SESSIONS, 20)

    assert vendor.asked == []
    assert report.added == 0


def test_a_split_heals_the_whole_stored_past(tmp_path: Path) -> None:
    """Also the part that is older than the history asked for today."""
    vendor = Vendor.of(["AAA", "BBB"])
    store = BarStore(tmp_path)
    store.update(vendor, ["AAA", "BBB"], SESSIONS[20], SESSIONS, 20)
    vendor.split("AAA", SESSIONS[21], 4)

    report = store.update(vendor, ["AAA", "BBB"], SESSIONS[21], SESSIONS, 5)

    assert report.refetched == ("AAA",)
    assert_same(store.load(SESSIONS[1], SESSIONS[21]), offered(vendor, ["AAA", "BBB"], SESSIONS[21], 21))


def test_a_late_volume_replaces_one_bar_and_refetches_nothing(tmp_path: Path) -> None:
    vendor = Vendor.of(["AAA"])
    store = BarStore(tmp_path)
    store.update(vendor, ["AAA"], SESSIONS[20], SESSIONS, 20)
    vendor.bars["AAA", SESSIONS[20]] = (*vendor.bars["AAA", SESSIONS[20]][:4], 999_999)

    report = store.update(vendor, ["AAA"], SESSIONS[21], SESSIONS, 20)

    assert (report.added, report.refetched) == (2, ())
    assert_same(stored(store, ["AAA"], SESSIONS[21], 20), offered(vendor, ["AAA"], SESSIONS[21], 20))


def test_a_symbol_that_resumes_after_a_halt_is_fetched_anew(tmp_path: Path) -> None:
    """Its last bar lies before the overlap: whether it split meanwhile, nobody can tell from new bars alone."""
    vendor = Vendor.of(["AAA", "BBB"])
    for day in SESSIONS[18:21]:
        del vendor.bars["AAA", day]
    store = BarStore(tmp_path)
    first = store.update(vendor, ["AAA", "BBB"], SESSIONS[20], SESSIONS, 20)
    vendor.split("AAA", SESSIONS[19], 2)

    report = store.update(vendor, ["AAA", "BBB"], SESSIONS[21], SESSIONS, 20)

    assert first.absent == ("AAA",)
    assert report.refetched == ("AAA",)
    assert_same(stored(store, ["AAA", "BBB"], SESSIONS[21], 20), offered(vendor, ["AAA", "BBB"], SESSIONS[21], 20))


@st.composite
def histories(draw: st.DrawFn) -> tuple[set[tuple[str, int]], list[tuple[str, int]], list[tuple[int, list[str], int]]]:
    """Missing bars, splits, and a run of updates: session, symbols, history."""
    symbols = st.sampled_from(["AAA", "BBB", "CCC"])
    places = st.integers(0, len(SESSIONS) - 1)
    missing = draw(st.sets(st.tuples(symbols, places), max_size=25))
    splits = draw(st.lists(st.tuples(symbols, places), max_size=4))
    days = sorted(draw(st.sets(places, min_size=1, max_size=8)))
    updates = [(day, draw(st.lists(symbols, min_size=1, unique=True)), draw(st.integers(1, 30))) for day in days]
    return missing, splits, updates


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories())
def test_incremental_updates_equal_a_full_fetch(history) -> None:  # type: ignore[no-untyped-def]
    missing, splits, updates = history
    vendor = Vendor.of(["AAA", "BBB", "CCC"])
    for symbol, at in missing:
        vendor.bars.pop((symbol, SESSIONS[at]), None)
    known = -1
    with tempfile.TemporaryDirectory() as folder:
        store = BarStore(Path(folder))
        for at, symbols, length in updates:
            for symbol, ex_date in splits:
                if known < ex_date <= at:
                    vendor.split(symbol, SESSIONS[ex_date], 2)
            known = at

            store.update(vendor, symbols, SESSIONS[at], SESSIONS, length)

            assert_same(
                stored(store, symbols, SESSIONS[at], length), offered(vendor, sorted(symbols), SESSIONS[at], length)
            )


class Killed(BaseException):
    """Stands for kill -9: nothing catches it, nothing is tidied up."""


@pytest.mark.parametrize("survived_writes", range(5))
@pytest.mark.parametrize("half_written", [False, True])
def test_an_update_killed_at_any_write_is_made_good_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived_writes: int, half_written: bool
) -> None:
    """The split symbol's old bars must not survive beside new ones, wherever the kill struck."""
    vendor = Vendor.of(["AAA", "BBB"])
    BarStore(tmp_path).update(vendor, ["AAA", "BBB"], SESSIONS[24], SESSIONS, 20)
    vendor.split("AAA", SESSIONS[25], 2)
    write, written = ParquetFolder.write, []

    def write_or_die(self: ParquetFolder, name: str, table: object) -> None:
        if len(written) == survived_writes:
            if half_written:
                (self.folder / f".{name}.parquet.1.tmp").write_bytes(b"PAR1 and no more")
            raise Killed
        written.append(name)
        write(self, name, table)

    with monkeypatch.context() as patch:
        patch.setattr(ParquetFolder, "write", write_or_die)
        killed = BarStore(tmp_path)
        try:
            killed.update(vendor, ["AAA", "BBB"], SESSIONS[25], SESSIONS, 20)
        except Killed:
            pass
        else:
            assert survived_writes == 4, "the update takes four writes"

    BarStore(tmp_path).update(vendor, ["AAA", "BBB"], SESSIONS[26], SESSIONS, 5)

    both = ["AAA", "BBB"]
    assert_same(BarStore(tmp_path).load(SESSIONS[5], SESSIONS[26]), offered(vendor, both, SESSIONS[26], 22))
    assert list((tmp_path / "daily").glob(".*.tmp")) == []


def test_what_a_killed_first_update_left_is_not_loaded(tmp_path: Path) -> None:
    vendor = Vendor.of(["AAA"])
    BarStore(tmp_path).update(vendor, ["AAA"], SESSIONS[24], SESSIONS, 20)
    (tmp_path / "daily" / "coverage.parquet").unlink()

    assert BarStore(tmp_path).load(SESSIONS[0], SESSIONS[24]).empty


def test_two_stores_on_one_folder_see_each_other(tmp_path: Path) -> None:
    """What one process has in memory does not hide what another wrote."""
    vendor = Vendor.of(["AAA"])
    ours, theirs = BarStore(tmp_path), BarStore(tmp_path)
    ours.update(vendor, ["AAA"], SESSIONS[24], SESSIONS, 20)
    ours.load(SESSIONS[0], SESSIONS[24])

    theirs.update(vendor, ["AAA"], SESSIONS[25], SESSIONS, 20)

    assert_same(stored(ours, ["AAA"], SESSIONS[25], 20), offered(vendor, ["AAA"], SESSIONS[25], 20))


def test_updates_at_once_leave_one_store(tmp_path: Path) -> None:
    vendor = Vendor.of(["AAA", "BBB", "CCC"])
    threads = [
        threading.Thread(target=BarStore(tmp_path).update, args=(vendor, list(symbols), SESSIONS[at], SESSIONS, 15))
        for at, symbols in [
            (20, ("AAA", "BBB")),
            (24, ("BBB", "CCC")),
            (24, ("AAA", "CCC")),
            (22, ("AAA", "BBB", "CCC")),
        ]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    everything = ["AAA", "BBB", "CCC"]
    BarStore(tmp_path).update(vendor, everything, SESSIONS[24], SESSIONS, 15)
    assert_same(stored(BarStore(tmp_path), everything, SESSIONS[24], 15), offered(vendor, everything, SESSIONS[24], 15))


def test_a_store_kept_locked_is_a_transient_failure(tmp_path: Path) -> None:
    store = BarStore(tmp_path, lock_wait_s_max=0.0)
    (tmp_path / "daily").mkdir()

    with (
        locked(tmp_path / "daily" / ".lock", exclusive=True, wait_s_max=0.0),
        pytest.raises(Transient, match="held by another process"),
    ):
        store.update(Vendor.of(["AAA"]), ["AAA"], SESSIONS[3], SESSIONS, 3)


@pytest.mark.parametrize("name", ["2019-02", "coverage"])
def test_a_damaged_file_is_named_with_its_remedy(tmp_path: Path, name: str) -> None:
    BarStore(tmp_path).update(Vendor.of(["AAA"]), ["AAA"], SESSIONS[24], SESSIONS, 20)
    path = tmp_path / "daily" / f"{name}.parquet"
    path.write_bytes(path.read_bytes()[:40])

    with pytest.raises(BadInput, match=rf"{name}.parquet: not a readable Parquet file .*remove the folder"):
        BarStore(tmp_path).load(SESSIONS[0], SESSIONS[24])


def test_a_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    BarStore(tmp_path).update(Vendor.of(["AAA"]), ["AAA"], SESSIONS[24], SESSIONS, 20)
    pd.DataFrame({"price": [1.0]}).to_parquet(tmp_path / "daily" / "2019-02.parquet")

    with pytest.raises(BadInput, match=r"2019-02.parquet: unexpected columns \(price double\)"):
        BarStore(tmp_path).load(SESSIONS[0], SESSIONS[24])


def test_a_vanished_month_is_missed(tmp_path: Path) -> None:
    BarStore(tmp_path).update(Vendor.of(["AAA"]), ["AAA"], SESSIONS[24], SESSIONS, 20)
    (tmp_path / "daily" / "2019-02.parquet").unlink()

    with pytest.raises(BadInput, match="the file of 2019-02 is missing; remove the folder"):
        BarStore(tmp_path).load(SESSIONS[0], SESSIONS[24])


def test_a_date_without_a_session_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="2019-02-02: not a session"):
        BarStore(tmp_path).update(Vendor.of(["AAA"]), ["AAA"], date(2019, 2, 2), SESSIONS, 5)


def test_two_bars_of_a_session_are_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    class Doubling(Vendor):
        def daily_bars(self, symbols: Sequence[str], start: date, end: date) -> pd.DataFrame:
            frame = super().daily_bars(symbols, start, end)
            return pd.concat([frame, frame.tail(1)])

    with pytest.raises(BadInput, match="two bars of AAA on 2019-01-25"):
        BarStore(tmp_path).update(Doubling(Vendor.of(["AAA"]).bars), ["AAA"], SESSIONS[4], SESSIONS, 5)

    assert BarStore(tmp_path).load(SESSIONS[0], SESSIONS[4]).empty


def test_an_answer_that_is_not_bars_is_refused(tmp_path: Path) -> None:
    class Strange(Vendor):
        def daily_bars(self, symbols: Sequence[str], start: date, end: date) -> pd.DataFrame:
            return super().daily_bars(symbols, start, end).drop(columns=["low", "volume"])

    with pytest.raises(BadInput, match="daily bars without low, volume"):
        BarStore(tmp_path).update(Strange(Vendor.of(["AAA"]).bars), ["AAA"], SESSIONS[4], SESSIONS, 5)


def test_nothing_is_stored_before_the_first_update(tmp_path: Path) -> None:
    frame = BarStore(tmp_path / "new").load(SESSIONS[0], SESSIONS[-1])

    assert frame.empty
    assert list(frame.columns) == COLUMNS
    assert not (tmp_path / "new").exists()
