"""Weeks that never were: the real stages and the real adapter against a simulated exchange where things go wrong.

A seed is a week of sessions on a small synthetic market, on a virtual clock, with a real PostgreSQL. Before the last
session ends, whatever goes wrong stops; the monitor runs some minutes; then the invariants of the design are checked,
and again when the books of that session are closed. A stage that fails is no violation: a broken invariant is.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from desk.barstore import BarStore
from desk.broker.connect import connect_in_process
from desk.evidence import gather
from desk.exchange.exchange import Exchange
from desk.exchange.options import ExchangeOptions
from desk.exchange.synthetic import SyntheticMarket
from desk.ledger import migrate
from desk.ledger.databases import recreate_database
from desk.ledger.engine import Ledger
from desk.ledger.records import TradingState
from desk.ledger.tables import metadata
from desk.ledger.trading_state import current_state, set_state
from desk.market import Session, at_new_york
from desk.settings import BrokerKind, load_settings
from desk.strategy import Strategy, Universe
from flows.simulated_books import LedgerView, broker_side
from flows.simulated_faults import draw
from flows.simulated_proof import Violation, at_rest, grown, in_session, verified
from flows.simulated_week import Clerk, Turns, Week, Witness
from tasks.office import Office, open_books

__all__ = ["Outcome", "Simulator", "replay_command"]

SYMBOLS = 25
CASH = Decimal(100_000)
_WAKES = "03:55"
_CALM_S = 330  # of virtual time without faults before the first proof
_FIRST_MONDAY = date(2011, 8, 15)  # early in the synthetic world: the sooner, the less of it has to be made
_WEEKS = 64
# Weeks with a change of the clocks, a half day or a holiday: Nov 6 and 25 of 2011, Mar 11 and Apr 6 of 2012.
_ODD_MONDAYS = (date(2011, 11, 7), date(2011, 11, 21), date(2012, 3, 12), date(2012, 4, 2))
# Much happens in a week: lower thresholds, nearer exits, shorter holding than anybody would trade by.
STRATEGY = Strategy(
    stop_loss_pct=Decimal("2"),
    take_profit_pct=Decimal("2.5"),
    trailing_stop_pct=Decimal("2"),
    holding_sessions_max=2,
    positions_max=12,
    buy_probability_min=0.25,
    sell_probability_max=0.75,
    universe=Universe(history_sessions_min=21),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a seed went. `fired`: firings by family; `failed`: stages that failed; `orders`: at the broker, ours."""

    seed: int
    violations: tuple[Violation, ...]
    fired: dict[str, int]
    failed: int
    orders: int
    trace: str
    took_s: float


def replay_command(seed: int, families: Sequence[str], weeks: int) -> str:
    """What to type to see this seed again, with its story."""
    return f"onepath simulate --seeds {seed}:{seed + 1} --faults {','.join(families)} --weeks {weeks} --trace"


class Simulator:
    """One database, used for one seed after another."""

    def __init__(self, server_url: str, database: str, *, families: Sequence[str], weeks: int = 1) -> None:
        self._url = recreate_database(server_url, database)
        migrate.upgrade(self._url)
        self._families, self._weeks = tuple(families), weeks

    def run(self, seed: int, *, traced: bool = False) -> Outcome:
        began = time.perf_counter()
        rng = random.Random(f"onepath simulation {seed} {','.join(self._families)} {self._weeks}")
        sessions, market = self._market(seed, rng)
        exchange = Exchange(
            market,
            at_new_york(sessions[0].day, _WAKES),
            cash=CASH,
            options=_options(rng, seed, self._families),
            account_number=f"SIM{seed:06d}",
        )
        _empty(self._url)
        clerk, violations = Clerk(exchange), list[Violation]()
        with _offices(self._url, exchange, violations) as (office, second, turns, view):
            week = Week(exchange, office, second, clerk, violations)
            turns.others = week.others
            self._live_through(week, sessions, exchange, office, view, rng)
            ours = sum(order.client_order_id.startswith("op-") for order in exchange.floor.register.orders)
            trace = _story(exchange, clerk, view, violations) if traced else ""
        return Outcome(
            seed=seed,
            violations=tuple(violations),
            fired=clerk.fired,
            failed=sum(" failed: " in line for _, line in clerk.lines),
            orders=ours,
            trace=trace,
            took_s=time.perf_counter() - began,
        )

    def _market(self, seed: int, rng: random.Random) -> tuple[list[Session], SyntheticMarket]:
        monday = _FIRST_MONDAY + timedelta(weeks=rng.randrange(_WEEKS))
        if "clock" in self._families and rng.random() < 0.3:
            monday = rng.choice(_ODD_MONDAYS)
        after = monday + timedelta(weeks=self._weeks)
        market = SyntheticMarket(seed, monday, after + timedelta(days=20), SYMBOLS)
        return [session for session in market.sessions() if monday <= session.day < after], market

    def _live_through(
        self,
        week: Week,
        sessions: Sequence[Session],
        exchange: Exchange,
        office: Office,
        view: LedgerView,
        rng: random.Random,
    ) -> None:
        symbols = [listing.symbol for listing in exchange.market.listings()]
        before = view.read()
        for session in sessions:
            is_last = session is sessions[-1]
            length_s = int((session.closes - session.opens).total_seconds())
            calm_from = session.opens + timedelta(seconds=rng.randrange(1200, length_s - 1800))
            mishaps = draw(
                rng,
                self._families,
                session,
                symbols,
                until=calm_from if is_last else session.closes + timedelta(hours=1),
            )
            exchange.set_clock(max(exchange.now, at_new_york(session.day, _WAKES)))
            resume(office, exchange.now)
            week.plan(session, mishaps, calm_from=calm_from if is_last else None)
            if is_last:
                week.run(calm_from)
                week.end_faults()
                week.run(exchange.now + timedelta(seconds=_CALM_S))
                closes = exchange.session.closes if exchange.session is not None else exchange.now
                if exchange.is_open and exchange.now < closes:
                    week.violations += in_session(view.read(), broker_side(exchange))
            week.run(session.closes + timedelta(hours=3))
            after = view.read()
            week.violations += grown(before, after)
            before = after
        week.violations += at_rest(before, broker_side(exchange))
        seen = gather(office.ledger, office.broker, account=office.account)
        week.violations += verified(seen, broker_side(exchange), skewed="clock" in self._families)


def resume(office: Office, now: datetime) -> None:
    """Stand in for the person who looks in the morning and lets trading go on."""
    with office.ledger.transaction() as connection:
        if current_state(connection, account=office.account).state is not TradingState.ACTIVE:
            set_state(
                connection,
                account=office.account,
                state=TradingState.ACTIVE,
                reason="a new session of a simulation",
                by="simulation",
                at=now,
            )


def _options(rng: random.Random, seed: int, families: Sequence[str]) -> ExchangeOptions:
    """What Alpaca leaves open differs from seed to seed, where the broker may be difficult at all."""
    chosen = ExchangeOptions(
        seed=seed,
        fill_on_submit_latency_s=rng.choice((0.0, 0.0, 1.0, 4.0)),
        cancel_latency_s=rng.choice((0.0, 0.5, 3.0)),
        partial_fill_probability=rng.choice((0.0, 0.0, 0.3)),
        split_open_orders=rng.choice(("adjust", "cancel")),
        stop_trigger_ends_target=rng.choice(("canceled", "replaced")),
    )
    return chosen if "broker" in families else replace(ExchangeOptions(), seed=seed)


@contextmanager
def _offices(
    url: str, exchange: Exchange, violations: list[Violation]
) -> Iterator[tuple[Office, Office, Turns, LedgerView]]:
    """Two offices of one account, as two processes have: each its own pool of one connection, and its own memory."""
    with ExitStack() as stack:
        view = LedgerView(url, exchange.account_number)
        stack.callback(view.close)
        turns = Turns(exchange)
        bars = stack.enter_context(tempfile.TemporaryDirectory(prefix="onepath-simulation-"))
        offices = []
        for _ in range(2):
            ledger = Ledger.connect(url, pool_size=1, durable=False)
            stack.callback(ledger.close)
            broker, data = connect_in_process(exchange, sleep=turns.wait)
            stack.callback(broker.close)
            stack.callback(data.close)
            account = exchange.account_number
            strategy, version = open_books(
                ledger, account=account, broker=BrokerKind.SIMULATED, venue=exchange.market.label, wanted=STRATEGY
            )
            offices.append(
                Office(
                    settings=load_settings(broker=BrokerKind.SIMULATED, home=Path(bars)),
                    ledger=ledger,
                    broker=Witness(broker, exchange, view, violations),
                    market_data=data,
                    waiter=turns,
                    bars=BarStore(Path(bars)),
                    account=account,
                    strategy=strategy,
                    strategy_version=version,
                    home=Path("simulation"),
                    publishes_reports=False,
                )
            )
        yield offices[0], offices[1], turns, view


def _empty(url: str) -> None:
    """Every table of the ledger, at once. Only here is anything ever taken out of it: its triggers are told so."""
    from psycopg import sql

    from desk.ledger.connecting import connect_plainly

    names = [sql.Identifier(table.name) for table in metadata.sorted_tables]
    with connect_plainly(url) as connection, connection.transaction():
        for name in names:
            connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(name))
        connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(sql.SQL(", ").join(names)))
        for name in names:
            connection.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(name))


def _story(exchange: Exchange, clerk: Clerk, view: LedgerView, violations: Sequence[Violation]) -> str:
    """What happened at the broker, in the stages and in the ledger, by virtual time; then what was violated."""
    lines: list[tuple[datetime, int, str]] = []
    for entry in exchange.journal.entries(0, 10**9):
        if entry.event != "clock.moved":
            told = " ".join(f"{name}={value}" for name, value in entry.fields.items())
            lines.append((entry.at, 0, f"broker  {entry.event} {told}"))
    for event in view.events():
        what = f"{event.symbol} {event.leg}/{event.generation} {event.client_order_id[:11]}"
        detail = " ".join(f"{name}={value}" for name, value in sorted(event.detail.items()))
        lines.append((event.at, 1, f"ledger  {what} {event.state} {detail}"))
    lines += [(alert.at, 2, f"alert   {alert.severity} {alert.kind}: {alert.message}") for alert in view.alerts()]
    lines += [(at, 3, f"stage   {line}") for at, line in clerk.lines]
    lines.sort(key=lambda line: line[:2])  # stable: within a moment and a source, as they were told
    written = [f"{at:%Y-%m-%d %H:%M:%S.%f} {text}" for at, _, text in lines]
    return "\n".join([*written, *(f"VIOLATED {violation}" for violation in violations), ""])
