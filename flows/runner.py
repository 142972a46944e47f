"""The warm runner: a process that takes scheduled runs from a work queue and executes them in itself, one at a time.

Imports are paid once, so a run starts within a second of its time. It is not a `prefect.workers.base.BaseWorker`:
that is an asyncio program which hands runs to infrastructure. Our synchronous flow would have to run in a thread of
it, it claims runs ten seconds ahead and polls every ten, knows no "too late" and no leftovers, and each of these
is a private method there. What is needed of it is a handful of calls of the public client.
`flows.serve` makes a process of it.

A run belongs to who moves it to Pending: the server refuses the second one. The claim names host, process and
its start, so that a later runner can tell a dead owner from a slow one.
"""

from __future__ import annotations

import contextvars
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun
from prefect.context import SyncClientContext
from prefect.events.worker import EventsWorker
from prefect.exceptions import Abort, MissingFlowError, ObjectNotFound, Pause, PrefectException
from prefect.flow_engine import run_flow
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.logging.handlers import APILogWorker
from prefect.logging.loggers import flow_run_logger
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, get_current_settings, temporary_settings
from prefect.states import Cancelled, Crashed, Pending
from prefect.utilities.engine import propose_state_sync

from desk.errors import BadInput, OnepathError
from flows.claims import Claim, bury, end_run
from flows.declared import POOL
from tasks.alerting import alert_skipped_runs
from tasks.step import cancel_asked

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

__all__ = ["GRACE_S", "POOL", "Runner"]

log = logging.getLogger(__name__)

POLL_S = 0.5
BACKOFF_S_MAX = 10.0
ATTEND_S = 2.0  # how soon a cancel asked for in the UI is seen
HEARTBEAT_S = 15.0  # the UI calls a worker offline after three of them
BURY_S = 30.0
DRAIN_S_MAX = 10.0
GRACE_S = 60.0  # a run may end by itself this long after SIGTERM

# A look at the positions of ten minutes ago helps nobody: after a pause the newest is run, not the backlog. The
# daily stages are not here: they know their own cutoff and say in the ledger that they missed it.
LATE_S_MAX = {"position-monitor": 120.0}


def wall_clock() -> datetime:
    """Prefect schedules by the wall clock. No trading decision is taken by it."""
    return datetime.fromtimestamp(time.time(), UTC)


class Runner:
    """Executes the runs of some queues of the work pool, in the thread that calls.

    A context manager: inside it the connection and Prefect's settings are kept, outside nothing works.
    `PREFECT_API_URL`, or Prefect's settings of the calling context, say where the server is.
    """

    def __init__(
        self,
        queues: Sequence[str],
        *,
        name: str,
        pool: str = POOL,
        poll_s: float = POLL_S,
        late_s_max: dict[str, float] = LATE_S_MAX,
        now: Callable[[], datetime] = wall_clock,
    ) -> None:
        self.queues, self.name, self.pool = tuple(queues), name, pool
        self._poll_s, self._late_s_max, self._now = poll_s, late_s_max, now
        self._claim = Claim.mine()
        self._stop = threading.Event()
        self._current: FlowRun | None = None
        self._bury_at = 0.0  # monotonic
        self._flows: dict[UUID, Flow[..., Any]] = {}  # by deployment; a process runs the code it once loaded
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # Prefect's run heartbeat is off: it joins a thread that sleeps up to a second at the end of each run, and
            # proves that the process lives, not that it works. Evidence of work is in the ledger.
            stack.enter_context(temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}))
            try:
                stack.enter_context(SyncClientContext.get_or_create())
            except RuntimeError as error:  # Prefect's word for a server that does not answer
                raise BadInput(f"Prefect server: {error}; run onepath up") from error
            # Log lines and task states travel in the background. Sent before the caller may stop the server: at exit
            # Prefect would try for a minute to reach it.
            stack.callback(EventsWorker.drain_all, timeout=DRAIN_S_MAX, at_exit=False)
            stack.callback(APILogWorker.drain_all, timeout=DRAIN_S_MAX, at_exit=False)
            done = threading.Event()
            attendant = threading.Thread(
                target=contextvars.copy_context().run, args=(self._attend, done), name="attendant", daemon=True
            )
            attendant.start()
            stack.callback(attendant.join, timeout=ATTEND_S + 1)
            stack.callback(done.set)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    # ------------------------------------------------------------------------------------------------ for callers

    def wait_for_server(self) -> bool:
        """Until the server answers and has our queues: at start everything comes up at once. False: stopped first.

        The only method for use outside the `with` block, which needs a server to enter.
        """
        url = get_current_settings().api.url
        if url is None:
            raise BadInput("PREFECT_API_URL: not set; start runners with onepath up, or set it")
        while not self._stop.is_set():
            try:
                queues = [f"{url}/work_pools/{self.pool}/queues/{queue}" for queue in self.queues]
                if all(httpx.get(queue, timeout=5).is_success for queue in queues):
                    return True
            except httpx.HTTPError as error:
                log.debug("runner.waits_for_server", extra={"url": url, "error": repr(error)})
            self._stop.wait(POLL_S)
        return False

    def serve(self) -> None:
        """Run what is due until `stop`; a server that does not answer is waited for."""
        failures = 0
        while not self._stop.is_set():
            try:
                self.bury_leftovers()
                handled = self.run_due()
            except (httpx.HTTPError, PrefectException) as error:
                failures += 1
                pause_s = min(BACKOFF_S_MAX, self._poll_s * 2 ** min(failures, 10))
                log.warning("runner.api_failed", extra={"error": repr(error), "again_in_s": pause_s})
                self._stop.wait(pause_s)
            else:
                failures = 0
                if not handled:
                    self._stop.wait(self._poll_s)

    def run_now(self, deployment: str, parameters: dict[str, Any] | None = None) -> FlowRun:
        """Make a run of a deployment ("trading/trading") and execute it here. Returns it in its final state.

        A failed run is returned, not raised. Raises BadInput when there is no such deployment.
        """
        client = _client()
        try:
            found = client.read_deployment_by_name(deployment)
        except ObjectNotFound as error:
            raise BadInput(f"deployment {deployment}: not registered at {client.api_url}; run onepath up") from error
        # Born claimed, so that no other runner of the queue takes it.
        flow_run = client.create_flow_run_from_deployment(
            found.id, parameters=parameters or {}, state=Pending(message=str(self._claim))
        )
        return self._execute(flow_run, client)

    def stop(self) -> None:
        """Take no further run. Safe from any thread."""
        self._stop.set()

    def run_due(self) -> int:
        """Execute the first run that is due, cancel those that came too late. Returns how many were handled."""
        client = _client()
        due = [
            entry.flow_run
            for entry in client.get_scheduled_flow_runs_for_work_pool(
                self.pool, work_queue_names=list(self.queues), scheduled_before=self._now()
            )
        ]
        late = [run for run in due if self._is_too_late(run)]
        if late:
            self._skip(late, client)
        for run in due:
            if run not in late and self._claims(run, client):
                self._execute(client.read_flow_run(run.id), client)
                return len(late) + 1
        return len(late)

    def bury_leftovers(self) -> list[FlowRun]:
        """End runs of our queues whose process is gone, and alert in its place. Looks every BURY_S seconds."""
        if time.monotonic() < self._bury_at:
            return []
        client = _client()
        unfinished = client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate(
                {
                    "work_queue_name": {"any_": list(self.queues)},
                    "state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}},
                }
            ),
            work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [self.pool]}}),
        )
        current = self._current.id if self._current else None
        buried = [run for run in unfinished if run.id != current and bury(run, self._claim, client)]
        self._bury_at = time.monotonic() + BURY_S
        return buried

    # ---------------------------------------------------------------------------------------------------- one run

    def _claims(self, run: FlowRun, client: SyncPrefectClient) -> bool:
        try:
            state = propose_state_sync(client, Pending(message=str(self._claim)), flow_run_id=run.id)
        except (Abort, ObjectNotFound) as refusal:  # another runner was faster, or the run was deleted
            log.info("run.not_ours", extra={"run": run.name, "reason": str(refusal)})
            return False
        return state.is_pending()

    def _execute(self, run: FlowRun, client: SyncPrefectClient) -> FlowRun:
        """Returns the run as the server has it afterwards."""
        logger = flow_run_logger(run)
        client.update_flow_run(run.id, infrastructure_pid=str(self._claim))
        self._current = run
        cancel_asked.clear()
        try:
            logger.info("Runner %s (%s) executes this run", self.name, self._claim)
            run_flow(self._load(run, client), flow_run=run, return_type="state", error_logger=log)
        except (Abort, Pause) as ended:  # the server ended it: cancelled meanwhile, or its state was set by hand
            logger.warning("The server ended this run: %s", ended)
        except (ImportError, SyntaxError, MissingFlowError, OnepathError) as error:
            end_run(run, Crashed(message=f"its flow cannot be loaded: {error!r}"), client)
        finally:
            self._current = None
            cancel_asked.clear()
        run = client.read_flow_run(run.id)
        if run.state is not None and run.state.is_cancelling():
            # Whatever the flow ended with, the server keeps it in Cancelling until its owner has seen to it.
            end_run(run, Cancelled(message="cancelled between two steps"), client, alert=False)  # its own hook did
            run = client.read_flow_run(run.id)
        return run

    def _load(self, run: FlowRun, client: SyncPrefectClient) -> Flow[..., Any]:
        if run.deployment_id is None:
            raise BadInput(f"flow run {run.name}: has no deployment; start it from one")
        if run.deployment_id not in self._flows:
            entrypoint = client.read_deployment(run.deployment_id).entrypoint
            self._flows[run.deployment_id] = load_flow_from_entrypoint(str(entrypoint), use_placeholder_flow=False)
        return self._flows[run.deployment_id]

    # ------------------------------------------------------------------------------------------------------- late

    def _is_too_late(self, run: FlowRun) -> bool:
        if not run.auto_scheduled or run.run_count:  # a person asked for it
            return False
        late_s = (self._now() - run.expected_start_time).total_seconds() if run.expected_start_time else 0.0
        return late_s > self._late_s_max.get(_stage(run), float("inf"))

    def _skip(self, late: list[FlowRun], client: SyncPrefectClient) -> None:
        for run in late:
            message = f"due {run.expected_start_time:%Y-%m-%d %H:%M:%S} UTC and too late to be of use"
            client.set_flow_run_state(run.id, Cancelled(name="Skipped late", message=message), force=True)
        log.warning("run.skipped_late", extra={"queues": self.queues, "runs": len(late)})
        for stage in sorted({_stage(run) for run in late}):
            alert_skipped_runs(stage, [run for run in late if _stage(run) == stage], now=self._now())

    # ------------------------------------------------------------------------------------------------- beside runs

    def _attend(self, done: threading.Event) -> None:
        """Tell the UI that this runner lives, and notice when the current run is cancelled."""
        heartbeat_at, pause_s = 0.0, POLL_S  # short until the first heartbeat is taken: someone waits for us
        with get_client(sync_client=True) as client:
            while not done.is_set():
                try:
                    if time.monotonic() >= heartbeat_at:
                        client.send_worker_heartbeat(self.pool, self.name, heartbeat_interval_seconds=HEARTBEAT_S)
                        heartbeat_at, pause_s = time.monotonic() + HEARTBEAT_S, ATTEND_S
                    run = self._current
                    if run is not None:
                        state = client.read_flow_run(run.id).state
                        if state is not None and state.is_cancelling() and self._current is run:
                            cancel_asked.set()
                except (httpx.HTTPError, PrefectException) as error:
                    log.debug("runner.attendant_failed", extra={"error": repr(error)})  # `serve` says it aloud
                done.wait(pause_s)

    def stop_on_signal(self, signals: set[signal.Signals], grace_s: float) -> None:
        """Wait for a signal, then for the current run; when it outlasts `grace_s`, end it and the process."""
        caught = signal.sigwait(signals)
        log.info("runner.stopping", extra={"signal": signal.Signals(caught).name, "run": self._current is not None})
        self.stop()
        deadline = time.monotonic() + grace_s
        while self._current is not None and time.monotonic() < deadline:
            if signal.sigtimedwait(signals, 0.1) is not None:  # asked twice
                break
        run = self._current
        if run is not None:
            with get_client(sync_client=True) as client:
                end_run(
                    run, Crashed(message=f"its runner was stopped and the run did not end in {grace_s:g} s"), client
                )
            logging.shutdown()
            os._exit(1)  # the main thread is inside the run


def _client() -> SyncPrefectClient:
    context = SyncClientContext.get()
    assert context is not None, "a Runner works inside its `with` block only"
    return context.client


def _stage(run: FlowRun) -> str:
    """Deployments are named after their stage, and tagged with it: the tag comes with the run at no extra call."""
    return next((tag.removeprefix("stage:") for tag in run.tags if tag.startswith("stage:")), "")
