"""Bars that the whole market lacks within a session."""

from __future__ import annotations

import numpy as np
import pandas as pd

from expectations.audit.coverage import Calendar
from expectations.audit.finding import EVERY, Finding, Grade, Kind, as_date
from expectations.audit.moves import MARKET_MIN
from expectations.audit.panel import REGULAR_S, Ints, Panel

__all__ = ["bars_short", "market_holes"]

_SYMBOLS_MIN = 5  # fewer can be silent together
_CHANCE_MAX = 1e-6
_BUSIEST = 0.99
_SHORT_MAX = 0.98  # of the bars a full session has


def market_holes(panel: Panel, calendar: Calendar) -> list[Finding]:
    """Times of a session at which no symbol has an intraday bar although some always has; one finding a day.

    A slot of a day is a hole when none of the day's n >= 5 symbols has it and (1 - the slot's usual share) ** n is
    below one in a million. Slots before the open and after the session's own end, as on half days, are not expected.
    """
    rows = panel.regular & panel.priced
    step = _bar_seconds(panel)
    if not rows.any() or step == 0:
        return []
    days, at = np.unique(panel.day[rows], return_inverse=True)
    slots = (REGULAR_S[1] - REGULAR_S[0]) // step
    slot = (panel.second[rows] - REGULAR_S[0]) // step
    filled = np.bincount(at * slots + slot, minlength=days.size * slots).reshape(days.size, slots)
    pairs = np.unique(at * len(panel.names) + panel.code[rows]) // len(panel.names)
    symbols = np.bincount(pairs, minlength=days.size)
    place = np.searchsorted(calendar.days, days)
    known = np.isin(days, calendar.days)
    minutes = np.where(known, calendar.minutes[np.minimum(place, calendar.days.size - 1)], 390) if known.any() else 390
    expected = np.arange(slots)[None, :] * step < np.broadcast_to(minutes, days.size)[:, None] * 60
    share = (filled * expected).sum(axis=0) / np.maximum((expected * symbols[:, None]).sum(axis=0), 1)
    silent = np.maximum(1.0 - np.minimum(share, 1.0), 1e-12)
    hole = expected & (filled == 0) & (silent[None, :] ** symbols[:, None] < _CHANCE_MAX)
    hole &= (symbols >= _SYMBOLS_MIN)[:, None]
    found = []
    for i in np.flatnonzero(hole.any(axis=1)).tolist():
        day = as_date(days[i])
        text = f"none of {symbols[i]} symbols has a bar at {_spans(np.flatnonzero(hole[i]), step)} New York time"
        found.append(Finding(Kind.MISSING_BARS, Grade.CRITICAL, EVERY, day, day, 0, text))
    return found


def bars_short(panel: Panel, calendar: Calendar) -> list[Finding]:
    """Days on which even the busiest hundredth of the symbols has too few intraday bars in its daily bars.

    Full: what the 99th percentile of the symbols has on most days, in proportion to the session's length. Below 98 % of
    it some bars are missing for everyone, for the busiest of 20 or more symbols trade in each of them.
    """
    if panel.counted is None or len(panel) == 0:
        return []
    days, at = np.unique(panel.day, return_inverse=True)
    most = pd.Series(panel.counted).groupby(at).quantile(_BUSIEST).to_numpy()
    enough = np.bincount(at, minlength=days.size) >= MARKET_MIN
    known = np.isin(days, calendar.days)
    judged = enough & known
    if not judged.any():
        return []
    minutes = calendar.minutes[np.searchsorted(calendar.days, days[judged])]
    full = float(np.median(most[judged] / minutes))  # bars a minute
    found = []
    for i, length in zip(np.flatnonzero(judged).tolist(), minutes.tolist(), strict=True):
        if most[i] < _SHORT_MAX * full * length:
            day = as_date(days[i])
            text = f"the busiest symbols have {most[i]:.0f} of the session's {full * length:.0f} intraday bars"
            found.append(Finding(Kind.MISSING_BARS, Grade.CRITICAL, EVERY, day, day, 0, text))
    return found


def _bar_seconds(panel: Panel) -> int:
    """The commonest distance between neighbouring bars of a symbol and day; 0 when there is none."""
    near = (np.diff(panel.code) == 0) & (np.diff(panel.day) == 0)
    steps = np.diff(panel.second)[near]
    steps = steps[(steps > 0) & (steps <= REGULAR_S[1] - REGULAR_S[0])]
    return int(np.bincount(steps).argmax()) if steps.size else 0


def _spans(slots: Ints, step: int) -> str:
    """Neighbouring slots as spans of New York time: "09:30-09:40, 13:50-14:00"."""
    parts = np.split(slots, np.flatnonzero(np.diff(slots) > 1) + 1)
    return ", ".join(f"{_clock(part[0] * step)}-{_clock((part[-1] + 1) * step)}" for part in parts)


def _clock(offset: int) -> str:
    second = REGULAR_S[0] + int(offset)
    return f"{second // 3600:02d}:{second % 3600 // 60:02d}"
