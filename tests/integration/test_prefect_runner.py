"""The warm runner against a real Prefect server: each run once, none lost, none forgotten."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling, Scheduled

from desk.errors import BadInput
from desk.ledger.alerts import alerts_of
from desk.ledger.engine import Ledger
from desk.ledger.records import Alert
from flows.runner import Runner, wall_clock
from flows.stack import Stack

pytestmark = pytest.mark.integration

WAIT_S_MAX = 60.0
SESSION = "2024-03-05"


@pytest.fixture
def client(in_prefect: Stack) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as opened:
        yield opened


@pytest.fixture
def runner(in_prefect: Stack) -> Iterator[Runner]:
    with Runner(["daily"], name="test") as opened:
        yield opened


def notes(folder: Path) -> list[str]:
    file = folder / "notes"
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline, f"not in {WAIT_S_MAX} s: {what}"
        time.sleep(0.1)


def state_of(client: SyncPrefectClient, run_id: UUID) -> str:
    state = client.read_flow_run(run_id).state
    return state.name if state and state.name else ""


def ask_for(client: SyncPrefectClient, deployment: str, **parameters: object) -> FlowRun:
    """What the UI's "Quick run" does."""
    found = client.read_deployment_by_name(deployment)
    return client.create_flow_run_from_deployment(found.id, parameters=parameters)


def alerts_about(ledger: Ledger, run: FlowRun) -> list[Alert]:
    with ledger.transaction() as connection:
        return [a for a in alerts_of(connection, account="unknown") if a.detail.get("run_id") == str(run.id)]


@contextmanager
def runner_process(stack: Stack, tmp_path: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    probes = Path(stack.environment()["PYTHONPATH"])
    command = [
        sys.executable,
        "-m",
        "flows.serve",
        "--queue",
        "daily",
        "--file",
        str(probes / "prefect.yaml"),
        *options,
    ]
    with (tmp_path / "runner.log").open("ab") as log:
        process = subprocess.Popen(command, env=stack.environment(), stdout=log, stderr=log, cwd=tmp_path)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_run_asked_for_now_is_executed_here_with_its_steps_as_tasks(
    runner: Runner, client: SyncPrefectClient, tmp_path: Path
) -> None:
    run = runner.run_now("probe/probe", {"session": SESSION, "folder": str(tmp_path)})

    assert run.state is not None and run.state.is_completed()
    assert run.name == f"probe {SESSION}"
    assert notes(tmp_path) == [f"begin {SESSION}", f"end {SESSION}"]
    tasks = client.read_task_runs(
        task_run_filter=TaskRunFilter.model_validate({"flow_run_id": {"any_": [run.id]}}),
    )
    wait_until(
        lambda: len(tasks := _tasks(client, run)) == 3 and all(t.state.is_completed() for t in tasks), str(tasks)
    )


def _tasks(client: SyncPrefectClient, run: FlowRun) -> list:
    return client.read_task_runs(task_run_filter=TaskRunFilter.model_validate({"flow_run_id": {"any_": [run.id]}}))


def test_an_unknown_deployment_is_a_users_mistake(runner: Runner) -> None:
    with pytest.raises(BadInput, match="deployment trading/tradign: not registered"):
        runner.run_now("trading/tradign")


def test_a_step_is_retried_as_declared_and_no_oftener(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "twice").mkdir()
    (tmp_path / "thrice").mkdir()

    twice = runner.run_now("shaky/shaky", {"folder": str(tmp_path / "twice"), "times": 2})
    thrice = runner.run_now("shaky/shaky", {"folder": str(tmp_path / "thrice"), "times": 3})

    assert twice.state is not None and twice.state.is_completed()
    assert thrice.state is not None and thrice.state.is_failed()
    assert len(notes(tmp_path / "twice")) == len(notes(tmp_path / "thrice")) == 3


def test_a_failed_run_raises_one_alert_with_flow_session_cause_and_link(
    runner: Runner, in_prefect: Stack, stack_ledger: Ledger, tmp_path: Path
) -> None:
    """The inner agenda fails first; the outer one, which a person started, says it once."""
    run = runner.run_now("outer/outer", {"session": SESSION, "folder": str(tmp_path), "fails": True})

    assert run.state is not None and run.state.is_failed()
    (alert,) = alerts_about(stack_ledger, run)
    assert (alert.kind, alert.stage, str(alert.session)) == ("stage.failed", "outer", SESSION)
    assert alert.message == f"outer of {SESSION} failed: Refused: asset X is not tradable"
    assert alert.detail["link"] == f"{in_prefect.ui_url}/runs/flow-run/{run.id}"


def test_an_agenda_called_by_an_agenda_is_a_child_run(
    runner: Runner, client: SyncPrefectClient, tmp_path: Path
) -> None:
    run = runner.run_now("outer/outer", {"session": SESSION, "folder": str(tmp_path)})

    children = client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate({"parent_flow_run_id": {"any_": [run.id]}})
    )
    assert [(child.name, child.state.name if child.state else None) for child in children] == [
        (f"inner {SESSION}", "Completed")
    ]


def test_a_stage_that_skips_says_so_in_the_list_of_runs_with_its_reason(runner: Runner) -> None:
    run = runner.run_now("idle/idle", {"session": "2024-07-04"})

    assert run.state is not None and run.state.is_completed()
    assert (run.state.name, run.state.message) == ("Skipped", "no session on 2024-07-04: the exchange is closed")


def test_a_rerun_from_the_ui_runs_every_step_again(runner: Runner, client: SyncPrefectClient, tmp_path: Path) -> None:
    """Nothing is cached: the steps themselves recognise what they already did."""
    run = runner.run_now("outer/outer", {"session": SESSION, "folder": str(tmp_path), "fails": True})
    client.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry", scheduled_time=wall_clock()), force=True)

    assert runner.run_due() == 1

    assert state_of(client, run.id) == "Failed"
    assert notes(tmp_path) == ["outer", "inner", "outer", "inner"]


def test_two_runners_never_execute_the_same_run(in_prefect: Stack, client: SyncPrefectClient, tmp_path: Path) -> None:
    runs = [ask_for(client, "probe/probe", session=f"2024-03-{day:02}", folder=str(tmp_path)) for day in range(1, 9)]

    with runner_process(in_prefect, tmp_path), runner_process(in_prefect, tmp_path):
        wait_until(lambda: all(state_of(client, run.id) == "Completed" for run in runs), "8 runs completed")

    assert sorted(notes(tmp_path)) == sorted(
        f"{what} 2024-03-{day:02}" for what in ("begin", "end") for day in range(1, 9)
    )


def test_a_run_whose_runner_was_killed_is_marked_crashed_and_alerted_by_the_next(
    in_prefect: Stack, client: SyncPrefectClient, stack_ledger: Ledger, tmp_path: Path
) -> None:
    run = ask_for(client, "outer/outer", session=SESSION, folder=str(tmp_path), seconds=120.0)
    with runner_process(in_prefect, tmp_path) as process:
        wait_until(lambda: "inner" in notes(tmp_path), "the run begins")
        process.kill()
        process.wait()
        assert state_of(client, run.id) == "Running"

        with Runner(["daily"], name="next") as following:
            buried = following.bury_leftovers()

    assert [leftover.id for leftover in buried] == [run.id]
    ended = client.read_flow_run(run.id).state
    assert ended is not None and ended.is_crashed()
    assert f"process {process.pid} " in (ended.message or "")
    children = client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate({"parent_flow_run_id": {"any_": [run.id]}})
    )
    assert [child.state.name for child in children if child.state] == ["Crashed"]
    (alert,) = alerts_about(stack_ledger, run)
    assert (alert.kind, alert.stage) == ("stage.crashed", "outer")


def test_a_run_of_a_living_runner_is_left_alone(in_prefect: Stack, client: SyncPrefectClient, tmp_path: Path) -> None:
    run = ask_for(client, "probe/probe", session=SESSION, folder=str(tmp_path), seconds=3.0)
    with runner_process(in_prefect, tmp_path):
        wait_until(lambda: notes(tmp_path), "the run begins")

        with Runner(["daily"], name="next") as following:
            assert following.bury_leftovers() == []

        wait_until(lambda: state_of(client, run.id) == "Completed", "the run ends")


def test_a_terminated_runner_lets_its_run_end_and_then_goes(
    in_prefect: Stack, client: SyncPrefectClient, tmp_path: Path
) -> None:
    run = ask_for(client, "probe/probe", session=SESSION, folder=str(tmp_path), seconds=2.0)
    with runner_process(in_prefect, tmp_path) as process:
        wait_until(lambda: notes(tmp_path), "the run begins")
        process.send_signal(signal.SIGTERM)

        assert process.wait(timeout=WAIT_S_MAX) == 0

    assert state_of(client, run.id) == "Completed"


def test_a_run_that_outlasts_the_grace_is_marked_crashed_before_its_runner_goes(
    in_prefect: Stack, client: SyncPrefectClient, stack_ledger: Ledger, tmp_path: Path
) -> None:
    run = ask_for(client, "probe/probe", session=SESSION, folder=str(tmp_path), seconds=120.0)
    with runner_process(in_prefect, tmp_path, "--grace-s", "0.5") as process:
        wait_until(lambda: notes(tmp_path), "the run begins")
        process.send_signal(signal.SIGTERM)

        assert process.wait(timeout=WAIT_S_MAX) == 1

    assert state_of(client, run.id) == "Crashed"
    assert [alert.kind for alert in alerts_about(stack_ledger, run)] == ["stage.crashed"]


def test_a_run_cancelled_in_the_ui_ends_between_two_steps(
    in_prefect: Stack, client: SyncPrefectClient, stack_ledger: Ledger, tmp_path: Path
) -> None:
    run = ask_for(client, "probe/probe", session=SESSION, folder=str(tmp_path), seconds=5.0)
    with runner_process(in_prefect, tmp_path):
        wait_until(lambda: notes(tmp_path), "the run begins")
        client.set_flow_run_state(run.id, Cancelling())
        wait_until(lambda: state_of(client, run.id) == "Cancelled", "the run is cancelled")

    assert notes(tmp_path) == [f"begin {SESSION}"]
    assert [alert.kind for alert in alerts_about(stack_ledger, run)] == ["stage.cancelled"]


def test_scheduled_monitor_runs_that_come_too_late_are_skipped_with_one_alert(
    client: SyncPrefectClient, stack_ledger: Ledger
) -> None:
    """After ten minutes of downtime nobody wants ten looks at the past."""
    deployment = client.read_deployment_by_name("probe/minutely")
    mine = FlowRunFilter.model_validate({"deployment_id": {"any_": [deployment.id]}})
    wait_until(lambda: len(client.read_flow_runs(flow_run_filter=mine)) > 10, "the scheduler plans the next minutes")
    late = Runner(
        ["monitor"], name="late", late_s_max={"position-monitor": 0.0}, now=lambda: wall_clock() + timedelta(minutes=10)
    )

    with late:
        skipped = late.run_due()

    states = [run.state.name for run in client.read_flow_runs(flow_run_filter=mine) if run.state]
    assert skipped == states.count("Skipped late") >= 9
    assert "Completed" not in states
    with stack_ledger.transaction() as connection:
        alerts = [a for a in alerts_of(connection, account="unknown") if a.kind == "stage.skipped"]
    assert [alert.detail["runs"] for alert in alerts] == [skipped]


def test_a_late_run_that_a_person_asked_for_is_executed(
    client: SyncPrefectClient, runner: Runner, tmp_path: Path
) -> None:
    deployment = client.read_deployment_by_name("probe/probe")
    run = client.create_flow_run_from_deployment(
        deployment.id,
        parameters={"session": SESSION, "folder": str(tmp_path)},
        state=Scheduled(scheduled_time=wall_clock() - timedelta(hours=1)),
    )

    assert runner.run_due() == 1

    assert state_of(client, run.id) == "Completed"
