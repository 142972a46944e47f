"""`onepath status`: each stage's last run, next due time and evidence. Exit code 1 when anything is overdue or red."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.reading import AccountOption, DatabaseOption, HomeOption, as_json, reading, settings_of

if TYPE_CHECKING:
    from desk.ledger.standing import Standing
    from desk.market import Session
    from desk.settings import Settings

__all__ = ["Service", "status"]

HEALTH_S_MAX = 5.0
DAYS_AHEAD = 10  # no closing of the exchange lasts longer


@dataclass(frozen=True, slots=True)
class Service:
    """A part of the installation."""

    name: str
    is_up: bool
    told: str  # where it is, or why it is down and what to do


@dataclass(frozen=True, slots=True)
class BrokerView:
    """What the broker told; nothing when it could not be asked."""

    service: Service
    account: str | None = None
    now: datetime | None = None
    positions: int | None = None
    sessions: tuple[Session, ...] = ()  # today's, if there is one, and the next


def status(
    json: Annotated[bool, typer.Option("--json", help="One JSON document instead of a screen.")] = False,
    account: AccountOption = None,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Where everything stands. Exit code 0: all is well; 1: something is overdue or red, with the reasons listed."""
    from desk.ledger.standing import complaints, last_written, standing
    from desk.ledger.story import choose_account
    from tasks.shift import timetable

    settings = settings_of(home)
    with reading(settings, database) as (ledger, was_running):
        broker = _broker(settings) if database is None else None
        services = [] if broker is None else [_postgres(was_running, ledger.place), _prefect(settings), broker.service]
        with ledger.transaction() as connection:
            known = choose_account(connection, account or settings.account)
            if broker is None:  # a demo's or a replay's own ledger: its time ended with its last fact
                now, clock = last_written(connection, known.account), "ledger"
            elif broker.account == known.account:
                now, clock = broker.now, "broker"
            else:
                now, clock = None, "database"
            plan = {} if clock != "broker" or broker is None else {each: timetable(each) for each in broker.sessions}
            found = standing(connection, account=known, now=now, clock=clock, plan=plan)

    reasons = [f"{service.name}: {service.told}" for service in services if not service.is_up]
    if broker is not None and broker.account not in (None, found.account.account):
        reasons.append(f"broker: holds account {broker.account}, the ledger shown is of {found.account.account}")
    reasons += complaints(found)
    positions = broker.positions if broker else None
    if json:
        typer.echo(as_json({"status": found, "services": services, "positions": positions, "reasons": reasons}))
    else:
        _show(found, services, positions, reasons)
    if reasons:
        raise typer.Exit(1)


def _postgres(was_running: bool, place: str) -> Service:
    told = place if was_running else "was not running; start it with onepath up"
    return Service("PostgreSQL", was_running, told)


def _prefect(settings: Settings) -> Service:
    import httpx

    address = settings.prefect_address
    try:
        is_up = httpx.get(f"{address}/api/health", timeout=HEALTH_S_MAX).is_success
    except httpx.HTTPError:
        is_up = False
    told = address if is_up else f"no answer at {address}; start it with onepath up, or set ONEPATH_PREFECT_PORT"
    return Service("Prefect", is_up, told)


def _broker(settings: Settings) -> BrokerView:
    """What the broker says of itself. Asked before any transaction is open."""
    from desk.broker.connect import connect
    from desk.errors import OnepathError

    try:
        broker, data = connect(settings)
        with closing(broker), closing(data):
            clock = broker.clock()
            ahead = broker.calendar(clock.today, clock.today + timedelta(days=DAYS_AHEAD))
            return BrokerView(
                service=Service("broker", True, broker.venue),
                account=broker.account().number,
                now=clock.now,
                positions=len(broker.positions()),
                sessions=tuple(ahead[: 2 if ahead and ahead[0].day == clock.today else 1]),
            )
    except OnepathError as error:
        return BrokerView(Service("broker", False, str(error)))


def _show(found: Standing, services: list[Service], positions: int | None, reasons: list[str]) -> None:
    from rich.console import Console

    from flows.cli.statusview import status_view

    console = Console(highlight=False)
    for part in status_view(found, services, positions, reasons):
        console.print(part)
