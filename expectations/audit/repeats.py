"""Bars that are not news: repeated from the bar before, or from another symbol."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from expectations.audit.finding import EVERY, Finding, Grade, Kind, as_date, by_day, note, runs
from expectations.audit.panel import Flags, Panel

__all__ = ["copied_rows", "stale_bars"]

_TOGETHER_MIN = 5  # symbols that repeat themselves on one day: chance does not make an appointment
_RANGE_MIN = 0.005  # of the price: a narrower bar can come twice
_FLAT_CHANCE_MAX = 0.01  # for the whole file: that any of its rows stands still for so long
_VOLUME_MIN = 1_000  # shares; round lots of a hundred come twice
_NAMED = 6


def stale_bars(panel: Panel) -> list[Finding]:
    """Bars with the open, high, low and close of the bar before.

    A day on which five or more symbols repeat a bar at least 0.5 % wide is one finding for all of them. Alone, a bar
    is flagged when its volume of at least 1,000 shares is repeated too, or when a standstill is improbable for the
    symbol: k bars without a change in regular hours, with rows x (its share of such bars) ** k below 0.01. A bar
    without a change equals the one before, or has that one's close as its only price. The others are noted.
    """
    same = np.zeros(len(panel), dtype=bool)
    if len(panel) > 1:
        same[1:] = panel.code[1:] == panel.code[:-1]
        for prices in (panel.open, panel.high, panel.low, panel.close):
            same[1:] &= prices[1:] == prices[:-1]
    wide = same & (panel.high - panel.low >= _RANGE_MIN * panel.close)
    together = _together(panel, wide)
    twins = same & (panel.high > panel.low) & _repeats_volume(panel)
    frozen = _frozen(panel, same)
    found = _days(panel, wide & together)
    alone = (twins | frozen) & ~(wide & together)
    for first, last in runs(panel, alone):
        length = last - first + 1
        times = f", {length} times" if length > 1 else ""
        evidence = (
            f"{panel.clock(first)}open {panel.open[first]:g}, high {panel.high[first]:g}, low {panel.low[first]:g}, "
            f"close {panel.close[first]:g}, volume {panel.volume[first]:,.0f}: like the bar before{times}"
            f"{panel.detail(first)}"
        )
        found.append(
            Finding(
                Kind.STALE,
                Grade.WARNING,
                panel.name(first),
                as_date(panel.day[first]),
                as_date(panel.day[last]),
                length,
                evidence,
            )
        )
    rest = same & (panel.high > panel.low) & ~alone & ~(wide & together)
    return found + note(panel, Kind.STALE, rest, "bars with the prices of the bar before")


def copied_rows(panel: Panel) -> list[Finding]:
    """The same time, prices and volume under two symbols: one holds the other's data.

    Bars with a range and a volume of at least 1,000 shares; four prices and a volume do not coincide by chance. One
    finding for each pair of symbols.
    """
    at = np.flatnonzero((panel.high > panel.low) & (panel.volume >= _VOLUME_MIN))
    frame = pd.DataFrame(
        {
            "moment": panel.moment[at],
            "volume": panel.volume[at],
            "open": panel.open[at],
            "high": panel.high[at],
            "low": panel.low[at],
            "close": panel.close[at],
        }
    )
    doubled = frame.duplicated(["moment", "volume", "close"], keep=False)
    frame, at = frame[doubled], at[doubled.to_numpy()]
    pairs: dict[tuple[str, str], list[int]] = {}
    for rows in frame.groupby(list(frame.columns), sort=False).indices.values():
        for one, other in pairwise(sorted(np.asarray(rows).tolist())):
            i, j = int(at[one]), int(at[other])
            if panel.name(i) != panel.name(j):
                pairs.setdefault((panel.name(i), panel.name(j)), []).append(j)
    return [
        Finding(
            Kind.COPIED_ROWS,
            Grade.CRITICAL,
            second,
            as_date(panel.day[rows].min()),
            as_date(panel.day[rows].max()),
            len(rows),
            f"{len(rows)} bars have the prices and volume of {first}, the first {panel.clock(rows[0])}"
            f"close {panel.close[rows[0]]:g}, volume {panel.volume[rows[0]]:,.0f}",
        )
        for (first, second), rows in pairs.items()
    ]


def _repeats_volume(panel: Panel) -> Flags:
    same = np.zeros(len(panel), dtype=bool)
    same[1:] = (panel.volume[1:] == panel.volume[:-1]) & (panel.volume[1:] >= _VOLUME_MIN)
    return same


def _together(panel: Panel, flags: Flags) -> Flags:
    """Rows of a moment at which at least _TOGETHER_MIN symbols are flagged."""
    moments, inverse = np.unique(panel.moment[flags], return_inverse=True)
    many = np.bincount(inverse, minlength=moments.size) >= _TOGETHER_MIN
    found = np.zeros(len(panel), dtype=bool)
    found[flags] = many[inverse]
    return found


def _days(panel: Panel, flags: Flags) -> list[Finding]:
    found = []
    for when, rows in by_day(panel, flags):
        names = sorted({panel.name(row) for row in rows.tolist()})
        shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        evidence = f"{len(names)} symbols repeat the prices of the bar before: {shown}"
        found.append(Finding(Kind.STALE, Grade.CRITICAL, EVERY, when, when, rows.size, evidence))
    return found


def _frozen(panel: Panel, same: Flags) -> Flags:
    """Bars that stand still for longer than the symbol's own habit allows."""
    still = same.copy()
    still[1:] |= (
        (panel.code[1:] == panel.code[:-1]) & (panel.high[1:] == panel.low[1:]) & (panel.high[1:] == panel.close[:-1])
    )
    still &= (panel.volume > 0) & panel.regular
    if not still.any():
        return still
    changes = ~still
    part = np.cumsum(changes) - 1
    length = np.bincount(part) - 1  # how many still bars follow the bar that began the part
    bars = np.bincount(panel.code, minlength=len(panel.names))
    quiet = np.bincount(panel.code, weights=still, minlength=len(panel.names))
    own = length[part]
    share = (quiet[panel.code] - own + 1) / (bars[panel.code] - own + 2)
    frozen: Flags = still & (len(panel) * share**own < _FLAT_CHANCE_MAX)
    return frozen
