"""The audit of a panel or a file: all detectors, in order, and what they found together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from expectations.audit import adjustment, coverage, holes, prints, repeats, values
from expectations.audit.coverage import Calendar, calendar_of, coverage_of
from expectations.audit.finding import Finding, Grade, Kind, as_date, capped
from expectations.audit.load import load
from expectations.audit.moves import Moves, moves_of
from expectations.audit.panel import Panel, daily_of

__all__ = ["Audit", "audit_file", "audit_panel"]

Detector = Callable[[Panel, Moves], list[Finding]]

ROW_CHECKS: tuple[Callable[[Panel], list[Finding]], ...] = (
    values.missing_values,
    values.bad_prices,
    values.bad_volumes,
    values.inconsistent_bars,
    values.duplicates,
    values.disorder,
    values.zero_volumes,
)
# On daily bars, also on those made of intraday bars. The first that finds something about a symbol's day has it.
JUMP_CHECKS: tuple[Detector, ...] = (
    adjustment.factor_at_odds,
    adjustment.disputed_steps,
    prints.reverting_closes,
    prints.unrecorded_splits,
    prints.splices,
    prints.false_jumps,
)
# On the bars as the file has them.
PRINT_CHECKS: tuple[Detector, ...] = (prints.bad_opens, prints.extreme_wicks)
# What chance has a part in is flagged up to this alarm rate, all other flags counted in: nobody reads a long list. The
# strongest come first, SUSPECTS_MIN at least, for files of a few thousand rows; weaker ones are notes with evidence.
FLAGS_PER_100K_MAX = 5.0
SUSPECTS_MIN = 3
_KINDS = tuple(Kind)


@dataclass(frozen=True, slots=True)
class Audit:
    """What is in a file and what seems wrong with it."""

    rows: int
    symbols: int
    first: date
    last: date
    is_daily: bool
    findings: tuple[Finding, ...]  # by kind, then day, then symbol

    @property
    def flags(self) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if each.is_flag)

    @property
    def notes(self) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if not each.is_flag)

    @property
    def weaker(self) -> tuple[Finding, ...]:
        """Suspects that are notes only because stronger ones use up the alarm rate."""
        return tuple(each for each in self.notes if math.isfinite(each.strength))

    @property
    def flags_per_100k(self) -> float:
        return 100_000 * len(self.flags) / self.rows


def audit_file(path: Path) -> Audit:
    """Read and audit a Parquet file of bars. Raises BadInput when it is not one."""
    loaded = load(path)
    return audit_panel(loaded.panel, loaded.findings)


def audit_panel(panel: Panel, before: Iterable[Finding] = ()) -> Audit:
    """All detectors on a panel with at least one row; `before` is what reading it already found."""
    calendar = calendar_of(panel)
    found = list(before)
    for check in ROW_CHECKS:
        found += check(panel)
    found += values.closed_days(panel, calendar.is_open(panel.day))
    found += _coverage(panel, calendar)
    clean = panel.clean()
    clean = clean.take(calendar.is_open(clean.day))
    if len(clean):
        found += repeats.stale_bars(clean) + repeats.copied_rows(clean)
        certain = sum(each.is_flag for each in found)
        found += _within_rate(_prices(clean), int(FLAGS_PER_100K_MAX * len(panel) / 100_000) - certain)
    return Audit(
        rows=len(panel),
        symbols=len(set(panel.names)),
        first=as_date(panel.day.min()),
        last=as_date(panel.day.max()),
        is_daily=panel.is_daily,
        findings=_sorted(found),
    )


def _coverage(panel: Panel, calendar: Calendar) -> list[Finding]:
    rows = panel.take(~panel.repeated)
    rows = rows.take(calendar.is_open(rows.day) & rows.regular)
    if len(rows) == 0 or calendar.days.size == 0:
        return []
    found = coverage_of(rows, calendar)
    return [
        *coverage.missing_sessions(found),
        *coverage.thin_dates(found),
        *coverage.gaps(rows, found),
        *(holes.bars_short(rows, calendar) if rows.is_daily else holes.market_holes(rows, calendar)),
    ]


def _prices(clean: Panel) -> list[Finding]:
    """Jumps between days and prints within bars: one finding for a symbol's day, the most telling one."""
    moves = moves_of(clean)
    days = clean if clean.is_daily else daily_of(clean)
    day_moves = moves if clean.is_daily else moves_of(days)
    jumps = [finding for check in JUMP_CHECKS for finding in check(days, day_moves)]
    if not clean.is_daily:
        jumps += prints.reverting_closes(clean, moves)
    printed = [finding for check in PRINT_CHECKS for finding in check(clean, moves)]
    return _one_a_day([*jumps, *printed])


def _one_a_day(findings: Sequence[Finding]) -> list[Finding]:
    """The first finding of each symbol and day, with the number of the others in its evidence."""
    kept: dict[tuple[str, date], Finding] = {}
    others: dict[tuple[str, date], int] = {}
    for each in findings:
        key = each.symbol, each.first
        others[key] = others.get(key, -1) + 1
        kept.setdefault(key, each)
    return [
        replace(each, evidence=f"{each.evidence}; {others[key]} more that day") if others[key] else each
        for key, each in kept.items()
    ]


def _within_rate(suspects: Sequence[Finding], allowed: int) -> list[Finding]:
    """The strongest stay flags, at least SUSPECTS_MIN of them; the others become notes."""
    ranked = sorted(suspects, key=lambda each: (-each.strength, each.first, each.symbol))
    count = max(allowed, SUSPECTS_MIN)
    return ranked[:count] + [replace(each, grade=Grade.NOTE) for each in ranked[count:]]


def _sorted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """By kind; flags before notes; at most so many of a kind."""
    ordered = sorted(findings, key=lambda each: (each.grade is Grade.NOTE, each.first, each.symbol, each.evidence))
    return tuple(finding for kind in _KINDS for finding in capped([each for each in ordered if each.kind is kind]))
