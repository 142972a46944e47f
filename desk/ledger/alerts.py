"""The outbox of alerts: written in the transaction of the fact, delivered later by `desk.alerts`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.engine import Row

from desk.ledger.records import Alert, Severity
from desk.ledger.tables import alert_deliveries, alerts

__all__ = ["alerts_of", "raise_alert", "record_delivery", "undelivered"]

_alerts, _deliveries = alerts.c, alert_deliveries.c


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


def undelivered(connection: Connection, *, account: str, channel: str, limit: int = 100) -> list[Alert]:
    """Alerts this channel has not delivered yet, oldest first, at most `limit`."""
    delivered = (
        select(_deliveries.alert_id)
        .where(_deliveries.alert_id == _alerts.alert_id, _deliveries.channel == channel, _deliveries.delivered)
        .exists()
    )
    rows = connection.execute(
        select(alerts).where(_alerts.account == account, ~delivered).order_by(_alerts.alert_id).limit(limit)
    )
    return [_alert(row) for row in rows]


def record_delivery(
    connection: Connection, *, alert_id: int, channel: str, delivered: bool, error: str | None = None
) -> None:
    """One attempt at one channel; a failed one has an error."""
    attempt = (
        select(func.coalesce(func.max(_deliveries.attempt), 0) + 1)
        .where(_deliveries.alert_id == alert_id, _deliveries.channel == channel)
        .scalar_subquery()
    )
    connection.execute(
        insert(alert_deliveries).values(
            alert_id=alert_id, channel=channel, attempt=attempt, delivered=delivered, error=error
        )
    )


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
