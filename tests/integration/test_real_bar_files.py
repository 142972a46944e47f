"""The real files beside the repository become markets; known facts of those days are found in them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import pytest

from desk.errors import BadInput
from desk.exchange.recorded import RecordedMarket

pytestmark = pytest.mark.integration

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
LATER = datetime(2030, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=2)
def market(name: str) -> RecordedMarket:
    path = DATA / f"{name}.parquet"
    if not path.is_file():
        pytest.skip(f"no {path.name} beside the repository")
    return RecordedMarket(path)


@pytest.mark.parametrize(
    ("name", "prices", "sessions", "symbols"),
    [
        ("sp500_daily_2001_2016", "as traded", 3834, 488),
        ("sp500_daily_2016_2020", "split-adjusted", 1211, 493),
        ("smallmid_daily_2011_2015", "as traded", 1258, 281),
        ("us_wide_daily_2026", "as traded", 78, 4416),
        ("liquid_5min_2026", "as traded", 78, 40),
        ("inplay_5min_2026", "as traded", 73, 1469),
        ("ext_hours_5min", "as traded", 326, 5),
        ("minute_bars", "as traded", None, 33),
        ("hourly_bars", "as traded", 2830, 4),
    ],
)
def test_each_file_becomes_a_market(name: str, prices: str, sessions: int | None, symbols: int) -> None:
    recorded = market(name)

    assert recorded.notes.prices == prices
    assert len(recorded.listings()) == symbols
    assert sessions is None or len(recorded.sessions()) == sessions


@pytest.mark.parametrize(
    ("symbol", "before", "after", "ratio"),
    [("AAPL", 499.23, 129.04, 4), ("TSLA", 2213.40, 498.32, 5)],
)
def test_the_splits_of_august_2020_are_seen_as_an_account_saw_them(
    symbol: str, before: float, after: float, ratio: int
) -> None:
    """Closes of 28 and 31 August 2020 as published then. Tesla's later split, after the file's end, remains in its
    prices: both are a third of what was traded."""
    recorded = market("sp500_daily_2016_2020")
    later = 3 if symbol == "TSLA" else 1

    bars = recorded.daily_bars([symbol], date(2020, 8, 28), date(2020, 8, 31), adjustment="raw", known_at=LATER)

    assert [bar.close for bar in bars[symbol]] == pytest.approx([before / later, after / later], abs=0.011)
    splits = [a for a in recorded.corporate_actions(date(2020, 8, 31)) if a.kind == "split" and a.symbol == symbol]
    assert [split.value for split in splits] == [Decimal(ratio)]


def test_the_night_between_jumps_in_the_ticks_too() -> None:
    recorded = market("sp500_daily_2016_2020")
    opens = next(s.opens for s in recorded.sessions() if s.day == date(2020, 8, 31))

    eve, morning = recorded.tick("AAPL", opens - timedelta(seconds=1)), recorded.tick("AAPL", opens)

    assert eve is not None and morning is not None
    assert eve.last / morning.last == pytest.approx(4, rel=0.05)


def test_a_dividend_before_a_split_is_as_it_was_paid() -> None:
    """Apple paid 0.82 USD a share on 2020-08-07, three weeks before four shares were made of one."""
    paid = [
        action.value
        for action in market("sp500_daily_2016_2020").corporate_actions(date(2020, 8, 7))
        if action.symbol == "AAPL"
    ]

    assert paid == [pytest.approx(Decimal("0.82"), abs=Decimal("0.001"))]


def test_a_raw_file_keeps_its_jump() -> None:
    """Apple before and after 7 for 1: 645.57 on 2014-06-06, 93.70 on 2014-06-09."""
    bars = market("sp500_daily_2001_2016").daily_bars(
        ["AAPL"], date(2014, 6, 6), date(2014, 6, 9), adjustment="raw", known_at=LATER
    )

    assert [bar.close for bar in bars["AAPL"]] == [645.57, 93.70]


def test_bars_too_narrow_are_widened_and_counted() -> None:
    notes = market("smallmid_daily_2011_2015").notes

    assert notes.rows_widened == 894
    assert 0.13 < notes.widened_max < 0.14


def test_the_symbols_that_end_early_are_delisted() -> None:
    recorded = market("smallmid_daily_2011_2015")

    gone = [a for s in recorded.sessions() for a in recorded.corporate_actions(s.day) if a.kind == "delisting"]

    assert len(gone) == sum(listing.delisted is not None for listing in recorded.listings()) == 9


def test_a_file_with_two_kinds_of_prices_is_refused() -> None:
    with pytest.raises(BadInput, match="two rows for the same symbol and date"):
        market("benchmarks_daily")


def test_half_days_end_early_in_the_ticks() -> None:
    """3 July 2019: 211 ticks, the last at 13:00 in New York."""
    recorded = market("sp500_daily_2016_2020")
    session = next(s for s in recorded.sessions() if s.day == date(2019, 7, 3))

    ticks = recorded.ticks("MSFT", session.opens - timedelta(seconds=1), session.closes + timedelta(hours=4))

    assert len(ticks) == 211
    assert ticks[-1].at == datetime(2019, 7, 3, 17, 0, tzinfo=UTC).timestamp()
