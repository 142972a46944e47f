"""What a row must be by itself and beside its neighbours in the file: values, order, duplicates, hours."""

from __future__ import annotations

import numpy as np

from expectations.audit.finding import EVERY, Finding, Grade, Kind, as_date, by_day, note, runs
from expectations.audit.panel import Flags, Panel

__all__ = [
    "bad_prices",
    "bad_volumes",
    "closed_days",
    "disorder",
    "duplicates",
    "inconsistent_bars",
    "missing_values",
    "zero_volumes",
]

_LOOSE_MAX = 0.15  # of the price: free sources are off by a few percent here and there; files in use have 14 %
_ZERO_RUN_MIN = 3  # bars; a quiet day happens, three in a row are a halt or a hole


def missing_values(panel: Panel) -> list[Finding]:
    """Prices or volumes that are absent, NaN or infinite. No bound: a bar has all five."""
    columns = {"open": panel.open, "high": panel.high, "low": panel.low, "close": panel.close, "volume": panel.volume}
    absent = {name: ~np.isfinite(values) for name, values in columns.items()}
    return [
        _run(
            panel,
            Kind.MISSING_VALUE,
            first,
            last,
            "no finite " + ", ".join(name for name, flags in absent.items() if flags[first : last + 1].any()),
        )
        for first, last in runs(panel, np.logical_or.reduce(list(absent.values())))
    ]


def bad_prices(panel: Panel) -> list[Finding]:
    """Prices of zero or below. No bound: a share is never worth less than nothing, and nothing is not traded."""
    columns = {"open": panel.open, "high": panel.high, "low": panel.low, "close": panel.close}
    with np.errstate(invalid="ignore"):
        wrong = {name: values <= 0 for name, values in columns.items()}
    found = []
    for first, last in runs(panel, np.logical_or.reduce(list(wrong.values()))):
        named = (f"{name} {columns[name][first]:g}" for name, flags in wrong.items() if flags[first])
        found.append(_run(panel, Kind.BAD_PRICE, first, last, ", ".join(named)))
    return found


def bad_volumes(panel: Panel) -> list[Finding]:
    """Negative volumes, in shares."""
    with np.errstate(invalid="ignore"):
        flags = panel.volume < 0
    return [
        _run(panel, Kind.BAD_VOLUME, first, last, f"volume {panel.volume[first]:,.0f}")
        for first, last in runs(panel, flags)
    ]


def inconsistent_bars(panel: Panel) -> list[Finding]:
    """A high below, or a low above, another price of its bar.

    distance = max(open, close, low) / high - 1, or 1 - min(open, close, high) / low. Beyond 15 % of the price columns
    are mixed up; up to that, sources in use are careless (one has 894 such bars, 14 % at most): noted together.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        top = np.maximum(np.maximum(panel.open, panel.close), panel.low) / panel.high - 1.0
        bottom = 1.0 - np.minimum(np.minimum(panel.open, panel.close), panel.high) / panel.low
        distance = np.where(panel.priced, np.maximum(top, bottom), 0.0)
    wrong = distance > _LOOSE_MAX
    found = [
        _run(
            panel,
            Kind.INCONSISTENT_BAR,
            first,
            last,
            f"{panel.clock(first)}open {panel.open[first]:g}, high {panel.high[first]:g}, low {panel.low[first]:g}, "
            f"close {panel.close[first]:g}",
        )
        for first, last in runs(panel, wrong)
    ]
    loose = (distance > 1e-6) & ~wrong
    most = f"bars with open or close outside high and low by at most {100 * distance[loose].max(initial=0.0):.1f} %"
    return found + note(panel, Kind.INCONSISTENT_BAR, loose, most)


def zero_volumes(panel: Panel) -> list[Finding]:
    """Bars without a share traded. Three in a row are flagged: a halt, a listing that had not begun, or a hole.
    Single ones happen in quiet symbols and are noted."""
    flags = panel.volume == 0
    found, single = [], flags.copy()
    for first, last in runs(panel, flags):
        length = last - first + 1
        if length >= _ZERO_RUN_MIN:
            single[first : last + 1] = False
            moved = int(np.count_nonzero(panel.high[first : last + 1] != panel.low[first : last + 1]))
            text = f"{length} bars without volume, {moved} of them with a price range{panel.detail(first)}"
            found.append(_run(panel, Kind.ZERO_VOLUME, first, last, text, Grade.WARNING))
    return found + note(panel, Kind.ZERO_VOLUME, single, "single bars without volume")


def duplicates(panel: Panel) -> list[Finding]:
    """Two rows for one symbol and time, whether they agree or not: the second would count twice."""
    flags = panel.repeated
    alike = np.zeros(len(panel), dtype=bool)
    if len(panel) > 1:
        alike[1:] = True
        for values in (panel.open, panel.high, panel.low, panel.close, panel.volume):
            alike[1:] &= values[1:] == values[:-1]
    return [
        _run(
            panel,
            Kind.DUPLICATE,
            first,
            last,
            f"{panel.clock(first)}row {panel.row[first]:,} repeats the time of row {panel.row[first - 1]:,} with "
            f"{'the same values' if alike[first] else 'other values'}{panel.detail(first)}",
        )
        for first, last in runs(panel, flags)
    ]


def disorder(panel: Panel) -> list[Finding]:
    """Rows whose time is before that of the symbol's row above them in the file: one finding for the file."""
    places = np.zeros(len(panel), dtype=bool)
    if len(panel) > 1:
        places[1:] = (panel.code[1:] == panel.code[:-1]) & (np.diff(panel.row) < 0)
    at = np.flatnonzero(places)
    if at.size == 0:
        return []
    first = int(at[0])
    days = panel.day[at]
    evidence = (
        f"{at.size:,} rows stand before an earlier row of their symbol, the first is "
        f"{panel.name(first)} {as_date(panel.day[first])}, row {panel.row[first]:,}"
    )
    return [Finding(Kind.ORDER, Grade.CRITICAL, EVERY, as_date(days.min()), as_date(days.max()), at.size, evidence)]


def closed_days(panel: Panel, open_days: Flags) -> list[Finding]:
    """Rows of days on which the exchange was closed, by day. `open_days`: per row, whether it was open."""
    found = []
    for when, rows in by_day(panel, ~open_days):
        names = np.unique(panel.code[rows])
        symbol = panel.names[names[0]] if names.size == 1 else EVERY
        evidence = f"{rows.size} rows of {names.size} symbols on {when:%A}, no session of the exchange"
        found.append(Finding(Kind.CLOSED_DAY, Grade.CRITICAL, symbol, when, when, rows.size, evidence))
    return found


def _run(panel: Panel, kind: Kind, first: int, last: int, evidence: str, grade: Grade = Grade.CRITICAL) -> Finding:
    days = as_date(panel.day[first]), as_date(panel.day[last])
    return Finding(kind, grade, panel.name(first), *days, last - first + 1, evidence)
