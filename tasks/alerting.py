"""Alerts about the stages themselves: a run that failed, crashed, was cancelled or came too late to be of use."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from desk.alerts import deliver
from desk.channels import channels_of
from desk.errors import OnepathError
from desk.ledger.accounts import known_accounts
from desk.ledger.alerts import UNKNOWN_ACCOUNT, raise_alert
from desk.ledger.deliveries import record_delivery
from desk.ledger.engine import Ledger, database_urls
from desk.ledger.records import Severity
from desk.settings import Settings
from tasks.office import settings_here

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import Flow as FlowRecord
    from prefect.client.schemas.objects import FlowRun, State

__all__ = ["alert_ended_process", "alert_failed_run", "alert_skipped_runs"]

log = logging.getLogger(__name__)

KINDS = {"FAILED": "stage.failed", "CRASHED": "stage.crashed"}


def alert_failed_run(flow: Flow[..., Any] | FlowRecord, flow_run: FlowRun, state: State) -> None:
    """Say that a stage did not end as it should: which, for which session, why, and where to look.

    Attached to every agenda as Prefect's hook, and called by a runner in the place of one that died. A child run
    says nothing: its parent fails of the same cause and says it once.
    """
    if flow_run.parent_task_run_id is not None:
        return
    kind = KINDS.get(state.type.value, "stage.cancelled")
    cause = _cause(state)
    session = _session(flow_run)
    _raise(
        kind=kind,
        stage=flow.name,
        session=session,
        severity=Severity.CRITICAL if kind in KINDS.values() else Severity.WARNING,
        message=f"{flow.name}{f' of {session}' if session else ''} {kind.removeprefix('stage.')}: {cause}",
        at=state.timestamp,  # the orchestrator's time: the broker, whose clock rules elsewhere, may be what failed
        detail={
            "flow": flow.name,
            "run": flow_run.name,
            "run_id": str(flow_run.id),
            "cause": cause,
            "link": _link(flow_run),
        },
    )


def alert_skipped_runs(stage: str, runs: Sequence[FlowRun], *, now: datetime) -> None:
    """Say that scheduled runs of a stage never took place, because nobody was there to run them in time."""
    due = sorted(run.expected_start_time for run in runs if run.expected_start_time is not None)
    span = f"{due[0]:%Y-%m-%d %H:%M} to {due[-1]:%Y-%m-%d %H:%M} UTC" if due else "no time given"
    _raise(
        kind="stage.skipped",
        stage=stage,
        session=None,
        severity=Severity.CRITICAL,
        at=now,
        message=f"{stage}: {len(runs)} runs due {span} were too late to be of use and did not take place",
        detail={"runs": len(runs), "links": [_link(run) for run in runs[-3:]]},
    )


def alert_ended_process(name: str, *, failures: int, last_words: str, settings: Settings, now: datetime) -> None:
    """Say that a part of the machine does not stay up. It goes on being started again, every few minutes."""
    _raise(
        kind="process.ended",
        stage=None,
        session=None,
        severity=Severity.CRITICAL,
        at=now,
        message=f"{name}: ended {failures} times in a row, last with: {last_words or 'no word'}",
        detail={"part": name, "failures": failures},
        settings=settings,
    )


def _raise(
    *,
    kind: str,
    stage: str | None,
    session: date | None,
    severity: Severity,
    message: str,
    at: datetime,
    detail: dict[str, object],
    settings: Settings | None = None,
) -> None:
    """Log it first: whatever is broken, the log has it. Then put it into the ledger's outbox."""
    log.error("alert.raised: %s", message, extra={"kind": kind, "severity": severity.value, **detail})
    settings = settings or settings_here()
    try:
        channels = channels_of(settings)
        ledger = Ledger.connect(database_urls(settings).ledger, pool_size=1)
        with closing(ledger):
            with ledger.transaction() as connection:
                account = settings.account or _only(known_accounts(connection))
                number = raise_alert(
                    connection,
                    account=account,
                    severity=severity,
                    kind=kind,
                    message=message,
                    at=at,
                    session=session,
                    stage=stage,
                    detail=detail,
                )
                record_delivery(connection, ids=[number], channel="log", delivered=True)
            deliver(ledger, account=account, channels=[channel for channel in channels if channel.name != "log"])
    except OnepathError as error:
        log.error("alert.not_in_ledger: %s", error, extra={"kind": kind, "stage": stage})


def _only(accounts: Sequence[str]) -> str:
    """Whose alert it is when the settings name no account. Before the first run there is none."""
    return accounts[0] if len(accounts) == 1 else UNKNOWN_ACCOUNT


def _cause(state: State) -> str:
    text = (state.message or state.name or state.type.value).strip()
    return " ".join(text.removeprefix("Flow run encountered an exception:").split())


def _session(run: FlowRun) -> date | None:
    given = (run.parameters or {}).get("session")
    return given if given is None or isinstance(given, date) else date.fromisoformat(str(given))


def _link(run: FlowRun) -> str:
    from prefect.utilities.urls import url_for

    return url_for(run) or f"flow run {run.id}"
