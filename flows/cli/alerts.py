"""`onepath alerts`: what was raised, who has heard of it, and what to type next; `ack`: someone looks after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from desk.errors import BadInput
from flows.cli.reading import AccountOption, DatabaseOption, HomeOption, as_json, read_session, reading, settings_of

if TYPE_CHECKING:
    from desk.ledger.deliveries import Told

__all__ = ["alerts"]

alerts = typer.Typer(help="What was raised, who has heard of it, and what to type next.", invoke_without_command=True)


@alerts.callback()
def listed(
    context: typer.Context,
    is_open: Annotated[bool, typer.Option("--open", help="Only those nobody has acknowledged.")] = False,
    session: Annotated[str | None, typer.Option(help="Only those of one session, YYYY-MM-DD.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most, the newest first.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="One JSON document instead of a screen.")] = False,
    account: AccountOption = None,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """What was raised, who has heard of it, and what to type next."""
    if context.invoked_subcommand is not None:
        return
    from desk.ledger.deliveries import told
    from desk.ledger.story import choose_account

    settings = settings_of(home)
    day = read_session(session)
    with reading(settings, database) as (ledger, _), ledger.transaction() as connection:
        number = choose_account(connection, account or settings.account).account
        found = told(connection, account=number, session=day, is_open=is_open, limit=limit)
    if json:
        typer.echo(as_json({"alerts": [_document(each) for each in found]}))
    else:
        _show(found)


@alerts.command()
def ack(
    number: Annotated[
        int, typer.Argument(metavar="ID", help="The alert's number; earlier ones of its kind go with it.")
    ],
    by: Annotated[str, typer.Option(help="Who looks after it.")],
    account: AccountOption = None,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Say that someone looks after an alert: it is not sent again, and no longer makes the status red."""
    from desk.ledger.alerts import acknowledge
    from desk.ledger.story import choose_account

    if not by.strip():
        raise BadInput("--by: a name is needed, so that others know whom to ask")
    settings = settings_of(home)
    with reading(settings, database) as (ledger, _), ledger.transaction() as connection:
        chosen = choose_account(connection, account or settings.account).account
        done = acknowledge(connection, account=chosen, alert_id=number, by=by.strip())
    listed_ids = ", ".join(str(each) for each in done)
    typer.echo(f"acknowledged by {by.strip()}: {listed_ids}" if done else f"alert {number} was acknowledged before")


def _document(each: Told) -> dict[str, object]:
    from desk.alerts import Message

    message = Message(each.alert.severity, (each.alert,), 1)
    return {
        "alert": each.alert,
        "text": message.body,
        "delivered_by": each.delivered_by,
        "failed_attempts": each.failed,
        "acknowledged_by": each.acknowledged_by,
        "acknowledged_at": each.acknowledged_at,
    }


def _show(found: list[Told]) -> None:
    from rich.console import Console
    from rich.text import Text

    from desk.alerts import Message
    from desk.report.words import day_time

    console = Console(highlight=False)
    styles = {"critical": "bold red", "warning": "yellow", "info": "dim"}
    if not found:
        console.print("no alerts")
    for each in found:
        message = Message(each.alert.severity, (each.alert,), 1)
        heard = f"delivered by {', '.join(each.delivered_by)}" if each.delivered_by else "not delivered"
        failures = f", {each.failed} attempts failed" if each.failed else ""
        seen = f"acknowledged by {each.acknowledged_by}" if each.acknowledged_by else "open"
        console.print(Text(f"{each.alert.alert_id}  {message.title}", styles[each.alert.severity.value]))
        console.print(Text(f"    {day_time(each.alert.at)}; {heard}{failures}; {seen}", "dim"))
        for line in message.body.splitlines():
            console.print(Text(f"    {line}"))
