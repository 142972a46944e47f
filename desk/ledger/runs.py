"""Sessions and what is expected to run in them. Nothing is silent: each run ends as ran, skipped or missed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime

from sqlalchemy import ColumnElement, Connection, bindparam, case, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Row

from desk.ledger.records import Run, RunState
from desk.ledger.tables import expected_runs, sessions
from desk.market import Session

__all__ = [
    "expect_runs",
    "fail_run",
    "finish_run",
    "last_run",
    "miss_run",
    "overdue_runs",
    "record_session",
    "recorded_session",
    "run_of",
    "runs_of",
    "skip_run",
    "start_run",
]

_runs = expected_runs.c


def record_session(connection: Connection, *, account: str, session: Session) -> None:
    """Record a session as the broker's calendar gives it; a changed calendar (an early close) changes the row."""
    statement = insert(sessions).values(
        account=account, session=session.day, opens_at=session.opens, closes_at=session.closes
    )
    new = statement.excluded
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["account", "session"],
            set_={"opens_at": new.opens_at, "closes_at": new.closes_at},
            where=or_(sessions.c.opens_at != new.opens_at, sessions.c.closes_at != new.closes_at),
        )
    )


def recorded_session(connection: Connection, *, account: str, day: date) -> Session | None:
    row = connection.execute(
        select(sessions).where(sessions.c.account == account, sessions.c.session == day)
    ).one_or_none()
    return None if row is None else Session(day=row.session, opens=row.opens_at, closes=row.closes_at)


def expect_runs(
    connection: Connection,
    *,
    account: str,
    session: date,
    runs: Iterable[tuple[str, datetime, datetime]],
    at: datetime,
) -> None:
    """Expect these (stage, due, cutoff) on that day. Known ones stay; their times move while nothing has begun."""
    rows = [
        {
            "account": account,
            "session": session,
            "stage": stage,
            "due_at": due_at,
            "cutoff_at": cutoff_at,
            "updated_at": at,
        }
        for stage, due_at, cutoff_at in runs
    ]
    if not rows:
        return
    statement = insert(expected_runs).values(rows)
    new = statement.excluded
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["account", "session", "stage"],
            set_={"due_at": new.due_at, "cutoff_at": new.cutoff_at, "updated_at": new.updated_at},
            where=(_runs.state == RunState.EXPECTED)
            & or_(_runs.due_at != new.due_at, _runs.cutoff_at != new.cutoff_at),
        )
    )


def start_run(
    connection: Connection,
    *,
    account: str,
    session: date,
    stage: str,
    at: datetime,
    flow_run: str | None = None,
) -> Run:
    """One more attempt begins, from whatever state: a stage may always be run again. Returns the run as it is now.

    Raises RuntimeError (a defect of ours) when nobody expected this run.
    """
    return _changed(
        connection,
        account=account,
        session=session,
        stage=stage,
        values={
            "state": RunState.RUNNING.value,
            "reason": null(),
            "attempts": _runs.attempts + 1,
            "started_at": at,
            "flow_run": flow_run,
            "updated_at": at,
        },
    )


def finish_run(
    connection: Connection,
    *,
    account: str,
    session: date,
    stage: str,
    at: datetime,
    evidence: Mapping[str, object],
) -> Run:
    """The stage ran through; `evidence` says what it did, in numbers. Raises RuntimeError for an unexpected run."""
    return _changed(
        connection,
        account=account,
        session=session,
        stage=stage,
        values={
            "state": RunState.RAN.value,
            "reason": null(),
            "evidence": dict(evidence),
            "ended_at": at,
            "updated_at": at,
        },
    )


def skip_run(connection: Connection, *, account: str, session: date, stage: str, at: datetime, reason: str) -> Run:
    """There is nothing to do, for this reason. A stage that once ran through stays ran.

    Raises RuntimeError for an unexpected run.
    """
    has_run = _runs.evidence.is_not(None)
    return _changed(
        connection,
        account=account,
        session=session,
        stage=stage,
        values={
            "state": case((has_run, RunState.RAN.value), else_=RunState.SKIPPED.value),
            "reason": case((has_run, _runs.reason), else_=reason),
            "ended_at": case((has_run, _runs.ended_at), else_=at),
            "updated_at": at,
        },
    )


def fail_run(connection: Connection, *, account: str, session: date, stage: str, at: datetime, reason: str) -> Run:
    """The attempt failed. A twin that ran through meanwhile is not undone by it.

    Raises RuntimeError for an unexpected run.
    """
    return _changed(
        connection,
        account=account,
        session=session,
        stage=stage,
        unless=_runs.state == RunState.RAN,
        values={"state": RunState.FAILED.value, "reason": reason, "ended_at": at, "updated_at": at},
    )


def miss_run(connection: Connection, *, account: str, session: date, stage: str, at: datetime, reason: str) -> Run:
    """It was not begun before its cutoff. What did begin is not missed: it stays as it is.

    Raises RuntimeError for an unexpected run.
    """
    return _changed(
        connection,
        account=account,
        session=session,
        stage=stage,
        unless=_runs.state != RunState.EXPECTED,
        values={"state": RunState.MISSED.value, "reason": reason, "updated_at": at},
    )


def run_of(connection: Connection, *, account: str, session: date, stage: str) -> Run | None:
    row = connection.execute(_ONE, {"account": account, "session": session, "stage": stage}).one_or_none()
    return None if row is None else _run(row)


_ONE = select(expected_runs).where(
    _runs.account == bindparam("account"), _runs.session == bindparam("session"), _runs.stage == bindparam("stage")
)


def runs_of(connection: Connection, *, account: str, session: date) -> list[Run]:
    """All runs of that day, in the order they are due."""
    rows = connection.execute(
        select(expected_runs)
        .where(_runs.account == account, _runs.session == session)
        .order_by(_runs.due_at, _runs.stage)
    )
    return [_run(row) for row in rows]


def last_run(connection: Connection, *, account: str, stage: str) -> Run | None:
    """The newest run of the stage that has begun or come to an end."""
    row = connection.execute(
        select(expected_runs)
        .where(_runs.account == account, _runs.stage == stage, _runs.state != RunState.EXPECTED)
        .order_by(_runs.session.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else _run(row)


def overdue_runs(connection: Connection, *, account: str, at: datetime) -> list[Run]:
    """Runs nobody has begun although their cutoff has passed, oldest first."""
    rows = connection.execute(
        select(expected_runs)
        .where(_runs.account == account, _runs.state == RunState.EXPECTED, _runs.cutoff_at < at)
        .order_by(_runs.due_at, _runs.stage)
    )
    return [_run(row) for row in rows]


def _changed(
    connection: Connection,
    *,
    account: str,
    session: date,
    stage: str,
    values: Mapping[str, object],
    unless: ColumnElement[bool] | None = None,
) -> Run:
    statement = update(expected_runs).where(_key(account, session, stage)).values(values).returning(expected_runs)
    row = connection.execute(statement if unless is None else statement.where(~unless)).one_or_none()
    if row is not None:
        return _run(row)
    found = run_of(connection, account=account, session=session, stage=stage)
    if found is None:
        raise RuntimeError(f"run {stage} of {session} in account {account}: not expected; expect_runs comes first")
    return found


def _key(account: str, session: date, stage: str) -> ColumnElement[bool]:
    return (_runs.account == account) & (_runs.session == session) & (_runs.stage == stage)


def _run(row: Row[tuple[object, ...]]) -> Run:
    return Run(
        session=row.session,
        stage=row.stage,
        due_at=row.due_at,
        cutoff_at=row.cutoff_at,
        state=RunState(row.state),
        reason=row.reason,
        attempts=row.attempts,
        started_at=row.started_at,
        ended_at=row.ended_at,
        flow_run=row.flow_run,
        evidence=row.evidence,
    )
