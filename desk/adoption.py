"""What the broker says of an order becomes what the ledger says of it, and of the legs the broker made under it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection

from desk.ledger.orders import LedgerOrder, move, order_of, orders_of_trade, record_order, restate
from desk.orders import (
    TERMINAL_STATES,
    BrokerOrder,
    BrokerStatus,
    Leg,
    OrderState,
    OrderType,
    TimeInForce,
)

__all__ = ["UNPROVEN", "adopt", "ledger_state"]

_STATES: Mapping[BrokerStatus, OrderState] = {
    BrokerStatus.FILLED: OrderState.FILLED,
    BrokerStatus.CANCELED: OrderState.CANCELED,
    BrokerStatus.EXPIRED: OrderState.EXPIRED,
    BrokerStatus.REJECTED: OrderState.REJECTED,
    BrokerStatus.REPLACED: OrderState.REPLACED,
    BrokerStatus.PENDING_CANCEL: OrderState.CANCELLING,
    BrokerStatus.PARTIALLY_FILLED: OrderState.PARTIAL,
    BrokerStatus.UNRECOGNISED: OrderState.UNKNOWN,
}
# Not adopted here: the order protocol's resolver first proves that the broker's order is the one we sent.
UNPROVEN = frozenset({OrderState.RESERVED, OrderState.SENDING, OrderState.UNKNOWN, OrderState.QUARANTINED})


def ledger_state(order: BrokerOrder) -> OrderState:
    """The ledger's word for what the broker says of an order."""
    state = _STATES.get(order.status)
    if state is not None:
        return state
    return OrderState.PARTIAL if order.filled_quantity > 0 else OrderState.ACKED


def adopt(connection: Connection, *, account: str, known: LedgerOrder, found: BrokerOrder, at: datetime) -> None:
    """Write what the broker says of an order and of the legs it made under it. Filled shares never fall."""
    state = ledger_state(found)
    filled = max(known.filled_quantity, found.filled_quantity)
    values: dict[str, object] = {
        "broker_order_id": found.broker_order_id,
        "filled_quantity": filled,
        "filled_avg_price": found.filled_avg_price,
    }
    if found.quantity != known.quantity:  # a split, or a target that part-filled and shrank its stop
        values |= {"quantity": max(found.quantity, filled)}
        values |= {"limit_price": found.limit_price, "stop_price": found.stop_price}
    detail = {"broker_order_id": found.broker_order_id, "status": found.status.value, "filled": str(filled)}
    never = TERMINAL_STATES - {OrderState.LAPSED, OrderState.REJECTED} - {state}
    if not move(
        connection,
        account=account,
        client_order_id=known.client_order_id,
        to=state,
        unless=never,
        at=at,
        detail=detail,
        values=values,
    ):
        restate(connection, account=account, client_order_id=known.client_order_id, at=at, filled_quantity=filled)
    for leg in found.legs:
        _adopt_leg(connection, account, known, leg, at)


def _adopt_leg(connection: Connection, account: str, parent: LedgerOrder, leg: BrokerOrder, at: datetime) -> None:
    known = order_of(connection, account=account, client_order_id=leg.client_order_id)
    if known is None:
        kind = Leg.TARGET if leg.order_type is OrderType.LIMIT else Leg.STOP
        siblings = orders_of_trade(
            connection, account=account, strategy=parent.strategy, session=parent.session, symbol=parent.symbol
        )
        known = LedgerOrder(
            client_order_id=leg.client_order_id,
            parent_client_order_id=parent.client_order_id,
            session=parent.session,
            strategy=parent.strategy,
            strategy_version=parent.strategy_version,
            symbol=parent.symbol,
            leg=kind,
            generation=sum(order.leg is kind for order in siblings),
            side=leg.side,
            order_type=leg.order_type,
            order_class=leg.order_class,
            time_in_force=TimeInForce(leg.time_in_force),
            quantity=leg.quantity,
            limit_price=leg.limit_price,
            stop_price=leg.stop_price,
            take_profit_price=None,
            stop_loss_price=None,
            reason="take-profit" if kind is Leg.TARGET else "stop-loss",
            state=OrderState.ACKED,
            broker_order_id=leg.broker_order_id,
            filled_quantity=Decimal(0),
            filled_avg_price=None,
            attempt=0,
            not_after=parent.not_after,
            created_at=leg.submitted_at,
            sent_at=leg.submitted_at,
            updated_at=at,
        )
        record_order(connection, account=account, order=known, detail={"made by": parent.client_order_id})
    adopt(connection, account=account, known=known, found=leg, at=at)
