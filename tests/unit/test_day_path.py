"""A day's path keeps its bar: to the cent, to the share, and the same each time."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desk.exchange.daypath import ASK, AT, BID, LAST, VOLUME, day_path, minutes_of_path, on_grid
from desk.exchange.sessions import sessions_between
from desk.market import Session

FULL, HALF = date(2023, 11, 22), date(2023, 11, 24)
GOLDEN_LAST = [100.0, 100.06, 98.21, 103.16, 102.16, 101.0]
GOLDEN_VOLUME = [18230.0, 1978.0, 3375.0, 74196.0]


def session(day: date) -> Session:
    return sessions_between(FULL, HALF)[0 if day == FULL else -1]


@st.composite
def bars(draw: st.DrawFn) -> tuple[float, float, float, float]:
    """Open, high, low, close on the tick grid, from ten-thousandths of a dollar to a hundred thousand dollars."""
    level = draw(st.sampled_from([0.0001, 0.4, 0.9999, 1.0, 1.02, 47.0, 812.5, 99_999.0]))
    spread = draw(st.floats(0.0, 0.5))
    edges = sorted(draw(st.lists(st.floats(-1.0, 1.0), min_size=4, max_size=4)))
    prices = on_grid([max(level * (1.0 + spread * edge), 0.0001) for edge in edges])
    first, last = draw(st.permutations(list(prices)))[:2]
    return float(first), float(prices[-1]), float(prices[0]), float(last)


@settings(deadline=None)
@given(bars(), st.integers(0, 10**10), st.sampled_from([FULL, HALF]), st.integers(0, 2**63))
def test_a_path_keeps_its_bar(bar: tuple[float, float, float, float], volume: int, day: date, seed: int) -> None:
    """First trade the open, last the close, both extremes touched, nothing outside, every share accounted for."""
    opening, high, low, close = bar

    path = day_path("SYNAA", session(day), bar, volume, seed)

    last = path[LAST]
    assert (last[0], last[-1]) == (opening, close)
    assert (last.max(), last.min()) == (high, low)
    assert path[VOLUME].sum() == volume
    assert (path[VOLUME] >= 0).all() and (path[VOLUME] % 1 == 0).all()


@settings(deadline=None)
@given(bars(), st.integers(0, 10**10), st.integers(0, 2**63))
def test_quotes_surround_the_trade_on_the_grid(bar: tuple[float, float, float, float], volume: int, seed: int) -> None:
    """Bid <= last <= ask, all on the tick grid and inside the day's range."""
    path = day_path("SYNAA", session(FULL), bar, volume, seed)

    for prices in (path[BID], path[ASK], path[LAST]):
        assert (prices == on_grid(prices)).all()
        assert (prices >= bar[2]).all() and (prices <= bar[1]).all()
    assert (path[BID] <= path[LAST]).all() and (path[LAST] <= path[ASK]).all()


@pytest.mark.parametrize(("day", "ticks"), [(FULL, 391), (HALF, 211)])
def test_there_is_a_tick_at_the_open_and_each_minute_to_the_close(day: date, ticks: int) -> None:
    path = day_path("SYNAA", session(day), (10.0, 11.0, 9.5, 10.5), 100_000)

    assert path.shape == (5, ticks)
    assert path[AT, 0] == session(day).opens.timestamp()
    assert path[AT, -1] == session(day).closes.timestamp()
    assert set(np.diff(path[AT])) == {60.0}


def test_a_wide_bar_has_a_spread() -> None:
    """A cent at least, a few basis points at most."""
    path = day_path("SYNAA", session(FULL), (100.0, 104.0, 98.0, 101.0), 1_000_000)

    spread = path[ASK] - path[BID]
    assert spread.min() >= 0.01 - 1e-9
    assert (spread / path[LAST]).max() < 0.0005


def test_the_same_arguments_give_the_same_path_and_others_do_not() -> None:
    bar = (100.0, 104.0, 98.0, 101.0)

    path = day_path("SYNAA", session(FULL), bar, 1_000_000, 7)

    assert (path == day_path("SYNAA", session(FULL), bar, 1_000_000, 7)).all()
    assert (path != day_path("SYNAA", session(FULL), bar, 1_000_000, 8)).any()
    assert (path[LAST] != day_path("SYNAB", session(FULL), bar, 1_000_000, 7)[LAST]).any()


def test_a_path_is_the_same_on_every_machine() -> None:
    """Golden values: a change of the seeding or of the walk would rewrite every recorded run."""
    path = day_path("SYNAA", session(FULL), (100.0, 104.0, 98.0, 101.0), 1_000_000, 7)

    assert path[LAST, [0, 1, 100, 200, 300, 390]].tolist() == GOLDEN_LAST
    assert path[VOLUME, [0, 1, 200, 390]].tolist() == GOLDEN_VOLUME


def test_volume_is_heavy_at_both_ends_of_the_day() -> None:
    totals = sum(
        day_path(f"SYN{name}", session(FULL), (100.0, 104.0, 98.0, 101.0), 1_000_000)[VOLUME] for name in range(20)
    )

    assert totals[:30].sum() > 1.5 * totals[180:210].sum()
    assert totals[-30:].sum() > 1.5 * totals[180:210].sum()


@settings(deadline=None)
@given(bars(), st.integers(0, 10**9))
def test_minute_bars_add_up_to_the_day(bar: tuple[float, float, float, float], volume: int) -> None:
    path = day_path("SYNAA", session(FULL), bar, volume)

    starts, minutes = minutes_of_path(path)

    assert len(starts) == 390 and starts[0] == path[AT, 0]
    assert (minutes[0, 0], minutes[1].max(), minutes[2].min(), minutes[3, -1]) == bar
    assert minutes[4].sum() == volume
