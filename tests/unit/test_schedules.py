"""When the stages are due, by Prefect's own scheduler: New York's time, also across both clock changes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.server.schemas.schedules import CronSchedule

from desk.errors import BadInput
from flows.declared import declared


def due(stage: str, after: datetime, before: datetime) -> list[str]:
    """UTC times at which runs of the stage are scheduled."""
    (deployment,) = (d for d in declared() if d["name"] == stage)
    times: list[datetime] = []
    for schedule in deployment["schedules"]:
        cron = CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
        times += asyncio.run(cron.get_dates(n=2000, start=after, end=before - timedelta(seconds=1)))
    return [f"{time.astimezone(UTC):%Y-%m-%d %H:%M}" for time in sorted(times)]


def test_the_four_stages_are_declared_by_module_path_on_our_queues() -> None:
    found = {d["name"]: (d["entrypoint"], d["work_pool"]["work_queue_name"]) for d in declared()}

    assert found == {
        "premarket-screening": ("flows.premarket_screening.premarket_screening", "daily"),
        "trading": ("flows.trading.trading", "daily"),
        "position-monitor": ("flows.position_monitor.position_monitor", "monitor"),
        "close-of-day": ("flows.close_of_day.close_of_day", "daily"),
    }
    assert all(d["work_pool"]["name"] == "onepath" for d in declared())
    assert all(f"stage:{d['name']}" in d["tags"] for d in declared())


@pytest.mark.parametrize(
    ("friday", "times"),
    [
        # Clocks go forward on Sunday, 8 March 2026: 09:40 in New York moves from 14:40 to 13:40 UTC.
        (datetime(2026, 3, 6, tzinfo=UTC), ["2026-03-06 14:40", "2026-03-09 13:40"]),
        # And back on Sunday, 1 November 2026.
        (datetime(2026, 10, 30, tzinfo=UTC), ["2026-10-30 13:40", "2026-11-02 14:40"]),
    ],
)
def test_trading_stays_at_its_new_york_time_when_the_clocks_change(friday: datetime, times: list[str]) -> None:
    assert due("trading", friday, friday + timedelta(days=4)) == times


@pytest.mark.parametrize("day", [datetime(2026, 3, 9, 4, tzinfo=UTC), datetime(2026, 11, 2, 5, tzinfo=UTC)])
def test_the_monitor_is_due_each_minute_from_nine_to_five(day: datetime) -> None:
    """`day` is New York's midnight, after the change."""
    times = due("position-monitor", day, day + timedelta(days=1))

    assert len(times) == len(set(times)) == 8 * 60
    assert times[0] == f"{day + timedelta(hours=9):%Y-%m-%d %H:%M}"
    assert times[-1] == f"{day + timedelta(hours=16, minutes=59):%Y-%m-%d %H:%M}"


def test_close_of_day_has_a_time_for_half_days_too() -> None:
    monday = datetime(2026, 11, 23, tzinfo=UTC)

    assert due("close-of-day", monday, monday + timedelta(days=1)) == ["2026-11-23 18:15", "2026-11-23 21:15"]


def test_nothing_is_due_on_a_weekend() -> None:
    saturday = datetime(2026, 11, 21, 5, tzinfo=UTC)

    assert [due(d["name"], saturday, saturday + timedelta(days=2)) for d in declared()] == [[], [], [], []]


def test_a_broken_deployments_file_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").write_text("deployments: {", encoding="utf-8")

    with pytest.raises(BadInput, match=r"prefect\.yaml: not a list of deployments"):
        declared(tmp_path / "prefect.yaml")
    with pytest.raises(BadInput, match=r"absent\.yaml: not found"):
        declared(tmp_path / "absent.yaml")
