"""Accounts, strategies, runs and alerts in the ledger: nothing is silent, and repeating is harmless."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Connection, select

from desk.alerts import Message, deliver
from desk.channels import LogChannel
from desk.errors import Halt, Transient
from desk.guard import assert_no_connection_held
from desk.ledger import (
    accounts,
    alerts,
    runs,
    strategies,
)
from desk.ledger.deliveries import undelivered
from desk.ledger.engine import Ledger
from desk.ledger.records import (
    RunState,
    Severity,
)
from desk.ledger.tables import alert_deliveries
from desk.market import Session
from desk.strategy import Strategy

pytestmark = pytest.mark.integration

ACCOUNT = "SIM-1"
DAY = date(2024, 3, 5)
OPENS = datetime(2024, 3, 5, 14, 30, tzinfo=UTC)
CLOSES = datetime(2024, 3, 5, 21, 0, tzinfo=UTC)
SESSION = Session(day=DAY, opens=OPENS, closes=CLOSES)
KEY = {"account": ACCOUNT, "session": DAY, "stage": "trading"}


# -------------------------------------------------------------------------------------------- accounts and strategies


def test_an_account_is_opened_once_and_recognised_after(books: Ledger) -> None:
    with books.transaction() as connection:
        accounts.open_account(connection, account=ACCOUNT, broker="simulated", venue="simulated: synthetic, seed 7")


@pytest.mark.parametrize(("broker", "venue"), [("paper", "alpaca paper"), ("simulated", "simulated: recorded")])
def test_an_account_on_another_venue_halts(books: Ledger, broker: str, venue: str) -> None:
    with pytest.raises(Halt, match=r"SIM-1.*seed 7.*found"), books.transaction() as connection:
        accounts.open_account(connection, account=ACCOUNT, broker=broker, venue=venue)


def test_the_same_numbers_keep_their_version_and_others_get_the_next(books: Ledger) -> None:
    first, second = Strategy(), Strategy(stop_loss_pct=Decimal("3.5"))

    def apply(strategy: Strategy) -> int:
        with books.transaction() as connection:
            return strategies.apply_strategy(connection, account=ACCOUNT, strategy=strategy, by="test")

    assert [apply(first), apply(second), apply(second)] == [1, 2, 2]


def test_going_back_to_earlier_numbers_is_a_new_version_that_holds(books: Ledger) -> None:
    with books.transaction() as connection:
        for strategy in (Strategy(stop_loss_pct=Decimal(3)), Strategy()):
            version = strategies.apply_strategy(connection, account=ACCOUNT, strategy=strategy, by="test")

        assert strategies.current_strategy(connection, account=ACCOUNT, name="default") == (Strategy(), version)
        assert version == 3


def test_a_strategy_is_read_back_with_the_digest_it_was_stored_under(books: Ledger) -> None:
    strategy = Strategy(name="bold", take_profit_pct=Decimal("12.25"), trailing_stop_pct=None)
    with books.transaction() as connection:
        version = strategies.apply_strategy(connection, account=ACCOUNT, strategy=strategy, by="test")
        found = strategies.strategy_version(connection, account=ACCOUNT, name="bold", version=version)

        assert found == strategy
        assert found.digest == strategy.digest
        assert strategies.strategy_version(connection, account=ACCOUNT, name="bold", version=9) is None
        assert strategies.current_strategy(connection, account=ACCOUNT, name="unknown") is None


# ------------------------------------------------------------------------------------------------- sessions and runs


@pytest.fixture
def expected(books: Ledger) -> Ledger:
    with books.transaction() as connection:
        expect(connection)
    return books


def expect(connection: Connection, *, due: datetime = OPENS + timedelta(minutes=10)) -> None:
    runs.expect_runs(
        connection,
        account=ACCOUNT,
        session=DAY,
        runs=[("trading", due, due + timedelta(hours=1)), ("close-of-day", CLOSES, CLOSES + timedelta(hours=3))],
        at=OPENS - timedelta(hours=6),
    )


def test_a_changed_calendar_changes_the_session(books: Ledger) -> None:
    early = Session(day=DAY, opens=OPENS, closes=OPENS + timedelta(hours=3, minutes=30))
    with books.transaction() as connection:
        runs.record_session(connection, account=ACCOUNT, session=early)

        assert runs.recorded_session(connection, account=ACCOUNT, day=DAY) == early
        assert runs.recorded_session(connection, account=ACCOUNT, day=date(2024, 3, 9)) is None


def test_runs_are_expected_in_the_order_they_are_due(expected: Ledger) -> None:
    with expected.transaction() as connection:
        found = runs.runs_of(connection, account=ACCOUNT, session=DAY)

    assert [run.stage for run in found] == ["trading", "close-of-day"]
    assert {run.state for run in found} == {RunState.EXPECTED}


def test_expecting_again_moves_what_has_not_begun_and_leaves_the_rest(expected: Ledger) -> None:
    with expected.transaction() as connection:
        runs.start_run(connection, **KEY, at=OPENS)
        expect(connection, due=OPENS + timedelta(minutes=30))
        trading = runs.run_of(connection, **KEY)
        assert trading is not None
        assert trading.due_at == OPENS + timedelta(minutes=10)

        runs.expect_runs(connection, account=ACCOUNT, session=DAY, runs=[("close-of-day", OPENS, CLOSES)], at=OPENS)
        closing = runs.run_of(connection, account=ACCOUNT, session=DAY, stage="close-of-day")
        assert closing is not None
        assert closing.due_at == OPENS


def test_a_run_starts_ends_and_keeps_its_evidence(expected: Ledger) -> None:
    with expected.transaction() as connection:
        started = runs.start_run(connection, **KEY, at=OPENS, flow_run="flow-1")
        assert (started.state, started.attempts, started.flow_run) == (RunState.RUNNING, 1, "flow-1")

        ended = runs.finish_run(connection, **KEY, at=CLOSES, evidence={"bought": 3, "spent": Decimal("99.50")})
        assert (ended.state, ended.ended_at) == (RunState.RAN, CLOSES)
        assert ended.evidence == {"bought": 3, "spent": "99.50"}
        assert runs.last_run(connection, account=ACCOUNT, stage="trading") == ended


def test_a_rerun_of_a_finished_stage_runs_again_and_ends_as_ran(expected: Ledger) -> None:
    with expected.transaction() as connection:
        for number in (1, 2):
            runs.start_run(connection, **KEY, at=OPENS)
            run = runs.finish_run(connection, **KEY, at=CLOSES, evidence={"number": number})

    assert (run.state, run.attempts, run.evidence) == (RunState.RAN, 2, {"number": 2})


@pytest.mark.parametrize("is_running_again", [False, True])
def test_a_skip_never_overwrites_what_ran(expected: Ledger, is_running_again: bool) -> None:
    with expected.transaction() as connection:
        runs.start_run(connection, **KEY, at=OPENS)
        runs.finish_run(connection, **KEY, at=CLOSES, evidence={"bought": 1})
        if is_running_again:
            runs.start_run(connection, **KEY, at=CLOSES)
        run = runs.skip_run(connection, **KEY, at=CLOSES, reason="holiday")

    assert (run.state, run.reason, run.evidence) == (RunState.RAN, None, {"bought": 1})


def test_a_skip_says_why(expected: Ledger) -> None:
    with expected.transaction() as connection:
        run = runs.skip_run(connection, **KEY, at=OPENS, reason="no session: Good Friday")

    assert (run.state, run.reason) == (RunState.SKIPPED, "no session: Good Friday")


def test_a_failed_run_may_run_again(expected: Ledger) -> None:
    with expected.transaction() as connection:
        runs.start_run(connection, **KEY, at=OPENS)
        failed = runs.fail_run(connection, **KEY, at=OPENS, reason="Transient: broker away")
        again = runs.start_run(connection, **KEY, at=CLOSES)

    assert (failed.state, failed.reason) == (RunState.FAILED, "Transient: broker away")
    assert (again.state, again.reason, again.attempts) == (RunState.RUNNING, None, 2)


def test_a_failing_twin_does_not_undo_what_ran(expected: Ledger) -> None:
    with expected.transaction() as connection:
        for _ in range(2):
            runs.start_run(connection, **KEY, at=OPENS)
        runs.finish_run(connection, **KEY, at=CLOSES, evidence={})
        run = runs.fail_run(connection, **KEY, at=CLOSES, reason="lock held")

    assert run.state is RunState.RAN


def test_only_what_never_began_is_missed(expected: Ledger) -> None:
    closing = {**KEY, "stage": "close-of-day"}
    with expected.transaction() as connection:
        runs.start_run(connection, **KEY, at=OPENS)
        late = runs.overdue_runs(connection, account=ACCOUNT, at=CLOSES + timedelta(days=1))
        assert [run.stage for run in late] == ["close-of-day"]

        assert runs.miss_run(connection, **KEY, at=CLOSES, reason="late").state is RunState.RUNNING
        assert runs.miss_run(connection, **closing, at=CLOSES, reason="late").state is RunState.MISSED


def test_a_run_nobody_expected_is_a_defect(books: Ledger) -> None:
    with pytest.raises(RuntimeError, match="not expected"), books.transaction() as connection:
        runs.start_run(connection, **KEY, at=OPENS)


# ------------------------------------------------------------------------------------------------------------ alerts


class Deaf:
    """A channel that never gets through."""

    name = "deaf"
    pages = False

    def send(self, message: Message) -> None:
        assert_no_connection_held("deaf channel")
        raise Transient(f"alert {message.newest.alert_id}: connection refused")


def alarm(ledger: Ledger, *, symbol: str | None = None, severity: Severity = Severity.WARNING) -> int:
    with ledger.transaction() as connection:
        return alerts.raise_alert(
            connection,
            account=ACCOUNT,
            session=DAY,
            stage="position-monitor",
            symbol=symbol,
            severity=severity,
            kind="quote.unusable",
            message=f"{symbol}: stale quote",
            detail={"age_s": 45.5, "worst": float("nan")},
            at=OPENS,
        )


def test_an_alert_is_delivered_once_by_each_channel(books: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    first, second = alarm(books, symbol="AAPL"), alarm(books, symbol="MSFT", severity=Severity.CRITICAL)

    with caplog.at_level(logging.INFO):
        assert deliver(books, account=ACCOUNT, channels=[LogChannel()]) == 0
        assert deliver(books, account=ACCOUNT, channels=[LogChannel()]) == 0

    lines = [record for record in caplog.records if record.name == "onepath.alerts"]
    assert [record.alert_id for record in lines] == [first, second]  # type: ignore[attr-defined]
    assert [record.levelno for record in lines] == [logging.WARNING, logging.CRITICAL]
    assert lines[0].getMessage() == "quote.unusable: AAPL: stale quote"


def test_a_failed_delivery_stays_open_with_its_error(books: Ledger) -> None:
    number = alarm(books)

    later = datetime.now(UTC) + timedelta(minutes=1)
    failed = [
        deliver(books, account=ACCOUNT, channels=[Deaf(), LogChannel()], now=now) for now in (None, None, lambda: later)
    ]

    assert failed == [1, 0, 1]  # at once it is not tried again: a channel that failed rests a little
    with books.transaction() as connection:
        open_ones = undelivered(connection, account=ACCOUNT, channel="deaf")
        assert [alert.alert_id for alert in open_ones] == [number]
        assert undelivered(connection, account=ACCOUNT, channel="log") == []
        tried = connection.execute(
            select(alert_deliveries.c.channel, alert_deliveries.c.attempt, alert_deliveries.c.error).order_by(
                alert_deliveries.c.channel, alert_deliveries.c.attempt
            )
        )
        refusal = f"Transient: alert {number}: connection refused"
        assert [tuple(row) for row in tried] == [("deaf", 1, refusal), ("deaf", 2, refusal), ("log", 1, None)]


def test_alerts_are_found_by_session_and_symbol(books: Ledger) -> None:
    for symbol in ("AAPL", "MSFT"):
        alarm(books, symbol=symbol)
    with books.transaction() as connection:
        found = alerts.alerts_of(connection, account=ACCOUNT, session=DAY, symbol="AAPL")

        assert [(alert.symbol, alert.detail) for alert in found] == [("AAPL", {"age_s": 45.5, "worst": "nan"})]
        assert len(alerts.alerts_of(connection, account=ACCOUNT)) == 2
        assert alerts.alerts_of(connection, account="other") == []


def test_an_alert_is_rolled_back_with_the_fact_it_reports(books: Ledger) -> None:
    with pytest.raises(ValueError, match="stop"), books.transaction() as connection:
        alerts.raise_alert(connection, account=ACCOUNT, severity=Severity.INFO, kind="x.done", message="x", at=OPENS)
        raise ValueError("stop")

    with books.transaction() as connection:
        assert alerts.alerts_of(connection, account=ACCOUNT) == []
