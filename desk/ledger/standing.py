"""Where everything stands: each stage's last run and next due time, the monitor, alerts, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from desk.ledger.alerts import alerts_of
from desk.ledger.facts import AccountFact, TradeFact
from desk.ledger.monitor import last_cycle, seconds_since_last_cycle
from desk.ledger.records import Alert, MonitorCycle, Run, RunState, Severity, StateChange, TradingState, Verdict
from desk.ledger.runs import last_run, recorded_session
from desk.ledger.tables import (
    STAGES,
    alert_acknowledgements,
    alert_deliveries,
    alerts,
    closings,
    expected_runs,
    monitor_cycles,
    trades,
)
from desk.ledger.telling import trade_facts
from desk.ledger.trading_state import current_state
from desk.market import NEW_YORK, Session
from desk.report.words import clock_time, day_time, duration

__all__ = ["Plan", "StageStanding", "Standing", "complaints", "last_written", "standing"]

GRACE = timedelta(minutes=2)  # between being due and being overdue
RUNNING_MAX = timedelta(hours=1)  # no daily stage takes that long
UNDELIVERED_S_MAX = 300.0
MONITOR = "position-monitor"

# What each session of the broker's calendar expects: (stage, due, cutoff).
Plan = Mapping[Session, Sequence[tuple[str, datetime, datetime]]]


@dataclass(frozen=True, slots=True)
class StageStanding:
    stage: str
    last: Run | None
    next_due_at: datetime | None  # None: unknown, the broker's calendar was not there to be asked
    overdue: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """One account at one time, by the clock named in `clock`."""

    account: AccountFact
    as_of: datetime
    clock: str  # whose time `as_of` is: "broker", "database" or "ledger"
    session: Session | None  # of that day, if there is one
    stages: tuple[StageStanding, ...]
    cycle: MonitorCycle | None
    cycle_age_s: float | None
    open_trades: tuple[TradeFact, ...]
    trading_state: StateChange
    undelivered: int
    undelivered_age_s: float | None  # of the oldest, by the database's clock
    critical: tuple[Alert, ...]  # of the newest session known
    last_closing: datetime | None

    @property
    def is_in_session(self) -> bool:
        return self.session is not None and self.session.contains(self.as_of)


def standing(
    connection: Connection, *, account: AccountFact, now: datetime | None, clock: str, plan: Plan | None = None
) -> Standing:
    """How the account stands at `now`; without it, at the database's own time.

    `plan`: today's session and the next. The ledger hears of a session when its first stage begins; what should
    have begun and never did is known from the plan alone.
    """
    number = account.account
    plan = plan or {}
    database_now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    at = now or database_now
    day = at.astimezone(NEW_YORK).date()
    session = recorded_session(connection, account=number, day=day) or next((s for s in plan if s.day == day), None)
    cycle = last_cycle(connection, account=number)
    age_s = None if cycle is None else (at - cycle.cycle_at).total_seconds()
    if clock == "database":
        age_s = seconds_since_last_cycle(connection, account=number)
    waiting, oldest = _undelivered(connection, number, database_now)
    return Standing(
        account=account,
        as_of=at,
        clock=clock,
        session=session,
        stages=tuple(
            _watching(each, cycle, session, at) if each.stage == MONITOR else each
            for each in _stages(connection, number, at, plan)
        ),
        cycle=cycle,
        cycle_age_s=age_s,
        open_trades=trade_facts(connection, account=number, where=trades.c.status == "open"),
        trading_state=current_state(connection, account=number),
        undelivered=waiting,
        undelivered_age_s=oldest,
        critical=_critical(connection, number),
        last_closing=connection.execute(
            select(func.max(closings.c.closed_at)).where(closings.c.account == number)
        ).scalar(),
    )


def last_written(connection: Connection, account: str) -> datetime | None:
    """The newest broker's time in the ledger: where a replay or a demo ended."""
    found = [
        connection.execute(select(func.max(column)).where(column.table.c.account == account)).scalar()
        for column in (expected_runs.c.updated_at, monitor_cycles.c.cycle_at, closings.c.closed_at)
    ]
    return max((at for at in found if at is not None), default=None)


def complaints(found: Standing) -> list[str]:
    """What is overdue or red, one sentence each; none when all is well."""
    return [
        *_about_stages(found),
        *_about_monitor(found),
        *_about_state(found),
    ]


def _stages(connection: Connection, account: str, at: datetime, plan: Plan) -> Iterator[StageStanding]:
    for stage in STAGES:
        expected = sorted(_expected(connection, account, stage, plan), key=lambda run: run.due_at)
        due = next((run.due_at for run in expected if run.due_at > at - GRACE), None)
        overdue = tuple(run for run in expected if run.due_at <= at - GRACE)
        last = last_run(connection, account=account, stage=stage)
        if stage != "preflight" or last or expected:
            yield StageStanding(stage=stage, last=last, next_due_at=due, overdue=overdue)


def _expected(connection: Connection, account: str, stage: str, plan: Plan) -> Iterator[Run]:
    """Runs of a stage that have not begun: those the ledger expects, and those of the plan it has not heard of."""
    runs = expected_runs.c
    mine = (runs.account == account) & (runs.stage == stage)
    for row in connection.execute(select(expected_runs).where(mine, runs.state == RunState.EXPECTED)).mappings():
        yield Run(**{name: row[name] for name in Run.__slots__ if name != "state"}, state=RunState.EXPECTED)
    days = [session.day for session in plan]
    known = set(connection.execute(select(runs.session).where(mine, runs.session.in_(days))).scalars())
    for session, timetable in plan.items():
        for name, due, cutoff in timetable:
            if name == stage and session.day not in known:
                yield Run(session.day, stage, due, cutoff, RunState.EXPECTED, None, 0, None, None, None, None)


def _watching(
    monitor: StageStanding, cycle: MonitorCycle | None, session: Session | None, at: datetime
) -> StageStanding:
    """While it watches a session, the monitor is due again when its last cycle said."""
    if cycle is None or session is None or cycle.session != session.day or not session.contains(at):
        return monitor
    return replace(monitor, next_due_at=cycle.next_due_at) if cycle.next_due_at < session.closes else monitor


def _undelivered(connection: Connection, account: str, now: datetime) -> tuple[int, float | None]:
    """Alerts no channel has delivered, and the age in seconds of the oldest."""
    delivered = (
        select(alert_deliveries.c.alert_id)
        .where(alert_deliveries.c.alert_id == alerts.c.alert_id, alert_deliveries.c.delivered)
        .exists()
    )
    row = connection.execute(
        select(func.count().label("waiting"), func.min(alerts.c.recorded_at).label("oldest"))
        .select_from(alerts)
        .where(alerts.c.account == account, ~delivered)
    ).one()
    return row.waiting, None if row.oldest is None else (now - row.oldest).total_seconds()


def _critical(connection: Connection, account: str) -> tuple[Alert, ...]:
    """Critical alerts of the newest session anything is known of that nobody has acknowledged."""
    newest = connection.execute(
        select(func.max(expected_runs.c.session)).where(
            expected_runs.c.account == account, expected_runs.c.state != RunState.EXPECTED
        )
    ).scalar()
    seen = set(connection.execute(select(alert_acknowledgements.c.alert_id)).scalars())
    return tuple(
        alert
        for alert in alerts_of(connection, account=account)
        if alert.severity is Severity.CRITICAL
        and alert.alert_id not in seen
        and (newest is None or (alert.session or alert.at.astimezone(NEW_YORK).date()) >= newest)
    )


def _about_stages(found: Standing) -> Iterator[str]:
    for each in found.stages:
        for run in each.overdue:
            late = duration((found.as_of - run.due_at).total_seconds())
            yield f"{each.stage} of {run.session}: overdue by {late}, was due {day_time(run.due_at)}"
        last = each.last
        if last is None:
            continue
        if last.state in (RunState.FAILED, RunState.MISSED):
            yield f"{each.stage} of {last.session}: {last.state.value} ({last.reason})"
        if (
            last.state is RunState.RUNNING
            and last.started_at is not None
            and each.stage != MONITOR
            and found.as_of - last.started_at > RUNNING_MAX
        ):
            since = duration((found.as_of - last.started_at).total_seconds())
            yield f"{each.stage} of {last.session}: has been running for {since}"


def _about_monitor(found: Standing) -> Iterator[str]:
    cycle = found.cycle
    if cycle is not None and cycle.verdict is Verdict.RED:
        why = "; ".join(cycle.errors) or f"{cycle.positions_evaluated} of {cycle.positions_expected} evaluated"
        yield f"monitor: last cycle RED at {day_time(cycle.cycle_at)} ({why})"
    if not found.is_in_session or found.session is None:
        return
    watched_since = found.session.opens
    if cycle is None or cycle.cycle_at < watched_since:
        if found.as_of - watched_since > GRACE:
            yield f"monitor: no cycle since the open at {clock_time(watched_since)}"
    elif (
        found.cycle_age_s is not None
        and found.cycle_age_s > ((cycle.next_due_at - cycle.cycle_at) + GRACE).total_seconds()
    ):
        yield f"monitor: last cycle {duration(found.cycle_age_s)} ago, was due again {clock_time(cycle.next_due_at)}"


def _about_state(found: Standing) -> Iterator[str]:
    state = found.trading_state
    if state.state is not TradingState.ACTIVE:
        yield f"trading is {state.state.value}: {state.reason} (set by {state.set_by})"
    if found.undelivered and (found.undelivered_age_s or 0.0) > UNDELIVERED_S_MAX:
        yield f"{found.undelivered} alerts undelivered, the oldest for {duration(found.undelivered_age_s or 0.0)}"
    for alert in found.critical:
        yield f"critical alert {alert.kind} at {day_time(alert.at)}: {alert.message}"
