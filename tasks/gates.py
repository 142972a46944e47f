"""Gates between steps: a frame is judged, the verdict is written down, and a failed one stops the stage."""

from __future__ import annotations

import pandas as pd

from desk.ledger.gates import record_gate
from desk.ledger.records import GateRecord
from expectations.gate import GateOutcome, validate
from tasks.office import office
from tasks.shift import Shift

__all__ = ["gate"]


def gate(today: Shift, suite: str, frame: pd.DataFrame) -> GateOutcome:
    """Judge a frame and record the verdict in the ledger. Raises GateFailed after the record is written."""
    desk = office()
    outcome = validate(suite, frame)
    with desk.ledger.transaction() as connection:
        record_gate(
            connection,
            account=desk.account,
            gate=GateRecord(
                session=today.day,
                stage=today.stage,
                frame=outcome.frame,
                data_hash=outcome.data_hash,
                passed=outcome.passed,
                rows=outcome.rows,
                results=outcome.results,
                checked_at=today.started_at,
            ),
        )
    outcome.require()
    return outcome
