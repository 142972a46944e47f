"""Orders at the broker that nobody here sent. They stop entries in their symbol until the alert is acknowledged."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, insert, select

from desk.ledger.alerts import raise_alert
from desk.ledger.engine import xact_lock
from desk.ledger.orders import order_by_broker_id, order_of
from desk.ledger.records import Severity
from desk.ledger.tables import alert_acknowledgements, external_orders
from desk.market import NEW_YORK
from desk.orders import BrokerOrder
from desk.portfolio import shares

__all__ = ["record_external", "unacknowledged"]

_external = external_orders.c


def record_external(
    connection: Connection, *, account: str, orders: Iterable[BrokerOrder], at: datetime
) -> list[BrokerOrder]:
    """Write down, and tell of, each of these that is neither ours nor known. Returns the new ones."""
    xact_lock(connection, f"external_orders:{account}")
    return [
        order for order in orders if _is_new(connection, account, order) and _record(connection, account, order, at)
    ]


def unacknowledged(connection: Connection, *, account: str, symbol: str) -> int:
    """How many orders in this symbol, sent elsewhere, nobody has looked at yet."""
    seen = select(alert_acknowledgements.c.alert_id).where(alert_acknowledgements.c.alert_id == _external.alert_id)
    waiting = select(_external.broker_order_id).where(
        _external.account == account, _external.symbol == symbol, ~seen.exists()
    )
    return len(connection.execute(waiting).all())


def _is_new(connection: Connection, account: str, order: BrokerOrder) -> bool:
    if order_of(connection, account=account, client_order_id=order.client_order_id) is not None:
        return False
    if order_by_broker_id(connection, account=account, broker_order_id=order.broker_order_id) is not None:
        return False
    known = select(_external.broker_order_id).where(
        _external.account == account, _external.broker_order_id == order.broker_order_id
    )
    return connection.execute(known).first() is None


def _record(connection: Connection, account: str, order: BrokerOrder, at: datetime) -> bool:
    alert_id = raise_alert(
        connection,
        account=account,
        severity=Severity.CRITICAL,
        kind="foreign.order",
        message=f"{order.side} {shares(order.quantity)} {order.symbol} was ordered elsewhere "
        f"(order {order.broker_order_id}, {order.status.value}); no entry in {order.symbol} until this is acknowledged",
        at=at,
        session=at.astimezone(NEW_YORK).date(),
        symbol=order.symbol,
        detail={"broker_order_id": order.broker_order_id, "client_order_id": order.client_order_id},
    )
    connection.execute(
        insert(external_orders).values(
            account=account,
            broker_order_id=order.broker_order_id,
            client_order_id=order.client_order_id,
            symbol=order.symbol,
            side=order.side.value,
            order_type=order.order_type.value,
            quantity=order.quantity,
            submitted_at=order.submitted_at,
            seen_at=at,
            alert_id=alert_id,
        )
    )
    return True
