"""What the gates between stages found."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Connection, select

from desk.ledger.records import GateRecord
from desk.ledger.tables import gate_results
from desk.ledger.writing import insert_first

__all__ = ["gates_of", "record_gate"]


def record_gate(connection: Connection, *, account: str, gate: GateRecord) -> bool:
    """Record a verdict. The same data checked again keeps its first one: False."""
    return insert_first(
        connection,
        gate_results,
        {
            "account": account,
            "session": gate.session,
            "stage": gate.stage,
            "frame": gate.frame,
            "data_hash": gate.data_hash,
            "passed": gate.passed,
            "rows": gate.rows,
            "results": [dict(result) for result in gate.results],
            "checked_at": gate.checked_at,
        },
    )


def gates_of(connection: Connection, *, account: str, session: date) -> list[GateRecord]:
    """The verdicts of a session, in the order they were given."""
    rows = connection.execute(
        select(gate_results)
        .where(gate_results.c.account == account, gate_results.c.session == session)
        .order_by(gate_results.c.checked_at, gate_results.c.stage, gate_results.c.frame)
    ).mappings()
    fields = ("session", "stage", "frame", "data_hash", "passed", "rows", "results", "checked_at")
    return [GateRecord(**{name: row[name] for name in fields}) for row in rows]
