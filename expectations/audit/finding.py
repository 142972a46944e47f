"""What an audit says: one finding per suspected defect, and how grave it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from expectations.audit.panel import Panel

__all__ = ["EVERY", "FINDINGS_PER_KIND_MAX", "Finding", "Grade", "Kind", "as_date", "by_day", "capped", "note", "runs"]

EVERY = "*"  # the symbol of a finding that concerns the whole file
FINDINGS_PER_KIND_MAX = 1_000  # a file broken throughout is told once, not a million times
_EPOCH = date(1970, 1, 1)

Flags = npt.NDArray[np.bool_]


class Grade(StrEnum):
    CRITICAL = "critical"  # cannot be right, whatever the market did
    WARNING = "warning"  # could be right, but something else is far likelier
    NOTE = "note"  # usual looseness of real files, or a suspect weaker than the alarm rate allows: no flag


class Kind(StrEnum):
    """What is wrong. The words are also those of lists of known defects."""

    TYPE = "type"
    ORDER = "order"
    DUPLICATE = "duplicate"
    MISSING_VALUE = "missing_value"
    BAD_PRICE = "bad_price"
    BAD_VOLUME = "bad_volume"
    INCONSISTENT_BAR = "inconsistent_bar"
    CLOSED_DAY = "closed_day"
    ZERO_VOLUME = "zero_volume"
    MISSING_SESSION = "missing_session"
    THIN_DATE = "thin_date"
    GAP = "gap"
    MISSING_BARS = "missing_bars"
    WRONG_ADJUSTMENT = "wrong_adjustment"
    SCALE = "scale"
    BAD_PRINT = "bad_print"
    EXTREME_WICK = "extreme_wick"
    DOUBTFUL_MOVE = "doubtful_move"
    SPLICE = "splice"
    STALE = "stale"
    COPIED_ROWS = "copied_rows"


@dataclass(frozen=True, slots=True)
class Finding:
    """One suspected defect: a bar, a run of bars of one symbol, or a day of the whole file."""

    kind: Kind
    grade: Grade
    symbol: str  # EVERY: the whole file
    first: date  # New York calendar day
    last: date
    rows: int  # how many rows it concerns; 0 when rows are missing
    evidence: str  # one line, with values and units
    strength: float = math.inf  # how many times beyond its bound; infinite where chance has no part in it

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise ValueError(f"finding {self.kind} of {self.symbol}: ends {self.last}, before {self.first}")

    @property
    def is_flag(self) -> bool:
        return self.grade is not Grade.NOTE


def as_date(day: int) -> date:
    """Days since 1970-01-01 as a date."""
    return _EPOCH + timedelta(days=int(day))


def runs(panel: Panel, flags: Flags) -> Iterator[tuple[int, int]]:
    """Flagged rows that follow each other within a symbol, as (first row, last row) of the panel."""
    at = np.flatnonzero(flags)
    if at.size == 0:
        return
    apart = (np.diff(at) > 1) | (panel.code[at[1:]] != panel.code[at[:-1]])
    heads = np.append(0, np.flatnonzero(apart) + 1)
    tails = np.append(heads[1:], at.size) - 1
    yield from zip(at[heads].tolist(), at[tails].tolist(), strict=True)


def by_day(panel: Panel, flags: Flags) -> Iterator[tuple[date, npt.NDArray[np.intp]]]:
    """Each day with flagged rows, oldest first, and those rows."""
    at = np.flatnonzero(flags)
    at = at[np.argsort(panel.day[at], kind="stable")]
    days, begins = np.unique(panel.day[at], return_index=True)
    for day, rows in zip(days.tolist(), np.split(at, begins[1:]), strict=False):
        yield as_date(day), rows


def capped(findings: Sequence[Finding]) -> list[Finding]:
    """At most FINDINGS_PER_KIND_MAX; the last says how many more there were."""
    if len(findings) <= FINDINGS_PER_KIND_MAX:
        return list(findings)
    shown, rest = list(findings[: FINDINGS_PER_KIND_MAX - 1]), findings[FINDINGS_PER_KIND_MAX - 1 :]
    shown.append(
        Finding(
            kind=rest[0].kind,
            grade=rest[0].grade,
            symbol=EVERY,
            first=min(each.first for each in rest),
            last=max(each.last for each in rest),
            rows=sum(each.rows for each in rest),
            evidence=f"and {len(rest):,} more such findings, not listed",
        )
    )
    return shown


def note(panel: Panel, kind: Kind, flags: Flags, what: str) -> list[Finding]:
    """One line for all flagged rows together, naming the first; nothing when there is none."""
    at = np.flatnonzero(flags)
    if at.size == 0:
        return []
    first = int(at[0])
    symbols = np.unique(panel.code[at]).size
    evidence = f"{what}: {at.size:,}, symbols: {symbols:,}, first {panel.name(first)} {as_date(panel.day[first])}"
    days = panel.day[at]
    return [Finding(kind, Grade.NOTE, EVERY, as_date(days.min()), as_date(days.max()), at.size, evidence)]
