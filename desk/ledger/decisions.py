"""Decisions. The first set committed for a session and strategy stands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from sqlalchemy import Connection, insert, select

from desk.decision import Action, Decision
from desk.ledger.records import DecisionSet
from desk.ledger.tables import decision_sets, decisions
from desk.ledger.writing import insert_first

__all__ = ["decision_of", "decision_set_of", "decisions_of", "record_decisions"]

_NUMBERS = (
    "quantity",
    "reference_price",
    "limit_price",
    "stop_price",
    "target_price",
    "buy_probability",
    "sell_probability",
)


def record_decisions(
    connection: Connection, *, account: str, decision_set: DecisionSet, decided: Sequence[Decision]
) -> bool:
    """Record the set and its decisions. False, and nothing written, when the session has one already."""
    whole = {name: getattr(decision_set, name) for name in DecisionSet.__slots__}
    is_first = insert_first(connection, decision_sets, {"account": account, **whole})
    if is_first and decided:
        connection.execute(insert(decisions), [_values(account, decision_set, decision) for decision in decided])
    return is_first


def decision_set_of(connection: Connection, *, account: str, session: date, strategy: str) -> DecisionSet | None:
    row = (
        connection.execute(
            select(decision_sets).where(
                decision_sets.c.account == account,
                decision_sets.c.session == session,
                decision_sets.c.strategy == strategy,
            )
        )
        .mappings()
        .one_or_none()
    )
    return None if row is None else DecisionSet(**{name: row[name] for name in DecisionSet.__slots__})


def decisions_of(connection: Connection, *, account: str, session: date, strategy: str) -> list[Decision]:
    """The session's decisions, by symbol."""
    rows = connection.execute(
        select(decisions)
        .where(decisions.c.account == account, decisions.c.session == session, decisions.c.strategy == strategy)
        .order_by(decisions.c.symbol)
    ).mappings()
    return [
        Decision(
            symbol=row["symbol"],
            action=Action(row["action"]),
            reason=row["reason"],
            **{name: row[name] for name in _NUMBERS},
        )
        for row in rows
    ]


def decision_of(connection: Connection, *, account: str, session: date, strategy: str, symbol: str) -> Decision | None:
    found = decisions_of(connection, account=account, session=session, strategy=strategy)
    return next((decision for decision in found if decision.symbol == symbol), None)


def _values(account: str, decision_set: DecisionSet, decision: Decision) -> dict[str, object]:
    return {
        "account": account,
        "session": decision_set.session,
        "strategy": decision_set.strategy,
        "symbol": decision.symbol,
        "action": decision.action.value,
        "decider": decision_set.decider,
        "input_hash": decision_set.input_hash,
        "reason": decision.reason,
        **{name: getattr(decision, name) for name in _NUMBERS},
    }
