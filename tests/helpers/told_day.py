"""A day in the ledger for readers: AAPL bought and stopped out, MSFT bought and held, NVDA refused, KO left alone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, insert

from desk.decision import Action, Decision
from desk.ledger import tables
from desk.ledger.alerts import raise_alert
from desk.ledger.closings import record_closing
from desk.ledger.decisions import record_decisions
from desk.ledger.engine import Ledger
from desk.ledger.gates import record_gate
from desk.ledger.monitor import record_cycle
from desk.ledger.records import (
    Closing,
    DecisionSet,
    Exit,
    GateRecord,
    HeldPosition,
    MonitorCycle,
    Severity,
    Verdict,
)
from desk.ledger.runs import expect_runs, finish_run, start_run
from desk.ledger.screenings import record_screening
from desk.orders import Leg, client_order_id
from desk.report.data import ReplayReport
from desk.screening import ScreenedSymbol, Screening

ACCOUNT = "SIM-1"
DAY = date(2024, 3, 5)
OPENS = datetime(2024, 3, 5, 14, 30, tzinfo=UTC)
CLOSES = datetime(2024, 3, 5, 21, 0, tzinfo=UTC)
DECIDED = OPENS + timedelta(minutes=10)
STOPPED = OPENS + timedelta(hours=2)
STAGES = (
    ("premarket-screening", OPENS - timedelta(hours=5), OPENS),
    ("trading", DECIDED, DECIDED + timedelta(minutes=20)),
    ("position-monitor", OPENS, CLOSES),
    ("close-of-day", CLOSES + timedelta(minutes=15), CLOSES + timedelta(hours=4)),
)


def tell_a_day(books: Ledger) -> None:
    """Write it all, as the stages would, into the account SIM-1 of `books`."""
    with books.transaction() as connection:
        _screened(connection)
        _decided(connection)
        _traded(connection)
        _monitored(connection)
        _closed(connection)


def order_id(symbol: str, leg: Leg) -> str:
    return client_order_id(account=ACCOUNT, strategy="default", session=DAY, decision=symbol, leg=leg, generation=0)


def _screened(connection: Connection) -> None:
    rows = tuple(
        ScreenedSymbol(
            symbol=symbol,
            rank=rank,
            buy_probability=0.95 - rank / 20,
            sell_probability=rank / 20,
            last_close=Decimal("101.25"),
            volume_20d=3_000_000,
            features={"momentum_20d": 0.125, "reversion_5d": -0.5},
        )
        for rank, symbol in enumerate(("MSFT", "AAPL", "NVDA", "KO"), start=1)
    )
    screening = Screening(
        screener="momentum-reversion/1",
        rows=rows,
        universe=500,
        eligible=420,
        data_hash="ab" * 32,
        last_bar=date(2024, 3, 4),
    )
    record_screening(
        connection, account=ACCOUNT, session=DAY, screening=screening, screened_at=OPENS - timedelta(hours=5)
    )
    gate = GateRecord(
        session=DAY,
        stage="premarket-screening",
        frame="bars",
        data_hash="cd" * 32,
        passed=True,
        rows=120_000,
        results=[{"expectation": "close above 0", "passed": True}],
        checked_at=OPENS - timedelta(hours=5),
    )
    record_gate(connection, account=ACCOUNT, gate=gate)


def _decided(connection: Connection) -> None:
    whole = DecisionSet(
        session=DAY,
        strategy="default",
        strategy_version=1,
        decider="fallback: no champion",
        policy_digest=None,
        input_hash="ef" * 32,
        equity=Decimal(100_000),
        buying_power=Decimal(100_000),
        decided_at=DECIDED,
    )
    buys = [
        Decision(
            symbol=symbol,
            action=Action.BUY,
            reason="buy_probability 0.90 above 0.70, sell_probability 0.05 below 0.30",
            quantity=Decimal(quantity),
            reference_price=Decimal(100),
            limit_price=Decimal("100.50"),
            stop_price=Decimal(96),
            target_price=Decimal(108),
            buy_probability=0.9,
            sell_probability=0.05,
        )
        for symbol, quantity in (("AAPL", 49), ("MSFT", 20), ("NVDA", 90))
    ]
    hold = Decision(
        symbol="KO",
        action=Action.HOLD,
        reason="buy_probability 0.55 not above 0.70",
        quantity=Decimal(0),
        buy_probability=0.55,
        sell_probability=0.2,
    )
    record_decisions(connection, account=ACCOUNT, decision_set=whole, decided=[*buys, hold])
    for symbol, allowed in (("AAPL", True), ("MSFT", True), ("NVDA", False)):
        verdict = {
            "control": "order value",
            "limit": "5000.00",
            "value": "4900.00" if allowed else "9000.00",
            "reason": "within the limit" if allowed else "order of 9000.00 USD, at most 5000.00 allowed",
        }
        _write(
            connection, "control_verdicts", client_order_id=order_id(symbol, Leg.ENTRY), symbol=symbol, session=DAY,
            allowed=allowed, **verdict,
        )  # fmt: skip


def _traded(connection: Connection) -> None:
    _order(connection, "AAPL", Leg.ENTRY, "filled", 49, 0, limit_price=Decimal("100.50"))
    _order(connection, "AAPL", Leg.STOP, "filled", 49, 110, parent=Leg.ENTRY, side="sell", stop_price=Decimal(96))
    _order(connection, "MSFT", Leg.ENTRY, "filled", 20, 1, limit_price=Decimal("100.50"))
    _fill(connection, "AAPL", Leg.ENTRY, "buy", 49, "100.10", DECIDED)
    _fill(connection, "AAPL", Leg.STOP, "sell", 49, "95.90", STOPPED)
    _fill(connection, "MSFT", Leg.ENTRY, "buy", 20, "100.20", DECIDED)
    _trade(
        connection, "AAPL", 49, "100.10", status="closed", quantity_closed=Decimal(49), exit_price=Decimal("95.90"),
        exited_at=STOPPED, close_reason="stop-loss", profit=Decimal("-205.80"),
    )  # fmt: skip
    _trade(connection, "MSFT", 20, "100.20", status="open", quantity_closed=Decimal(0))


def _monitored(connection: Connection) -> None:
    for minute in range(11, 131):
        at = OPENS + timedelta(minutes=minute)
        cycle = MonitorCycle(
            cycle_at=at,
            session=DAY,
            verdict=Verdict.RED if minute == 40 else Verdict.OK,
            positions_expected=2,
            positions_evaluated=2,
            position_hash="99" * 32,
            quote_age_max_s=31.0 if minute == 40 else 1.5,
            stops_verified=2,
            exits=(Exit("AAPL", "stop-loss"),) if at == STOPPED else (),
            errors=("MSFT: stale quote: 31 s old, at most 30 s allowed",) if minute == 40 else (),
            next_due_at=at + timedelta(minutes=1),
        )
        record_cycle(connection, account=ACCOUNT, cycle=cycle)
    raise_alert(
        connection, account=ACCOUNT, severity=Severity.WARNING, kind="quote.unusable", session=DAY, symbol="MSFT",
        message="MSFT: stale quote: 31 s old, at most 30 s allowed", at=OPENS + timedelta(minutes=40),
        stage="position-monitor",
    )  # fmt: skip


def _closed(connection: Connection) -> None:
    closing = Closing(
        session=DAY,
        equity_before=Decimal(100_000),
        equity=Decimal("99834.20"),
        cash=Decimal("97790.20"),
        long_market_value=Decimal(2044),
        positions=(HeldPosition("MSFT", Decimal(20), Decimal("102.20"), Decimal(2044), Decimal("100.20")),),
        differences=(),
        report="reports/SIM-1-2024-03-05.html",
        closed_at=CLOSES + timedelta(minutes=15),
    )
    record_closing(connection, account=ACCOUNT, closing=closing)
    expect_runs(connection, account=ACCOUNT, session=DAY, runs=STAGES, at=OPENS - timedelta(hours=6))
    for stage, due, _ in STAGES:
        key = {"account": ACCOUNT, "session": DAY, "stage": stage}
        start_run(connection, **key, at=due)
        finish_run(connection, **key, at=due + timedelta(minutes=2), evidence={"done": 4, "stage": stage})


def _order(
    connection: Connection, symbol: str, leg: Leg, state: str, quantity: int, minutes: int, *, side: str = "buy",
    parent: Leg | None = None, **prices: Decimal,
) -> None:  # fmt: skip
    at = DECIDED + timedelta(minutes=minutes)
    number = order_id(symbol, leg)
    _write(
        connection, "orders", client_order_id=number, session=DAY, strategy="default", strategy_version=1,
        parent_client_order_id=order_id(symbol, parent) if parent else None, symbol=symbol, leg=leg.value,
        generation=0, side=side, order_type="limit" if leg is Leg.ENTRY else "stop",
        order_class="bracket" if leg is Leg.ENTRY else "simple", time_in_force="gtc", quantity=Decimal(quantity),
        reason="entry" if leg is Leg.ENTRY else "stop-loss", state=state, broker_order_id=f"b-{symbol}-{leg}",
        filled_quantity=Decimal(quantity), filled_avg_price=Decimal(100), attempt=1, not_after=CLOSES, created_at=at,
        sent_at=at, updated_at=at, **prices,
    )  # fmt: skip
    for sequence, entered in enumerate(("reserved", "sending", "acked", state)):
        _write(
            connection, "order_events", client_order_id=number, sequence=sequence, state=entered, detail={},
            at=at + timedelta(seconds=sequence),
        )  # fmt: skip


def _fill(connection: Connection, symbol: str, leg: Leg, side: str, quantity: int, price: str, at: datetime) -> None:
    _write(
        connection, "fills", activity_id=f"{symbol}-{leg}", client_order_id=order_id(symbol, leg),
        broker_order_id=f"b-{symbol}-{leg}", symbol=symbol, side=side, quantity=Decimal(quantity),
        price=Decimal(price), filled_at=at,
    )  # fmt: skip


def _trade(connection: Connection, symbol: str, quantity: int, price: str, **values: Any) -> None:
    _write(
        connection, "trades", strategy="default", session=DAY, symbol=symbol, strategy_version=1,
        entry_client_order_id=order_id(symbol, Leg.ENTRY), quantity=Decimal(quantity), entry_price=Decimal(price),
        entered_at=DECIDED, stop_price=Decimal(96), target_price=Decimal(108), high_water_price=Decimal("102.30"),
        hold_until=date(2024, 3, 12), updated_at=DECIDED, **values,
    )  # fmt: skip


def _write(connection: Connection, table: str, **values: Any) -> None:
    connection.execute(insert(tables.metadata.tables[table]).values(account=ACCOUNT, **values))


def a_replay(trades: int) -> ReplayReport:
    """A quarter in which each trade gains or loses in turn."""
    days = [date(2019, 1, 2) + timedelta(days=n) for n in range(60)]
    return ReplayReport(
        label="recorded: sp500_daily_2016_2020.parquet",
        strategy="default version 1",
        equity_start=Decimal(100_000),
        equity=tuple((day, Decimal(100_000 + 400 * n - (2_500 if n % 20 > 14 else 0))) for n, day in enumerate(days)),
        trades=tuple(
            {
                "symbol": f"S{n}",
                "session": days[n % 60],
                "quantity": Decimal(10),
                "entry_price": Decimal(100),
                "exit_price": Decimal(104) if n % 3 else Decimal(95),
                "close_reason": "take-profit" if n % 3 else "stop-loss",
                "profit": Decimal(40) if n % 3 else Decimal(-50),
            }
            for n in range(trades)
        ),
        invested=tuple(Decimal(50_000) for _ in days),
        notes=("Bars are daily: the path within a day is made from them.",),
    )
