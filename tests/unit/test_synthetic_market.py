"""The synthetic market: one seeded world, plausible, and never taken for the real one."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from desk.errors import BadInput
from desk.exchange.market import CorporateAction
from desk.exchange.synthetic import HISTORY, SyntheticMarket

START, END = date(2023, 1, 3), date(2024, 6, 28)
LATER = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return SyntheticMarket(7, START, END, symbols=60)


def actions(market: SyntheticMarket) -> list[CorporateAction]:
    return [action for session in market.sessions() for action in market.corporate_actions(session.day)]


def test_it_is_labelled_synthetic_wherever_it_shows(market: SyntheticMarket) -> None:
    assert market.label == "synthetic, seed 7"
    assert all(listing.name.startswith("Synthetic ") for listing in market.listings())
    assert all(listing.symbol.startswith("SYN") for listing in market.listings())


def test_symbols_and_asset_ids_are_unique(market: SyntheticMarket) -> None:
    listings = market.listings()

    assert len({listing.symbol for listing in listings}) == len(listings) >= 60
    assert len({listing.asset_id for listing in listings}) == len(listings)


def test_the_asked_number_of_symbols_trades_on_every_session(market: SyntheticMarket) -> None:
    symbols = [listing.symbol for listing in market.listings()]
    sessions = market.sessions()

    bars = market.daily_bars(symbols, sessions[0].day, END, adjustment="raw", known_at=LATER)

    assert sum(len(rows) == len(sessions) for rows in bars.values()) >= 60


def test_four_hundred_sessions_of_history_precede_the_start(market: SyntheticMarket) -> None:
    assert market.sessions()[HISTORY].day == START


def test_another_span_shows_the_same_world() -> None:
    """Days that two spans share have the same bars: a restart at a later time changes nothing."""
    early = SyntheticMarket(7, date(2023, 1, 3), date(2023, 6, 30), symbols=20)
    late = SyntheticMarket(7, date(2023, 3, 1), date(2024, 3, 28), symbols=20)
    symbols = [f"SYNA{letter}" for letter in "ABCDEFGHIJ"]
    span = date(2023, 3, 1), date(2023, 6, 30)

    assert early.daily_bars(symbols, *span, adjustment="raw", known_at=LATER) == late.daily_bars(
        symbols, *span, adjustment="raw", known_at=LATER
    )


def test_another_seed_is_another_world(market: SyntheticMarket) -> None:
    other = SyntheticMarket(8, START, END, symbols=60)
    span = START, date(2023, 1, 31)

    assert other.daily_bars(["SYNAA"], *span, adjustment="raw", known_at=LATER) != market.daily_bars(
        ["SYNAA"], *span, adjustment="raw", known_at=LATER
    )


def test_prices_stay_between_three_and_eight_hundred_dollars(market: SyntheticMarket) -> None:
    symbols = [listing.symbol for listing in market.listings()]

    bars = market.daily_bars(symbols, date(2000, 1, 1), END, adjustment="raw", known_at=LATER)

    assert min(bar.low for rows in bars.values() for bar in rows) >= 3
    assert max(bar.high for rows in bars.values() for bar in rows) <= 800


def test_splits_dividends_listings_and_delistings_happen() -> None:
    wide = SyntheticMarket(7, date(2021, 1, 4), date(2024, 12, 31), symbols=150)

    kinds = {action.kind for action in actions(wide)}

    assert kinds == {"split", "dividend", "delisting"}
    assert any(listing.listed > wide.sessions()[0].day for listing in wide.listings())


def test_a_split_takes_effect_on_its_day_and_never_before(market: SyntheticMarket) -> None:
    """The price falls by the ratio on the ex-date; adjusted bars know of it from that day on only."""
    split = next(action for action in actions(market) if action.kind == "split")
    days = [session.day for session in market.sessions()]
    before = days[days.index(split.day) - 1]
    ratio = float(split.value)

    def close(day: date, adjustment: str, known_at: datetime) -> float:
        rows = market.daily_bars([split.symbol], day, day, adjustment=adjustment, known_at=known_at)
        return rows[split.symbol][0].close

    eve = market.sessions()[days.index(before)].closes
    assert close(before, "raw", LATER) / close(split.day, "raw", LATER) == pytest.approx(ratio, rel=0.25)
    assert close(before, "split", eve) == close(before, "raw", eve)
    assert close(before, "split", LATER) == pytest.approx(close(before, "raw", LATER) / ratio, abs=1e-3)


def test_a_delisted_symbol_has_no_ticks_afterwards_and_keeps_its_last_price() -> None:
    wide = SyntheticMarket(7, date(2021, 1, 4), date(2024, 12, 31), symbols=150)
    gone = next(action for action in actions(wide) if action.kind == "delisting")
    session = next(session for session in wide.sessions() if session.day == gone.day)

    assert wide.ticks(gone.symbol, session.opens - timedelta(hours=1), session.closes) == []
    last = wide.tick(gone.symbol, session.closes)
    assert last is not None and last.last == float(gone.value)


def test_bars_appear_when_their_session_has_closed(market: SyntheticMarket) -> None:
    session = market.sessions()[HISTORY]
    asked = {"adjustment": "split", "known_at": session.closes - timedelta(seconds=1)}

    assert market.daily_bars(["SYNAA"], session.day, session.day, **asked) == {}
    asked["known_at"] = session.closes
    assert list(market.daily_bars(["SYNAA"], session.day, session.day, **asked)) == ["SYNAA"]


def test_minutes_ticks_and_the_day_tell_the_same_story(market: SyntheticMarket) -> None:
    session = market.sessions()[HISTORY + 3]
    ticks = market.ticks("SYNAB", session.opens - timedelta(seconds=1), session.closes)
    (day,) = market.daily_bars(["SYNAB"], session.day, session.day, adjustment="raw", known_at=LATER)["SYNAB"]
    for minutes in (1, 5, 60):
        bars = market.minute_bars(
            ["SYNAB"], session.opens - timedelta(hours=1), session.closes, minutes=minutes, known_at=session.closes
        )["SYNAB"]

        assert (bars[0].open, bars[-1].close) == (ticks[0].last, ticks[-1].last) == (day.open, day.close)
        assert max(bar.high for bar in bars) == max(tick.last for tick in ticks) == day.high
        assert min(bar.low for bar in bars) == min(tick.last for tick in ticks) == day.low
        assert sum(bar.volume for bar in bars) == sum(tick.volume for tick in ticks) == day.volume


def test_minute_bars_appear_once_complete(market: SyntheticMarket) -> None:
    session = market.sessions()[HISTORY]
    now = session.opens + timedelta(minutes=7, seconds=30)

    bars = market.minute_bars(["SYNAA"], session.opens, session.closes, minutes=5, known_at=now)

    assert [bar.at for bar in bars["SYNAA"]] == [session.opens]


def test_walking_by_the_minute_meets_every_tick_once(market: SyntheticMarket) -> None:
    first, second = market.sessions()[HISTORY : HISTORY + 2]
    at, walked = first.opens - timedelta(minutes=2), []
    while at < second.closes:
        walked += market.ticks("SYNAA", at, at + timedelta(minutes=7))
        at += timedelta(minutes=7)

    assert walked == market.ticks("SYNAA", first.opens - timedelta(minutes=2), at)
    assert len(walked) == 2 * 391


def test_the_latest_tick_is_yesterdays_close_until_the_open(market: SyntheticMarket) -> None:
    first, second = market.sessions()[HISTORY : HISTORY + 2]
    before = market.tick("SYNAA", second.opens - timedelta(seconds=1))
    at_open = market.tick("SYNAA", second.opens)

    assert before is not None and before.at == first.closes.timestamp()
    assert at_open is not None and at_open.at == second.opens.timestamp()
    assert market.tick("SYNAA", market.sessions()[0].opens - timedelta(seconds=1)) is None
    assert market.tick("NOPE", second.opens) is None


def test_a_simple_screener_finds_momentum() -> None:
    """Past month's winners do better than its losers: a rank correlation well above chance."""
    market = SyntheticMarket(7, date(2021, 1, 4), date(2024, 12, 31), symbols=200)
    bars = market.daily_bars(
        [listing.symbol for listing in market.listings()], START, END, adjustment="all", known_at=LATER
    )
    longest = max(map(len, bars.values()))
    prices = np.log([[bar.close for bar in rows] for rows in bars.values() if len(rows) == longest])
    scores = [
        np.corrcoef(prices[:, day - 1] - prices[:, day - 21], prices[:, day + 10] - prices[:, day])[0, 1]
        for day in range(30, longest - 10, 10)
    ]

    assert np.mean(scores) > 0.02


@pytest.mark.parametrize(
    ("start", "end", "symbols", "message"),
    [
        (date(2011, 1, 3), date(2012, 1, 3), 5, "first possible one is 2011-08-04"),
        (date(2009, 1, 5), date(2010, 1, 5), 5, "first possible one is 2011-08-04"),
        (date(2024, 3, 2), date(2024, 3, 3), 5, "no session from 2024-03-02 to 2024-03-03"),
        (date(2024, 3, 4), date(2024, 3, 1), 5, "is after end"),
        (date(2024, 3, 4), date(2024, 3, 5), 0, "0 symbols asked for"),
        (date(2024, 3, 4), date(2070, 3, 5), 5, "beyond 2059-12-31"),
    ],
)
def test_an_impossible_world_is_refused(start: date, end: date, symbols: int, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        SyntheticMarket(7, start, end, symbols=symbols)
