"""Where everything stands, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from desk.ledger.records import RunState, Verdict
from desk.ledger.standing import StageStanding, Standing
from desk.report.words import NOTHING, clock_time, day_time, duration, number

if TYPE_CHECKING:
    from flows.cli.status import Service

__all__ = ["status_view"]

EVIDENCE_MAX = 5
STYLES = {
    RunState.RAN: "green",
    RunState.RUNNING: "cyan",
    RunState.SKIPPED: "dim",
    RunState.EXPECTED: "dim",
    RunState.FAILED: "bold red",
    RunState.MISSED: "bold red",
}


def status_view(
    found: Standing, services: Sequence[Service], positions: int | None, reasons: Sequence[str]
) -> Iterator[RenderableType]:
    """Parts to print one below the other: header, services, stages, the rest, the verdict."""
    account = found.account
    yield (
        f"[bold]{escape(account.venue)}[/] · account {escape(account.account)} · {day_time(found.as_of)} New York "
        f"by the {found.clock}'s clock"
    )
    if services:
        yield " · ".join(
            f"[{'green' if each.is_up else 'bold red'}]{each.name} {'up' if each.is_up else 'down'}[/]"
            for each in services
        )
    yield _stages(found.stages)
    yield _rest(found, positions)
    if not reasons:
        yield "[bold green]all is well[/]"
        return
    yield f"[bold red]{len(reasons)} to look at[/]"
    for reason in reasons:
        yield f"[red]•[/] {escape(reason)}"


def _stages(stages: Sequence[StageStanding]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("stage", "last run", "state", "when", "attempts", "evidence or reason", "next due"):
        table.add_column(name, overflow="fold", no_wrap=name in ("stage", "last run", "state", "next due"))
    for each in stages:
        last = each.last
        due = day_time(each.next_due_at) if each.next_due_at else "unknown"
        if each.overdue:
            due = f"[bold red]overdue since {clock_time(each.overdue[0].due_at)}[/]"
        if last is None:
            table.add_row(each.stage, NOTHING, "never ran", NOTHING, NOTHING, NOTHING, due)
            continue
        table.add_row(
            each.stage,
            str(last.session),
            f"[{STYLES[last.state]}]{last.state.value}[/]",
            clock_time(last.ended_at or last.started_at),
            str(last.attempts),
            escape(last.reason or _evidence(last.evidence)),
            due,
        )
    return table


def _rest(found: Standing, positions: int | None) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    cycle = found.cycle
    if cycle is None:
        grid.add_row("monitor", "no cycle yet")
    else:
        style = "green" if cycle.verdict is Verdict.OK else "bold red"
        age = NOTHING if found.cycle_age_s is None else f"{duration(found.cycle_age_s)} ago"
        expected = "unread" if cycle.positions_expected is None else cycle.positions_expected
        quote_age = "" if cycle.quote_age_max_s is None else f", oldest quote {cycle.quote_age_max_s:.1f} s"
        grid.add_row(
            "monitor",
            f"[{style}]{cycle.verdict.value}[/] {day_time(cycle.cycle_at)}, {age}: "
            f"{cycle.positions_evaluated} of {expected} positions, {cycle.stops_verified} stops seen{quote_age}",
        )
    held = ", ".join(sorted(trade.symbol for trade in found.open_trades)[:20])
    at_broker = "" if positions is None else f"; {positions} positions at the broker"
    grid.add_row("open", f"{len(found.open_trades)} trades{f': {escape(held)}' if held else ''}{at_broker}")
    state = found.trading_state
    grid.add_row("trading", f"{state.state.value} ({escape(state.reason)}, {escape(state.set_by)})")
    grid.add_row("alerts", f"{len(found.critical)} critical, {found.undelivered} undelivered")
    grid.add_row("books", f"last closed {day_time(found.last_closing)}" if found.last_closing else "never closed")
    return grid


def _evidence(evidence: Mapping[str, object] | None) -> str:
    told = [f"{name} {number(value)}" for name, value in sorted((evidence or {}).items())]
    more = f" and {len(told) - EVIDENCE_MAX} more" if len(told) > EVIDENCE_MAX else ""
    return ", ".join(told[:EVIDENCE_MAX]) + more
