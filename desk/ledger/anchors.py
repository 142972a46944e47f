"""What losses are measured from: the equity a day opened with and the highest of those. They survive restarts."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import Connection, insert, select

from desk.ledger.engine import xact_lock
from desk.ledger.records import Anchors
from desk.ledger.tables import equity_anchors

__all__ = ["anchors_of", "current_anchors", "measure_anew"]

_anchors = equity_anchors.c


def anchors_of(connection: Connection, *, account: str, session: date, opening: Decimal, at: datetime) -> Anchors:
    """The anchors of this session. The first to ask in a session writes them; the ones written stand.

    `opening`: the equity the day began with, USD.
    """
    held = current_anchors(connection, account=account)
    if held is not None and held.session >= session:
        return held
    xact_lock(connection, f"equity_anchors:{account}")
    held = current_anchors(connection, account=account)  # somebody may have been faster
    if held is not None and held.session >= session:
        return held
    high = opening if held is None else max(opening, held.high_water_equity)
    return _write(connection, account, held, session, opening, high, "the day opens", at)


def measure_anew(
    connection: Connection, *, account: str, session: date, equity: Decimal, reason: str, at: datetime
) -> Anchors:
    """Whoever resumes trading accepts what was lost so far: losses count from here."""
    xact_lock(connection, f"equity_anchors:{account}")
    held = current_anchors(connection, account=account)
    return _write(connection, account, held, session, equity, equity, reason, at)


def current_anchors(connection: Connection, *, account: str) -> Anchors | None:
    row = connection.execute(
        select(equity_anchors).where(_anchors.account == account).order_by(_anchors.sequence.desc()).limit(1)
    ).one_or_none()
    return None if row is None else Anchors(row.sequence, row.session, row.opening_equity, row.high_water_equity)


def _write(
    connection: Connection,
    account: str,
    held: Anchors | None,
    session: date,
    opening: Decimal,
    high: Decimal,
    reason: str,
    at: datetime,
) -> Anchors:
    sequence = 1 if held is None else held.sequence + 1
    connection.execute(
        insert(equity_anchors).values(
            account=account,
            sequence=sequence,
            session=session,
            opening_equity=opening,
            high_water_equity=high,
            reason=reason,
            at=at,
        )
    )
    return Anchors(sequence, session, opening, high)
