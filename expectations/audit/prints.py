"""Bad prints and false jumps: prices that no trade of that moment can have had.

The bounds in sigmas are where genuine moves end: in 582,338 daily bars of a source that its vendor has cleaned, one
jump and one wick are beyond them, and both are wrong. That market included March 2020.
"""

from __future__ import annotations

import numpy as np

from expectations.audit.adjustment import near_split, percent
from expectations.audit.finding import Finding, Grade, Kind, as_date
from expectations.audit.moves import Moves, level_of_moment, news_volume, ordinary_volume
from expectations.audit.panel import Flags, Floats, Ints, Panel

__all__ = ["bad_opens", "extreme_wicks", "false_jumps", "reverting_closes", "splices", "unrecorded_splits"]

_REVERT_SCORE_MIN = 7.0
_REVERT_MOVE_MIN = 0.05
_REVERT_BARS = 5  # a substituted block of a week is found; longer ones are two jumps
_REVERT_REST_MAX = 0.25  # of the jump that may remain after it is undone
_REVERT_LEG_MIN = 0.6  # of the jump that the last bar alone undoes

_JUMP_SCORE_MIN = 8.0
_JUMP_MOVE_MIN = 0.12
_STEP_NONE = 0.01  # an ordinary dividend explains no such jump
_GAP_SHARE_MIN = 0.7  # of the jump that happens between two bars

_WICK_SCORE_MIN = 12.0
_WICK_MIN = 0.10
_WICK_QUIET = 0.5  # of the usual volume

_SPLICE_SCORE_MIN = 20.0
_SPLICE_DOWN_MIN, _SPLICE_UP_MIN = (
    0.35,
    1.0,
)  # takeovers jump up by less and then stand still; nothing stands still down
_SPLICE_RANGE_MAX = 0.05  # of the jump, in the bar after it


def reverting_closes(panel: Panel, moves: Moves) -> list[Finding]:
    """A level that appears without volume and is gone within five bars: a bad close, another symbol's rows, a slipped
    decimal point.

    Jump: beyond 7 sigma and 5 %, on ordinary volume (see `ordinary_volume`). Undone: after k <= 5 bars at most 25 % of
    it remain, and the last of them undoes at least 60 % at once: a market drifts back, an error ends. Below 5 % no
    decision hangs on it. Near a split's ratio the kind is scale.
    """
    at = np.flatnonzero(
        (np.abs(moves.score) >= _REVERT_SCORE_MIN) & (np.abs(moves.excess) >= _REVERT_MOVE_MIN) & ordinary_volume(moves)
    )
    bars = _bars_until_undone(panel, moves, at)
    scaled = near_split(moves.excess[at], moves.sigma[at])
    found: list[Finding] = []
    for i, length, is_scale in zip(at.tolist(), bars.tolist(), scaled.tolist(), strict=True):
        if length == 0:
            continue
        undone = i + length
        first, last = as_date(panel.day[i]), as_date(panel.day[undone - 1])
        if found and found[-1].symbol == panel.name(i) and found[-1].last >= first:
            continue  # the way back of the one before
        evidence = (
            f"{panel.clock(i)}close {panel.close[i]:g} is {percent(moves.excess[i])} against the market "
            f"({moves.score[i]:+.0f} sigma) on {moves.volume_ratio[i]:.1f} times the usual volume, undone by "
            f"{percent(moves.excess[undone])} {'the next bar' if length == 1 else f'{length} bars later'}"
            f"{panel.detail(i)}"
        )
        kind = Kind.SCALE if is_scale else Kind.BAD_PRINT
        strength = abs(float(moves.score[i])) / _REVERT_SCORE_MIN
        found.append(Finding(kind, Grade.CRITICAL, panel.name(i), first, last, length, evidence, strength))
    return found


def unrecorded_splits(panel: Panel, moves: Moves) -> list[Finding]:
    """A jump of `false_jumps` that is a split's ratio, within 2 sigma and 5 %."""
    at = _quiet_gaps(panel, moves)
    return [
        _jump(panel, moves, i, Kind.WRONG_ADJUSTMENT, _like(panel, i))
        for i in at[near_split(moves.excess[at], moves.sigma[at])].tolist()
    ]


def false_jumps(panel: Panel, moves: Moves) -> list[Finding]:
    """A jump between two bars that nobody traded on and that stays: a spin-off that is not recorded, or a wrong price.

    Beyond 8 sigma and 12 %, at least 70 % of it between close and open, on ordinary volume (see `ordinary_volume`),
    with no adjustment of the day. What reverts belongs to `reverting_closes`, its way back to nobody.
    """
    return [
        _jump(panel, moves, i, Kind.DOUBTFUL_MOVE, "with no adjustment recorded")
        for i in _quiet_gaps(panel, moves).tolist()
    ]


def splices(panel: Panel, moves: Moves) -> list[Finding]:
    """Two securities under one ticker: the level changes overnight and the day after is as calm as any.

    Beyond 20 sigma, between close and open, down by 35 % or up by a factor of e, and the bar's own range is at most
    5 % of the jump. After bad news a stock is anything but calm; a takeover is calm, but rarely above twice the price.
    Whatever the volume: it belongs to the other security.
    """
    with np.errstate(invalid="ignore"):
        spread = np.log(panel.high / panel.low)
        far = (moves.excess <= -_SPLICE_DOWN_MIN) | (moves.excess >= _SPLICE_UP_MIN)
        calm = spread <= _SPLICE_RANGE_MAX * np.abs(moves.excess)
        flags = (np.abs(moves.score) >= _SPLICE_SCORE_MIN) & far & calm & _mostly_gap(moves)
    at = np.flatnonzero(flags & (np.abs(moves.step) < _STEP_NONE))
    at = at[~_is_way_back(panel, moves, at)]
    return [
        Finding(
            Kind.SPLICE,
            Grade.WARNING,
            panel.name(i),
            as_date(panel.day[i]),
            as_date(panel.day[i]),
            1,
            f"opens {percent(moves.gap[i])} from the close before ({moves.score[i]:+.0f} sigma) and then moves within "
            f"{percent(spread[i])}: perhaps another security under this ticker{panel.detail(i)}",
            abs(float(moves.score[i])) / _SPLICE_SCORE_MIN,
        )
        for i in at.tolist()
    ]


def extreme_wicks(panel: Panel, moves: Moves) -> list[Finding]:
    """A high or low far outside what the rest of the bar and the market did.

    wick = log(high / max(open, close)) or log(min(open, close) / low), in sigmas, over the moment's own wildness: the
    90th percentile of all symbols' wicks to that side against its median over time, 1 at least, so that a flash crash
    that took the market along counts as one. Beyond 12, 10 % and twice the bar's own move. Of the wicks in four daily
    files one in a thousand is beyond 4 and one in ten thousand beyond 6 to 9. A wick on less than half of the
    usual volume is not excused by the market, for a crash is never quiet; one on the volume of news is news.
    """
    up = np.log(panel.high / np.maximum(panel.open, panel.close))
    down = np.log(np.minimum(panel.open, panel.close) / panel.low)
    with np.errstate(invalid="ignore"):
        quiet = moves.volume_ratio < _WICK_QUIET
        up_score, down_score = (_wick_score(panel, wick / moves.sigma, quiet) for wick in (up, down))
        score, wick = np.maximum(up_score, down_score), np.where(up_score > down_score, up, down)
        moved = np.nan_to_num(np.abs(moves.excess))
        flags = (score >= _WICK_SCORE_MIN) & (wick >= _WICK_MIN) & (wick >= 2 * moved) & ~news_volume(moves, score)
    found = []
    for i in np.flatnonzero(flags).tolist():
        day, is_high = as_date(panel.day[i]), up_score[i] > down_score[i]
        extreme, body = (panel.high[i], "above") if is_high else (panel.low[i], "below")
        evidence = (
            f"{panel.clock(i)}{'high' if is_high else 'low'} {extreme:g} is {percent(up[i] if is_high else -down[i])} "
            f"{body} open {panel.open[i]:g} and close {panel.close[i]:g}, {score[i]:.0f} sigma{panel.detail(i)}"
        )
        strength = float(score[i]) / _WICK_SCORE_MIN
        found.append(Finding(Kind.EXTREME_WICK, Grade.WARNING, panel.name(i), day, day, 1, evidence, strength))
    return found


def bad_opens(panel: Panel, moves: Moves) -> list[Finding]:
    """An open far from both the close before and the bar's own close, on the same side of both.

    distance = min(|log(open / close before)|, |log(open / close)|), beyond 12 sigma (in the market's stress) and 10 %:
    the reasons of `extreme_wicks`.
    """
    back = np.log(panel.open / panel.close)
    with np.errstate(invalid="ignore"):
        distance = np.where(moves.gap * back > 0, np.minimum(np.abs(moves.gap), np.abs(back)), 0.0)
        score = distance / (moves.sigma * moves.stress)
        flags = (score >= _WICK_SCORE_MIN) & (distance >= _WICK_MIN) & ~news_volume(moves, score)
    return [
        Finding(
            Kind.BAD_PRINT,
            Grade.WARNING,
            panel.name(i),
            as_date(panel.day[i]),
            as_date(panel.day[i]),
            1,
            f"{panel.clock(i)}open {panel.open[i]:g} is {percent(moves.gap[i])} from the close before and "
            f"{percent(back[i])} from the close {panel.close[i]:g}, {score[i]:.0f} sigma{panel.detail(i)}",
            float(score[i]) / _WICK_SCORE_MIN,
        )
        for i in np.flatnonzero(flags).tolist()
    ]


def _quiet_gaps(panel: Panel, moves: Moves) -> Ints:
    """Rows that `false_jumps` describes."""
    with np.errstate(invalid="ignore"):
        flags = (np.abs(moves.score) >= _JUMP_SCORE_MIN) & (np.abs(moves.excess) >= _JUMP_MOVE_MIN)
        flags &= np.abs(moves.step) < _STEP_NONE
    at = np.flatnonzero(flags & _mostly_gap(moves) & ordinary_volume(moves))
    stays: Ints = at[(_bars_until_undone(panel, moves, at) == 0) & ~_is_way_back(panel, moves, at)]
    return stays


def _jump(panel: Panel, moves: Moves, i: int, kind: Kind, what: str) -> Finding:
    day, strength = as_date(panel.day[i]), abs(float(moves.score[i])) / _JUMP_SCORE_MIN
    evidence = (
        f"opens {percent(moves.gap[i])} from the close before, {moves.score[i]:+.0f} sigma against the market, "
        f"on {moves.volume_ratio[i]:.1f} times the usual volume, {what}{panel.detail(i)}"
    )
    return Finding(kind, Grade.WARNING, panel.name(i), day, day, 1, evidence, strength)


def _like(panel: Panel, i: int) -> str:
    if panel.split is not None and panel.split[i] not in (1.0, 0.0) and np.isfinite(panel.split[i]):
        return f"the split of {panel.split[i]:g} that the file's prices should not show"
    return "like a split that is not recorded"


def _mostly_gap(moves: Moves) -> Flags:
    with np.errstate(invalid="ignore"):
        return (moves.gap * moves.excess > 0) & (np.abs(moves.gap) >= _GAP_SHARE_MIN * np.abs(moves.excess))


def _bars_until_undone(panel: Panel, moves: Moves, at: Ints) -> Ints:
    """After how many bars each jump at rows `at` is undone; 0 when it is not."""
    jump, sums, bars = moves.excess[at], np.zeros(at.size), np.zeros(at.size, dtype=np.int64)
    for k in range(1, _REVERT_BARS + 1):
        leg = _beside(panel, moves.excess, at, k)
        sums = sums + leg
        with np.errstate(invalid="ignore"):
            undone = (np.abs(jump + sums) <= _REVERT_REST_MAX * np.abs(jump)) & (
                -leg * np.sign(jump) >= _REVERT_LEG_MIN * np.abs(jump)
            )
        bars[undone & (bars == 0)] = k
    return bars


def _is_way_back(panel: Panel, moves: Moves, at: Ints) -> Flags:
    """Whether the jump at each row undoes one of the bars before it."""
    jump, found, sums = moves.excess[at], np.zeros(at.size, dtype=bool), np.zeros(at.size)
    for k in range(1, _REVERT_BARS + 1):
        leg = _beside(panel, moves.excess, at, -k)
        sums = sums + leg
        with np.errstate(invalid="ignore"):
            found |= (np.abs(jump + sums) <= _REVERT_REST_MAX * np.abs(leg)) & (
                -leg * np.sign(jump) >= _REVERT_LEG_MIN * np.abs(jump)
            )
    return found


def _beside(panel: Panel, values: Floats, at: Ints, k: int) -> Floats:
    """Values k rows later (earlier when negative) in the same symbol; NaN where there is none."""
    other = np.clip(at + k, 0, len(panel) - 1)
    same = (at + k == other) & (panel.code[other] == panel.code[at])
    return np.where(same, values[other], np.nan)


def _wick_score(panel: Panel, sized: Floats, quiet: Flags) -> Floats:
    """Wicks in sigmas over how many times longer than usual the market's are at that moment, at least 1."""
    level = level_of_moment(panel, sized, 0.9)
    usual = float(np.median(level[level > 0])) if (level > 0).any() else 1.0
    return sized / np.where(quiet, 1.0, np.maximum(1.0, level / usual))
