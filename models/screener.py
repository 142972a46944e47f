"""The screener before there is a learned one: momentum and mean reversion, scored across the universe.

    trend    z(momentum_60_5 / volatility_20)   strong through the last quarter, the last week left out
    stretch  z(return_5 / volatility_20)        how far the last week alone has run
    score    (trend - stretch) / sqrt(2)        high: a strong stock that has pulled back

z is across the eligible symbols of the day, clipped at 3. Two near-uncorrelated z make a score of unit spread
(correlation 0.02, deviation 0.97 on the S&P 500 of 2016 to 2020). The score is mapped through a logistic curve:

    buy_probability  = logistic(1.5 * (score - 2) + logit(0.7))
    sell_probability = logistic(1.5 * (-score - 2) + logit(0.7))

so that the usual thresholds (above 0.7, below 0.3) cut at a score of 2: of 493 symbols 10 a day in the median
and 3 to 23 on nine days of ten, in those years. These numbers are an order of preference in the clothes of a
probability. They are fitted to nothing, calibrated against no outcome, and no edge is claimed for them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from desk.errors import BadInput
from desk.screening import ScreenedSymbol, Screening
from desk.strategy import Universe
from models.features import FEATURE_NAMES, FEATURE_SESSIONS, latest_features
from models.panel import Panel

__all__ = ["SCREENER", "screen", "sessions_needed"]

SCREENER = "momentum-reversion/1"

_SLOPE = 1.5
_SCORE_OF_70_PCT = 2.0
_LOGIT_OF_70_PCT = math.log(0.7 / 0.3)
_Z_MAX = 3.0
_VOLUME_SESSIONS = 20


def sessions_needed(universe: Universe) -> int:
    """How many sessions a panel must span for its features and for the universe's history filter."""
    return max(FEATURE_SESSIONS, universe.history_sessions_min)


def screen(panel: Panel, universe: Universe, size: int, held: Collection[str] = ()) -> Screening:
    """The watchlist after the panel's last session: at most `size` symbols, all that are `held` among them.

    Eligible: a bar in the last session, enough bars, price and dollar volume (20 sessions) as `universe` asks,
    and a score. Ranked by buy_probability, ties by symbol. What is held must be judged each day, so it takes its
    places first, eligible or not, as long as it has a score; without one it is absent. Held symbols that are not
    eligible come last. Only when more is held than `size` is the list longer.

    Raises BadInput when the panel is empty or shorter than the universe's history filter.
    """
    if not panel.sessions or not panel.symbols:
        raise BadInput(f"screening: {len(panel.sessions)} sessions of {len(panel.symbols)} symbols, nothing to screen")
    if len(panel.sessions) < universe.history_sessions_min:
        raise BadInput(
            f"screening: bars of {len(panel.sessions)} sessions, the strategy's universe.history_sessions_min "
            f"{universe.history_sessions_min} needs as many; give more history or lower it"
        )
    scored = _score(panel, universe)
    order = sorted(range(len(panel.symbols)), key=lambda at: (-scored.buy[at], panel.symbols[at]))
    kept = {at for at in order if panel.symbols[at] in held and scored.has_score[at]}
    new = [at for at in order if scored.eligible[at] and at not in kept][: max(0, size - len(kept))]
    listed = kept.union(new)
    best = [at for at in order if at in listed and scored.eligible[at]]
    also_held = [at for at in order if at in listed and not scored.eligible[at]]
    return Screening(
        screener=SCREENER,
        rows=tuple(_rows(panel, scored, [*best, *also_held])),
        universe=int(np.isfinite(panel.close).any(axis=0).sum()),
        eligible=int(scored.eligible.sum()),
        data_hash=panel.data_hash,
        last_bar=panel.sessions[-1],
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    """Arrays by symbol, in the panel's order."""

    features: NDArray[np.float32]  # (symbol, feature)
    volume_20d: NDArray[np.float64]  # mean shares a session
    has_score: NDArray[np.bool_]
    eligible: NDArray[np.bool_]
    buy: NDArray[np.float64]  # probability, 0 without a score
    sell: NDArray[np.float64]


def _score(panel: Panel, universe: Universe) -> _Scored:
    found = latest_features(panel)
    column = {name: found[:, at].astype(np.float64) for at, name in enumerate(FEATURE_NAMES)}
    with np.errstate(divide="ignore", invalid="ignore"):  # a price that never moved has no score
        trend = column["momentum_60_5"] / column["volatility_20"]
        stretch = column["return_5"] / column["volatility_20"]
    has_score = np.isfinite(trend) & np.isfinite(stretch)

    close, volume = (
        panel.close[-_VOLUME_SESSIONS:].astype(np.float64),
        panel.volume[-_VOLUME_SESSIONS:].astype(np.float64),
    )
    volume_20d, dollars_20d = volume.mean(axis=0), (close * volume).mean(axis=0)
    eligible = (
        has_score
        & (close[-1] >= float(universe.price_min_usd))
        & (dollars_20d >= float(universe.dollar_volume_20d_min_usd))
        & (np.isfinite(panel.close).sum(axis=0) >= universe.history_sessions_min)
    )
    score = (_z(trend, eligible) - _z(stretch, eligible)) / math.sqrt(2.0)
    buy, sell = (np.where(has_score, _probability(side), 0.0) for side in (score, -score))
    return _Scored(found, volume_20d, has_score, eligible, buy, sell)


def _z(values: NDArray[np.float64], among: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Standard scores against those `among`; 0 for all when these do not differ."""
    if not among.any():
        return np.zeros_like(values)
    spread = values[among].std()
    if spread == 0.0:
        return np.zeros_like(values)
    standard: NDArray[np.float64] = np.clip((values - values[among].mean()) / spread, -_Z_MAX, _Z_MAX)
    return standard


def _probability(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Six decimals: far below what is known, and the same on every machine."""
    odds = _SLOPE * (score - _SCORE_OF_70_PCT) + _LOGIT_OF_70_PCT
    return np.round(1.0 / (1.0 + np.exp(-odds)), 6)


def _rows(panel: Panel, scored: _Scored, places: Iterable[int]) -> Iterable[ScreenedSymbol]:
    for rank, at in enumerate(places, start=1):
        values = zip(FEATURE_NAMES, scored.features[at].tolist(), strict=True)
        yield ScreenedSymbol(
            symbol=panel.symbols[at],
            rank=rank,
            buy_probability=float(scored.buy[at]),
            sell_probability=float(scored.sell[at]),
            last_close=Decimal(str(panel.close[-1, at])),
            volume_20d=int(np.nan_to_num(scored.volume_20d[at])),
            features={name: round(value, 6) for name, value in values if math.isfinite(value)},
        )
