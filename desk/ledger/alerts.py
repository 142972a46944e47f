"""The outbox of alerts: written in the transaction of the fact, delivered later by `desk.alerts`.

What channels still owe, and what they did, is in `desk.ledger.deliveries`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, func, insert, literal, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Row

from desk.errors import BadInput
from desk.ledger.engine import xact_lock
from desk.ledger.records import Alert, Severity
from desk.ledger.tables import alert_acknowledgements, alerts

__all__ = ["UNKNOWN_ACCOUNT", "acknowledge", "alerts_numbered", "alerts_of", "raise_alert", "raise_unless_known"]

UNKNOWN_ACCOUNT = "unknown"  # whose alert it is before the first run has told
_alerts = alerts.c


def raise_alert(
    connection: Connection,
    *,
    account: str,
    severity: Severity,
    kind: str,
    message: str,
    at: datetime,
    session: date | None = None,
    stage: str | None = None,
    symbol: str | None = None,
    detail: Mapping[str, object] | None = None,
) -> int:
    """Put an alert into the outbox. Returns its number. `kind` is a dotted noun and past verb, "stage.failed"."""
    number: int = connection.execute(
        insert(alerts)
        .values(
            account=account,
            session=session,
            stage=stage,
            symbol=symbol,
            severity=Severity(severity).value,
            kind=kind,
            message=message,
            detail=dict(detail or {}),
            at=at,
        )
        .returning(_alerts.alert_id)
    ).scalar_one()
    return number


def raise_unless_known(
    connection: Connection,
    *,
    account: str,
    severity: Severity,
    kind: str,
    message: str,
    at: datetime,
    session: date | None = None,
    stage: str | None = None,
    symbol: str | None = None,
    detail: Mapping[str, object] | None = None,
    quiet: timedelta,
) -> int | None:
    """The same for a state that lasts and is seen again and again, by several at once.

    Nothing is written while an alert of this fingerprint, at least as severe, is younger than `quiet` by the
    database's clock, or has been acknowledged. Returns the number, or None.
    """
    xact_lock(connection, f"alert:{account}:{kind}:{stage}:{symbol}:{session}")
    as_severe = [each.value for each in list(Severity)[list(Severity).index(severity) :]]
    acknowledged = (
        select(alert_acknowledgements.c.alert_id).where(alert_acknowledgements.c.alert_id == _alerts.alert_id).exists()
    )
    known = select(_alerts.alert_id).where(
        _alerts.account == account,
        _alerts.kind == kind,
        _alerts.stage.is_not_distinct_from(stage),
        _alerts.symbol.is_not_distinct_from(symbol),
        _alerts.session.is_not_distinct_from(session),
        _alerts.severity.in_(as_severe),
        (_alerts.recorded_at > func.clock_timestamp() - quiet) | acknowledged,
    )
    if connection.execute(known.limit(1)).first() is not None:
        return None
    return raise_alert(
        connection,
        account=account,
        severity=severity,
        kind=kind,
        message=message,
        at=at,
        session=session,
        stage=stage,
        symbol=symbol,
        detail=detail,
    )


def acknowledge(connection: Connection, *, account: str, alert_id: int, by: str) -> list[int]:
    """Someone looks after this alert and the earlier ones of its fingerprint. Returns those new to be acknowledged.

    Raises BadInput when the account has no such alert.
    """
    row = connection.execute(
        select(alerts).where(_alerts.alert_id == alert_id, _alerts.account.in_((account, UNKNOWN_ACCOUNT)))
    ).one_or_none()
    if row is None:
        raise BadInput(f"alert {alert_id}: account {account} has none of that number; see onepath alerts")
    same = select(_alerts.alert_id, literal(by)).where(
        _alerts.alert_id <= alert_id,
        _alerts.account == row.account,
        _alerts.kind == row.kind,
        _alerts.stage.is_not_distinct_from(row.stage),
        _alerts.symbol.is_not_distinct_from(row.symbol),
        _alerts.session.is_not_distinct_from(row.session),
    )
    written = connection.execute(
        postgresql.insert(alert_acknowledgements)
        .from_select(["alert_id", "acknowledged_by"], same)
        .on_conflict_do_nothing()
        .returning(alert_acknowledgements.c.alert_id)
    )
    return sorted(written.scalars())


def alerts_numbered(connection: Connection, ids: Sequence[int]) -> list[Alert]:
    """These alerts, oldest first."""
    rows = connection.execute(select(alerts).where(_alerts.alert_id.in_(ids)).order_by(_alerts.alert_id))
    return [_alert(row) for row in rows]


def alerts_of(
    connection: Connection, *, account: str, session: date | None = None, symbol: str | None = None, limit: int = 1000
) -> list[Alert]:
    """Alerts of the account, of one session or one symbol when given, newest first, at most `limit`."""
    query = select(alerts).where(_alerts.account == account)
    if session is not None:
        query = query.where(_alerts.session == session)
    if symbol is not None:
        query = query.where(_alerts.symbol == symbol)
    return [_alert(row) for row in connection.execute(query.order_by(_alerts.alert_id.desc()).limit(limit))]


def _alert(row: Row[tuple[object, ...]]) -> Alert:
    return Alert(
        alert_id=row.alert_id,
        account=row.account,
        session=row.session,
        stage=row.stage,
        symbol=row.symbol,
        severity=Severity(row.severity),
        kind=row.kind,
        message=row.message,
        detail=row.detail,
        at=row.at,
    )
