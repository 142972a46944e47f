"""Causal features of daily bars: pure functions of the panel, row t uses sessions up to t and no later one.

All work on (session, symbol) blocks in float64 and give float32. A row is the same number whether it is
computed on the whole history or on a window of FEATURE_SESSIONS: windows are sums of shifted slices, never
running totals, whose rounding depends on where they began. A missing bar (NaN) makes NaN of every window
that holds it, `high_distance_126` excepted. Nothing depends on a currency's unit: prices times c leave all
features as they are.

Sources: Jegadeesh and Titman 1993 (momentum), Jegadeesh 1990 and Lehmann 1990 (short-term reversal), George
and Hwang 2004 (nearness to the high), Wilder 1978 (RSI, true range), Gervais, Kaniel and Mingelgrin 2001
(volume).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.panel import Panel

__all__ = ["FEATURE_NAMES", "FEATURE_SESSIONS", "features", "latest_features"]

Block = NDArray[np.float64]  # (session, symbol)

FEATURE_SESSIONS = 126  # the longest look-back, in sessions, the current one included
_HIGH_SESSIONS_MIN = 60  # bars needed within the 126 before a high means anything


def features(panel: Panel) -> NDArray[np.float32]:
    """All features of all sessions, (session, symbol, feature) in the order of FEATURE_NAMES."""
    p = _Prices(panel)
    stacked = np.empty((*p.close.shape, len(_FEATURES)), dtype=np.float32)
    for at, compute in enumerate(_FEATURES.values()):
        with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 is NaN by intent: the feature does not exist
            value = compute(p)
        stacked[:, :, at] = np.where(np.isfinite(value), value, np.nan)
    return stacked


def latest_features(panel: Panel) -> NDArray[np.float32]:
    """Features of the panel's last session, (symbol, feature): the last row of `features`, at the cost of a window."""
    newest: NDArray[np.float32] = features(panel.tail(FEATURE_SESSIONS))[-1]
    return newest


class _Prices:
    """The panel in float64, with what several features share computed once."""

    def __init__(self, panel: Panel) -> None:
        self.open = panel.open.astype(np.float64)
        self.high = panel.high.astype(np.float64)
        self.low = panel.low.astype(np.float64)
        self.close = panel.close.astype(np.float64)
        self.volume = panel.volume.astype(np.float64)
        self.close_before = _shift(self.close, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.log_return = np.log(self.close / self.close_before)
        self.close_mean_20 = _mean(self.close, 20)
        self.high_20 = _extreme(self.high, 20, np.maximum)
        self.low_20 = _extreme(self.low, 20, np.minimum)


def _shift(block: Block, sessions: int) -> Block:
    """The block `sessions` earlier, NaN before the beginning."""
    shifted = np.full_like(block, np.nan)
    shifted[sessions:] = block[: max(0, len(block) - sessions)]
    return shifted


def _sum(block: Block, window: int) -> Block:
    """Sum over the last `window` sessions. NaN until there are as many."""
    total = np.full_like(block, np.nan)
    if len(block) >= window:
        rows = len(block) - window + 1
        whole = block[:rows].copy()
        for back in range(1, window):
            whole += block[back : back + rows]
        total[window - 1 :] = whole
    return total


def _mean(block: Block, window: int) -> Block:
    return _sum(block, window) / window


def _deviation(block: Block, mean: Block, window: int) -> Block:
    """Sample standard deviation over the last `window` sessions, around that window's own mean (two passes)."""
    total = np.full_like(block, np.nan)
    if len(block) >= window:
        rows = len(block) - window + 1
        centre = mean[window - 1 :]
        squares = np.zeros_like(centre)
        for back in range(window):
            squares += np.square(block[back : back + rows] - centre)
        total[window - 1 :] = np.sqrt(squares / (window - 1))
    return total


def _extreme(block: Block, window: int, better: Callable[[Block, Block], Block]) -> Block:
    """Highest or lowest of the last `window` sessions, by doubling: extremes are exact, so overlap is harmless."""
    width = 1
    reached = block
    while width < window:
        step = min(width, window - width)
        reached = better(reached, _shift(reached, step))
        width += step
    return reached


def _return(sessions: int) -> Callable[[_Prices], Block]:
    def simple_return(p: _Prices) -> Block:
        """close[t] / close[t-k] - 1."""
        return p.close / _shift(p.close, sessions) - 1.0

    return simple_return


def _momentum_60_5(p: _Prices) -> Block:
    """close[t-5] / close[t-60] - 1: the trend without the last week, which tends to revert."""
    return _shift(p.close, 5) / _shift(p.close, 60) - 1.0


def _volatility_20(p: _Prices) -> Block:
    """Sample standard deviation of the last 20 daily log returns, per day."""
    return _deviation(p.log_return, _mean(p.log_return, 20), 20)


def _zscore_20(p: _Prices) -> Block:
    """(close - mean20) / deviation20 of the close."""
    return (p.close - p.close_mean_20) / _deviation(p.close, p.close_mean_20, 20)


def _relative_volume_20(p: _Prices) -> Block:
    """volume / mean volume of the last 20 sessions, today's included: 0 to 20."""
    return p.volume / _mean(p.volume, 20)


def _rsi_14(p: _Prices) -> Block:
    """Gains / (gains + losses) of the last 14 closes, 0 to 1: RSI by plain sums (Cutler), which have an end."""
    change = p.close - p.close_before
    gains, losses = _sum(np.maximum(change, 0.0), 14), _sum(np.maximum(-change, 0.0), 14)
    return gains / (gains + losses)


def _range_position_20(p: _Prices) -> Block:
    """Where the close lies between the low (0) and the high (1) of the last 20 sessions."""
    return (p.close - p.low_20) / (p.high_20 - p.low_20)


def _true_range_14(p: _Prices) -> Block:
    """Mean true range of the last 14 sessions / close."""
    reach = np.maximum(p.high, p.close_before) - np.minimum(p.low, p.close_before)
    return _mean(reach, 14) / p.close


def _gap(p: _Prices) -> Block:
    """open[t] / close[t-1] - 1."""
    return p.open / p.close_before - 1.0


def _high_distance_126(p: _Prices) -> Block:
    """close / highest high of the last 126 sessions - 1 (0 or below); needs 60 bars, tolerates missing ones."""
    bars = np.isfinite(p.high)
    highest = _extreme(np.where(bars, p.high, -np.inf), FEATURE_SESSIONS, np.fmax)
    count = np.cumsum(bars, axis=0)
    count[FEATURE_SESSIONS:] -= count[:-FEATURE_SESSIONS].copy()
    return np.where(count >= _HIGH_SESSIONS_MIN, p.close / highest - 1.0, np.nan)


_FEATURES: dict[str, Callable[[_Prices], Block]] = {
    "return_1": _return(1),
    "return_5": _return(5),
    "return_20": _return(20),
    "return_60": _return(60),
    "momentum_60_5": _momentum_60_5,
    "volatility_20": _volatility_20,
    "zscore_20": _zscore_20,
    "relative_volume_20": _relative_volume_20,
    "rsi_14": _rsi_14,
    "range_position_20": _range_position_20,
    "true_range_14": _true_range_14,
    "gap": _gap,
    "high_distance_126": _high_distance_126,
}
FEATURE_NAMES = tuple(_FEATURES)
