"""Who executes a flow run, and what happens to runs whose executor is gone."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import psutil
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Crashed

from tasks.alerting import alert_failed_run

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

__all__ = ["Claim", "bury", "end_run"]

log = logging.getLogger(__name__)

UNFINISHED = {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING", "SCHEDULED", "PAUSED"]}}


@dataclass(frozen=True, slots=True)
class Claim:
    """One process, told apart from a later one with the same number."""

    host: str
    pid: int
    started_ms: int  # since the epoch

    @classmethod
    def mine(cls) -> Self:
        return cls(socket.gethostname(), os.getpid(), _started_ms(psutil.Process()))

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """None for text that no runner of ours wrote."""
        host, _, rest = (text or "").partition("|")
        pid, _, started_ms = rest.partition("|")
        return cls(host, int(pid), int(started_ms)) if pid.isdigit() and started_ms.isdigit() else None

    def __str__(self) -> str:
        return f"{self.host}|{self.pid}|{self.started_ms}"

    def is_dead(self) -> bool:
        """Whether the process is known to be gone. Nothing is known of another host's."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            return process.status() == psutil.STATUS_ZOMBIE or _started_ms(process) != self.started_ms
        except psutil.NoSuchProcess:
            return True


def _started_ms(process: psutil.Process) -> int:
    return round(process.create_time() * 1000)


def bury(run: FlowRun, mine: Claim, client: SyncPrefectClient) -> bool:
    """End an unfinished run whose claimant is dead, or is this very process, which is not executing it.

    Returns whether it did. A run claimed by another kind of worker, or on another host, is left alone.
    """
    claim = Claim.parse(run.infrastructure_pid) or Claim.parse(run.state.message if run.state else None)
    if claim is None or not (claim == mine or claim.is_dead()):
        return False
    if run.state is not None and run.state.is_cancelling():
        end_run(run, Cancelled(message=f"cancelled; its process {claim.pid} had ended"), client)
    else:
        lost = "lost the Prefect server while running it" if claim == mine else "died while running it"
        end_run(run, Crashed(message=f"its runner (process {claim.pid} on {claim.host}) {lost}"), client)
    return True


def end_run(run: FlowRun, state: State, client: SyncPrefectClient, *, alert: bool = True) -> None:
    """Put a run, its unfinished child runs and tasks into a final state, and alert once, for the run itself."""
    log.warning("run.ended", extra={"run": run.name, "state": state.name, "reason": state.message})
    _end_children(run, state, client)
    client.set_flow_run_state(run.id, state, force=True)
    if alert:
        alert_failed_run(client.read_flow(run.flow_id), run, state)


def _end_children(run: FlowRun, state: State, client: SyncPrefectClient) -> None:
    children = client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate({"parent_flow_run_id": {"any_": [run.id]}, "state": UNFINISHED})
    )
    for child in children:
        _end_children(child, state, client)
        client.set_flow_run_state(child.id, _like(state), force=True)
    tasks = client.read_task_runs(
        task_run_filter=TaskRunFilter.model_validate({"flow_run_id": {"any_": [run.id]}, "state": UNFINISHED})
    )
    for task in tasks:
        client.set_task_run_state(task.id, _like(state), force=True)


def _like(state: State) -> State:
    """The same state for another run: each has an id of its own."""
    return State(type=state.type, name=state.name, message=state.message)
