"""How much, how fast and how often we have traded: what the controls on conduct count."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from itertools import takewhile

from sqlalchemy import Connection, select, text

from desk.controls import Activity
from desk.ledger.external import unacknowledged
from desk.ledger.records import Anchors, DecisionSet
from desk.ledger.tables import decision_sets, gate_results
from desk.market import at_new_york

__all__ = ["activity", "fallback_sessions"]

_LOOK_BACK = 260  # sessions; more in a row than any limit allows
# No policy was ever approved: the rule decides by choice, and is a fallback from nothing.
_BY_CHOICE = "fallback: no champion"


def activity(
    connection: Connection,
    *,
    account: str,
    symbol: str,
    day: date,
    now: datetime,
    rejects_window: timedelta,
    decided: DecisionSet | None,
    anchors: Anchors,
) -> Activity:
    """What was done on this New York day until now, for an entry in `symbol` that rests on `decided`.

    An order that was sent again counts where it was sent last: repeats are a minute apart at least.
    """
    row = connection.execute(
        _COUNTS,
        {
            "account": account,
            "symbol": symbol,
            "day": at_new_york(day, "00:00"),
            "minute": now - timedelta(seconds=60),
            "window": now - rejects_window,
        },
    ).one()
    return Activity(
        messages_minute=row.messages,
        messages_minute_symbol=row.messages_symbol,
        entries_symbol_day=row.entries_symbol,
        orders_day=row.orders,
        rejects=row.rejects,
        turnover_day=row.turnover + row.under_way,
        fallback_sessions=fallback_sessions(connection, account=account),
        checked_at=_checked_at(connection, account, decided),
        foreign_orders=unacknowledged(connection, account=account, symbol=symbol),
        opening_equity=anchors.opening_equity,
        high_water_equity=anchors.high_water_equity,
    )


def fallback_sessions(connection: Connection, *, account: str) -> int:
    """Sessions in a row, up to the newest, that the fallback decided although there was a champion."""
    deciders = connection.execute(
        select(decision_sets.c.decider)
        .where(decision_sets.c.account == account)
        .order_by(decision_sets.c.session.desc())
        .limit(_LOOK_BACK)
    ).scalars()
    return sum(1 for _ in takewhile(lambda name: name.startswith("fallback:") and name != _BY_CHOICE, deciders))


def _checked_at(connection: Connection, account: str, decided: DecisionSet | None) -> datetime | None:
    """When the gate passed on this very set of decisions; None when no such result is on record."""
    if decided is None or decided.gate_hash is None:
        return None
    found = connection.execute(
        select(gate_results.c.checked_at).where(
            gate_results.c.account == account,
            gate_results.c.session == decided.session,
            gate_results.c.stage == "trading",
            gate_results.c.frame == "decisions",
            gate_results.c.data_hash == decided.gate_hash,
            gate_results.c.passed,
        )
    )
    checked_at: datetime | None = found.scalar_one_or_none()
    return checked_at


# Entries under way count at full size until they are proven terminal; what of them has filled is a fill already.
_COUNTS = text(
    """
    SELECT sent.*, traded.*, waiting.*, refused.*
    FROM
      (SELECT count(*) FILTER (WHERE sent_at > :minute) AS messages,
              count(*) FILTER (WHERE sent_at > :minute AND symbol = :symbol) AS messages_symbol,
              count(*) FILTER (WHERE leg = 'entry' AND symbol = :symbol) AS entries_symbol,
              count(*) AS orders
       FROM orders
       WHERE account = :account AND attempt > 0 AND sent_at >= LEAST(:day, :minute)) AS sent,
      (SELECT coalesce(sum(quantity * price), 0) AS turnover FROM fills
       WHERE account = :account AND filled_at >= :day) AS traded,
      (SELECT coalesce(sum((quantity - filled_quantity) * limit_price), 0) AS under_way FROM orders
       WHERE account = :account AND leg = 'entry' AND state NOT IN
             ('rejected', 'filled', 'canceled', 'expired', 'replaced', 'lapsed')) AS waiting,
      (SELECT count(*) AS rejects FROM orders
       WHERE account = :account AND state = 'rejected' AND updated_at > :window) AS refused
    """
)
