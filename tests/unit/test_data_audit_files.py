"""Which files an audit reads, how it takes what they hold, and what it refuses in one line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clean_bars import clean_bars

from desk.errors import BadInput
from expectations.audit.finding import EVERY, Kind
from expectations.audit.load import load
from expectations.audit.report import audit_file

NEW_YORK = ZoneInfo("America/New_York")
Table = dict[str, Any]


def write(path: Path, table: Table) -> Path:
    pq.write_table(pa.table(table), path)
    return path


def small() -> Table:
    return {
        "symbol": ["AAA", "AAA", "BBB", "BBB"],
        "date": [date(2024, 3, 4), date(2024, 3, 5)] * 2,
        "open": [10.0, 10.5, 50.0, 51.0],
        "high": [10.6, 11.0, 52.0, 51.5],
        "low": [9.9, 10.4, 49.5, 50.0],
        "close": [10.5, 10.8, 51.0, 50.5],
        "volume": [1000, 1200, 300, 200],
    }


def intraday(symbols: int = 8, days: int = 12, step_min: int = 5) -> Table:
    """Complete regular sessions of March 2024, across the change to daylight saving time on the 10th."""
    random = np.random.default_rng(3)
    sessions = [day for n in range(30) if (day := date(2024, 3, 1) + timedelta(days=n)).weekday() < 5][:days]
    slots = 390 // step_min
    table: Table = {name: [] for name in ("symbol", "ts", "open", "high", "low", "close", "volume")}
    for i in range(symbols):
        price = 50.0 + i
        for day in sessions:
            opens = datetime(day.year, day.month, day.day, 9, 30, tzinfo=NEW_YORK).astimezone(UTC)
            path = price * np.exp(np.cumsum(0.001 * random.standard_normal(slots + 1)))
            for slot in range(slots):
                first, last = float(path[slot]), float(path[slot + 1])
                table["symbol"].append(f"S{i}")
                table["ts"].append(opens + timedelta(minutes=step_min * slot))
                table["open"].append(first)
                table["high"].append(max(first, last) * 1.0004)
                table["low"].append(min(first, last) * 0.9996)
                table["close"].append(last)
                table["volume"].append(int(random.integers(1_000, 9_000)))
            price = float(path[-1])
    return table


def without(table: Table, drop: Callable[[str, datetime], bool]) -> Table:
    kept = [
        i
        for i, (symbol, ts) in enumerate(zip(table["symbol"], table["ts"], strict=True))
        if not drop(symbol, ts.astimezone(NEW_YORK))
    ]
    return {name: [values[i] for i in kept] for name, values in table.items()}


def test_a_file_is_audited_like_the_panel_it_holds(tmp_path: Path) -> None:
    bars = clean_bars()
    bars["high"][70, 6] *= 2

    audit = audit_file(bars.write(tmp_path / "bars.parquet"))

    assert (audit.rows, audit.symbols, audit.first, audit.last) == (6_400, 40, bars.day(0), bars.day(159))
    assert [(each.kind, each.symbol, each.first) for each in audit.findings] == [
        (Kind.EXTREME_WICK, "S006", bars.day(70))
    ]
    assert audit.flags_per_100k == pytest.approx(100_000 / 6_400)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.pop("close"), "no column close"),
        (lambda t: t.pop("date"), "no column date"),
        (lambda t: t.update(ts=t["date"]), "both date and ts"),
        (lambda t: t.update(close=["a", "b", "c", "d"]), "column close is string"),
        (lambda t: t.update(symbol=[1, 2, 3, 4]), "column symbol is int64"),
        (lambda t: t.update(symbol=["A", None, "B", "B"]), "symbol is missing in 1 rows"),
        (lambda t: t.update(date=[None, *t["date"][1:]]), "date is missing in 1 rows"),
        (lambda t: t.update(date=["yesterday"] * 4), "column date is string"),
        (lambda t: t.update(date=[date(9999, 1, 1)] * 4), "outside 1900..2100"),
        (lambda t: t.update(ts=t.pop("date")), "column ts is date32"),
        (lambda t: [values.clear() for values in t.values()], "no rows|cast"),
    ],
)
def test_what_is_no_bar_file_is_refused_in_one_line(
    tmp_path: Path, edit: Callable[[Table], object], words: str
) -> None:
    table = small()
    edit(table)

    with pytest.raises(BadInput, match=words) as refused:
        load(write(tmp_path / "bars.parquet", table))

    assert "\n" not in str(refused.value)


def test_what_is_not_parquet_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "bars.parquet"
    text.write_text("symbol,date\n")

    for path, words in [
        (text, "not a readable Parquet"),
        (tmp_path, "is a folder"),
        (tmp_path / "x", "does not exist"),
    ]:
        with pytest.raises(BadInput, match=words):
            load(path)


def test_unusual_types_are_read_and_told(tmp_path: Path) -> None:
    """A volume in floats, prices in decimals and dates as timestamps hold the same bars."""
    table = small()
    table["volume"] = [float(shares) for shares in table["volume"]]
    table["date"] = [datetime(day.year, day.month, day.day) for day in table["date"]]  # noqa: DTZ001 - the defect itself
    table["close"] = pa.array(table["close"]).cast(pa.decimal128(12, 4))

    loaded = load(write(tmp_path / "bars.parquet", table))

    assert loaded.panel.close.tolist() == [10.5, 10.8, 51.0, 50.5]
    assert [each.kind for each in loaded.findings] == [Kind.TYPE] * 3


def test_nulls_are_findings_and_no_refusal(tmp_path: Path) -> None:
    table = small()
    table["close"][1] = None

    flags = audit_file(write(tmp_path / "bars.parquet", table)).flags

    assert [(each.kind, each.symbol, each.first) for each in flags] == [(Kind.MISSING_VALUE, "AAA", date(2024, 3, 5))]


def test_a_text_column_can_tell_series_of_one_symbol_apart(tmp_path: Path) -> None:
    """Raw and adjusted prices of one fund in one file are two series, and no duplicates."""
    table = {name: values * 2 for name, values in small().items()}
    table["adjustment"] = ["raw"] * 4 + ["total_return"] * 4

    loaded = load(write(tmp_path / "bars.parquet", table))

    assert loaded.panel.names == ("AAA", "AAA", "BBB", "BBB")
    assert loaded.panel.details == ("raw", "total_return") * 2
    assert not loaded.panel.repeated.any()


def test_a_clean_intraday_file_has_no_findings(tmp_path: Path) -> None:
    audit = audit_file(write(tmp_path / "bars.parquet", intraday()))

    assert (audit.is_daily, audit.findings) == (False, ())


def test_a_hole_of_the_whole_market_is_found(tmp_path: Path) -> None:
    """Nobody has bars from 10:45 to 11:15 on one day, and from 09:30 to 09:40 on another, in New York time."""

    def hole(_: str, at: datetime) -> bool:
        clock = at.hour * 60 + at.minute
        return (at.day == 6 and 645 <= clock < 675) or (at.day == 14 and 570 <= clock < 580)

    flags = audit_file(write(tmp_path / "bars.parquet", without(intraday(), hole))).flags

    assert [(each.kind, each.symbol, each.first) for each in flags] == [
        (Kind.MISSING_BARS, EVERY, date(2024, 3, 6)),
        (Kind.MISSING_BARS, EVERY, date(2024, 3, 14)),
    ]
    assert "10:45-11:15" in flags[0].evidence and "09:30-09:40" in flags[1].evidence


def test_one_silent_symbol_is_no_hole(tmp_path: Path) -> None:
    quiet = without(intraday(), lambda symbol, at: symbol == "S3" and at.hour in (11, 12))

    assert audit_file(write(tmp_path / "bars.parquet", quiet)).flags == ()


def test_daily_bars_made_of_too_few_intraday_bars_are_found(tmp_path: Path) -> None:
    bars = clean_bars()
    table = pq.read_table(bars.write(tmp_path / "plain.parquet"))
    counts = np.where(table["date"].to_pandas().to_numpy() == bars.day(70), 72, 78)
    half = date(2019, 7, 3)
    counts[table["date"].to_pandas().to_numpy() == half] = 42  # a half day has 42 of 78
    path = tmp_path / "bars.parquet"
    pq.write_table(table.append_column("n_bars", pa.array(counts)), path)

    flags = audit_file(path).flags

    assert half in {bars.day(i) for i in range(160)}
    assert [(each.kind, each.symbol, each.first) for each in flags] == [(Kind.MISSING_BARS, EVERY, bars.day(70))]


def test_a_bad_print_within_a_day_is_found_with_its_time(tmp_path: Path) -> None:
    table = intraday()
    table["low"][78 * 12 + 20] *= 0.5

    flags = audit_file(write(tmp_path / "bars.parquet", table)).flags

    assert [(each.kind, each.symbol, each.first) for each in flags] == [(Kind.EXTREME_WICK, "S1", date(2024, 3, 1))]
    assert flags[0].evidence.startswith("11:10 low")


def test_a_split_between_two_days_of_intraday_bars_is_found(tmp_path: Path) -> None:
    table = intraday(days=20)
    rows = [i for i, (s, t) in enumerate(zip(table["symbol"], table["ts"], strict=True)) if s == "S2" and t.day >= 15]
    for name in ("open", "high", "low", "close"):
        for i in rows:
            table[name][i] /= 4

    flags = audit_file(write(tmp_path / "bars.parquet", table)).flags

    assert [(each.kind, each.symbol, each.first) for each in flags] == [
        (Kind.WRONG_ADJUSTMENT, "S2", date(2024, 3, 15))
    ]


def test_times_without_a_zone_are_read_as_utc_and_told(tmp_path: Path) -> None:
    table = intraday(symbols=2, days=3)
    table["ts"] = [at.replace(tzinfo=None) for at in table["ts"]]

    flags = audit_file(write(tmp_path / "bars.parquet", table)).flags

    assert [(each.kind, each.evidence) for each in flags] == [(Kind.TYPE, "ts has no time zone; read as UTC")]


def test_days_before_the_calendar_are_not_closed_days(tmp_path: Path) -> None:
    table = small()
    table["date"] = [date(1985, 3, 4), date(1985, 3, 5)] * 2

    assert audit_file(write(tmp_path / "bars.parquet", table)).flags == ()
