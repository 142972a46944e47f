"""The office: one account with everything plugged into its ports. Steps work in it; agendas never see it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from threading import Lock

from desk.alerts import AlertChannel
from desk.barstore import BarStore
from desk.broker.connect import connect
from desk.channels import channels_of
from desk.ledger.accounts import open_account
from desk.ledger.engine import Ledger, database_urls
from desk.ledger.strategies import apply_strategy, current_strategy, strategy_version
from desk.losses import LossWatch
from desk.market import Session
from desk.ports import Broker, MarketData, Waiter
from desk.protocol import OrderDesk
from desk.reconcile import Reconciler
from desk.settings import BrokerKind, Settings, load_settings
from desk.strategy import Strategy, load_strategy
from desk.waiting import DrivenClock, WallClock

__all__ = ["Office", "in_office", "office", "open_office", "settings_here"]

_LOOK_BACK = timedelta(days=800)  # covers the longest history a strategy may ask for (504 sessions)
_LOOK_AHEAD = timedelta(days=400)  # covers the longest holding time (252 sessions)


@dataclass
class Office:
    """Made once per process and account."""

    settings: Settings
    ledger: Ledger
    broker: Broker
    market_data: MarketData
    waiter: Waiter
    bars: BarStore
    account: str
    strategy: Strategy
    strategy_version: int
    channels: tuple[AlertChannel, ...] = ()
    home: Path = Path("var")
    publishes_reports: bool = True  # a replay writes one report for all its sessions
    monitors: date | None = None  # the session whose monitoring this process has recorded as begun
    _sessions: list[Session] = field(default_factory=list)
    _read_for: date | None = None
    _versions: dict[int, Strategy] = field(default_factory=dict)

    @cached_property
    def reconciler(self) -> Reconciler:
        return Reconciler(
            ledger=self.ledger,
            broker=self.broker,
            account=self.account,
            hold_until=self.hold_until,
            limits=lambda: self.strategy.controls,
        )

    @cached_property
    def orders(self) -> OrderDesk:
        return OrderDesk(
            ledger=self.ledger,
            broker=self.broker,
            waiter=self.waiter,
            account=self.account,
            reconciler=self.reconciler,
            limits=lambda: self.strategy.controls,
        )

    @cached_property
    def losses(self) -> LossWatch:
        return LossWatch(ledger=self.ledger, broker=self.broker, account=self.account)

    def sessions(self, around: date) -> list[Session]:
        """The broker's calendar, 800 days back and 400 ahead of a day, read again each new day."""
        if self._read_for != around:
            self._sessions = self.broker.calendar(around - _LOOK_BACK, around + _LOOK_AHEAD)
            self._read_for = around
        return self._sessions

    def session_of(self, day: date) -> Session | None:
        known = self.sessions(day)
        place = bisect_left(known, day, key=lambda session: session.day)
        return known[place] if place < len(known) and known[place].day == day else None

    def strategy_of(self, version: int) -> Strategy:
        """The strategy a trade was opened under: never another version's numbers."""
        if version not in self._versions:
            with self.ledger.transaction() as connection:
                found = strategy_version(connection, account=self.account, name=self.strategy.name, version=version)
            if found is None:
                raise RuntimeError(
                    f"strategy {self.strategy.name}/{version} of account {self.account}: no such version"
                )
            self._versions[version] = found
        return self._versions[version]

    def use_newest_strategy(self) -> None:
        """Trade by the version applied last; open trades keep the one they were opened under."""
        with self.ledger.transaction() as connection:
            found = current_strategy(connection, account=self.account, name=self.strategy.name)
        if found is not None:
            self.strategy, self.strategy_version = found

    def hold_until(self, day: date, version: int) -> date:
        """The last session a trade opened on `day` may be held in, counting the day of entry as the first."""
        ahead = [session.day for session in self._sessions if session.day >= day]
        count = self.strategy_of(version).holding_sessions_max
        return ahead[count - 1] if len(ahead) >= count else day + timedelta(days=count * 2)


_current: ContextVar[Office | None] = ContextVar("office", default=None)
_opened: list[Office] = []
_opening = Lock()


def office() -> Office:
    """The office of this context, or this process's own, opened from the settings at first use."""
    inside = _current.get()
    if inside is not None:
        return inside
    with _opening:
        if not _opened:
            _opened.append(open_office(load_settings()))
        return _opened[0]


def settings_here() -> Settings:
    """The settings of this context's office; without one, the environment's. Opens nothing."""
    inside = _current.get()
    return load_settings() if inside is None else inside.settings


@contextmanager
def in_office(given: Office) -> Iterator[Office]:
    """Work in this office instead: replay and tests plug in their own ports."""
    token = _current.set(given)
    try:
        yield given
    finally:
        _current.reset(token)


def open_office(settings: Settings) -> Office:
    """Connect broker and ledger, open the account's books, and read the strategy that holds.

    Raises BadInput, one line with the remedy, for whatever the settings get wrong.
    """
    wanted = None if settings.strategy is None else load_strategy(settings.strategy)
    broker, market_data = connect(settings)
    number = broker.account().number
    ledger = Ledger.connect(database_urls(settings).ledger)
    strategy, version = open_books(ledger, account=number, broker=settings.broker, venue=broker.venue, wanted=wanted)
    driven = settings.broker is BrokerKind.SIMULATED and settings.exchange_clock_driven
    return Office(
        settings=settings,
        ledger=ledger,
        broker=broker,
        market_data=market_data,
        waiter=DrivenClock(settings.exchange_url) if driven else WallClock(),
        bars=BarStore(settings.home / "bars" / number),
        account=number,
        strategy=strategy,
        strategy_version=version,
        channels=channels_of(settings),
        home=settings.home,
    )


def open_books(
    ledger: Ledger, *, account: str, broker: BrokerKind, venue: str, wanted: Strategy | None
) -> tuple[Strategy, int]:
    """The account's row, and the strategy to trade: the one given, else the one applied, else the default."""
    with ledger.transaction() as connection:
        open_account(connection, account=account, broker=broker, venue=venue)
        found = None if wanted else current_strategy(connection, account=account, name=Strategy().name)
        if found is not None:
            return found
        strategy = wanted or Strategy()
        by = "settings" if wanted else "default"
        return strategy, apply_strategy(connection, account=account, strategy=strategy, by=by)
