"""The gate, with the real Great Expectations: what it lets pass in silence does not pass here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from desk.errors import GateFailed
from desk.screening import ScreenedSymbol
from expectations import bars, gate, watchlist
from expectations.gate import GateOutcome, judge, validate
from expectations.suite import Kind, Severity, Suite, between, unique

pytestmark = pytest.mark.integration

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "sp500_daily_2016_2020.parquet"
SUITE = Suite(
    frame="sample",
    key="symbol",
    columns={"symbol": Kind.TEXT, "price": Kind.NUMBER, "at": Kind.TIME},
    rules=(
        unique("symbols are unique", "symbol", reason="-"),
        between("price is positive", "price", 0.01, None, unit="USD", reason="-"),
    ),
)


def sample(rows: int = 4) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "symbol": [f"S{n}" for n in range(rows)],
            "price": [10.0 + n for n in range(rows)],
            "at": pd.date_range("2019-01-02", periods=rows, tz="UTC"),
        }
    )


def failures(outcome: GateOutcome) -> list[tuple[object, object]]:
    return [(result["rule"], result["column"]) for result in outcome.results if not result["passed"]]


def test_a_good_frame_passes_with_an_answer_for_each_rule() -> None:
    outcome = judge(SUITE, sample())

    outcome.require()
    assert (outcome.frame, outcome.passed, outcome.rows, outcome.suspects) == ("sample", True, 4, ())
    assert [result["rule"] for result in outcome.results] == ["symbols are unique", "price is positive"]
    assert outcome.results[1]["expectation"] == "expect_column_values_to_be_between"
    assert outcome.results[1]["observed"] == "0 of 4 rows are not"


@pytest.mark.parametrize(
    ("spoil", "failure"),
    [
        (lambda f: f.iloc[:0], ("frame has rows", "symbol")),
        (lambda f: f.drop(columns="price"), ("column exists", "price")),
        (lambda f: f.assign(price=np.nan), ("column holds values", "price")),
        (lambda f: f.assign(price=[1.0, np.nan, 2.0, 3.0]), ("no nulls", "price")),
        (lambda f: f.assign(price=[1.0, np.inf, 2.0, 3.0]), ("no infinities", "price")),
        (lambda f: f.assign(price=["1", "2", "3", "4"]), ("column is number", "price")),
        (lambda f: f.assign(price=[Decimal(1)] * 4), ("column is number", "price")),
        (lambda f: f.assign(price=True), ("column is number", "price")),
        (lambda f: f.assign(symbol=[1, 2, 3, 4]), ("column is text", "symbol")),
        (lambda f: f.assign(at=f["at"].dt.tz_localize(None)), ("column is time", "at")),
    ],
    ids=["empty", "missing", "all null", "one null", "infinite", "text", "decimal", "bool", "numbers", "naive"],
)
def test_what_would_pass_in_silence_fails_by_name(
    spoil: Callable[[pd.DataFrame], pd.DataFrame], failure: tuple[str, str]
) -> None:
    outcome = judge(SUITE, spoil(sample()))

    assert not outcome.passed
    assert failures(outcome) == [failure]


def test_a_broken_rule_names_the_symbols_and_the_values() -> None:
    frame = sample().assign(price=[10.0, -1.0, 0.0, 5.0]).set_index(pd.Index([7, 7, 9, 1]))

    with pytest.raises(
        GateFailed,
        match=r"sample: price is positive: price must be at least 0.01, 2 of 4 rows are not \(S1 -1.0, S2 0.0\)",
    ):
        judge(SUITE, frame).require()


def test_examples_are_few_however_many_rows_are_wrong() -> None:
    outcome = judge(SUITE, sample(200).assign(price=-1.0))

    assert outcome.results[1]["observed"] == "200 of 200 rows are not"
    assert len(outcome.results[1]["examples"]) == 10  # type: ignore[arg-type]


def test_a_warning_is_shown_and_stops_nothing() -> None:
    mild = between("price is low", "price", None, 11.0, unit="USD", reason="-", severity=Severity.WARNING)
    outcome = judge(Suite("sample", "symbol", SUITE.columns, (mild,)), sample())

    outcome.require()
    assert outcome.passed
    assert failures(outcome) == [("price is low", "price")]
    assert outcome.suspects == ()


def test_who_breaks_a_rule_that_most_keep_is_a_suspect() -> None:
    most = between("price is low", "price", None, 12.0, unit="USD", reason="-", share_min=0.75)

    outcome = judge(Suite("sample", "symbol", SUITE.columns, (most,)), sample())

    assert outcome.passed
    assert outcome.suspects == ("S3",)


def test_a_rule_without_an_answer_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = gate._ask

    def forgetful(*args: object) -> dict[str, object]:
        answers = ask(*args)  # type: ignore[arg-type]
        answers.pop("price is positive")
        return answers

    monkeypatch.setattr(gate, "_ask", forgetful)

    outcome = judge(SUITE, sample())

    assert not outcome.passed
    assert outcome.results[1]["observed"] == "not judged: no result"


def test_a_rule_that_could_not_be_computed_has_failed_critically_whatever_its_severity() -> None:
    """A bound of another type than the column makes Great Expectations hide an error in its result."""
    absurd = between("absurd", "at", 0, 1, unit="-", reason="-", severity=Severity.WARNING)

    outcome = judge(Suite("sample", "symbol", SUITE.columns, (absurd,)), sample())

    assert not outcome.passed
    assert str(outcome.results[0]["observed"]).startswith("not judged: ")
    assert outcome.results[0]["severity"] == Severity.CRITICAL


def test_threads_get_the_answers_of_their_own_frames() -> None:
    wrong: list[str] = []

    def check(bad: bool) -> None:
        for _ in range(6):
            outcome = judge(SUITE, sample().assign(price=-1.0 if bad else 1.0))
            if outcome.passed is bad:
                wrong.append(f"bad={bad} passed={outcome.passed}")

    threads = [threading.Thread(target=check, args=(n % 2 == 0,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_the_hash_is_of_the_data_alone() -> None:
    relabelled = sample().set_index(pd.Index([5, 6, 7, 8]))

    assert judge(SUITE, relabelled).data_hash == judge(SUITE, sample()).data_hash
    assert judge(SUITE, sample().iloc[::-1]).data_hash != judge(SUITE, sample()).data_hash


def test_a_watchlist_with_a_symbol_twice_is_stopped() -> None:
    rows = [ScreenedSymbol("AAA", rank, 0.5, 0.5, Decimal(10), 100, {}) for rank in (1, 2)]

    with pytest.raises(GateFailed, match=r"watchlist: one row per symbol: symbol must be unique, .* \(AAA, AAA\)"):
        validate("watchlist", watchlist.frame(rows)).require()


def test_an_empty_watchlist_is_stopped() -> None:
    with pytest.raises(GateFailed, match="frame has rows"):
        validate("watchlist", watchlist.frame([])).require()


def test_half_the_universe_without_a_bar_today_is_stopped() -> None:
    sessions = [date(2019, 1, 1) + timedelta(days=n) for n in range(5)]
    rows = [
        (f"S{n}", day, 10.0, 11.0, 9.0, 10.0, 100) for n in range(20) for day in (sessions if n % 2 else sessions[:-1])
    ]
    frame = pd.DataFrame(rows, columns=["symbol", "session", "open", "high", "low", "close", "volume"])

    with pytest.raises(GateFailed, match="bars are fresh: last_bar_age must be 0, for at least 90% of rows, 10 of 20"):
        validate("bars", bars.facts(frame, sessions)).require()


@contextmanager
def recorded(start: str, end: str) -> Iterator[tuple[pd.DataFrame, list[date]]]:
    if not DATA.exists():
        pytest.skip(f"recorded bars are not here: {DATA.name}")
    days = (date.fromisoformat(start), date.fromisoformat(end))
    frame = pd.read_parquet(DATA, filters=[("date", ">=", days[0]), ("date", "<=", days[1])])
    frame = frame.rename(columns={"date": "session"})
    yield frame, sorted(frame["session"].unique())


def test_recorded_bars_pass_with_their_few_suspects() -> None:
    """March 2020: three oil stocks halved in a day. That is real, and no day to bet on."""
    with recorded("2019-12-02", "2020-04-30") as (frame, sessions):
        outcome = validate("bars", bars.facts(frame, sessions))

    outcome.require()
    assert outcome.suspects == ("APA", "OXY", "TRGP")


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (lambda f: f.assign(high=f["low"], low=f["high"]), "high and low enclose open and close"),
        (lambda f: f[f["session"] < f["session"].max()], "bars are fresh"),
        (
            lambda f: f.assign(close=f["close"].where(f["session"] < f["session"].max(), np.nan)),
            "prices and volumes exist",
        ),
        (
            lambda f: f.assign(close=f["close"].where(f["session"] < f["session"].max(), f["close"] * 10)),
            "no jump like a missed split",
        ),
    ],
    ids=["columns swapped", "a session lost", "prices lost", "ten times the price"],
)
def test_recorded_bars_spoiled_throughout_are_stopped(spoil: Callable[[pd.DataFrame], pd.DataFrame], rule: str) -> None:
    with recorded("2019-01-02", "2019-03-29") as (frame, sessions):
        outcome = validate("bars", bars.facts(spoil(frame), sessions))

    assert rule in [name for name, _ in failures(outcome)]
    assert not outcome.passed
