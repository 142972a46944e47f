"""Days that are not like others, through the deployments: both clock changes, a half day, a holiday."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.schemas.filters import LogFilter
from prefect.client.schemas.objects import FlowRun
from prefect.server.schemas.schedules import CronSchedule
from whole_stack import World, wait_until, world

from desk.ledger.records import RunState
from flows.stack import Stack

pytestmark = pytest.mark.e2e

STAGES = ("premarket-screening", "trading", "position-monitor", "close-of-day")
MINUTE = timedelta(minutes=1)


@pytest.fixture
def on(request: pytest.FixtureRequest, whole_stack: Stack, ledger_url: str, tmp_path: Path) -> Iterator[World]:
    """A world that begins before four in the morning of the day given as parameter."""
    with world(whole_stack, home=tmp_path, ledger_url=ledger_url, day=request.param) as made:
        yield made


def scheduled(world: World, stage: str) -> list[str]:
    """When Prefect's scheduler starts the stage on this day, UTC, by the schedules registered at the server."""
    midnight = datetime(world.day.year, world.day.month, world.day.day, 5, tzinfo=UTC)  # or 01:00 in New York
    times: list[datetime] = []
    for each in world.client.read_deployment_by_name(f"{stage}/{stage}").schedules:
        cron = CronSchedule(cron=each.schedule.cron, timezone=each.schedule.timezone)
        times += asyncio.run(cron.get_dates(n=600, start=midnight, end=midnight + timedelta(hours=18)))
    return [f"{time.astimezone(UTC):%H:%M}" for time in sorted(times)]


def set_utc(world: World, hhmm: str) -> None:
    hour, minute = map(int, hhmm.split(":"))
    world.set_moment(datetime(world.day.year, world.day.month, world.day.day, hour, minute, tzinfo=UTC))


def cycles(world: World) -> int:
    (row,) = world.rows("select count(*) as n from monitor_cycles where session = :day", day=world.day)
    return int(row["n"])


# Golden times, UTC: when each stage is due, and the session's first and last minute.
EASTERN_STANDARD = {"premarket-screening": "09:00", "opens": "14:30", "trading": "14:40", "close-of-day": "21:15"}
EASTERN_DAYLIGHT = {"premarket-screening": "08:00", "opens": "13:30", "trading": "13:40", "close-of-day": "20:15"}
LAST_MINUTE = {"21:15": ("20:59", "21:00"), "20:15": ("19:59", "20:00")}


@pytest.mark.parametrize(
    ("on", "friday", "monday"),
    [
        pytest.param(date(2024, 3, 8), EASTERN_STANDARD, EASTERN_DAYLIGHT, id="clocks go forward"),
        pytest.param(date(2024, 11, 1), EASTERN_DAYLIGHT, EASTERN_STANDARD, id="clocks go back"),
    ],
    indirect=["on"],
)
def test_positions_are_carried_over_a_clock_change_and_every_stage_keeps_its_new_york_hour(
    on: World, friday: dict[str, str], monday: dict[str, str]
) -> None:
    first = on.day
    play(on, friday)
    held = {trade.symbol for trade in on.trades()}
    on.set_clock("03:55", first + timedelta(days=3))
    play(on, monday)

    assert held
    assert {row["session"] for row in on.rows("select session from closings")} == {first, on.day}
    kept = on.rows("select symbol from trades where session = :day", day=first)
    assert held <= {row["symbol"] for row in kept}


def play(world: World, due: dict[str, str]) -> None:
    """A session at its golden times: each is in Prefect's schedule, and what starts then has work to do."""
    last, closed = LAST_MINUTE[due["close-of-day"]]
    assert_scheduled(world, due, [due["opens"], last, closed])
    run_at(world, due["premarket-screening"], "premarket-screening")
    opens = datetime.fromisoformat(f"{world.day}T{due['opens']}+00:00")
    run_at(world, f"{opens - MINUTE:%H:%M}", "position-monitor")
    assert cycles(world) == 0
    run_at(world, due["opens"], "position-monitor")
    run_at(world, due["trading"], "trading")
    run_at(world, last, "position-monitor")
    assert cycles(world) == 2
    run_at(world, closed, "position-monitor")
    assert cycles(world) == 2
    run_at(world, due["close-of-day"], "close-of-day")
    assert due_and_state(world) == {stage: (due.get(stage, due["opens"]), RunState.RAN.value, None) for stage in STAGES}
    world.assert_books_agree()


def assert_scheduled(world: World, due: dict[str, str], monitored: list[str]) -> None:
    assert scheduled(world, "premarket-screening") == [due["premarket-screening"]]
    assert scheduled(world, "trading") == [due["trading"]]
    assert due["close-of-day"] in scheduled(world, "close-of-day")
    assert set(monitored) <= set(scheduled(world, "position-monitor"))


def run_at(world: World, hhmm: str, stage: str) -> FlowRun:
    set_utc(world, hhmm)
    return world.run(stage)


def due_and_state(world: World) -> dict[str, tuple[str, str, str | None]]:
    """What the ledger expects of this day: when, UTC, and how it ended."""
    rows = world.rows("select stage, due_at, state, reason from expected_runs where session = :day", day=world.day)
    return {row["stage"]: (f"{row['due_at']:%H:%M}", row["state"], row["reason"]) for row in rows}


def told_in_prefect(world: World, run: UUID) -> str:
    """The flow run's log in the UI: where a person looks for why it did nothing."""
    found = LogFilter.model_validate({"flow_run_id": {"any_": [run]}})
    lines = world.client.read_logs(log_filter=found, limit=200)
    return "\n".join(line.message for line in lines)


@pytest.mark.parametrize("on", [date(2024, 7, 3)], ids=str, indirect=True)
def test_a_half_day_ends_when_the_exchange_does_and_a_holiday_follows(on: World) -> None:
    """Every time is one of Prefect's schedule, in the morning and, to no effect, after the early close."""
    with on.runner_process():
        for hhmm, stage in (("08:00", STAGES[0]), ("13:30", STAGES[2]), ("13:40", STAGES[1]), ("16:59", STAGES[2])):
            assert hhmm in scheduled(on, stage)
            set_utc(on, hhmm)
            on.run_there(stage)
        sent, watched = on.sent(), cycles(on)
        assert (sent.total(), watched) == (4, 2)
        set_utc(on, "17:00")
        skipped = {
            on.run_there("position-monitor").id: "outside the session (13:30 to 17:00 UTC)",
            on.run_there("trading").id: "the market is closed (13:30 to 17:00 UTC)",
        }
        assert (on.sent(), cycles(on)) == (sent, watched)

        assert scheduled(on, "close-of-day") == ["17:15", "20:15"]
        set_utc(on, "17:15")
        on.run_there("close-of-day")
        books = on.rows("select * from closings")
        set_utc(on, "20:15")
        on.run_there("close-of-day")
        assert on.rows("select * from closings") == books

        times = zip(STAGES, ("08:00", "13:40", "13:30", "17:15"), strict=True)
        assert due_and_state(on) == {stage: (due, RunState.RAN.value, None) for stage, due in times}
        on.assert_books_agree()
        on.set_clock("03:55", date(2024, 7, 4))
        skipped |= dict.fromkeys(holiday(on), NO_SESSION)
        for run, reason in skipped.items():
            wait_until(lambda run=run: "stage.skipped" in told_in_prefect(on, run), f"flow run {run} says why")
            assert f"reason='{reason}'" in told_in_prefect(on, run)


NO_SESSION = "no session on 2024-07-04: the exchange is closed"


def holiday(world: World) -> list[UUID]:
    """Every stage starts at a time of its schedule, and ends as skipped. Returns the flow runs."""
    sent, runs = world.sent(), []
    for stage, hhmm in zip(STAGES, ("08:00", "13:40", "14:00", "20:15"), strict=True):
        assert hhmm in scheduled(world, stage)
        set_utc(world, hhmm)
        runs.append(world.run_there(stage).id)
    states = {stage: (state, reason) for stage, (_, state, reason) in due_and_state(world).items()}
    assert states == dict.fromkeys(STAGES, ("skipped", NO_SESSION))
    assert (world.sent(), cycles(world)) == (sent, 0)
    return runs


@pytest.mark.parametrize("on", [date(2024, 11, 29)], ids=str, indirect=True)
def test_trading_first_begun_after_an_early_close_is_missed_and_alerted_and_buys_nothing(on: World) -> None:
    run_at(on, "09:00", "premarket-screening")
    run_at(on, "18:05", "trading")
    run_at(on, "18:15", "close-of-day")

    assert on.sent().total() == 0
    assert due_and_state(on)["trading"] == ("14:40", "missed", "not begun by 2024-11-29 15:10 UTC")
    assert due_and_state(on)["close-of-day"] == ("18:15", "ran", None)
    missed = on.rows("select stage from alerts where kind = 'stage.missed' and severity = 'critical' order by stage")
    assert [row["stage"] for row in missed] == ["position-monitor", "trading"]
