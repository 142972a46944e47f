"""`onepath flatten` and `onepath reconcile`: out of everything, and whether ledger and broker agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from desk.portfolio import shares
from flows.cli.atdesk import ByOption, at_desk, whoever
from flows.cli.reading import HomeOption, settings_of

if TYPE_CHECKING:
    from rich.console import Console

    from tasks.flattening import Flattened, Standing

__all__ = ["flatten", "reconcile"]


def flatten(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    by: ByOption = None,
    home: HomeOption = None,
) -> None:
    """Halt trading, cancel every entry, sell every position the ledger knows, and follow the sales to their end.

    Trading stays HALTED: onepath resume --by NAME lets it go on. Exit code 1 when anything is left.
    """
    from rich.console import Console

    from tasks.flattening import flatten as get_out
    from tasks.flattening import standing

    who, console = whoever(by), Console(highlight=False)
    with at_desk(settings_of(home)) as desk:
        found, clock = standing(desk), desk.broker.clock()
        console.print(f"[bold]{desk.broker.venue}[/] · account {desk.account}", soft_wrap=True)
        if not (found.trades or found.entries):
            told = [
                f"{symbol}: {shares(quantity)} shares that no trade here bought" for symbol, quantity in found.others
            ]
            console.print("\n".join(told) if told else "nothing is held and nothing is under way")
            raise typer.Exit(1 if told else 0)
        _show_standing(console, found)
        if not clock.is_open:
            console.print("[yellow]the market is closed: stops are cancelled now, sales wait for the open[/]")
        if not yes:
            typer.confirm("Halt trading, cancel the entries and sell all of this at the market?", abort=True)
        outcome = get_out(desk, by=who)
    _show_outcome(console, outcome)
    if outcome.left:
        raise typer.Exit(1)


def reconcile(home: HomeOption = None) -> None:
    """Bring the ledger up to the broker's evidence and print each difference. Exit code 1 when one is left."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    with at_desk(settings_of(home)) as desk:
        before = desk.reconciler.compare(desk.broker.clock().now)
        desk.orders.resolve(patient=False)
        books = desk.orders.reconcile()
        after = desk.reconciler.compare(desk.broker.clock().now)
    for difference in before:
        if difference not in after:
            console.print(f"[green]healed[/] {escape(difference)}")
    for difference in after:
        console.print(f"[bold red]left[/]   {escape(difference)}")
    held = f"{len(books.positions)} positions, {len(books.orders)} live orders"
    console.print(
        f"account {desk.account}: {held}, {len(after) or 'no'} difference{'' if len(after) == 1 else 's'} left"
    )
    if after:
        raise typer.Exit(1)


def _show_standing(console: Console, found: Standing) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("symbol", "shares", "entry price", "what"):
        table.add_column(heading, justify="left" if heading in ("symbol", "what") else "right")
    for trade in found.trades:
        table.add_row(trade.symbol, shares(trade.remaining), f"{trade.entry_price:.2f}", f"held since {trade.session}")
    for order in found.entries:
        limit = f"{order.limit_price:.2f}" if order.limit_price else ""
        table.add_row(order.symbol, shares(order.quantity), limit, f"entry, {order.state.value}")
    for symbol, quantity in found.others:
        table.add_row(symbol, shares(quantity), "", "not bought here: stays")
    console.print(table)


def _show_outcome(console: Console, outcome: Flattened) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("symbol", "sold", "at"):
        table.add_column(heading, justify="left" if heading == "symbol" else "right")
    for sold in outcome.sold:
        table.add_row(sold.symbol, shares(sold.quantity), "" if sold.price is None else f"{sold.price:.2f}")
    if outcome.sold:
        console.print(table)
    if outcome.cancelled:
        console.print(f"entries cancelled: {', '.join(outcome.cancelled)}")
    for problem in outcome.problems:
        console.print(f"[yellow]{escape(problem)}[/]", soft_wrap=True)
    for sentence in outcome.left:
        console.print(f"[bold red]left[/] {escape(sentence)}", soft_wrap=True)
    if not outcome.left:
        console.print("nothing is left; trading is HALTED until onepath resume --by NAME")
