"""`onepath verify`: whether the invariants hold on this ledger and this broker. Exit code 1 when one does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.atdesk import at_desk
from flows.cli.reading import HomeOption, as_json, settings_of

if TYPE_CHECKING:
    from desk.verify import Violation
    from tasks.office import Office

__all__ = ["verify"]

_SETTLE_S = 2.0


def verify(
    json: Annotated[bool, typer.Option("--json", help="One JSON document instead of a screen.")] = False,
    home: HomeOption = None,
) -> None:
    """Check the invariants on ledger and broker; nothing is changed. Exit code 1 when one is violated, each by name."""
    with at_desk(settings_of(home)) as desk:
        found, read = _lasting(desk)
        account = desk.account
    if json:
        typer.echo(as_json({"account": account, "read": read, "violations": found}))
    else:
        _show(account, read, found)
    if found:
        raise typer.Exit(1)


def _lasting(desk: Office) -> tuple[list[Violation], dict[str, int]]:
    """What is violated in two readings: between an order and its fill, ledger and broker may differ for a moment."""
    from desk.evidence import gather
    from desk.verify import violations

    seen = gather(desk.ledger, desk.broker, account=desk.account)
    found = violations(seen)
    if found:
        desk.waiter.wait(_SETTLE_S)
        seen = gather(desk.ledger, desk.broker, account=desk.account)
        again = violations(seen)
        before = {(each.invariant, each.what) for each in found}
        found = [each for each in again if (each.invariant, each.what) in before]
    read = {
        "orders": len(seen.books.orders),
        "fills": len(seen.books.fills),
        "decision sets": len(seen.books.decision_sets),
        "orders at the broker": len(seen.broker_orders),
        "positions": len(seen.positions),
    }
    return found, read


def _show(account: str, read: dict[str, int], found: list[Violation]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from desk.verify import CHECKED

    console = Console(highlight=False)
    console.print(f"account {account}: {', '.join(f'{count} {name}' for name, count in read.items())}", soft_wrap=True)
    checked = ", ".join(map(str, CHECKED))
    if not found:
        console.print(f"[bold green]no violation[/] of invariants {checked}")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("invariant", "what", "found", "needed"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "invariant" else "left")
    for each in found:
        table.add_row(str(each.invariant), escape(each.what), escape(each.found), escape(each.needed))
    console.print(table)
    console.print(f"[bold red]{len(found)} violation{'' if len(found) == 1 else 's'}[/] of invariants {checked}")
