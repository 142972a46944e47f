"""A whole session through the deployments, executed by a runner process as `onepath up` starts it."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from prefect.client.schemas.objects import FlowRun
from whole_stack import World, wait_until

from desk.ledger.records import RunState

pytestmark = pytest.mark.e2e

STEPS = {
    "premarket-screening": [
        *("begin", "tradable_symbols", "refresh_bars", "held_symbols", "score", "write_watchlist", "finish"),
    ],
    "trading": [
        *("begin", "decisioning", "read_inputs", "decide", "write_decisions"),
        *("execution", "recover", "close_sold", "send_entries", "settle_entries", "finish"),
    ],
    "position-monitor": ["begin", "watch", "finish"],
    "close-of-day": ["begin", "reconcile_to_rest", "close_books", "publish_report", "finish"],
}


def test_a_session_is_screened_decided_executed_monitored_closed_and_reported(today: World) -> None:
    """Four are bought; one is made to fall below its stop and one to rise above its target."""
    with today.runner_process():
        runs = [run_at(today, "04:00", "premarket-screening"), run_at(today, "09:30", "position-monitor")]
        runs += [run_at(today, "09:40", "trading"), run_at(today, "09:41", "position-monitor")]
        falling, rising, *_ = bought = today.trades()
        today.set_clock("09:42")
        today.quote(falling.symbol, falling.stop_price - Decimal("0.05"))
        today.quote(rising.symbol, rising.target_price + Decimal("0.05"))
        runs += [today.run_there("position-monitor"), run_at(today, "09:43", "position-monitor")]
        runs += [run_at(today, "15:59", "position-monitor"), run_at(today, "16:15", "close-of-day")]
        assert_recorded_in_prefect(today, runs)

    today.assert_books_agree()
    assert len(bought) == 4
    assert_handed_over(today, sorted(trade.symbol for trade in bought))
    assert_orders_follow_decisions(today)
    ended = {row["symbol"]: row for row in today.rows("select symbol, close_reason, profit from trades")}
    assert ended[falling.symbol]["close_reason"] == "stop-loss" and ended[falling.symbol]["profit"] < 0
    assert ended[rising.symbol]["close_reason"] == "take-profit" and ended[rising.symbol]["profit"] > 0
    assert_watched(today, closed={falling.symbol, rising.symbol})
    assert_closed(today)


def run_at(world: World, hhmm: str, stage: str) -> FlowRun:
    world.set_clock(hhmm)
    return world.run_there(stage)


def assert_recorded_in_prefect(world: World, runs: list[FlowRun]) -> None:
    """Each run has its steps as task runs, all completed; the ledger names the run that did it."""
    for run in runs:
        stage = run.name.split()[0]
        expected = Counter((step, "Completed") for step in STEPS[stage])
        wait_until(lambda run=run, expected=expected: world.tasks_of(run) == expected, f"steps of {run.name}")
        if stage != "position-monitor":  # one entry for all its runs
            assert world.told(stage).flow_run == str(run.id)


def assert_handed_over(world: World, bought: list[str]) -> None:
    """Watchlist to decisions: each symbol once, by a named decider, on the screening's data."""
    listed = world.rows("select symbol, rank from watchlist order by rank")
    (screened,) = world.rows("select data_hash from screenings")
    decided = world.rows("select symbol, action, decider from decisions order by symbol")
    assert [row["rank"] for row in listed] == list(range(1, 21))
    assert (world.told("premarket-screening").evidence or {})["data_hash"] == screened["data_hash"]
    assert [row["symbol"] for row in decided] == sorted(row["symbol"] for row in listed)
    assert {row["decider"] for row in decided} == {"fallback: no champion"}
    assert [row["symbol"] for row in decided if row["action"] == "buy"] == bought


def assert_orders_follow_decisions(world: World) -> None:
    """Each buy is one filled bracket of the decided size and prices, with a stop and a target at the broker."""
    buys = world.rows(ORDERED)
    as_decided = {"state": "filled", "is_same": True, "is_filled": True, "has_stop": True, "has_target": True}
    assert [dict(row) for row in buys] == [{"symbol": row["symbol"], **as_decided} for row in buys]
    assert world.sent() == {(row["symbol"], "buy"): 1 for row in buys}


ORDERED = """
    with legs as (
        select parent_client_order_id as entry, min(stop_price) as stop, max(limit_price) as target
        from orders where leg in ('stop', 'target') group by entry
    ), filled as (
        select client_order_id as entry, sum(quantity) as quantity from fills group by entry
    )
    select d.symbol, o.state,
        d.quantity = o.quantity and d.limit_price = o.limit_price as is_same, filled.quantity = d.quantity as is_filled,
        legs.stop = d.stop_price as has_stop, legs.target = d.target_price as has_target
    from decisions d
    left join orders o on o.symbol = d.symbol and o.leg = 'entry'
    left join legs on legs.entry = o.client_order_id
    left join filled on filled.entry = o.client_order_id
    where d.action = 'buy'
"""


def assert_watched(world: World, closed: set[str]) -> None:
    """Every cycle saw all there was, and each of its positions had a stop at the broker."""
    cycles = world.rows("select * from monitor_cycles order by cycle_at")
    assert [cycle["positions_expected"] for cycle in cycles] == [0, 4, 2, 2, 4 - len(closed_today(world))]
    assert {cycle["verdict"] for cycle in cycles} == {"OK"}
    assert all(cycle["stops_verified"] == cycle["positions_expected"] for cycle in cycles)
    assert closed <= closed_today(world)


def closed_today(world: World) -> set[str]:
    return {row["symbol"] for row in world.rows("select symbol from trades where status = 'closed'")}


def assert_closed(world: World) -> None:
    """The books are the broker's own figures, every expected run ran, and the report names what was traded."""
    account = world.office.broker.account()
    (books,) = world.rows("select * from closings")
    assert (books["equity"], books["cash"], books["differences"]) == (account.equity, account.cash, [])
    assert {held["symbol"] for held in books["positions"]} == {trade.symbol for trade in world.trades()}
    report = Path(books["report"]).read_text(encoding="utf-8")
    assert all(row["symbol"] in report for row in world.rows("select symbol from trades"))
    states = world.rows("select stage, state from expected_runs")
    assert {row["stage"]: row["state"] for row in states} == dict.fromkeys(STEPS, RunState.RAN.value)
    assert world.rows("select message from alerts where severity <> 'info'") == []
