"""Reads what the watchdog judges: broker, ledger, Prefect's health, the disk. Each by itself, each with a deadline.

A source that hangs costs its deadline and nothing else: it is asked in a thread of its own, and not asked again while
that thread still waits.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Generic, TypeVar

import httpx
from sqlalchemy import Connection

from desk.broker.alpaca import AlpacaBroker
from desk.broker.connect import connect
from desk.broker.marketdata import AlpacaMarketData
from desk.errors import OnepathError, Transient
from desk.ledger.accounts import known_accounts
from desk.ledger.databases import database_urls
from desk.ledger.deliveries import database_now, heaps, paged_since
from desk.ledger.embedded import is_running
from desk.ledger.engine import Ledger
from desk.ledger.facts import AccountFact
from desk.ledger.standing import Plan, standing
from desk.ledger.story import choose_account
from desk.market import Session
from desk.paging import SUM_UP, oldest_due
from desk.settings import BrokerKind, Settings
from desk.watch import BrokerSight, Disk, LedgerSight, Sight, still_bare

__all__ = ["Eyes", "Source", "open_ledger"]

log = logging.getLogger(__name__)

LOOK_S_MAX = 20.0  # for one source
HEALTH_S_MAX = 5.0
HELD_MAX = timedelta(days=400)  # no position is older; without a ledger nobody says how old the oldest is
DAYS_AHEAD = timedelta(days=10)

T = TypeVar("T")
Timetable = Callable[[Session], Sequence[tuple[str, datetime, datetime]]]


class Source(Generic[T]):
    """One thing to ask, which may hang."""

    def __init__(self, name: str, *, within_s: float = LOOK_S_MAX) -> None:
        self._name, self._within_s = name, within_s
        self._thread: threading.Thread | None = None

    def ask(self, question: Callable[[], T]) -> T:
        """Its answer. Raises Transient when there is none in time, and whatever typed error the question raised."""
        if self._thread is not None and self._thread.is_alive():
            raise Transient(f"{self._name}: still no answer to the question before")
        answers: list[T] = []
        errors: list[OnepathError] = []

        def run() -> None:
            try:
                answers.append(question())
            except OnepathError as error:
                errors.append(error)
            except Exception as error:  # a defect in looking is itself worth a page, not an end
                log.exception("watch.defect")
                errors.append(Transient(f"{self._name}: {type(error).__name__}: {error}"))

        self._thread = threading.Thread(target=run, name=self._name, daemon=True)
        self._thread.start()
        self._thread.join(self._within_s)
        if answers:
            return answers[0]
        raise errors[0] if errors else Transient(f"{self._name}: no answer within {self._within_s:g} s")


def open_ledger(settings: Settings, *, pool_size: int = 2) -> Ledger:
    """The ledger, if its server runs: who only watches starts none. Raises BadInput or Transient."""
    if settings.database_url is None and not is_running(settings.home):
        raise Transient(f"the embedded PostgreSQL under {settings.home} does not run")
    return Ledger.connect(database_urls(settings).ledger, pool_size=pool_size)


class Eyes:
    """Looks, and remembers what one look cannot tell: since when a stop has been missing, and what failed before."""

    def __init__(
        self,
        settings: Settings,
        *,
        timetable: Timetable,
        wall: Callable[[], datetime],
        chain: Sequence[str] = (),
        within_s: float = LOOK_S_MAX,
    ) -> None:
        self._settings, self._timetable, self._wall, self._chain = settings, timetable, wall, list(chain)
        self._broker: tuple[AlpacaBroker, AlpacaMarketData] | None = None
        self._ledger: Ledger | None = None
        self._asks_broker: Source[BrokerSight] = Source("broker", within_s=within_s)
        self._asks_ledger: Source[LedgerSight] = Source("ledger", within_s=within_s)
        self._bare_since: dict[str, datetime] = {}
        self._failing: set[str] = set()
        self._oldest_entry: datetime | None = None
        self._sessions: tuple[Session, ...] = ()
        self.account: str | None = settings.account

    def look(self, *, stuck_channels: Sequence[str] = ()) -> Sight:
        """Everything once. Never raises: what cannot be read is part of the sight."""
        broker = ledger = None
        broker_error = ledger_error = None
        try:
            broker = self._asks_broker.ask(self._read_broker)
            self._bare_since = still_bare(self._bare_since, broker)
        except OnepathError as error:
            broker_error = str(error)
            self._drop_broker()
        try:
            ledger = self._asks_ledger.ask(lambda: self._read_ledger(broker))
        except OnepathError as error:
            ledger_error = str(error)
            self._drop_ledger()
        if broker is not None and ledger is not None:
            try:
                broker = self._with_fills(broker, ledger)
            except OnepathError as error:
                broker, broker_error = None, str(error)
        prefect_error = self._prefect_error()
        failing = {name for name, error in (("broker", broker_error), ("prefect", prefect_error)) if error}
        new_failures, self._failing = frozenset(failing - self._failing), failing
        return Sight(
            at=broker.now if broker else ledger.standing.as_of if ledger else self._wall(),
            broker=broker,
            broker_error=broker_error,
            ledger=ledger,
            ledger_error=ledger_error,
            prefect_error=prefect_error,
            new_failures=new_failures,
            disks=_disks(self._settings.home),
            stuck_channels=tuple(stuck_channels),
            bare_since=dict(self._bare_since),
        )

    def close(self) -> None:
        """Give the connections back."""
        self._drop_broker()
        self._drop_ledger()

    def _drop_broker(self) -> None:
        held, self._broker = self._broker, None
        for each in held or ():
            each.close()

    def _drop_ledger(self) -> None:
        held, self._ledger = self._ledger, None
        if held is not None:
            held.close()

    def _read_broker(self) -> BrokerSight:
        if self._broker is None:
            self._broker = connect(self._settings)
        broker, _ = self._broker
        before = self._wall()
        clock = broker.clock()
        middle = before + (self._wall() - before) / 2
        self._sessions = tuple(broker.calendar(clock.today, clock.today + DAYS_AHEAD))
        account = broker.account().number
        self.account = self.account or account
        # A bracket's stop is listed under its filled entry, which "open" leaves out: all orders since that entry.
        since = (self._oldest_entry or clock.now - HELD_MAX) - timedelta(days=1)
        positions = tuple(broker.positions())
        orders = tuple(broker.orders(status="all", after=since)) if positions else ()
        is_simulated = self._settings.broker is BrokerKind.SIMULATED
        return BrokerSight(
            account=account,
            now=clock.now,
            skew_s=None if is_simulated else (clock.now - middle).total_seconds(),
            positions=positions,
            orders=orders,
            session=next((each for each in self._sessions if each.day == clock.today), None),
        )

    def _with_fills(self, broker: BrokerSight, ledger: LedgerSight) -> BrokerSight:
        """With the fills since the last cycle, when the numbers differ: they may explain it."""
        cycle = ledger.standing.cycle
        if cycle is None or self._broker is None or cycle.positions_evaluated == len(broker.positions):
            return broker
        line, since = self._broker[0], max(cycle.cycle_at, broker.now - timedelta(hours=1))
        return self._asks_broker.ask(lambda: replace(broker, fills=tuple(line.fills(since))))

    def _read_ledger(self, broker: BrokerSight | None) -> LedgerSight:
        if self._ledger is None:
            self._ledger = open_ledger(self._settings)
        ledger = self._ledger
        plan: Plan = {session: self._timetable(session) for session in self._sessions[:2]} if broker else {}
        with ledger.transaction() as connection:
            if broker is not None and not known_accounts(connection):  # before the first stage has ever run
                fact = AccountFact(broker.account, self._settings.broker.value, "")
            else:
                fact = choose_account(connection, self._settings.account)
            clock = "broker" if broker else "database"
            found = standing(connection, account=fact, now=broker.now if broker else None, clock=clock, plan=plan)
            now = database_now(connection)
            since = self._undelivered_since(connection, fact.account, now)
        self.account = self.account or fact.account
        self._oldest_entry = min((trade.entered_at for trade in found.open_trades), default=None)
        return LedgerSight(standing=found, undelivered_since=since, now=now)

    def _undelivered_since(self, connection: Connection, account: str, now: datetime) -> datetime | None:
        """Since when a message has been due that no channel has delivered: what the best of them still owes."""
        owed = [
            oldest_due(
                heaps(connection, account=account, channel=name, chain=self._chain),
                paged_since(connection, channel=name, since=now - SUM_UP),
            )
            for name in self._chain
        ]
        due = [each for each in owed if each is not None]
        return max(due) if due and len(due) == len(owed) else None

    def _prefect_error(self) -> str | None:
        address = self._settings.prefect_address
        try:
            answer = httpx.get(f"{address}/api/health", timeout=HEALTH_S_MAX)
        except httpx.HTTPError as error:
            return f"{address}: {type(error).__name__}"
        return None if answer.is_success else f"{address}: HTTP {answer.status_code}"


def _disks(home: Path) -> list[Disk]:
    path = home.expanduser().resolve()
    with suppress(OSError):
        while not path.exists():
            path = path.parent
        usage = shutil.disk_usage(path)
        return [Disk(str(path), 100.0 * usage.free / usage.total)]
    return []
