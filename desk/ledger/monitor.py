"""The evidence of monitor cycles."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import Connection, func, select
from sqlalchemy.engine import RowMapping

from desk.ledger.records import Exit, MonitorCycle, RunState, Verdict
from desk.ledger.runs import finish_run, run_of
from desk.ledger.tables import monitor_cycles
from desk.ledger.writing import insert_first

__all__ = ["cycles_of", "end_monitoring", "last_cycle", "record_cycle", "seconds_since_last_cycle"]

_cycles = monitor_cycles.c


def record_cycle(connection: Connection, *, account: str, cycle: MonitorCycle) -> bool:
    """Record a cycle, as its last act. False when there is one of the very same time: the first stands."""
    return insert_first(
        connection,
        monitor_cycles,
        {
            "account": account,
            "cycle_at": cycle.cycle_at,
            "session": cycle.session,
            "verdict": cycle.verdict.value,
            "positions_expected": cycle.positions_expected,
            "positions_evaluated": cycle.positions_evaluated,
            "position_hash": cycle.position_hash,
            "quote_age_max_s": cycle.quote_age_max_s,
            "stops_verified": cycle.stops_verified,
            "exits": [{"symbol": each.symbol, "reason": each.reason} for each in cycle.exits],
            "errors": list(cycle.errors),
            "next_due_at": cycle.next_due_at,
        },
    )


def last_cycle(connection: Connection, *, account: str) -> MonitorCycle | None:
    """The newest cycle by the broker's clock."""
    row = (
        connection.execute(
            select(monitor_cycles).where(_cycles.account == account).order_by(_cycles.cycle_at.desc()).limit(1)
        )
        .mappings()
        .one_or_none()
    )
    return None if row is None else _cycle(row)


def seconds_since_last_cycle(connection: Connection, *, account: str) -> float | None:
    """Age of the newest row by the database server's clock, which no process here can get wrong."""
    age = connection.execute(
        select(func.extract("epoch", func.clock_timestamp() - func.max(_cycles.recorded_at))).where(
            _cycles.account == account
        )
    ).scalar()
    return None if age is None else float(age)


def cycles_of(connection: Connection, *, account: str, session: date) -> list[MonitorCycle]:
    """The cycles of a session, oldest first."""
    rows = connection.execute(
        select(monitor_cycles).where(_cycles.account == account, _cycles.session == session).order_by(_cycles.cycle_at)
    ).mappings()
    return [_cycle(row) for row in rows]


def _cycle(row: RowMapping) -> MonitorCycle:
    values = {name: row[name] for name in MonitorCycle.__slots__}
    values["verdict"] = Verdict(row["verdict"])
    values["exits"] = tuple(Exit(symbol=each["symbol"], reason=each["reason"]) for each in row["exits"])
    values["errors"] = tuple(row["errors"])
    return MonitorCycle(**values)


def end_monitoring(connection: Connection, *, account: str, session: date, at: datetime) -> None:
    """The monitor's run of a session ends with the session; its evidence is what its cycles saw."""
    run = run_of(connection, account=account, session=session, stage="position-monitor")
    if run is None or run.state is not RunState.RUNNING:
        return
    cycles = cycles_of(connection, account=account, session=session)
    red = sum(cycle.verdict is Verdict.RED for cycle in cycles)
    finish_run(
        connection,
        account=account,
        session=session,
        stage="position-monitor",
        at=at,
        evidence={"cycles": len(cycles), "red": red},
    )
