"""An office on a scripted market, with a watchlist and decisions already written, and a broker line that can be cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from scripted_market import KEYS, MONDAY, Price, ScriptedMarket, at, flat

from desk.barstore import BarStore
from desk.broker.connect import connect_in_process
from desk.decision import Action, Decision
from desk.exchange.exchange import Exchange
from desk.exchange.market import CorporateAction
from desk.ledger.alerts import raise_alert
from desk.ledger.decisions import record_decisions
from desk.ledger.engine import Ledger
from desk.ledger.gates import record_gate
from desk.ledger.orders import LedgerOrder, orders_of_trade
from desk.ledger.records import DecisionSet, GateRecord, Severity
from desk.ledger.runs import expect_runs, record_session
from desk.ledger.screenings import record_screening
from desk.ledger.trades import Trade, open_trades
from desk.orders import BrokerOrder, OrderRequest
from desk.screening import ScreenedSymbol, Screening
from desk.settings import BrokerKind, load_settings
from desk.waiting import InProcessClock
from tasks.office import Office, open_books
from tasks.shift import timetable


class CutLine:
    """The real adapter, with a line that can be cut before or after the exchange heard an order."""

    def __init__(self, broker: Any) -> None:
        self._broker = broker
        self.before: list[BaseException | None] = []  # raised instead of sending, one per submit
        self.after: list[BaseException | None] = []  # raised although it was sent
        self.posts: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def submit(self, request: OrderRequest) -> BrokerOrder:
        self.posts.append(request.client_order_id)
        if self.before and (cut := self.before.pop(0)) is not None:
            raise cut
        answer: BrokerOrder = self._broker.submit(request)
        if self.after and (cut := self.after.pop(0)) is not None:
            raise cut
        return answer


@dataclass
class Bench:
    """What a test holds in its hands."""

    office: Office
    exchange: Exchange
    line: CutLine
    day: date = MONDAY
    _decided: list[Decision] = field(default_factory=list)

    def trades(self) -> list[Trade]:
        with self.office.ledger.transaction() as connection:
            return open_trades(connection, account=self.office.account)

    def orders(self, symbol: str = "ACME") -> list[LedgerOrder]:
        with self.office.ledger.transaction() as connection:
            return orders_of_trade(
                connection,
                account=self.office.account,
                strategy=self.office.strategy.name,
                session=self.day,
                symbol=symbol,
            )

    def rows(self, query: str) -> list[Any]:
        from sqlalchemy import text

        with self.office.ledger.transaction() as connection:
            return [row._mapping for row in connection.execute(text(query))]

    def held(self, symbol: str = "ACME") -> Decimal:
        found = [p.quantity for p in self.office.broker.positions() if p.symbol == symbol]
        return found[0] if found else Decimal(0)

    def entries_at_broker(self, symbol: str = "ACME") -> int:
        return sum(
            order.side.value == "buy" and order.symbol == symbol
            for order in self.office.broker.orders(status="all", after=at("00:00"))
        )


def buy_decision(symbol: str = "ACME", quantity: int = 10, price: str = "100") -> Decision:
    mid = Decimal(price)
    return Decision(
        symbol=symbol,
        action=Action.BUY,
        reason="test",
        quantity=Decimal(quantity),
        reference_price=mid,
        limit_price=(mid * Decimal("1.005")).quantize(Decimal("0.01")),
        stop_price=(mid * Decimal("0.96")).quantize(Decimal("0.01")),
        target_price=(mid * Decimal("1.08")).quantize(Decimal("0.01")),
        buy_probability=0.8,
        sell_probability=0.2,
    )


def bench(
    ledger: Ledger,
    tmp_path: Path,
    *,
    script: Mapping[str, Mapping[datetime, Price]] | None = None,
    decided: list[Decision] | None = None,
    now: datetime | None = None,
    wrap: Callable[[Any], Any] = lambda broker: broker,
    options: Any = None,
    actions: Sequence[CorporateAction] = (),
) -> Bench:
    """Ten shares of ACME decided for Monday, at 09:41, nothing sent yet."""
    exchange = Exchange(
        ScriptedMarket(script or flat(), actions=actions),
        now or at("09:41"),
        keys=KEYS,
        cash=Decimal(100_000),
        options=options,
    )
    broker, data = connect_in_process(exchange, keys=KEYS)
    line = CutLine(wrap(broker))
    number = broker.account().number
    strategy, version = open_books(ledger, account=number, broker=BrokerKind.SIMULATED, venue=broker.venue, wanted=None)
    office = Office(
        settings=load_settings(home=tmp_path),
        ledger=ledger,
        broker=line,
        market_data=data,
        waiter=InProcessClock(exchange),
        bars=BarStore(tmp_path / "bars"),
        account=number,
        strategy=strategy,
        strategy_version=version,
        home=tmp_path,
        publishes_reports=False,
    )
    write_decisions(office, MONDAY, decided if decided is not None else [buy_decision()], checked_at=exchange.now)
    return Bench(office, exchange, line)


def write_decisions(
    office: Office, day: date, decided: list[Decision], *, checked_at: datetime, decider: str = "fallback: no champion"
) -> None:
    session = office.session_of(day)
    assert session is not None
    with office.ledger.transaction() as connection:
        record_session(connection, account=office.account, session=session)
        expect_runs(connection, account=office.account, session=day, runs=timetable(session), at=session.opens)
        rows = tuple(
            ScreenedSymbol(d.symbol, rank, 0.8, 0.2, Decimal(100), 1_000_000, {}) for rank, d in enumerate(decided, 1)
        )
        record_screening(
            connection,
            account=office.account,
            session=day,
            screening=Screening("test/1", rows, len(rows), len(rows), "d" * 64, date(2024, 3, 1)),
            screened_at=session.opens,
        )
        record_decisions(
            connection,
            account=office.account,
            decision_set=DecisionSet(
                session=day,
                strategy=office.strategy.name,
                strategy_version=office.strategy_version,
                decider=decider,
                policy_digest=None,
                input_hash="i" * 64,
                equity=Decimal(100_000),
                buying_power=Decimal(100_000),
                decided_at=session.opens,
                gate_hash="g" * 64,
            ),
            decided=decided,
        )
        raise_alert(
            connection,
            account=office.account,
            severity=Severity.INFO,
            kind="decider.fallback",
            message=f"decisions of {day} by {decider}",
            at=checked_at,
            session=day,
        )
        record_gate(
            connection,
            account=office.account,
            gate=GateRecord(day, "trading", "decisions", "g" * 64, True, len(decided), [], checked_at),
        )
