"""The ledger's rooms, each on a real database: what is written is read back, and repeating is harmless."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import IntegrityError

from desk.decision import Action, Approval, Decision
from desk.ledger import (
    approvals,
    closings,
    decisions,
    gates,
    monitor,
    screenings,
    trading_state,
)
from desk.ledger.connecting import connect_plainly
from desk.ledger.engine import Ledger
from desk.ledger.records import (
    Closing,
    DecisionSet,
    Exit,
    GateRecord,
    HeldPosition,
    MonitorCycle,
    TradingState,
    Verdict,
)
from desk.ledger.tables import watchlist
from desk.market import Session
from desk.screening import ScreenedSymbol, Screening

pytestmark = pytest.mark.integration

ACCOUNT = "SIM-1"
DAY = date(2024, 3, 5)
OPENS = datetime(2024, 3, 5, 14, 30, tzinfo=UTC)
CLOSES = datetime(2024, 3, 5, 21, 0, tzinfo=UTC)
SESSION = Session(day=DAY, opens=OPENS, closes=CLOSES)
KEY = {"account": ACCOUNT, "session": DAY, "stage": "trading"}


def screening() -> Screening:
    rows = tuple(
        ScreenedSymbol(
            symbol=symbol,
            rank=rank,
            buy_probability=0.9 - rank / 10,
            sell_probability=rank / 10,
            last_close=Decimal("101.25"),
            volume_20d=3_000_000,
            features={"momentum_20d": 0.125, "gap": -0.5},
        )
        for rank, symbol in enumerate(("MSFT", "AAPL"), start=1)
    )
    return Screening(
        screener="momentum-reversion/1",
        rows=rows,
        universe=500,
        eligible=420,
        data_hash="ab" * 32,
        last_bar=date(2024, 3, 4),
    )


def screened(connection: Connection) -> None:
    screenings.record_screening(
        connection, account=ACCOUNT, session=DAY, screening=screening(), screened_at=OPENS - timedelta(hours=5)
    )


# ------------------------------------------------------------------------------------- gates, trading state, approvals


def test_a_verdict_on_the_same_data_is_recorded_once(books: Ledger) -> None:
    gate = GateRecord(
        session=DAY,
        stage="premarket-screening",
        frame="bars",
        data_hash="cd" * 32,
        passed=False,
        rows=3,
        results=[{"expectation": "close above 0", "observed": Decimal("-1.5"), "passed": False}],
        checked_at=OPENS,
    )
    with books.transaction() as connection:
        assert gates.record_gate(connection, account=ACCOUNT, gate=gate)
        assert not gates.record_gate(connection, account=ACCOUNT, gate=replace(gate, passed=True))
        found = gates.gates_of(connection, account=ACCOUNT, session=DAY)

    stored = [{"expectation": "close above 0", "observed": "-1.5", "passed": False}]
    assert found == [replace(gate, results=stored)]


def test_trading_is_active_until_someone_says_otherwise(books: Ledger) -> None:
    with books.transaction() as connection:
        assert trading_state.current_state(connection, account=ACCOUNT).state is TradingState.ACTIVE


def test_a_halt_is_latched_and_keeps_its_first_reason(books: Ledger) -> None:
    halted = {"account": ACCOUNT, "state": TradingState.HALTED, "at": OPENS}
    with books.transaction() as connection:
        trading_state.set_state(connection, **halted, reason="daily loss 4.2 %", by="control loss")
        trading_state.set_state(connection, **halted, reason="again", by="someone")
    with books.transaction() as connection:
        now = trading_state.current_state(connection, account=ACCOUNT)
        assert (now.sequence, now.state, now.reason) == (1, TradingState.HALTED, "daily loss 4.2 %")

        trading_state.set_state(
            connection, account=ACCOUNT, state=TradingState.ACTIVE, reason="looked", by="Ada", at=CLOSES
        )
        assert trading_state.current_state(connection, account=ACCOUNT).state is TradingState.ACTIVE


def test_the_newest_approval_is_the_champion(books: Ledger) -> None:
    seven = Approval(model="onepath-policy", version=7, digest="ef" * 32)
    six = Approval(model="onepath-policy", version=6, digest="01" * 32)
    with books.transaction() as connection:
        assert approvals.champion(connection, account=ACCOUNT, model="onepath-policy") is None
        for approval in (six, seven, seven, six):
            approvals.approve(connection, account=ACCOUNT, approval=approval, by="Ada")

        assert approvals.champion(connection, account=ACCOUNT, model="onepath-policy") == six
        assert approvals.champion(connection, account=ACCOUNT, model="onepath-screener") is None


# -------------------------------------------------------------------------------------------- screenings and decisions


def test_a_screening_is_read_back_as_it_was(books: Ledger) -> None:
    with books.transaction() as connection:
        screened(connection)
        found = screenings.screening_of(connection, account=ACCOUNT, session=DAY)

    assert found is not None
    assert found.screening == screening()


def test_the_first_screening_stands(books: Ledger) -> None:
    other = replace(screening(), data_hash="99" * 32, rows=())
    with books.transaction() as connection:
        screened(connection)
    with books.transaction() as connection:
        is_first = screenings.record_screening(
            connection, account=ACCOUNT, session=DAY, screening=other, screened_at=OPENS
        )
        found = screenings.watchlist_of(connection, account=ACCOUNT, session=DAY)

    assert not is_first
    assert found == screening().rows


def test_two_screenings_at_once_leave_one(books: Ledger, ledger_url: str) -> None:
    """The second waits for the first to commit and then finds that it came too late."""
    answers: list[bool] = []

    def rival() -> None:
        other = Ledger.connect(ledger_url, pool_size=1)
        with other.transaction() as connection:
            answers.append(
                screenings.record_screening(
                    connection, account=ACCOUNT, session=DAY, screening=screening(), screened_at=OPENS
                )
            )
        other.close()

    thread = threading.Thread(target=rival)
    with books.transaction() as connection:
        screened(connection)
        thread.start()
        with connect_plainly(ledger_url) as watcher:  # by itself: a transaction sees one picture of what others do
            blocked = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            deadline = time.monotonic() + 10
            while watcher.execute(blocked).fetchone() is None:
                assert time.monotonic() < deadline
                thread.join(0.01)
    thread.join(20)

    assert answers == [False]
    with books.transaction() as connection:
        assert connection.execute(select(func.count()).select_from(watchlist)).scalar() == 2


def test_a_screening_that_saw_the_session_itself_is_refused(books: Ledger) -> None:
    ahead = replace(screening(), last_bar=DAY)
    with pytest.raises(IntegrityError, match="no_lookahead"), books.transaction() as connection:
        screenings.record_screening(connection, account=ACCOUNT, session=DAY, screening=ahead, screened_at=OPENS)


DECISIONS = DecisionSet(
    session=DAY,
    strategy="default",
    strategy_version=1,
    decider="fallback: no champion",
    policy_digest=None,
    input_hash="ab" * 32,
    equity=Decimal("100000.50"),
    buying_power=Decimal("200001"),
    decided_at=OPENS,
)
DECIDED = [
    Decision(symbol="AAPL", action=Action.HOLD, reason="buy_probability 0.5", quantity=Decimal(0)),
    Decision(
        symbol="MSFT",
        action=Action.BUY,
        reason="buy_probability 0.8",
        quantity=Decimal(12),
        reference_price=Decimal("400.005"),
        limit_price=Decimal("402.01"),
        stop_price=Decimal(384),
        target_price=Decimal(432),
        buy_probability=0.8,
        sell_probability=0.1,
    ),
]


def test_decisions_are_read_back_as_they_were_and_the_first_set_stands(books: Ledger) -> None:
    key = {"account": ACCOUNT, "session": DAY, "strategy": "default"}
    with books.transaction() as connection:
        screened(connection)
        assert decisions.record_decisions(connection, account=ACCOUNT, decision_set=DECISIONS, decided=DECIDED)
    with books.transaction() as connection:
        other = replace(DECISIONS, decider="policy onepath-policy/7")
        assert not decisions.record_decisions(connection, account=ACCOUNT, decision_set=other, decided=[])
        assert decisions.decision_set_of(connection, **key) == DECISIONS
        assert decisions.decisions_of(connection, **key) == DECIDED
        assert decisions.decision_of(connection, **key, symbol="MSFT") == DECIDED[1]
        assert decisions.decision_of(connection, **key, symbol="TSLA") is None


def test_a_session_that_decided_nothing_can_prove_it(books: Ledger) -> None:
    key = {"account": ACCOUNT, "session": DAY, "strategy": "default"}
    with books.transaction() as connection:
        screened(connection)
        assert decisions.decision_set_of(connection, **key) is None
        assert decisions.record_decisions(connection, account=ACCOUNT, decision_set=DECISIONS, decided=[])

        assert decisions.decision_set_of(connection, **key) == DECISIONS
        assert decisions.decisions_of(connection, **key) == []


def test_decisions_under_a_strategy_version_that_is_not_there_are_refused(books: Ledger) -> None:
    with pytest.raises(IntegrityError, match="fk_decision_sets_strategies"), books.transaction() as connection:
        screened(connection)
        decisions.record_decisions(
            connection, account=ACCOUNT, decision_set=replace(DECISIONS, strategy_version=9), decided=[]
        )


# --------------------------------------------------------------------------------------------- monitor and closings

CYCLE = MonitorCycle(
    cycle_at=OPENS,
    session=DAY,
    verdict=Verdict.OK,
    positions_expected=2,
    positions_evaluated=2,
    position_hash="aa" * 32,
    quote_age_max_s=1.5,
    stops_verified=2,
    exits=(Exit(symbol="MSFT", reason="stop-loss"),),
    errors=(),
    next_due_at=OPENS + timedelta(minutes=1),
)


def test_cycles_are_evidence_in_the_order_they_happened(books: Ledger) -> None:
    later = replace(
        CYCLE, cycle_at=CYCLE.next_due_at, verdict=Verdict.RED, positions_expected=None, errors=("broker away",)
    )
    with books.transaction() as connection:
        assert monitor.last_cycle(connection, account=ACCOUNT) is None
        assert monitor.seconds_since_last_cycle(connection, account=ACCOUNT) is None
        for cycle in (CYCLE, later):
            assert monitor.record_cycle(connection, account=ACCOUNT, cycle=cycle)
        assert not monitor.record_cycle(connection, account=ACCOUNT, cycle=replace(CYCLE, stops_verified=0))

        assert monitor.cycles_of(connection, account=ACCOUNT, session=DAY) == [CYCLE, later]
        assert monitor.last_cycle(connection, account=ACCOUNT) == later
        age_s = monitor.seconds_since_last_cycle(connection, account=ACCOUNT)
        assert age_s is not None
        assert age_s >= 0


def test_a_cycle_without_full_evidence_cannot_be_ok(books: Ledger) -> None:
    """The type refuses it, and so does the database by itself."""
    with pytest.raises(ValueError, match="OK with 1 of 2"):
        replace(CYCLE, positions_evaluated=1)

    with pytest.raises(IntegrityError, match="ok_needs_evidence"), books.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO monitor_cycles (account, cycle_at, session, verdict, positions_evaluated, "
                "stops_verified, exits, errors, next_due_at) "
                "VALUES (:account, now(), :day, 'OK', 0, 0, '[]', '[]', now())"
            ),
            {"account": ACCOUNT, "day": DAY},
        )


def test_books_are_closed_once(books: Ledger) -> None:
    held = HeldPosition(
        symbol="MSFT",
        quantity=Decimal(12),
        price=Decimal("401.5"),
        value=Decimal("4818.0"),
        entry_price=Decimal("400.1234"),
    )
    closing = Closing(
        session=DAY,
        equity_before=Decimal(100_000),
        equity=Decimal("100017.25"),
        cash=Decimal("95199.25"),
        long_market_value=Decimal(4818),
        positions=(held,),
        differences=(),
        report="var/reports/2024-03-05.html",
        closed_at=CLOSES,
    )
    with books.transaction() as connection:
        assert closings.closing_of(connection, account=ACCOUNT, session=DAY) is None
        assert closings.record_closing(connection, account=ACCOUNT, closing=closing)
        assert not closings.record_closing(connection, account=ACCOUNT, closing=replace(closing, equity=Decimal(1)))

        assert closings.closing_of(connection, account=ACCOUNT, session=DAY) == closing
        assert closings.closings(connection, account=ACCOUNT, start=DAY, end=DAY) == [closing]
        assert closings.closings(connection, account=ACCOUNT, start=DAY + timedelta(days=1)) == []
