"""Orders in the ledger: intents first, then what the broker made of them. Events and fills only grow."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import Connection, Row, Select, bindparam, func, select, text, update

from desk.controls import Verdict
from desk.ledger.tables import control_verdicts, fills, order_events, orders
from desk.ledger.writing import insert_first
from desk.orders import (
    LIVE_STATES,
    Leg,
    OrderClass,
    OrderRequest,
    OrderState,
    OrderType,
    Side,
    TimeInForce,
)
from desk.portfolio import Fill

__all__ = [
    "LedgerOrder",
    "all_orders",
    "books_stamp",
    "live_orders",
    "move",
    "order_by_broker_id",
    "order_of",
    "orders_of_trade",
    "record_fill",
    "record_order",
    "record_verdicts",
    "reference_of",
    "rejected_since",
    "restate",
]

_o = orders.c


@dataclass(frozen=True, slots=True)
class LedgerOrder:
    """An order as the ledger knows it. `session` and `symbol` name the decision that opened the trade."""

    client_order_id: str
    parent_client_order_id: str | None
    session: date
    strategy: str
    strategy_version: int
    symbol: str
    leg: Leg
    generation: int
    side: Side
    order_type: OrderType
    order_class: OrderClass
    time_in_force: TimeInForce
    quantity: Decimal
    limit_price: Decimal | None
    stop_price: Decimal | None
    take_profit_price: Decimal | None
    stop_loss_price: Decimal | None
    reason: str
    state: OrderState
    broker_order_id: str | None
    filled_quantity: Decimal
    filled_avg_price: Decimal | None
    attempt: int
    not_after: datetime
    created_at: datetime
    sent_at: datetime | None
    updated_at: datetime

    @property
    def is_live(self) -> bool:
        return self.state in LIVE_STATES

    @property
    def is_on_its_way(self) -> bool:
        """Meant for the broker, which has not been proven to have it."""
        return self.state in (OrderState.RESERVED, OrderState.SENDING, OrderState.UNKNOWN)

    @property
    def request(self) -> OrderRequest:
        """What is, or was, asked of the broker: the same every time."""
        return OrderRequest(
            client_order_id=self.client_order_id,
            symbol=self.symbol,
            side=self.side,
            quantity=self.quantity,
            order_type=self.order_type,
            time_in_force=self.time_in_force,
            order_class=self.order_class,
            limit_price=self.limit_price,
            stop_price=self.stop_price,
            take_profit_price=self.take_profit_price,
            stop_loss_price=self.stop_loss_price,
        )


def record_order(connection: Connection, *, account: str, order: LedgerOrder, detail: Mapping[str, object]) -> bool:
    """Write an order and its first event. Returns False, and writes nothing, when its id is known."""
    values = {name: getattr(order, name) for name in LedgerOrder.__slots__}
    if not insert_first(connection, orders, {"account": account, **_plain(values)}):
        return False
    _event(connection, account, order.client_order_id, order.state, order.created_at, detail)
    return True


def move(
    connection: Connection,
    *,
    account: str,
    client_order_id: str,
    to: OrderState,
    unless: Collection[OrderState] = (),
    only_from: Collection[OrderState] = (),
    at: datetime,
    detail: Mapping[str, object],
    values: Mapping[str, object] | None = None,
) -> bool:
    """Compare-and-set of an order's state, with its event. Returns whether this call made the move.

    A move to the state the order is in already changes values but writes no event.
    """
    found = connection.execute(
        select(_o.state).where(_o.account == account, _o.client_order_id == client_order_id).with_for_update()
    ).scalar_one()
    state = OrderState(found)
    if (only_from and state not in only_from) or state in unless:
        return False
    connection.execute(
        update(orders)
        .where(_o.account == account, _o.client_order_id == client_order_id)
        .values(state=to.value, updated_at=at, **_plain(values or {}))
    )
    if state is not to:
        _event(connection, account, client_order_id, to, at, detail)
    return True


def restate(connection: Connection, *, account: str, client_order_id: str, at: datetime, **values: object) -> None:
    """Change what the broker changed without a change of state: filled shares, or a split's new quantity."""
    connection.execute(
        update(orders)
        .where(_o.account == account, _o.client_order_id == client_order_id)
        .values(updated_at=at, **_plain(values))
    )


def record_fill(connection: Connection, *, account: str, client_order_id: str, fill: Fill) -> bool:
    """Insert a fill once, keyed by the broker's activity id. Returns whether it is new."""
    return insert_first(
        connection,
        fills,
        {
            "account": account,
            "activity_id": fill.activity_id,
            "client_order_id": client_order_id,
            "broker_order_id": fill.broker_order_id,
            "symbol": fill.symbol,
            "side": fill.side.value,
            "quantity": fill.quantity,
            "price": fill.price,
            "filled_at": fill.at,
        },
    )


def record_verdicts(
    connection: Connection,
    *,
    account: str,
    client_order_id: str,
    session: date,
    symbol: str,
    verdicts: Iterable[Verdict],
) -> bool:
    """The controls' verdicts on one order. The first ones stand: False when it was judged before."""
    is_first = True
    for verdict in verdicts:
        is_first &= insert_first(
            connection,
            control_verdicts,
            {
                "account": account,
                "client_order_id": client_order_id,
                "control": verdict.control,
                "session": session,
                "symbol": symbol,
                "allowed": verdict.allowed,
                "limit": verdict.limit,
                "value": verdict.value,
                "reason": verdict.reason,
            },
        )
    return is_first


def order_of(connection: Connection, *, account: str, client_order_id: str) -> LedgerOrder | None:
    found = _read(connection, select(orders).where(_o.account == account, _o.client_order_id == client_order_id))
    return found[0] if found else None


def order_by_broker_id(connection: Connection, *, account: str, broker_order_id: str) -> LedgerOrder | None:
    found = _read(connection, select(orders).where(_o.account == account, _o.broker_order_id == broker_order_id))
    return found[0] if found else None


def reference_of(connection: Connection, *, account: str, client_order_id: str) -> Decimal | None:
    """The price in USD an order of ours was made at, as noted when it was reserved; None when there was none."""
    detail = connection.execute(
        select(order_events.c.detail).where(
            order_events.c.account == account,
            order_events.c.client_order_id == client_order_id,
            order_events.c.sequence == 1,
        )
    ).scalar_one_or_none()
    noted = None if detail is None else detail.get("reference")
    return None if noted is None else Decimal(noted)


def rejected_since(connection: Connection, *, account: str, since: datetime) -> int:
    """How many of our orders the broker has refused after that time."""
    count: int = connection.execute(
        select(func.count()).where(_o.account == account, _o.state == OrderState.REJECTED.value, _o.updated_at > since)
    ).scalar_one()
    return count


def all_orders(connection: Connection, *, account: str) -> list[LedgerOrder]:
    """Every order there ever was, oldest first."""
    return _read(connection, select(orders).where(_o.account == account).order_by(_o.created_at, _o.client_order_id))


def live_orders(connection: Connection, *, account: str) -> list[LedgerOrder]:
    """Every order not proven terminal, oldest first."""
    return [_order(row) for row in connection.execute(_LIVE, {"account": account})]


_live_states = sorted(state.value for state in LIVE_STATES)
_LIVE = (
    select(orders)
    .where(_o.account == bindparam("account"), _o.state.in_(_live_states))
    .order_by(_o.created_at, _o.client_order_id)
)


def books_stamp(connection: Connection, *, account: str) -> tuple[str, str]:
    """Two texts that differ from earlier ones when a live order, or an open trade, was added, changed or ended.

    They name the version of each such row (its place and the transaction that wrote it), so a change by any process
    shows as soon as it is committed, and at a fraction of the cost of reading the rows.
    """
    live, opened = connection.execute(_STAMP, {"account": account}).one()
    return live or "", opened or ""


_STAMP = text(
    f"""
    SELECT
      (SELECT string_agg(ctid::text || xmin::text, ' ' ORDER BY ctid) FROM orders
       WHERE account = :account AND state IN ({", ".join(f"'{state}'" for state in _live_states)})),
      (SELECT string_agg(ctid::text || xmin::text, ' ' ORDER BY ctid) FROM trades
       WHERE account = :account AND status = 'open')
    """
)


def orders_of_trade(
    connection: Connection, *, account: str, strategy: str, session: date, symbol: str
) -> list[LedgerOrder]:
    """All orders of one decision: entry, legs, protection and exits, oldest first."""
    return _read(
        connection,
        select(orders)
        .where(_o.account == account, _o.strategy == strategy, _o.session == session, _o.symbol == symbol)
        .order_by(_o.created_at, _o.client_order_id),
    )


def _event(
    connection: Connection,
    account: str,
    client_order_id: str,
    state: OrderState,
    at: datetime,
    detail: Mapping[str, object],
) -> None:
    # The order's row is locked by whoever writes an event, so the next number is ours alone.
    newest = connection.execute(
        select(func.coalesce(func.max(order_events.c.sequence), 0)).where(
            order_events.c.account == account, order_events.c.client_order_id == client_order_id
        )
    ).scalar_one()
    connection.execute(
        order_events.insert().values(
            account=account,
            client_order_id=client_order_id,
            sequence=newest + 1,
            state=state.value,
            detail=dict(detail),
            at=at,
        )
    )


def _read(connection: Connection, statement: Select[tuple[object, ...]]) -> list[LedgerOrder]:
    return [_order(row) for row in connection.execute(statement)]


def _order(row: Row[tuple[object, ...]]) -> LedgerOrder:
    values = {name: getattr(row, name) for name in LedgerOrder.__slots__}
    values.update(
        leg=Leg(row.leg),
        side=Side(row.side),
        order_type=OrderType(row.order_type),
        order_class=OrderClass(row.order_class),
        time_in_force=TimeInForce(row.time_in_force),
        state=OrderState(row.state),
    )
    return LedgerOrder(**values)


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    """Enums as their text."""
    return {
        name: str(value) if isinstance(value, Leg | Side | OrderState | OrderType | OrderClass | TimeInForce) else value
        for name, value in values.items()
    }
