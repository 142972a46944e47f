"""`onepath halt` and `onepath resume`: the trading state, latched in the ledger."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from desk.errors import BadInput
from flows.cli.atdesk import ByOption, at_desk, named, whoever
from flows.cli.reading import AccountOption, HomeOption, reading, settings_of

if TYPE_CHECKING:
    from decimal import Decimal

    from sqlalchemy import Connection

    from desk.settings import Settings

__all__ = ["halt", "resume"]


def halt(
    reason: Annotated[str, typer.Option(help="Why; kept with the state and shown by onepath status.")],
    by: ByOption = None,
    account: AccountOption = None,
    home: HomeOption = None,
) -> None:
    """No entry any more, and those under way are cancelled. Exits go on, protective stops stay at the broker.

    Exit code 1 when the broker could not be asked to cancel: the monitor does it in its next cycle.
    """
    from desk.errors import OnepathError
    from desk.ledger.records import TradingState
    from desk.ledger.story import choose_account
    from desk.ledger.trading_state import current_state, set_state

    if not reason.strip():
        raise BadInput("--reason: empty; say why trading is halted")
    who, settings = whoever(by), settings_of(home)
    with (
        reading(settings) as (ledger, _),
        ledger.transaction() as connection,
    ):  # first: a broker that hangs halts nobody
        number = choose_account(connection, account or settings.account).account
        before = current_state(connection, account=number)
        at = _database_now(connection)
        held = set_state(connection, account=number, state=TradingState.HALTED, reason=reason.strip(), by=who, at=at)
    was = before.state.value if before.state is not TradingState.HALTED else "HALTED already"
    typer.echo(f"account {number}: trading is HALTED by {held.set_by} ({held.reason}); was {was}")
    try:
        with at_desk(settings) as desk:
            if desk.account != number:
                raise BadInput(f"the broker holds account {desk.account}")
            cancelled = desk.orders.stand_down()
    except OnepathError as error:
        typer.echo(f"entries under way were not cancelled: {error}", err=True)
        typer.echo("the monitor cancels them in its next cycle; run onepath halt again to try at once", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"entries cancelled: {', '.join(cancelled)}" if cancelled else "no entry was under way")


def resume(
    by: Annotated[str, typer.Option(help="Who has looked and lets trading go on; kept with the state.")],
    reason: Annotated[str, typer.Option(help="What was found.")] = "looked at",
    account: AccountOption = None,
    home: HomeOption = None,
) -> None:
    """Trading is ACTIVE again. Losses that had stopped it are accepted by this: they count from here."""
    from desk.ledger.records import TradingState
    from desk.ledger.story import choose_account
    from desk.ledger.trading_state import current_state, set_state

    who, settings = named(by), settings_of(home)
    told = _broker_equity(settings)
    with reading(settings) as (ledger, _), ledger.transaction() as connection:
        number = choose_account(connection, account or settings.account).account
        before = current_state(connection, account=number)
        at = _database_now(connection) if told is None else told[2]
        set_state(connection, account=number, state=TradingState.ACTIVE, reason=reason, by=who, at=at)
        accepted = None
        if told is not None and told[0] == number and before.state is not TradingState.ACTIVE:
            accepted = _accept_losses(connection, number, told[1], at, who)
    if before.state is TradingState.ACTIVE:
        typer.echo(f"account {number}: trading is ACTIVE already ({before.reason}, {before.set_by})")
        return
    typer.echo(
        f"account {number}: trading is ACTIVE by {who} ({reason}); was {before.state.value} "
        f"by {before.set_by} ({before.reason})"
    )
    if accepted is not None:
        typer.echo(accepted)
    if told is None:
        typer.echo("the broker could not be asked: a limit on losses that is broken still stops entries", err=True)


def _database_now(connection: Connection) -> datetime:
    """The database server's time, for when the broker's clock is out of reach."""
    from sqlalchemy import func, select

    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now


def _broker_equity(settings: Settings) -> tuple[str, Decimal, datetime] | None:
    """Account, equity in USD and time, as the broker tells them; None when it cannot be asked."""
    from desk.broker.connect import connect
    from desk.errors import OnepathError

    try:
        broker, data = connect(settings)
        with closing(broker), closing(data):
            account = broker.account()
            return account.number, account.equity, broker.clock().now
    except OnepathError:
        return None


def _accept_losses(connection: Connection, account: str, equity: Decimal, at: datetime, by: str) -> str | None:
    """Measure losses from here when a limit is broken now; otherwise trading would stop at the next entry."""
    from desk.controls import judge_losses
    from desk.ledger.anchors import current_anchors, measure_anew
    from desk.ledger.strategies import current_strategy
    from desk.market import NEW_YORK
    from desk.strategy import Strategy

    anchors = current_anchors(connection, account=account)
    strategy, _ = current_strategy(connection, account=account, name=Strategy().name) or (Strategy(), 0)
    if anchors is None:
        return None
    verdicts = judge_losses(
        equity,
        opening=anchors.opening_equity,
        high_water=anchors.high_water_equity,
        limits=strategy.controls,
    )
    broken = [verdict.reason for verdict in verdicts if not verdict.allowed]
    if not broken:
        return None
    today = max(anchors.session, at.astimezone(NEW_YORK).date())
    reason = f"resumed by {by}"
    measure_anew(connection, account=account, session=today, equity=equity, reason=reason, at=at)
    return f"losses count from {equity:.2f} USD on; accepted: {'; '.join(broken)}"
