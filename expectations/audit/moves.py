"""Returns, and what they are measured by: the symbol's own volatility and the market's move of the same moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from expectations.audit.panel import Flags, Floats, Ints, Panel

__all__ = ["MARKET_MIN", "Moves", "level_of_moment", "moves_of", "news_volume", "ordinary_volume", "split_logs"]

MARKET_MIN = 20  # symbols of one moment; the median of fewer says little about a market
_WINDOW = 30  # bars to each side: about a quarter of a year of days
_PRIOR_BARS = 10  # a young symbol's own volatility counts this many bars' worth of the file's typical one
_APART_MAX = 10  # calendar days between two bars that are compared; the exchange was never closed for longer
_CLIP = 5.0  # typical moves; what is larger may be the very defect and must not raise its own bound
_TO_SIGMA = 1.2533  # mean absolute deviation of a normal distribution times this is its standard deviation
_RATIO_STEP = np.log(1.2)  # a smaller split does not show whether prices are raw
_QUIET, _USUAL = 0.45, 1.9  # times sqrt(|score|): see ordinary_volume


@dataclass(frozen=True, slots=True, eq=False)
class Moves:
    """Logarithmic moves of a clean panel, one entry per row. NaN where there is no bar before to compare with."""

    raw: Floats  # close to close, as the file has them
    step: Floats  # what the file's own adjustment adds to it: splits and dividends; 0 without such columns
    gap: Floats  # close before to open, adjusted
    excess: Floats  # raw + step - the market's median of that moment
    sigma: Floats  # the symbol's usual excess around that time, as a standard deviation
    stress: Floats  # how many times wilder than usual the market was at that moment, at least 1
    score: Floats  # excess / (sigma x stress)
    volume_ratio: Floats  # shares traded against the usual of the bars around; 1 = usual
    is_raw: bool  # whether prices jump by the splits that the file records

    @property
    def total(self) -> Floats:
        return self.raw + self.step


def moves_of(panel: Panel) -> Moves:
    """Measure a clean panel. Intraday panels are measured within each day: nights belong to the daily bars.

    excess = log(close / close before) + step - median over symbols of the same moment.
    sigma = 1.2533 x mean(min(|excess|, 5 x typical)) over 30 bars to each side, without the bar and its neighbours,
    which may be parts of one defect; shrunk to the file's typical by ten bars' worth.
    stress = median over symbols of |excess| / sigma, against 0.6745, its value in a normal market; 1 at least, and 1
    with fewer than 20 symbols.
    """
    begin, end = _bounds(panel)
    follows = np.arange(len(panel)) > begin
    follows &= np.diff(panel.day, prepend=0) <= _APART_MAX
    before = _shifted(np.log(panel.close), follows)
    raw = np.log(panel.close) - before
    is_raw = _is_raw(panel, raw, follows)
    step = _steps(panel, follows, is_raw)
    _, moments = np.unique(panel.moment, return_inverse=True)
    market = _median_by(moments, raw + step)
    excess = raw + step - market

    typical = _typical(panel.code, excess, len(panel.names))
    usual = float(np.nanmedian(typical)) if np.isfinite(typical).any() else np.nan
    own = np.where(np.isfinite(typical), typical, usual)[panel.code]
    sizes = np.minimum(np.abs(excess), _CLIP * own)
    known = np.isfinite(sizes)
    total, count = _around(np.where(known, sizes, 0.0), begin, end), _around(known.astype(float), begin, end)
    sigma = _TO_SIGMA * (total + _PRIOR_BARS * usual / _TO_SIGMA) / (count + _PRIOR_BARS)
    sigma = np.where(sigma > 0, sigma, np.nan)

    stress = np.maximum(1.0, _median_by(moments, np.abs(excess) / sigma, absent=0.0) / 0.6745)
    logs = np.log(np.maximum(panel.volume, 1.0))
    near, bars = _around(logs, begin, end), _around(np.ones(len(panel)), begin, end)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.exp(logs - near / bars)
    return Moves(
        raw=raw,
        step=step,
        gap=np.log(panel.open) - before + step,
        excess=excess,
        sigma=sigma,
        stress=stress,
        score=excess / (sigma * stress),
        volume_ratio=ratio,
        is_raw=is_raw,
    )


def ordinary_volume(moves: Moves, *, slack: float = 1.0) -> Flags:
    """Bars whose volume is too small for the size of their move: volume_ratio < slack x 0.45 x
    sqrt(|score|).

    Volume grows with the size of a move. Of 3,874 daily moves beyond 8 sigma in four files, 99 % traded more than that,
    half of them more than 1.9 x sqrt(|score|): news brings volume, a wrong number does not.
    """
    with np.errstate(invalid="ignore"):
        return moves.volume_ratio < slack * _QUIET * np.sqrt(np.abs(moves.score))


def news_volume(moves: Moves, score: Floats) -> Flags:
    """Bars that trade as much as the median of real moves of that size does: see ordinary_volume."""
    with np.errstate(invalid="ignore"):
        return moves.volume_ratio >= _USUAL * np.sqrt(np.abs(score))


def level_of_moment(panel: Panel, values: Floats, quantile: float) -> Floats:
    """The quantile of `values` among all symbols of the row's moment; 0 with fewer than MARKET_MIN of them."""
    _, moments = np.unique(panel.moment, return_inverse=True)
    frame = pd.DataFrame({"moment": moments, "value": values})
    grouped = frame.groupby("moment")["value"]
    level, count = grouped.quantile(quantile).to_numpy(), grouped.count().to_numpy()
    return np.where(count >= MARKET_MIN, level, 0.0)[moments]


def _bounds(panel: Panel) -> tuple[Ints, Ints]:
    """First row, and the row after the last, of what a row may be compared with: its symbol, or its symbol's day."""
    changes = np.diff(panel.code, prepend=-1) != 0
    if not panel.is_daily:
        changes |= np.diff(panel.day, prepend=-1) != 0
    first = np.flatnonzero(changes)
    part = np.cumsum(changes) - 1
    ends = np.append(first[1:], len(panel))
    return first[part].astype(np.int64), ends[part].astype(np.int64)


def _shifted(values: Floats, follows: Flags) -> Floats:
    before = np.full(values.size, np.nan)
    before[1:] = values[:-1]
    return np.where(follows, before, np.nan)


def split_logs(panel: Panel) -> Floats:
    """Logarithm of the recorded split; 0 where there is none or the file does not say."""
    if panel.split is None:
        return np.zeros(len(panel))
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(panel.split)
    return np.where(np.isfinite(logs), logs, 0.0)


def _is_raw(panel: Panel, raw: Floats, follows: Flags) -> bool:
    """Whether most recorded splits beyond 1.2 to 1 show in the prices. Without any, prices are taken as adjusted."""
    ratio = split_logs(panel)
    telling = (np.abs(ratio) > _RATIO_STEP) & follows
    if not telling.any():
        return False
    return bool((np.abs(raw[telling] + ratio[telling]) < np.abs(raw[telling])).mean() > 0.5)


def _steps(panel: Panel, follows: Flags, is_raw: bool) -> Floats:
    """What adjustment adds to each move: from adj_factor, or from the splits when prices are raw."""
    if panel.factor is None:
        return np.where(follows, split_logs(panel), 0.0) if is_raw else np.zeros(len(panel))
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(panel.factor)
    step = np.where(follows, logs - _shifted(logs, follows), 0.0)
    return np.where(np.isfinite(step), step, 0.0)


def _typical(code: Ints, excess: Floats, series: int) -> Floats:
    """Median |excess| of each series as a standard deviation; NaN without a move."""
    found = pd.Series(np.abs(excess)).groupby(code).median().reindex(range(series)).to_numpy(dtype=np.float64)
    scaled: Floats = np.where(found > 0, found / 0.6745, np.nan)
    return scaled


def _median_by(moments: Ints, values: Floats, absent: float = 0.0) -> Floats:
    """Median of each moment, per row; `absent` where fewer than MARKET_MIN values are known."""
    grouped = pd.Series(values).groupby(moments)
    level, count = grouped.median().to_numpy(), grouped.count().to_numpy()
    found: Floats = np.where(count >= MARKET_MIN, level, absent)[moments]
    return found


def _around(values: Floats, begin: Ints, end: Ints) -> Floats:
    """Sum over the window around each row, without the row and its neighbours, inside its part of the panel."""
    sums = np.append(0.0, np.cumsum(values))
    at = np.arange(values.size)
    low, high = np.maximum(at - _WINDOW, begin), np.minimum(at + _WINDOW + 1, end)
    inner_low, inner_high = np.maximum(at - 1, begin), np.minimum(at + 2, end)
    found: Floats = (sums[high] - sums[low]) - (sums[inner_high] - sums[inner_low])
    return np.maximum(found, 0.0) if (values >= 0).all() else found
