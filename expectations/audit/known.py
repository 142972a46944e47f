"""How much of a list of known defects an audit finds, and what it finds beyond."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from desk.errors import BadInput
from expectations.audit.finding import Finding
from expectations.audit.report import Audit

__all__ = ["Comparison", "Known", "compare", "load_known"]

_COLUMNS = ("file", "symbol", "date", "kind", "note")


@dataclass(frozen=True, slots=True)
class Known:
    """A line of the list. `symbol` "*": every symbol; `date` None: no single day, so it cannot be looked for."""

    file: str
    symbol: str
    date: date | None
    kind: str
    note: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Known defects of one file beside its audit. Recall counts those with a date within the file's range."""

    found: tuple[Known, ...]
    missed: tuple[Known, ...]
    as_another_kind: tuple[Known, ...]  # of the found: flagged, but under another name
    outside: tuple[Known, ...]  # dated before the file's first or after its last day: nothing to find
    undated: tuple[Known, ...]
    unlisted: tuple[Finding, ...]  # flags that match no line

    @property
    def recall(self) -> float | None:
        """Share of the findable that was found; None when there is nothing to find."""
        findable = len(self.found) + len(self.missed)
        return len(self.found) / findable if findable else None

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """Found and findable of each kind."""
        counts: dict[str, tuple[int, int]] = {}
        for each, hit in [*((known, 1) for known in self.found), *((known, 0) for known in self.missed)]:
            found, findable = counts.get(each.kind, (0, 0))
            counts[each.kind] = found + hit, findable + 1
        return dict(sorted(counts.items()))


def load_known(path: Path) -> list[Known]:
    """Read a CSV list with the columns file, symbol, date, kind and note. Raises BadInput."""
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise BadInput(f"{path}: no column {', '.join(missing)}; give a CSV with {', '.join(_COLUMNS)}")
            return [_known(path, line, row) for line, row in enumerate(reader, start=2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: not a readable CSV file ({error}); give a list of known defects") from error


def compare(audit: Audit, known: Sequence[Known], file: str) -> Comparison:
    """`file`: the name under which the list speaks of the audited file.

    A line is found by a flag of its symbol that begins on its day, or that spans its day and is of its kind.
    """
    lines = [each for each in known if each.file == file]
    undated = tuple(each for each in lines if each.date is None)
    outside = tuple(each for each in lines if each.date and not audit.first <= each.date <= audit.last)
    findable = [each for each in lines if each.date and audit.first <= each.date <= audit.last]
    hits = {each: [flag for flag in audit.flags if _finds(flag, each)] for each in findable}
    used = {id(flag) for flags in hits.values() for flag in flags}
    return Comparison(
        found=tuple(each for each in findable if hits[each]),
        missed=tuple(each for each in findable if not hits[each]),
        as_another_kind=tuple(
            each for each in findable if hits[each] and not any(flag.kind == each.kind for flag in hits[each])
        ),
        outside=outside,
        undated=undated,
        unlisted=tuple(flag for flag in audit.flags if id(flag) not in used),
    )


def _finds(flag: Finding, known: Known) -> bool:
    if flag.symbol != known.symbol or known.date is None:
        return False
    return flag.first == known.date or (flag.kind == known.kind and flag.first <= known.date <= flag.last)


def _known(path: Path, line: int, row: dict[str, str | None]) -> Known:
    values = {name: (row[name] or "").strip() for name in _COLUMNS}
    try:
        day = date.fromisoformat(values["date"]) if values["date"] else None
    except ValueError as error:
        raise BadInput(
            f"{path}: line {line} has date {values['date']}; give it as YYYY-MM-DD or leave it out"
        ) from error
    return Known(values["file"], values["symbol"], day, values["kind"], values["note"])
