"""kill -9 of each stage in the middle, in a real runner process: run again, it converges on what would have been."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from prefect.client.schemas.objects import FlowRun
from whole_stack import WAIT_S_MAX, World, world

from desk.ledger import migrate
from desk.ledger.databases import recreate_database
from desk.ledger.records import RunState
from flows.stack import Stack

pytestmark = pytest.mark.e2e

DAY = date(2024, 3, 5)


@dataclass(frozen=True, slots=True)
class Plan:
    """What an undisturbed session decides and orders. Same market, same clock: a disturbed one must come to it too."""

    watchlist: list[dict[str, object]]
    decisions: list[dict[str, object]]
    entries: list[dict[str, object]]


def plan_of(world: World) -> Plan:
    def found(query: str) -> list[dict[str, object]]:
        return [dict(row) for row in world.rows(query)]

    return Plan(
        found("select symbol, rank, buy_probability, sell_probability, last_close from watchlist order by rank"),
        found("select symbol, action, quantity, limit_price, stop_price, reason from decisions order by symbol"),
        found("select client_order_id, symbol, quantity, limit_price from orders where leg = 'entry' order by symbol"),
    )


@pytest.fixture(scope="module")
def undisturbed(whole_stack: Stack, postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    url = recreate_database(postgres_url, "undisturbed")
    migrate.upgrade(url)
    with world(whole_stack, home=tmp_path_factory.mktemp("undisturbed"), ledger_url=url, day=DAY) as day:
        until_trading(day)
        day.run("trading")
        plan = plan_of(day)
    assert len(plan.entries) == 4 and len(plan.watchlist) == 20
    return plan


def until_trading(world: World) -> None:
    world.set_clock("04:00")
    world.run("premarket-screening")
    world.set_clock("09:30")
    world.run("position-monitor")
    world.set_clock("09:40")


def killed(world: World, stage: str, when: str, place: str, nth: int = 1) -> FlowRun:
    """A run of the stage whose process killed itself there. It is found and buried by the next runner."""
    run = world.ask_for(stage)
    with world.runner_process("--kill", when, place, str(nth)) as process:
        assert process.wait(timeout=WAIT_S_MAX) == -signal.SIGKILL, (world.settings.home / "runner.log").read_text()
    left = world.read(run)
    assert left.state is not None and left.state.is_running()
    assert [buried.id for buried in world.next_runner().bury_leftovers()] == [run.id]
    assert world.read(run).state_name == "Crashed"
    alerted = world.rows(
        "select stage from alerts where kind = 'stage.crashed' and detail ->> 'run_id' = :id", id=str(run.id)
    )
    assert alerted == [{"stage": stage}]
    return world.read(run)


def assert_ran(world: World, stage: str, attempts: int) -> None:
    told = world.told(stage)
    assert (told.state, told.reason, told.attempts) == (RunState.RAN, None, attempts)
    world.assert_books_agree()


def count(world: World, query: str) -> int:
    return int(world.rows(f"select count(*) as n from {query}")[0]["n"])


@pytest.mark.parametrize(
    ("when", "place"),
    [
        pytest.param("before", "desk.barstore:BarStore._write_coverage", id="bars half stored"),
        pytest.param("after", "tasks.screening:record_screening", id="watchlist written, not committed"),
    ],
)
def test_screening_killed_and_run_again_writes_the_same_watchlist(
    today: World, undisturbed: Plan, when: str, place: str
) -> None:
    today.set_clock("04:00")
    run = killed(today, "premarket-screening", when, place)
    assert count(today, "screenings") == count(today, "watchlist") == 0

    today.rerun(run)

    assert plan_of(today).watchlist == undisturbed.watchlist
    assert_ran(today, "premarket-screening", attempts=2)


def test_decisioning_killed_before_its_commit_decides_the_same_again(today: World, undisturbed: Plan) -> None:
    until_trading(today)
    run = killed(today, "trading", "after", "tasks.decisioning:record_decisions")
    assert count(today, "decision_sets") == count(today, "decisions") == 0
    assert today.sent() == {}

    today.rerun(run)

    assert plan_of(today) == undisturbed
    assert_ran(today, "trading", attempts=2)


def doubt(world: World) -> dict[str, int]:
    """Entries by state, as the killed process left them."""
    found = world.rows("select state, count(*) as n from orders where leg = 'entry' group by state")
    return {row["state"]: row["n"] for row in found}


@pytest.mark.parametrize(
    ("when", "place", "left", "at_exchange"),
    [
        pytest.param(
            "after", "desk.protocol:OrderDesk.reserve", {"acked": 1, "reserved": 1}, 1, id="reserved, not yet sent"
        ),
        pytest.param("before", "desk.protocol:OrderDesk._post", {"acked": 1, "sending": 1}, 1, id="about to be sent"),
        pytest.param(
            "before",
            "desk.protocol:OrderDesk._adopt",
            {"acked": 1, "sending": 1},
            2,
            id="accepted, answer not written",
        ),
    ],
)
def test_execution_killed_around_its_second_order_sends_each_exactly_once(
    today: World, undisturbed: Plan, when: str, place: str, left: dict[str, int], at_exchange: int
) -> None:
    until_trading(today)
    run = killed(today, "trading", when, place, nth=2)
    assert doubt(today) == left
    assert today.sent().total() == at_exchange

    today.rerun(run)

    assert plan_of(today) == undisturbed
    assert today.sent() == {(entry["symbol"], "buy"): 1 for entry in undisturbed.entries}
    assert_ran(today, "trading", attempts=2)


def test_a_recovery_that_is_killed_too_is_recovered_from(today: World, undisturbed: Plan) -> None:
    """The answer to the second order is lost twice: when it was sent, and when it had been looked up."""
    until_trading(today)
    first = killed(today, "trading", "before", "desk.protocol:OrderDesk._adopt", nth=2)
    second = killed(today, "trading", "before", "desk.protocol:OrderDesk._adopt", nth=1)
    assert doubt(today) == {"acked": 1, "sending": 1}

    today.rerun(first)
    today.rerun(second)

    assert plan_of(today) == undisturbed
    assert today.sent() == {(entry["symbol"], "buy"): 1 for entry in undisturbed.entries}
    assert_ran(today, "trading", attempts=4)


@pytest.mark.parametrize(
    ("place", "orders_left", "held_left"),
    [
        pytest.param("desk.protocol:OrderDesk._send_new", set(), True, id="legs cancelled, nothing sold"),
        pytest.param("desk.protocol:OrderDesk._adopt", {"sending"}, False, id="sold, answer not written"),
    ],
)
def test_a_monitor_killed_while_closing_leaves_it_to_the_next_to_close_once(
    today: World, place: str, orders_left: set[str], held_left: bool
) -> None:
    until_trading(today)
    today.run("trading")
    trade = today.trades()[0]
    today.set_clock("09:45")
    today.quote(trade.symbol, trade.entry_price * Decimal("1.07"))  # just below the target
    today.run("position-monitor")
    today.set_clock("09:46")
    today.quote(trade.symbol, trade.entry_price)  # above the stop, and more than 6 % below the high

    run = killed(today, "position-monitor", "before", place)
    live = {row["state"] for row in today.rows(LIVE, symbol=trade.symbol)}
    held = {position.symbol for position in today.office.broker.positions()}
    assert (live, trade.symbol in held) == (orders_left, held_left)

    today.rerun(run)
    today.set_clock("09:47")
    today.run("position-monitor")

    closed = today.rows("select symbol, close_reason, quantity_closed from trades where status = 'closed'")
    assert closed == [
        {"symbol": trade.symbol, "close_reason": "trailing stop", "quantity_closed": trade.quantity},
    ]
    assert today.sent()[trade.symbol, "sell"] == 1
    assert today.rows("select verdict, errors from monitor_cycles order by cycle_at desc limit 1") == [
        {"verdict": "OK", "errors": []}
    ]
    today.set_clock("16:15")
    today.run("close-of-day")
    assert_ran(today, "position-monitor", attempts=1)


LIVE = """
    select state from orders
    where symbol = :symbol and state not in ('filled', 'canceled', 'rejected', 'expired', 'replaced', 'lapsed')
"""


@pytest.mark.parametrize(
    ("place", "closings"),
    [
        pytest.param("tasks.closing:record_closing", 0, id="reconciled, books open"),
        pytest.param("tasks.closing:write_session_report", 1, id="books closed, no report"),
    ],
)
def test_the_close_killed_and_run_again_closes_the_books_once_and_reports(
    today: World, place: str, closings: int
) -> None:
    until_trading(today)
    today.run("trading")
    today.set_clock("16:15")
    run = killed(today, "close-of-day", "before", place)
    assert count(today, "closings") == closings
    assert list((today.settings.home / "reports").rglob("*.html")) == []

    today.rerun(run)

    (books,) = today.rows("select differences, report, jsonb_array_length(positions) as held from closings")
    assert (books["differences"], books["held"]) == ([], 4)
    assert "SYN" in Path(books["report"]).read_text(encoding="utf-8")
    assert_ran(today, "close-of-day", attempts=2)
