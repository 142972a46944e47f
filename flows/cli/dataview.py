"""An audit of a bar file, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from expectations.audit.finding import Finding, Grade, Kind
from expectations.audit.known import Comparison, Known
from expectations.audit.report import FLAGS_PER_100K_MAX, Audit

__all__ = ["audit_view"]

SHOWN_PER_KIND = 60
STYLES = {Grade.CRITICAL: "bold red", Grade.WARNING: "yellow", Grade.NOTE: "dim"}


def audit_view(file: Path, audit: Audit, comparison: Comparison | None) -> Iterator[RenderableType]:
    """Parts to print one below the other: summary, findings by kind, comparison with what is known."""
    counts = {grade: sum(each.grade is grade for each in audit.findings) for grade in Grade}
    yield (
        f"[bold]{escape(file.name)}[/] · {audit.rows:,} {'daily' if audit.is_daily else 'intraday'} bars · "
        f"{audit.symbols:,} symbols · {audit.first} to {audit.last}"
    )
    yield (
        f"{len(audit.flags):,} flags, {audit.flags_per_100k:.2f} per 100,000 rows · "
        f"{counts[Grade.CRITICAL]:,} critical, {counts[Grade.WARNING]:,} warning · {counts[Grade.NOTE]:,} notes"
    )
    if audit.weaker:
        yield (
            f"[dim]{len(audit.weaker):,} weaker suspects are notes: the strongest are flagged, up to "
            f"{FLAGS_PER_100K_MAX:g} flags per 100,000 rows[/]"
        )
    if audit.findings:
        yield _findings(audit.findings)
    if comparison is not None:
        yield from _comparison(comparison)


def _findings(findings: Sequence[Finding]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("symbol", "date", "severity", "evidence"):
        table.add_column(name, overflow="fold", no_wrap=name == "severity")
    for kind in Kind:
        same = [each for each in findings if each.kind is kind]
        if same:
            table.add_row(f"[bold]{kind}[/]")
        for each in same[:SHOWN_PER_KIND]:
            table.add_row(
                f"  {escape(each.symbol)}",
                _days(each),
                f"[{STYLES[each.grade]}]{each.grade}[/]",
                f"[dim]{escape(each.evidence)}[/]" if each.grade is Grade.NOTE else escape(each.evidence),
            )
        if len(same) > SHOWN_PER_KIND:
            table.add_row("", "", "", f"[dim]and {len(same) - SHOWN_PER_KIND:,} more: see them with --json[/]")
    return table


def _comparison(comparison: Comparison) -> Iterator[RenderableType]:
    if comparison.recall is None:
        yield "[bold]known defects[/]: none with a date within this file"
    else:
        kinds = ", ".join(f"{kind} {found} of {listed}" for kind, (found, listed) in comparison.by_kind().items())
        yield f"[bold]known defects[/]: {100 * comparison.recall:.0f} % found: {kinds}"
    for title, lines in (
        ("missed", comparison.missed),
        ("found under another name", comparison.as_another_kind),
        ("outside the file's days", comparison.outside),
        ("without a date, not looked for", comparison.undated),
    ):
        if lines:
            yield f"{title}: {escape(_named(lines))}"
    yield f"flags not listed: {len(comparison.unlisted):,}"


def _days(each: Finding) -> str:
    return f"{each.first}" if each.first == each.last else f"{each.first}\n- {each.last}"


def _named(lines: Sequence[Known]) -> str:
    return ", ".join(f"{each.symbol} {each.date or ''} {each.kind}".replace("  ", " ") for each in lines)
