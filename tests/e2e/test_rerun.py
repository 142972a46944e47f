"""Any flow, run again at any time or twice at once: nothing is bought twice, nothing is lost, the first books stand."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from whole_stack import World

from desk.ledger.records import RunState

pytestmark = pytest.mark.e2e

DAY = (
    ("premarket-screening", "04:00"),
    ("position-monitor", "09:30"),
    ("trading", "09:40"),
    ("position-monitor", "09:41"),
    ("close-of-day", "16:15"),
)
WEDNESDAY = date(2024, 3, 6)
BOOKS = (
    *("screenings", "watchlist", "decision_sets", "decisions", "control_verdicts"),
    *("orders", "order_events", "fills", "trades", "monitor_cycles", "closings"),
)


def books(world: World) -> dict[str, Any]:
    """Every row of every book, as text."""
    return {
        book: [row["line"] for row in world.rows(f"select to_jsonb(b)::text as line from {book} b order by line")]
        for book in BOOKS
    }


def test_each_stage_retried_and_run_afresh_changes_nothing(today: World) -> None:
    for stage, hhmm in DAY:
        today.set_clock(hhmm)
        run = today.run(stage)
        before, sent = books(today), today.sent()

        today.rerun(run)
        today.run(stage)

        assert books(today) == before
        assert today.sent() == sent
        if stage != "position-monitor":
            assert (today.told(stage).state, today.told(stage).attempts) == (RunState.RAN, 3)
    today.assert_books_agree()
    assert len(today.trades()) + len(today.rows("select 1 from trades where status = 'closed'")) == 4


def test_what_was_stopped_out_is_not_bought_back_by_a_rerun(today: World) -> None:
    """Its decision still says buy, and the account has the money and the place for it."""
    for stage, hhmm in DAY[:3]:
        today.set_clock(hhmm)
        run = today.run(stage)
    trade = today.trades()[0]
    today.quote(trade.symbol, trade.stop_price - Decimal("0.05"))
    today.set_clock("09:45")
    sent = today.sent()

    today.rerun(run)
    today.run("trading")

    assert today.sent() == sent
    assert today.rows("select close_reason from trades where status = 'closed'") == [{"close_reason": "stop-loss"}]
    assert trade.symbol not in {position.symbol for position in today.office.broker.positions()}
    today.assert_books_agree()


def test_a_run_that_failed_for_want_of_a_watchlist_buys_when_retried_after_the_screening(today: World) -> None:
    today.set_clock("09:40")
    failed = today.runner.run_now("trading/trading", {"session": None})
    assert failed.state is not None and failed.state.is_failed()
    assert "run premarket-screening first" in str(today.told("trading").reason)
    (alert,) = today.rows("select detail from alerts where kind = 'stage.failed'")
    assert alert["detail"]["link"] == f"{today.stack.ui_url}/runs/flow-run/{failed.id}"

    today.run("premarket-screening")
    today.rerun(failed)

    assert (today.told("trading").state, today.told("trading").reason) == (RunState.RAN, None)
    assert today.sent().total() == len(today.trades()) == 4
    today.assert_books_agree()


def test_yesterdays_stages_run_again_today_leave_yesterday_as_it_was(today: World) -> None:
    tuesday = today.day
    runs = []
    for stage, hhmm in DAY:
        today.set_clock(hhmm)
        runs.append(today.run(stage, session=tuesday))
    today.set_clock("10:00", WEDNESDAY)
    today.office.orders.reconcile()  # what the night and the morning brought is no rerun's doing
    before, sent = books(today), today.sent()
    evidence = today.rows("select stage, state, evidence from expected_runs order by stage")

    for run in runs:
        today.rerun(run)

    assert books(today) == before
    assert today.sent() == sent
    assert told(today, evidence) == told(today, today.rows("select * from expected_runs order by stage"))


def told(world: World, rows: list[Any]) -> list[tuple[object, ...]]:
    """What stands of each stage's evidence, but for how much a repetition found to be done already."""
    figures = ("equity", "positions", "watchlist", "data_hash", "bought", "decisions", "cycles")
    return [(row["stage"], row["state"], *((row["evidence"] or {}).get(name) for name in figures)) for row in rows]


LEFT = {
    "trading": {("Skipped", "left to another run, which is at work")},
    "position-monitor": {("Skipped", "left to another monitor, which is at work")},
}


def test_a_session_whose_every_stage_runs_twice_at_once_buys_once(today: World, tmp_path: Path) -> None:
    """Two runner processes, held up in each stage until both are about to write."""
    places = (
        *("flows.premarket_screening:write_watchlist", "flows.position_monitor:watch_positions"),
        *("flows.trading:write_decisions", "flows.trading:execution", "flows.close_of_day:close_books"),
    )
    meet = [option for place in places for option in ("--meet", str(tmp_path), place)]
    met: set[str] = set()

    with today.runner_process(*meet), today.runner_process(*meet):
        for stage, hhmm in DAY:
            today.set_clock(hhmm)
            ended = [today.until_ended(run) for run in (today.ask_for(stage), today.ask_for(stage))]
            if stage not in met:  # a place is a meeting once; later the same runner may take both, one by one
                assert len({run.infrastructure_pid for run in ended}) == 2
            met.add(stage)
            lost = [run for run in ended if run.state_name != "Completed"]
            assert {(run.state_name, run.state and run.state.message) for run in lost} <= LEFT.get(stage, set())
            assert len(lost) < 2

    bought = today.rows("select symbol from decisions where action = 'buy'")
    assert len(bought) == 4
    assert today.sent() == {(row["symbol"], "buy"): 1 for row in bought}
    assert len(today.rows("select 1 from screenings")) == len(today.rows("select 1 from closings")) == 1
    assert {row["state"] for row in today.rows("select state from expected_runs")} == {RunState.RAN.value}
    assert today.rows("select 1 from alerts where severity = 'critical'") == []
    today.assert_books_agree()
