"""The trading state, latched: it survives restarts, and only a named person or control changes it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Row, insert, select

from desk.ledger.alerts import raise_alert
from desk.ledger.engine import xact_lock
from desk.ledger.records import Severity, StateChange, TradingState
from desk.ledger.tables import trading_states
from desk.market import NEW_YORK

__all__ = ["current_state", "set_state", "state_changes", "tighten_state"]

_states = trading_states.c
_SEVERITY = (TradingState.ACTIVE, TradingState.REDUCING, TradingState.HALTED)


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


def tighten_state(
    connection: Connection, *, account: str, state: TradingState, reason: str, by: str, at: datetime
) -> bool:
    """What a control may do: make trading stricter, never looser. Returns whether this call changed it.

    The change raises a critical alert: somebody has to look before it goes on.
    """
    xact_lock(connection, f"trading_state:{account}")
    held = current_state(connection, account=account)
    if _SEVERITY.index(state) <= _SEVERITY.index(held.state):
        return False
    set_state(connection, account=account, state=state, reason=reason, by=by, at=at)
    raise_alert(
        connection,
        account=account,
        severity=Severity.CRITICAL,
        kind=f"trading.{state.value.lower()}",
        message=f"trading is {state.value} by {by}: {reason}; a named person resumes it",
        at=at,
        session=at.astimezone(NEW_YORK).date(),
    )
    return True


def state_changes(connection: Connection, *, account: str) -> list[StateChange]:
    """Every change, oldest first."""
    rows = connection.execute(select(trading_states).where(_states.account == account).order_by(_states.sequence))
    return [_change(row) for row in rows]


def current_state(connection: Connection, *, account: str) -> StateChange:
    """What holds now. ACTIVE when nobody ever set it."""
    row = connection.execute(
        select(trading_states).where(_states.account == account).order_by(_states.sequence.desc()).limit(1)
    ).one_or_none()
    if row is None:
        return StateChange(sequence=0, state=TradingState.ACTIVE, reason="never set", set_by="default", at=None)
    return _change(row)


def _change(row: Row[tuple[object, ...]]) -> StateChange:
    return StateChange(
        sequence=row.sequence, state=TradingState(row.state), reason=row.reason, set_by=row.set_by, at=row.at
    )
