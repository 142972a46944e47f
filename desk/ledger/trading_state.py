"""The trading state, latched: it survives restarts, and only a named person or control changes it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, insert, select

from desk.ledger.engine import xact_lock
from desk.ledger.records import StateChange, TradingState
from desk.ledger.tables import trading_states

__all__ = ["current_state", "set_state"]

_states = trading_states.c


def set_state(
    connection: Connection, *, account: str, state: TradingState, reason: str, by: str, at: datetime
) -> StateChange:
    """Change the state. Setting what holds already adds no row and keeps who set it first and why."""
    xact_lock(connection, f"trading_state:{account}")
    held = current_state(connection, account=account)
    if held.state is state:
        return held
    change = StateChange(sequence=held.sequence + 1, state=state, reason=reason, set_by=by, at=at)
    connection.execute(
        insert(trading_states).values(
            account=account, sequence=change.sequence, state=state.value, reason=reason, set_by=by, at=at
        )
    )
    return change


def current_state(connection: Connection, *, account: str) -> StateChange:
    """What holds now. ACTIVE when nobody ever set it."""
    row = connection.execute(
        select(trading_states).where(_states.account == account).order_by(_states.sequence.desc()).limit(1)
    ).one_or_none()
    if row is None:
        return StateChange(sequence=0, state=TradingState.ACTIVE, reason="never set", set_by="default", at=None)
    return StateChange(
        sequence=row.sequence, state=TradingState(row.state), reason=row.reason, set_by=row.set_by, at=row.at
    )
