"""A shift: one attempt at one stage of one session. It always ends as ran, skipped with a reason, or failed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from desk.alerts import deliver
from desk.errors import BadInput, OnepathError
from desk.ledger.alerts import raise_alert
from desk.ledger.records import RunState, Severity
from desk.ledger.runs import (
    expect_runs,
    fail_run,
    finish_run,
    miss_run,
    overdue_runs,
    record_session,
    run_of,
    skip_run,
    start_run,
)
from desk.market import NEW_YORK, Session, at_new_york
from tasks.office import Office, office
from tasks.step import step

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

__all__ = ["LEFT_TO", "Shift", "session_meant", "shift", "timetable"]

log = logging.getLogger(__name__)

LEFT_TO = "left to"
PREMARKET, TRADING, MONITOR, CLOSE = "premarket-screening", "trading", "position-monitor", "close-of-day"


@dataclass
class Shift:
    """`session` is there unless the stage is skipped; agendas return `summary`."""

    stage: str
    day: date
    started_at: datetime
    session: Session | None = None
    cutoff_at: datetime | None = None
    skipped: str | None = None
    evidence: dict[str, object] = field(default_factory=dict)

    @property
    def open_session(self) -> Session:
        if self.session is None:
            raise RuntimeError(f"{self.stage} of {self.day}: skipped ({self.skipped}), there is no session to work in")
        return self.session

    @property
    def is_late(self) -> bool:
        """Begun after its cutoff: what it would decide must not trade."""
        return self.cutoff_at is not None and self.started_at > self.cutoff_at

    @property
    def summary(self) -> Mapping[str, object]:
        state = {"skipped": self.skipped} if self.skipped else {"ran": True}
        return {"stage": self.stage, "session": self.day.isoformat(), **state, **self.evidence}

    def note(self, told: Mapping[str, object]) -> None:
        """Keep what the work told as evidence, or as the reason to skip when it was left to another run."""
        if LEFT_TO in told:
            self.skipped = f"{LEFT_TO} {told[LEFT_TO]}"
        else:
            self.evidence.update(told)


@contextmanager
def shift(stage: str, day: date | None) -> Iterator[Shift]:
    """Begin a stage, and write down how it ended. `day`: the session; None: that of the schedule, or today."""
    begun = begin(stage, day)
    try:
        yield begun
    except Exception as error:
        fail(begun, error)
        raise
    finish(begun)


def timetable(session: Session) -> list[tuple[str, datetime, datetime]]:
    """What is expected of a session: (stage, due, cutoff). A start after its cutoff is a miss."""
    opens, closes = session.opens, session.closes
    return [
        (PREMARKET, at_new_york(session.day, "04:00"), opens - timedelta(minutes=5)),
        (TRADING, opens + timedelta(minutes=10), opens + timedelta(minutes=40)),
        (MONITOR, opens, opens + timedelta(minutes=3)),
        (CLOSE, closes + timedelta(minutes=15), closes + timedelta(hours=4)),
    ]


@step(name="begin", retries=3, retry_delay_seconds=[1, 4, 15])
def begin(stage: str, day: date | None) -> Shift:
    """Ask the broker what day it is, record what the session expects, and see whether there is work now."""
    desk = office()
    clock = desk.broker.clock()
    if day is not None and day > clock.today:
        raise BadInput(f"{stage}: session {day} lies ahead of the broker's {clock.today}; give today or an earlier one")
    begun = Shift(stage=stage, day=day or session_meant(clock.today, _scheduled_for()), started_at=clock.now)
    session = desk.session_of(begun.day)
    if session is None:
        begun.skipped = f"no session on {begun.day}: the exchange is closed"
        _record_skip(desk, begun)
        return begun
    begun.session = session
    begun.skipped = _not_now(stage, session, clock.now)
    times = timetable(session)
    begun.cutoff_at = next(cutoff for name, _, cutoff in times if name == stage)
    if stage == MONITOR and desk.monitors == begun.day:
        return begun  # each minute of a session that this process already found begun: nothing to read or write
    with desk.ledger.at_once() as connection:
        known = run_of(connection, account=desk.account, session=begun.day, stage=stage)
    if known is None:
        with desk.ledger.transaction() as connection:
            record_session(connection, account=desk.account, session=session)
            expect_runs(connection, account=desk.account, session=begun.day, runs=times, at=clock.now)
    if begun.skipped is None and not (stage == MONITOR and known and known.state is RunState.RUNNING):
        with desk.ledger.transaction() as connection:
            start_run(
                connection,
                account=desk.account,
                session=begun.day,
                stage=stage,
                at=clock.now,
                flow_run=None if (run := _flow_run()) is None else str(run.id),
            )
    if stage == MONITOR:
        desk.monitors = begun.day if begun.skipped is None else None
    else:
        desk.use_newest_strategy()
        _note_missed(desk, clock.now)
    return begun


@step(name="finish")
def finish(done: Shift) -> None:
    """Write the evidence of a stage that ran through. The monitor's run ends with the session, at the close."""
    if done.skipped is not None:  # in the ledger there may be nothing to skip: the run's own log says why
        log.info("stage.skipped", extra={"stage": done.stage, "session": done.day.isoformat(), "reason": done.skipped})
        return
    if done.stage == MONITOR:
        return
    desk = office()
    now = desk.broker.clock().now
    with desk.ledger.transaction() as connection:
        finish_run(connection, account=desk.account, session=done.day, stage=done.stage, at=now, evidence=done.evidence)
    deliver(desk.ledger, account=desk.account, channels=desk.channels)


def fail(begun: Shift, error: Exception) -> None:
    """Write down that the attempt failed, and why. The alert comes from the flow's hook, with its link."""
    desk = office()
    if begun.session is None:
        return
    reason = f"{type(error).__name__}: {error}"
    try:
        with desk.ledger.transaction() as connection:
            fail_run(
                connection,
                account=desk.account,
                session=begun.day,
                stage=begun.stage,
                at=begun.started_at,
                reason=reason,
            )
    except OnepathError as unwritten:
        error.add_note(f"and the ledger could not be told: {unwritten}")


def _not_now(stage: str, session: Session, now: datetime) -> str | None:
    """Why a stage has nothing to do at this hour of its session."""
    if stage == MONITOR and not session.contains(now):
        return f"outside the session ({session.opens:%H:%M} to {session.closes:%H:%M} UTC)"
    if stage == TRADING and not session.contains(now):
        return f"the market is closed ({session.opens:%H:%M} to {session.closes:%H:%M} UTC)"
    if stage == CLOSE and now < session.closes:
        return f"the session closes at {session.closes:%H:%M} UTC"
    return None


def _record_skip(desk: Office, skipped: Shift) -> None:
    """A day without a session: the skip is written down once per stage, with its reason."""
    now = skipped.started_at
    with desk.ledger.transaction() as connection:
        expect_runs(connection, account=desk.account, session=skipped.day, runs=[(skipped.stage, now, now)], at=now)
        skip_run(
            connection,
            account=desk.account,
            session=skipped.day,
            stage=skipped.stage,
            at=now,
            reason=skipped.skipped or "",
        )


def _note_missed(desk: Office, now: datetime) -> None:
    with desk.ledger.transaction() as connection:
        for run in overdue_runs(connection, account=desk.account, at=now):
            reason = f"not begun by {run.cutoff_at:%Y-%m-%d %H:%M} UTC"
            miss_run(connection, account=desk.account, session=run.session, stage=run.stage, at=now, reason=reason)
            raise_alert(
                connection,
                account=desk.account,
                severity=Severity.CRITICAL,
                kind="stage.missed",
                message=f"{run.stage} of {run.session} was missed: {reason}",
                at=now,
                session=run.session,
                stage=run.stage,
            )


def session_meant(today: date, scheduled: datetime | None) -> date:
    """The day a run without a session is about: today, or the earlier day its schedule made it for.

    A scheduled run that is retried from the UI on a later day stays with its own session.
    """
    return today if scheduled is None else min(today, scheduled.astimezone(NEW_YORK).date())


def _scheduled_for() -> datetime | None:
    """When Prefect's schedule wanted the run this happens in; None for one that somebody asked for."""
    run = _flow_run()
    return run.expected_start_time if run is not None and run.auto_scheduled else None


def _flow_run() -> FlowRun | None:
    """The Prefect flow run this happens in, when it does."""
    if "prefect.context" not in sys.modules:
        return None
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return None if context is None else context.flow_run
