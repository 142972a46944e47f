"""`onepath data`: what is in a file of bars, and what seems wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.reading import as_json

if TYPE_CHECKING:
    from expectations.audit.finding import Finding
    from expectations.audit.known import Comparison, Known
    from expectations.audit.report import Audit

__all__ = ["data"]

data = typer.Typer(help="Files of bars.", no_args_is_help=True)


@data.callback()
def _group() -> None:
    """Files of bars."""


@data.command()
def audit(
    file: Annotated[Path, typer.Argument(help="Parquet file of daily or intraday bars.", show_default=False)],
    known: Annotated[
        Path | None,
        typer.Option(help="CSV of known defects (file, symbol, date, kind, note) to compare with.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document instead of a screen.")] = False,
) -> None:
    """List suspected defects of a bar file: symbol, date, kind, evidence. A report: it exits with 0 whatever it finds.

    Missing rows, impossible values, repeats, unrecorded or doubled splits, bad prints. Suspects are flagged up to five
    in 100,000 rows, the strongest first; weaker ones and usual looseness are notes.
    """
    from expectations.audit.known import compare, load_known
    from expectations.audit.report import audit_file

    listed = None if known is None else load_known(known)
    found = audit_file(file)
    comparison = None if listed is None else compare(found, listed, file.name)
    if json:
        typer.echo(as_json(_document(file, found, comparison)))
        return

    from rich.console import Console

    from flows.cli.dataview import audit_view

    console = Console(highlight=False)
    for part in audit_view(file, found, comparison):
        console.print(part)


def _document(file: Path, found: Audit, comparison: Comparison | None) -> dict[str, object]:
    from expectations.audit.report import FLAGS_PER_100K_MAX

    return {
        "file": str(file),
        "bars": "daily" if found.is_daily else "intraday",
        "rows": found.rows,
        "symbols": found.symbols,
        "first": found.first,
        "last": found.last,
        "flags": len(found.flags),
        "flags_per_100k_rows": round(found.flags_per_100k, 3),
        "flags_per_100k_rows_max": FLAGS_PER_100K_MAX,
        "weaker_suspects_among_the_notes": len(found.weaker),
        "findings": [_finding(each) for each in found.flags],
        "notes": [_finding(each) for each in found.notes],
        "known": None if comparison is None else _compared(comparison),
    }


def _finding(each: Finding) -> dict[str, object]:
    """`strength` is null where chance has no part in it."""
    return {
        "kind": each.kind,
        "severity": each.grade,
        "symbol": each.symbol,
        "date": each.first,
        "last": each.last,
        "rows": each.rows,
        "strength": each.strength,
        "evidence": each.evidence,
    }


def _compared(comparison: Comparison) -> dict[str, object]:
    return {
        "recall": comparison.recall,
        "by_kind": {kind: {"found": found, "listed": listed} for kind, (found, listed) in comparison.by_kind().items()},
        "found": [_line(each) for each in comparison.found],
        "as_another_kind": [_line(each) for each in comparison.as_another_kind],
        "missed": [_line(each) for each in comparison.missed],
        "outside_the_file": [_line(each) for each in comparison.outside],
        "without_a_date": [_line(each) for each in comparison.undated],
        "unlisted": [_finding(each) for each in comparison.unlisted],
    }


def _line(each: Known) -> dict[str, object]:
    return {"symbol": each.symbol, "date": each.date, "kind": each.kind, "note": each.note}
