"""Panel and features: causal, blind to the unit of price, and the same on a window as on the whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desk.errors import BadInput
from models.features import FEATURE_NAMES, FEATURE_SESSIONS, features, latest_features
from models.panel import FIELDS, Panel, build_panel

SESSIONS = tuple(date(2019, 1, 1) + timedelta(days=n) for n in range(150))
HASH_OF_THREE_BARS = "ef5a2b91c748f7eab62623867ac19734d772d48f378857162b8acd884526e5aa"


def market(seed: int, sessions: int = 150, symbols: int = 6, missing: float = 0.0) -> Panel:
    """Random walks with plausible bars; a share of the bars is missing."""
    random = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(random.normal(0, 0.02, (sessions, symbols)), axis=0))
    open_ = close * np.exp(random.normal(0, 0.01, close.shape))
    high = np.maximum(open_, close) * np.exp(np.abs(random.normal(0, 0.01, close.shape)))
    low = np.minimum(open_, close) * np.exp(-np.abs(random.normal(0, 0.01, close.shape)))
    volume = np.floor(np.exp(random.normal(12, 0.5, close.shape)))
    gone = random.random(close.shape) < missing
    blocks = [np.where(gone, np.nan, block).astype(np.float32) for block in (open_, high, low, close, volume)]
    return Panel(SESSIONS[:sessions], tuple(f"S{n}" for n in range(symbols)), *blocks)


def frame_of(panel: Panel) -> pd.DataFrame:
    rows = [
        (symbol, day, *(float(getattr(panel, name)[t, n]) for name in FIELDS))
        for t, day in enumerate(panel.sessions)
        for n, symbol in enumerate(panel.symbols)
        if np.isfinite(panel.close[t, n])
    ]
    return pd.DataFrame(rows, columns=["symbol", "session", *FIELDS])


def by_name(panel: Panel) -> dict[str, np.ndarray]:
    computed = features(panel)
    return {name: computed[:, :, at] for at, name in enumerate(FEATURE_NAMES)}


def one_symbol(closes: list[float], **blocks: list[float]) -> Panel:
    given = {name: np.array(blocks.get(name, closes), dtype=np.float32)[:, None] for name in FIELDS}
    return Panel(SESSIONS[: len(closes)], ("ONE",), **given)


@given(st.integers(0, 10_000), st.integers(60, 140), st.sampled_from([0.0, 0.05]))
@settings(max_examples=25, deadline=None)
def test_what_happens_later_changes_no_feature(seed: int, t: int, missing: float) -> None:
    """Every bar after t is replaced; rows up to and including t stay as they were, to the bit."""
    panel, other = market(seed, missing=missing), market(seed + 1)
    mixed = {name: getattr(panel, name).copy() for name in FIELDS}
    for name in FIELDS:
        mixed[name][t + 1 :] = 3 * getattr(other, name)[t + 1 :]

    changed = features(replace(panel, **mixed))

    np.testing.assert_array_equal(changed[: t + 1], features(panel)[: t + 1])


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.05]), st.integers(FEATURE_SESSIONS, 150))
@settings(max_examples=25, deadline=None)
def test_the_latest_row_of_a_window_is_the_row_of_the_whole(seed: int, missing: float, window: int) -> None:
    panel = market(seed, missing=missing)

    np.testing.assert_array_equal(latest_features(panel.tail(window)), features(panel)[-1])


@given(st.integers(0, 10_000), st.floats(0.01, 1000))
@settings(max_examples=25, deadline=None)
def test_prices_in_another_currency_have_the_same_features(seed: int, factor: float) -> None:
    panel = market(seed)
    prices = {name: (getattr(panel, name) * np.float32(factor)).astype(np.float32) for name in FIELDS[:4]}

    scaled = features(replace(panel, **prices))

    np.testing.assert_allclose(scaled, features(panel), rtol=1e-3, atol=2e-4)


@given(st.integers(0, 10_000), st.permutations(range(6)))
@settings(max_examples=25, deadline=None)
def test_the_order_of_symbols_does_not_matter(seed: int, order: list[int]) -> None:
    panel = market(seed, missing=0.02)
    shuffled = Panel(
        panel.sessions, tuple(panel.symbols[at] for at in order), *(getattr(panel, name)[:, order] for name in FIELDS)
    )

    np.testing.assert_array_equal(features(shuffled), features(panel)[:, order])


def test_a_steady_climb_reads_as_one() -> None:
    """One per cent a day for 130 days: the features have values one can work out by hand."""
    closes = [100 * 1.01**n for n in range(130)]

    last = {name: float(value[-1, 0]) for name, value in by_name(one_symbol(closes)).items()}

    assert last["return_1"] == pytest.approx(0.01, abs=1e-5)
    assert last["return_20"] == pytest.approx(1.01**20 - 1, abs=1e-5)
    assert last["momentum_60_5"] == pytest.approx(1.01**55 - 1, abs=1e-4)
    assert last["volatility_20"] == pytest.approx(0.0, abs=1e-5)
    assert last["rsi_14"] == 1.0
    assert last["range_position_20"] == 1.0
    assert last["gap"] == pytest.approx(0.01, abs=1e-5)
    assert last["high_distance_126"] == 0.0
    assert last["true_range_14"] == pytest.approx(0.01, abs=1e-3)


def test_a_rolling_feature_agrees_with_pandas() -> None:
    """Another route to the same numbers."""
    panel = market(3)
    close = pd.DataFrame(panel.close.astype(np.float64))
    computed = by_name(panel)

    zscore = (close - close.rolling(20).mean()) / close.rolling(20).std()
    volatility = np.log(close / close.shift(1)).rolling(20).std()
    distance = close / pd.DataFrame(panel.high.astype(np.float64)).rolling(126, min_periods=60).max() - 1
    position = (close - pd.DataFrame(panel.low).rolling(20).min()) / (
        pd.DataFrame(panel.high).rolling(20).max() - pd.DataFrame(panel.low).rolling(20).min()
    )

    np.testing.assert_allclose(computed["zscore_20"], zscore, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(computed["volatility_20"], volatility, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(computed["high_distance_126"], distance, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(computed["range_position_20"], position, rtol=1e-3, atol=1e-4)


def test_a_price_that_never_moves_has_no_score_rather_than_an_infinite_one() -> None:
    flat = by_name(one_symbol([10.0] * 130))

    assert np.isnan(flat["zscore_20"][-1, 0])
    assert np.isnan(flat["rsi_14"][-1, 0])
    assert flat["return_20"][-1, 0] == 0.0


def test_a_missing_bar_leaves_a_gap_as_long_as_the_window() -> None:
    panel = market(5, sessions=120, symbols=1)
    panel.close[60] = np.nan

    volatility = by_name(panel)["volatility_20"][:, 0]

    assert np.isnan(volatility[60:81]).all()
    assert np.isfinite(volatility[[59, 81]]).all()


def test_a_short_history_has_the_features_it_is_long_enough_for() -> None:
    young = by_name(market(5, sessions=10, symbols=2))

    assert np.isfinite(young["return_5"][-1]).all()
    assert np.isnan(young["return_20"][-1]).all()


@given(st.integers(0, 1000), st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_a_panel_does_not_depend_on_the_order_of_rows(seed: int, random) -> None:  # type: ignore[no-untyped-def]
    panel = market(seed, sessions=8, missing=0.2)
    frame = frame_of(panel)
    order = list(range(len(frame)))
    random.shuffle(order)

    built = build_panel(frame.iloc[order], SESSIONS[:8], panel.symbols)

    for name in FIELDS:
        np.testing.assert_array_equal(getattr(built, name), getattr(panel, name))
    assert built.data_hash == panel.data_hash


def test_the_hash_is_one_of_the_bars() -> None:
    """Written down once: another machine, process or version must find the same."""
    panel = one_symbol([1.0, 2.0, 4.0])

    assert panel.data_hash == HASH_OF_THREE_BARS


def test_the_hash_changes_with_a_bar_a_symbol_or_a_session() -> None:
    panel = one_symbol([1.0, 2.0, 4.0])
    other_close = panel.close.copy()
    other_close[1] = np.nan

    hashes = {
        panel.data_hash,
        replace(panel, close=other_close).data_hash,
        replace(panel, symbols=("TWO",)).data_hash,
        replace(panel, sessions=SESSIONS[1:4]).data_hash,
    }

    assert len(hashes) == 4


def test_a_panel_holds_the_sessions_asked_for_and_the_symbols_asked_for() -> None:
    frame = frame_of(market(1, sessions=10, symbols=3))

    built = build_panel(frame, SESSIONS[4:8], ["S2", "GONE", "S0"])

    assert built.symbols == ("S2", "GONE", "S0")
    assert built.close.shape == (4, 3)
    assert np.isnan(built.close[:, 1]).all()
    assert np.isfinite(built.close[:, [0, 2]]).all()


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda f: f.drop(columns="volume"), "bars without volume"),
        (lambda f: pd.concat([f, f.iloc[[4]]]), "2 bars of S0 on 2019-01-05"),
        (lambda f: f.assign(session=f["session"].replace(SESSIONS[3], date(2019, 1, 2))), "2 bars of S0 on 2019-01-02"),
    ],
)
def test_bars_that_make_no_panel_are_named(spoil, complaint: str) -> None:  # type: ignore[no-untyped-def]
    frame = frame_of(market(1, sessions=6, symbols=1))

    with pytest.raises(BadInput, match=complaint):
        build_panel(spoil(frame), SESSIONS[:6])


def test_a_bar_on_a_day_without_a_session_is_named() -> None:
    frame = frame_of(market(1, sessions=6, symbols=1))

    with pytest.raises(BadInput, match="S0 has a bar on 2019-01-03, which is not a session"):
        build_panel(frame, [*SESSIONS[:2], *SESSIONS[3:6]])


def test_no_bars_make_an_empty_panel() -> None:
    frame = frame_of(market(1, sessions=3, symbols=1)).iloc[:0]

    assert build_panel(frame, SESSIONS[:3]).close.shape == (3, 0)
