"""Splits and dividends that the prices do not show, and moves that look like a split nobody recorded."""

from __future__ import annotations

import numpy as np

from expectations.audit.finding import Finding, Grade, Kind, as_date
from expectations.audit.moves import Moves, ordinary_volume, split_logs
from expectations.audit.panel import Flags, Floats, Ints, Panel

__all__ = ["SPLIT_LOGS", "disputed_steps", "factor_at_odds", "near_split", "percent"]

# Ratios that companies choose; their inverses are reverse splits. Ten also stands for a slipped decimal point.
_RATIOS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0, 20.0, 25.0, 30.0, 50.0, 100.0)
SPLIT_LOGS = np.sort(np.concatenate([np.log(_RATIOS), -np.log(_RATIOS)]))

_MISMATCH_MIN = 0.02  # of the price: vendors' formulas for one dividend differ by less
_STEP_MIN = 0.04  # an ordinary dividend is below it, and below it the market's own noise hides a mistake
_SCORE_EXPLAINED_MIN = 3.0  # few steps are this large, and the better explanation has to fit as well
_FIT_MAX = 0.35  # of the move may remain under the better explanation
_SCORE_UNEXPLAINED_MIN = 8.0
_MOVE_UNEXPLAINED_MIN = 0.15


def factor_at_odds(panel: Panel, moves: Moves) -> list[Finding]:
    """Steps of adj_factor that the same row's split and dividend do not explain: a split a day early or twice.

    Expected step: log(split) in raw prices (0 in adjusted ones) + log(1 + dividend / close), or its usual variants:
    -log(1 - dividend / close before), and the dividend per old share, log(split + dividend / close). At odds when the
    nearest is more than 2 % of the price away: vendors' formulas differ by less, a split by at least 5 %. Not judged
    after rows that were left out, whose split or dividend the step may be.
    """
    if panel.factor is None or panel.split is None or panel.dividend is None:
        return []
    at = np.flatnonzero((moves.step != 0) | (panel.split != 1) | (panel.dividend != 0))
    at = at[np.isfinite(moves.raw[at]) & (np.diff(panel.place, prepend=-1)[at] == 1)]
    paid = np.nan_to_num(panel.dividend[at]) / panel.close[at]
    paid_before = np.nan_to_num(panel.dividend[at]) / (panel.close[at] / np.exp(moves.raw[at]))
    ratio = split_logs(panel)[at] if moves.is_raw else np.zeros(at.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        variants = np.stack(
            [
                ratio + np.log1p(paid),
                ratio - np.log1p(-np.minimum(paid_before, 0.999)),
                np.log(np.exp(ratio) + paid),
                ratio - np.log1p(-np.minimum(paid_before * np.exp(-ratio), 0.999)),
            ]
        )
    distance = np.nanmin(np.abs(variants - moves.step[at]), axis=0, initial=np.inf)
    odd = distance > _MISMATCH_MIN
    return [
        _wrong(
            panel,
            i,
            f"adj_factor steps by {percent(moves.step[i])}, split {panel.split[i]:g} and dividend {panel.dividend[i]:g}"
            f" explain {percent(variants[0, j])}; adjusted return {percent(moves.total[i])},"
            f" unadjusted {percent(moves.raw[i])}",
            float(distance[j]) / _MISMATCH_MIN,
        )
        for j, i in zip(np.flatnonzero(odd).tolist(), at[odd].tolist(), strict=True)
    ]


def disputed_steps(panel: Panel, moves: Moves) -> list[Finding]:
    """Adjustments of at least 4 % whose adjusted return is improbable.

    Explained: beyond 3 sigma, and leaving out the split, the dividend or both leaves at most 35 % of the move: the
    price never made the step (applied twice, early, or not paid). Unexplained: beyond 8 sigma and 15 %, and no volume
    to match (twice the bound of ordinary_volume, for ex-dates are busy): a value is wrong or a spin-off is missing, a
    doubtful move.
    """
    with np.errstate(invalid="ignore"):
        at = np.flatnonzero((np.abs(moves.step) >= _STEP_MIN) & (np.abs(moves.score) >= _SCORE_EXPLAINED_MIN))
    step, excess = moves.step[at], moves.excess[at]
    ratio = split_logs(panel)[at] if moves.is_raw else np.zeros(at.size)
    instead = np.stack([np.zeros(at.size), ratio, step - ratio])
    left = np.abs(excess - step + instead)
    left[np.abs(step - instead) < _STEP_MIN] = np.inf
    best = left.argmin(axis=0)
    fits = left.min(axis=0, initial=np.inf) <= _FIT_MAX * np.abs(excess)
    without = ("split and dividend", "the dividend", "the split")
    quiet = ordinary_volume(moves, slack=2.0)[at]
    large = (np.abs(moves.score[at]) >= _SCORE_UNEXPLAINED_MIN) & (np.abs(excess) >= _MOVE_UNEXPLAINED_MIN)
    found = []
    for j, i in enumerate(at.tolist()):
        if not fits[j] and not (quiet[j] and large[j]):
            continue
        score = abs(float(moves.score[i]))
        sized = (
            f"adjusted return {percent(moves.total[i])} ({moves.score[i]:+.0f} sigma) on an adjustment of "
            f"{percent(step[j])}"
        )
        if fits[j]:
            rest = moves.raw[i] + instead[best[j], j]
            text = f"{sized}; without {without[best[j]]} it is {percent(rest)}"
            found.append(_wrong(panel, i, text, score / _SCORE_EXPLAINED_MIN))
        else:
            volume = f"on {moves.volume_ratio[i]:.1f} times the usual volume"
            text = f"{sized}, {volume}; unadjusted {percent(moves.raw[i])}"
            found.append(_wrong(panel, i, text, score / _SCORE_UNEXPLAINED_MIN, Kind.DOUBTFUL_MOVE))
    return found


def near_split(move: Floats, sigma: Floats) -> Flags:
    """Whether a logarithmic move is a usual split ratio, within 2 sigma and 5 %."""
    nearest: Ints = np.clip(np.searchsorted(SPLIT_LOGS, move), 1, SPLIT_LOGS.size - 1)
    distance = np.minimum(np.abs(move - SPLIT_LOGS[nearest - 1]), np.abs(move - SPLIT_LOGS[nearest]))
    near: Flags = distance <= np.minimum(2 * sigma, 0.05)
    return near


def percent(log_move: float) -> str:
    return f"{100 * np.expm1(log_move):+.1f} %"


def _wrong(panel: Panel, i: int, evidence: str, strength: float, kind: Kind = Kind.WRONG_ADJUSTMENT) -> Finding:
    day = as_date(panel.day[i])
    grade = Grade.CRITICAL if kind is Kind.WRONG_ADJUSTMENT else Grade.WARNING
    return Finding(kind, grade, panel.name(i), day, day, 1, f"{evidence}{panel.detail(i)}", strength)
