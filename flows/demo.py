"""Whole sessions through Prefect on a simulated exchange: the product's own stack, agendas and ledger, a fast clock.

The stack is started under a home of its own with its schedules asleep; each stage is a run of its deployment, executed
at its time of the session by a runner in this process. The exchange's clock stands still unless it is moved: to the
next stage's time by the demo, and by whoever waits for the broker.
"""

from __future__ import annotations

import logging
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from pydantic import SecretStr

from desk.errors import BadInput, OnepathError
from desk.ledger.connecting import parse_url
from desk.ledger.databases import database_urls, recreate_database
from desk.ledger.embedded import stop_embedded
from desk.ledger.engine import with_database
from desk.ledger.records import RunState
from desk.ledger.runs import run_of
from desk.ledger.sessionbook import session_book
from desk.ledger.trades import Trade, trades_closed_in
from desk.market import Session, at_new_york
from desk.settings import BrokerKind, Settings
from desk.waiting import DrivenClock
from flows.position_monitor import position_monitor
from flows.processes import only_one
from flows.rehearsal import timetable
from flows.runner import Runner
from flows.stack import HOST, Stack
from models.screener import sessions_needed
from tasks.office import Office, in_office, open_office

if TYPE_CHECKING:
    from desk.report.data import SessionReport

__all__ = ["DEFAULT_START", "Beat", "Demo", "DemoPlan", "StageFailed", "demo_settings", "running_demo"]

log = logging.getLogger(__name__)

DEFAULT_START = date(2024, 3, 5)  # of the synthetic market; any day would do
SESSIONS_MAX = 20
MARKER = "demo"  # a file in the home: what is there is a demo's, and is wiped by the next one
WIPED = ("bars", "reports", "logs")


class StageFailed(OnepathError):
    """A stage of the demo did not run through."""


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What is to be played, and where. `bars`: a Parquet file; none: the synthetic market."""

    home: Path
    sessions: int
    seed: int
    bars: Path | None = None
    start: date | None = None
    port: int | None = None  # of Prefect's server; none: a free one

    def __post_init__(self) -> None:
        if not 1 <= self.sessions <= SESSIONS_MAX:
            raise BadInput(f"--sessions {self.sessions}: give 1 to {SESSIONS_MAX}; for more there is onepath replay")


@dataclass(frozen=True, slots=True)
class Beat:
    """What just happened: a stage ran. `evidence` is a daily stage's own account of it."""

    session: Session
    stage: str
    at: datetime  # the exchange's clock
    done: int
    of: int
    positions: int
    equity: Decimal
    closed: tuple[Trade, ...] = ()
    evidence: dict[str, object] = field(default_factory=dict)
    is_watch: bool = False  # one of the monitor's many


def demo_settings(plan: DemoPlan, base: Settings) -> Settings:
    """The base settings on a simulated exchange, with a home, ports and a ledger of the demo's own."""
    own = None
    if base.database_url is not None:  # beside the real ledger, never in it
        url = base.database_url.get_secret_value()
        own = SecretStr(with_database(url, f"{parse_url(url).database}_demo"))
    home = plan.home.expanduser().resolve()
    return base.model_copy(
        update={
            "home": home,
            "alert_urls": SecretStr(f"file://{quote(str(home))}/logs/alerts.jsonl"),  # a demo wakes nobody
            "deadman_url": None,
            "broker": BrokerKind.SIMULATED,
            "account": None,
            "alpaca_key_id": None,
            "alpaca_secret_key": None,
            "exchange_url": f"http://{HOST}:{_free_port()}",
            "exchange_clock_driven": True,
            "prefect_port": plan.port or _free_port(),
            "database_url": own,
        }
    )


@contextmanager
def running_demo(plan: DemoPlan, settings: Settings) -> Iterator[Demo]:
    """Everything up, the exchange's clock at five to four in the morning of the first session.

    Raises BadInput for a home that is not a demo's, a port in use, or a market without such a session.
    """
    days = _days(plan, settings)
    _wipe(settings)
    with ExitStack() as cleanup:
        if settings.database_url is None:
            cleanup.callback(stop_embedded, settings.home)
        now = at_new_york(days[0].day, "03:55").isoformat()
        market = ["--synthetic"] if plan.bars is None else ["--bars", str(plan.bars.expanduser().resolve())]
        stack = cleanup.enter_context(
            Stack(
                settings,
                queues=(),
                asleep=True,
                registry=False,
                exchange=[*market, "--seed", str(plan.seed), "--now", now],
            )
        )
        cleanup.enter_context(stack.prefect())
        runner = cleanup.enter_context(Runner(("daily", "monitor"), name="demo"))
        office = cleanup.enter_context(in_office(open_office(stack.settings)))
        cleanup.callback(office.ledger.close)
        yield Demo(stack=stack, runner=runner, office=office, days=days)


@dataclass
class Demo:
    """`failures`: monitor runs that did not complete. A daily stage that fails ends the demo at once."""

    stack: Stack
    runner: Runner
    office: Office
    days: list[Session]
    failures: list[str] = field(default_factory=list)

    @property
    def market(self) -> str:
        """What the prices are: "simulated: synthetic, seed 7"."""
        return self.office.broker.venue

    def play(self, session: Session) -> Iterator[Beat]:
        """One session, stage by stage. Raises StageFailed naming the stage that did not run through."""
        clock = DrivenClock(self.stack.settings.exchange_url)
        stages = timetable(session)
        before: set[tuple[date, str]] = set()
        for done, (due, stage) in enumerate(stages, start=1):
            clock.set(max(due, self.office.broker.clock().now).isoformat())  # waiting may have moved it on already
            is_watch = stage is position_monitor
            name = str(getattr(stage, "name"))  # noqa: B009  # an Agenda, listed as a plain callable
            evidence = self._run(name, session, is_watch=is_watch)
            account = self.office.broker.account()
            closed = self._closed(session, before)
            yield Beat(
                session=session,
                stage=name,
                at=self.office.broker.clock().now,
                done=done,
                of=len(stages),
                positions=len(self.office.broker.positions()),
                equity=account.equity,
                closed=closed,
                evidence=evidence,
                is_watch=is_watch,
            )

    def report(self, session: Session) -> SessionReport:
        """The session's books, as the ledger has them."""
        with self.office.ledger.transaction() as connection:
            return session_book(connection, account=self.office.account, session=session.day)

    def serve_once(self) -> None:
        """For whoever looks around in the UI: what ended is started again, a run asked for there is executed."""
        self.stack.keep_up()
        self.runner.run_due()

    def _run(self, stage: str, session: Session, *, is_watch: bool) -> dict[str, object]:
        run = self.runner.run_now(f"{stage}/{stage}", {"session": session.day.isoformat()})
        state = run.state
        if state is None or not state.is_completed():
            what = f"{stage} of {session.day}: {'no state' if state is None else f'{state.name}: {state.message}'}"
            if not is_watch:
                raise StageFailed(what)
            self.failures.append(what)
        if is_watch:
            return {}
        with self.office.ledger.transaction() as connection:
            told = run_of(connection, account=self.office.account, session=session.day, stage=stage)
        if told is None or told.state is not RunState.RAN:
            found = "has no entry" if told is None else f"{told.state}, {told.reason}"
            raise StageFailed(f"{stage} of {session.day}: ended in Prefect, but in the ledger it {found}")
        return dict(told.evidence or {})

    def _closed(self, session: Session, before: set[tuple[date, str]]) -> tuple[Trade, ...]:
        """Trades that ended since the last look."""
        with self.office.ledger.transaction() as connection:
            found = trades_closed_in(
                connection,
                account=self.office.account,
                start=at_new_york(session.day, "00:00"),
                end=session.closes + timedelta(hours=4),
            )
        new = tuple(trade for trade in found if (trade.session, trade.symbol) not in before)
        before.update((trade.session, trade.symbol) for trade in new)
        return new


# ----------------------------------------------------------------------------------------------- before it starts


def _days(plan: DemoPlan, settings: Settings) -> list[Session]:
    """The sessions to play. Raises BadInput when the market does not have them, or not enough history before them."""
    from desk.strategy import Strategy, load_strategy

    strategy = Strategy() if settings.strategy is None else load_strategy(settings.strategy)
    needed = sessions_needed(strategy.universe)
    if plan.bars is None:
        from desk.exchange.sessions import sessions_between

        start = plan.start or DEFAULT_START
        found = list(sessions_between(start, start + timedelta(days=30 + 2 * plan.sessions)))
    else:
        from desk.exchange.recorded import RecordedMarket

        listed = list(RecordedMarket(plan.bars, seed=plan.seed).sessions())
        if len(listed) <= needed:
            raise BadInput(f"--bars {plan.bars}: {len(listed)} sessions, more than {needed} are needed by the screener")
        found = [session for session in listed[needed:] if plan.start is None or session.day >= plan.start]
        if plan.start is not None and plan.start < listed[needed].day:
            raise BadInput(
                f"--start {plan.start}: the screener needs {needed} sessions before it; "
                f"the first it can screen in {plan.bars.name} is {listed[needed].day}"
            )
    if len(found) < plan.sessions:
        what = f"from {plan.start} on " if plan.start else ""
        raise BadInput(
            f"--sessions {plan.sessions}: the market has {len(found)} {what}; give fewer or an earlier --start"
        )
    return found[: plan.sessions]


def _wipe(settings: Settings) -> None:
    """Empty ledger and history, so that the demo trades again. Raises BadInput when the home is not a demo's."""
    home = settings.home
    marker = home / MARKER
    if not marker.exists() and (home / "postgres").exists():
        raise BadInput(f"home {home}: it holds a ledger that is not a demo's, which would be lost; give another --home")
    with only_one(home):
        marker.touch()
        for folder in WIPED:
            shutil.rmtree(home / folder, ignore_errors=True)
        ledger = database_urls(settings).ledger
        name = parse_url(ledger).database
        for database in (f"{name}", f"{name}_prefect"):
            recreate_database(ledger, database)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
