"""The screener: a watchlist of the eligible, in a fixed order, with what is held behind it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desk.errors import BadInput
from desk.strategy import Universe
from models.features import FEATURE_NAMES
from models.panel import FIELDS, Panel, build_panel
from models.screener import SCREENER, screen, sessions_needed

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "sp500_daily_2016_2020.parquet"
SESSIONS = tuple(date(2019, 1, 1) + timedelta(days=n) for n in range(130))
EVERYTHING = Universe(price_min_usd=Decimal(0), dollar_volume_20d_min_usd=Decimal(0))


def market(seed: int = 1, symbols: int = 40) -> Panel:
    random = np.random.default_rng(seed)
    close = (50 * np.exp(np.cumsum(random.normal(0, 0.02, (130, symbols)), axis=0))).astype(np.float32)
    volume = np.full_like(close, 1_000_000)
    return Panel(SESSIONS, tuple(f"S{n:02}" for n in range(symbols)), close, close, close, close, volume)


def shuffled(panel: Panel, order: list[int]) -> Panel:
    blocks = (getattr(panel, name)[:, order] for name in FIELDS)
    return Panel(panel.sessions, tuple(panel.symbols[at] for at in order), *blocks)


def test_the_watchlist_is_the_best_by_buy_probability() -> None:
    found = screen(market(), EVERYTHING, 10)

    probabilities = [row.buy_probability for row in found.rows]
    assert [row.rank for row in found.rows] == list(range(1, 11))
    assert probabilities == sorted(probabilities, reverse=True)
    assert (found.screener, found.universe, found.eligible) == (SCREENER, 40, 40)
    assert found.last_bar == SESSIONS[-1]
    assert found.data_hash == market().data_hash
    assert set(found.rows[0].features) == set(FEATURE_NAMES)


@given(st.permutations(range(40)))
@settings(max_examples=15, deadline=None)
def test_the_order_of_symbols_does_not_matter(order: list[int]) -> None:
    assert (
        screen(shuffled(market(), order), EVERYTHING, 12, ["S03"]).rows
        == screen(market(), EVERYTHING, 12, ["S03"]).rows
    )


def test_equal_symbols_are_served_by_name() -> None:
    panel = market(symbols=8)
    twins = {name: getattr(panel, name)[:, [0, 0, 0, 3, 4, 5, 6, 7]] for name in FIELDS}

    rows = screen(replace(panel, **twins), EVERYTHING, 8).rows

    ranks = [row.rank for row in sorted(rows, key=lambda row: row.symbol)][:3]
    assert ranks == [ranks[0], ranks[0] + 1, ranks[0] + 2]


def test_what_is_held_follows_the_best_even_when_it_is_not_eligible() -> None:
    panel = market()
    panel.volume[:, 5] = 1.0
    universe = Universe(price_min_usd=Decimal(0), dollar_volume_20d_min_usd=Decimal(1000))
    worst = screen(panel, universe, 40).rows[-1].symbol

    found = screen(panel, universe, 10, held=["S05", worst, "UNKNOWN"])

    assert found.eligible == 39
    assert "S05" not in {row.symbol for row in found.rows[:8]}
    assert {row.symbol for row in found.rows[8:]} == {"S05", worst}
    assert [row.rank for row in found.rows[8:]] == [9, 10]


def test_the_list_is_never_longer_than_its_size_unless_more_is_held() -> None:
    symbols = [row.symbol for row in screen(market(), EVERYTHING, 40).rows]

    for count in (0, 1, 5, 10, 12):
        held = symbols[5 : 5 + count]
        listed = [row.symbol for row in screen(market(), EVERYTHING, 10, held=held).rows]
        assert len(listed) == max(10, count)
        assert set(held) <= set(listed)


def test_a_held_symbol_among_the_best_is_listed_once() -> None:
    best = screen(market(), EVERYTHING, 1).rows[0].symbol

    assert [row.symbol for row in screen(market(), EVERYTHING, 1, held=[best]).rows] == [best]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p.close.__setitem__((slice(None), 7), p.close[:, 7] * 0.01),
        lambda p: p.volume.__setitem__((slice(None), 7), 10.0),
        lambda p: p.close.__setitem__((-1, 7), np.nan),
        lambda p: p.close.__setitem__((slice(0, 80), 7), np.nan),
    ],
    ids=["cheap", "hardly traded", "no bar today", "listed lately"],
)
def test_a_symbol_outside_the_universe_is_not_listed(spoil) -> None:  # type: ignore[no-untyped-def]
    panel = market()
    spoil(panel)

    found = screen(panel, Universe(), 40)

    assert found.eligible == 39
    assert "S07" not in {row.symbol for row in found.rows}


def test_a_pullback_in_a_strong_trend_scores_higher_than_a_rally_in_a_weak_one() -> None:
    panel = market(symbols=30)
    strong = np.concatenate([np.linspace(50, 100, 125), np.linspace(99, 94, 5)])
    weak = np.concatenate([np.linspace(100, 50, 125), np.linspace(51, 56, 5)])
    wobble = 1 + 0.004 * np.cos(np.arange(130) * 2.5)
    panel.close[:, 0], panel.close[:, 1] = strong * wobble, weak * wobble

    rows = {row.symbol: row for row in screen(panel, EVERYTHING, 30).rows}

    assert rows["S00"].buy_probability > 0.7 > 0.3 > rows["S00"].sell_probability
    assert rows["S01"].sell_probability > 0.7 > 0.3 > rows["S01"].buy_probability


def test_one_symbol_alone_has_no_cross_section_and_moves_nobody() -> None:
    row = screen(market(symbols=1), EVERYTHING, 5).rows[0]

    assert row.buy_probability == row.sell_probability < 0.3


def test_nothing_eligible_is_an_empty_watchlist() -> None:
    found = screen(market(), Universe(price_min_usd=Decimal(100_000)), 5)

    assert (found.rows, found.eligible) == ((), 0)


def test_a_panel_shorter_than_the_universe_asks_is_refused() -> None:
    with pytest.raises(BadInput, match=r"130 sessions, the strategy's universe\.history_sessions_min 200"):
        screen(market(), Universe(history_sessions_min=200), 5)
    assert sessions_needed(Universe(history_sessions_min=200)) == 200


def test_an_empty_panel_is_refused() -> None:
    none = np.empty((130, 0), dtype=np.float32)

    with pytest.raises(BadInput, match="nothing to screen"):
        screen(Panel(SESSIONS, (), none, none, none, none, none), Universe(), 5)


@pytest.mark.skipif(not DATA.exists(), reason=f"recorded bars are not here: {DATA.name}")
def test_on_recorded_bars_the_rule_fires_for_a_few_symbols_on_most_days() -> None:
    frame = pd.read_parquet(DATA).rename(columns={"date": "session"})
    whole = build_panel(frame, sorted(frame["session"].unique()))
    fired = []
    for end in range(150, len(whole.sessions), 25):
        window = Panel(
            whole.sessions[end - 130 : end], whole.symbols, *(getattr(whole, name)[end - 130 : end] for name in FIELDS)
        )
        rows = screen(window, Universe(), 50).rows
        fired.append(sum(row.buy_probability > 0.7 and row.sell_probability < 0.3 for row in rows))

    assert 5 <= np.median(fired) <= 15
    assert np.mean([3 <= count <= 30 for count in fired]) >= 0.85
