"""Ledger and broker, made equal by evidence: orders, then positions, then the fills behind a change.

Only what the broker gives evidence for is healed. What it does not explain is a difference, and stays one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Protocol

from sqlalchemy import Connection

from desk.ledger.alerts import raise_alert
from desk.ledger.engine import Ledger
from desk.ledger.orders import (
    LedgerOrder,
    books_stamp,
    live_orders,
    move,
    order_by_broker_id,
    order_of,
    orders_of_trade,
    record_fill,
    record_order,
    restate,
)
from desk.ledger.records import Severity
from desk.ledger.trades import Trade, apply_adjustment, apply_fill, open_trades
from desk.orders import (
    OUR_PREFIX,
    TERMINAL_STATES,
    BrokerOrder,
    BrokerStatus,
    Leg,
    OrderState,
    OrderType,
    Side,
    TimeInForce,
)
from desk.portfolio import Fill, Position, shares
from desk.ports import Broker
from desk.strategy import Controls
from desk.tripping import trip_on_slippage

__all__ = ["UNPROVEN", "Books", "Reconciler", "adopt", "ledger_state"]

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
_UNSENT = frozenset({OrderState.PLANNED, OrderState.RESERVED})
_OVERLAP = timedelta(minutes=1)


class HoldingLimit(Protocol):
    """The last session a trade opened on `day` may be held in."""

    def __call__(self, day: date, strategy_version: int, /) -> date: ...


@dataclass(frozen=True, slots=True)
class Books:
    """Ledger and broker after a reconcile. `differences` are sentences; none means: proven equal."""

    trades: tuple[Trade, ...]  # open ones
    orders: tuple[LedgerOrder, ...]  # live ones
    broker_orders: Mapping[str, BrokerOrder]  # by client order id, legs included
    positions: Mapping[str, Position]
    differences: tuple[str, ...]


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


class Reconciler:
    """Reads the broker and brings the ledger up to it. Keep one per process: it remembers what it last saw."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        broker: Broker,
        account: str,
        hold_until: HoldingLimit,
        limits: Callable[[], Controls],
    ) -> None:
        self._ledger = ledger
        self._broker = broker
        self._account = account
        self._hold_until = hold_until
        self._limits = limits
        self._trades: tuple[str, list[Trade]] | None = None  # with the stamp they were read under, as the orders
        self._orders: tuple[str, list[LedgerOrder]] | None = None

    def reconcile(self, now: datetime) -> Books:
        """One reading: orders, positions, and the fills and splits behind whatever changed.

        Raises Transient when the broker cannot be read: a failed read is not "flat".
        """
        trades, known = self._booked()
        since = min([order.created_at for order in known] + [trade.entered_at for trade in trades], default=None)
        found = self._read_orders(known, trades, since)
        positions = {position.symbol: position for position in self._broker.positions()}
        ours = {order.client_order_id for order in known}
        changed = [
            order
            for order in known
            if _differs(order, found.get(order.client_order_id)) or _has_unborn_legs(order, ours, found)
        ]
        if changed or _unequal(trades, positions):
            self._heal(known, changed, trades, found, positions, since or now, now)
            trades, known = self._booked()
        return Books(
            trades=tuple(trades),
            orders=tuple(known),
            broker_orders=found,
            positions=positions,
            differences=tuple(_differences(trades, positions)),
        )

    def compare(self) -> tuple[str, ...]:
        """Every difference between ledger and broker as they are now, shares and orders; nothing is healed by it."""
        trades, known = self._booked()
        since = min([order.created_at for order in known] + [trade.entered_at for trade in trades], default=None)
        found = self._read_orders(known, trades, since)
        positions = {position.symbol: position for position in self._broker.positions()}
        return (*_differences(trades, positions), *order_differences(known, found))

    def _booked(self) -> tuple[list[Trade], list[LedgerOrder]]:
        """Open trades and live orders as the ledger has them now; what did not change is not read again.

        The stamps come first: what is read after one is never older than it.
        """
        with self._ledger.at_once() as connection:
            orders_stamp, trades_stamp = books_stamp(connection, account=self._account)
        if self._trades is None or self._trades[0] != trades_stamp:
            with self._ledger.at_once() as connection:
                self._trades = trades_stamp, open_trades(connection, account=self._account)
        if self._orders is None or self._orders[0] != orders_stamp:
            with self._ledger.at_once() as connection:
                self._orders = orders_stamp, live_orders(connection, account=self._account)
        return self._trades[1], self._orders[1]

    def _read_orders(
        self, known: Sequence[LedgerOrder], trades: Sequence[Trade], since: datetime | None
    ) -> dict[str, BrokerOrder]:
        if since is None:
            return {}
        listed = self._broker.orders(status="all", after=since - _OVERLAP)
        found = {order.client_order_id: order for parent in listed for order in (parent, *parent.legs)}
        for order in known:  # an id we sent that the list lacks is looked up by itself: lists may be late
            if order.client_order_id not in found and order.state is not OrderState.RESERVED:
                alone = self._broker.order(order.client_order_id)
                if alone is not None:
                    found |= {each.client_order_id: each for each in (alone, *alone.legs)}
        return found

    def _heal(
        self,
        known: Sequence[LedgerOrder],
        changed: Sequence[LedgerOrder],
        trades: Sequence[Trade],
        found: Mapping[str, BrokerOrder],
        positions: Mapping[str, Position],
        since: datetime,
        now: datetime,
    ) -> None:
        fills = self._broker.fills(since - _OVERLAP)
        mismatched = [trade for trade in trades if _held(positions, trade.symbol) != trade.remaining]
        splits = self._broker.adjustments((now - timedelta(days=7)).date()) if mismatched else []
        foreign = {
            order.broker_order_id for order in found.values() if not order.client_order_id.startswith(OUR_PREFIX)
        } - {order.broker_order_id for order in known}
        limits = {
            order.client_order_id: self._hold_until(order.session, order.strategy_version)
            for order in known
            if order.leg is Leg.ENTRY
        }
        with self._ledger.transaction() as connection:
            for order in changed:
                if order.client_order_id in found and order.state not in UNPROVEN:
                    adopt(
                        connection,
                        account=self._account,
                        known=order,
                        found=found[order.client_order_id],
                        at=now,
                    )
            for split in splits:
                apply_adjustment(
                    connection,
                    account=self._account,
                    adjustment=split,
                    held=_held(positions, split.symbol),
                    at=now,
                )
            for fill in fills:
                self._apply(connection, fill, foreign, limits, now)

    def _apply(
        self,
        connection: Connection,
        fill: Fill,
        foreign: Collection[str],
        limits: Mapping[str, date],
        now: datetime,
    ) -> None:
        order = order_by_broker_id(connection, account=self._account, broker_order_id=fill.broker_order_id)
        # A fill of our own order whose answer was lost waits for the resolver: only what is proven foreign is foreign.
        if order is None and fill.broker_order_id in foreign:
            order = self._adopt_foreign(connection, fill, now)
        if order is None or not record_fill(
            connection, account=self._account, client_order_id=order.client_order_id, fill=fill
        ):
            return
        apply_fill(
            connection,
            account=self._account,
            strategy=order.strategy,
            strategy_version=order.strategy_version,
            session=order.session,
            entry_client_order_id=order.client_order_id,
            # A fill that came after its entry was thought ended: out again at the first opportunity.
            hold_until=limits.get(order.client_order_id, order.session),
            fill=fill,
            reason=order.reason,
            at=now,
        )
        trip_on_slippage(connection, account=self._account, limits=self._limits(), order=order, fill=fill, at=now)

    def _adopt_foreign(self, connection: Connection, fill: Fill, now: datetime) -> LedgerOrder | None:
        """A sell nobody here sent, of something we hold: somebody (or a delisting) closed it. The trade ends by it."""
        trade = next((t for t in open_trades(connection, account=self._account) if t.symbol == fill.symbol), None)
        if trade is None or fill.side is Side.BUY or fill.quantity > trade.remaining:
            return None
        siblings = orders_of_trade(
            connection, account=self._account, strategy=trade.strategy, session=trade.session, symbol=trade.symbol
        )
        order = LedgerOrder(
            client_order_id=f"external-{fill.broker_order_id}"[:48],
            parent_client_order_id=None,
            session=trade.session,
            strategy=trade.strategy,
            strategy_version=trade.strategy_version,
            symbol=trade.symbol,
            leg=Leg.EXIT,
            generation=sum(each.leg is Leg.EXIT for each in siblings),
            side=Side.SELL,
            order_type=OrderType.MARKET,
            order_class=siblings[0].order_class,
            time_in_force=TimeInForce.DAY,
            quantity=fill.quantity,
            limit_price=None,
            stop_price=None,
            take_profit_price=None,
            stop_loss_price=None,
            reason="closed outside",
            state=OrderState.FILLED,
            broker_order_id=fill.broker_order_id,
            filled_quantity=fill.quantity,
            filled_avg_price=fill.price,
            attempt=0,
            not_after=fill.at,
            created_at=fill.at,
            sent_at=None,
            updated_at=now,
        )
        record_order(connection, account=self._account, order=order, detail={"external": fill.broker_order_id})
        raise_alert(
            connection,
            account=self._account,
            severity=Severity.CRITICAL,
            kind="foreign.sold",
            message=f"{fill.quantity} {fill.symbol} were sold at {fill.price} by an order not ours "
            f"({fill.broker_order_id}); the trade is closed by it",
            at=now,
            session=trade.session,
            symbol=fill.symbol,
        )
        return order


def _differs(order: LedgerOrder, found: BrokerOrder | None) -> bool:
    if found is None or order.state in UNPROVEN:
        return False
    return (
        ledger_state(found) is not order.state
        or found.filled_quantity != order.filled_quantity
        or found.quantity != order.quantity
    )


def order_differences(known: Sequence[LedgerOrder], found: Mapping[str, BrokerOrder]) -> Iterator[str]:
    """In what live orders of the ledger are not what the broker has, one sentence each."""
    for order in known:
        there = found.get(order.client_order_id)
        name = f"{order.symbol}: {order.leg.value} order {order.client_order_id} is {order.state.value} in the ledger"
        if there is None:
            yield f"{name}, the broker {'was never asked for it' if order.state in _UNSENT else 'does not have it'}"
        elif ledger_state(there) is not order.state:
            yield f"{name}, {there.status.value} at the broker"
        elif there.filled_quantity != order.filled_quantity:
            yield f"{name}, filled {shares(order.filled_quantity)} here and {shares(there.filled_quantity)} there"


def _has_unborn_legs(order: LedgerOrder, ours: Collection[str], found: Mapping[str, BrokerOrder]) -> bool:
    """Whether the broker shows legs under an order of ours that the ledger has not adopted yet."""
    if order.parent_client_order_id is not None or order.client_order_id not in found:
        return False
    legs = found[order.client_order_id].legs
    return any(leg.client_order_id not in ours and not leg.status.is_terminal for leg in legs)


def _held(positions: Mapping[str, Position], symbol: str) -> Decimal:
    position = positions.get(symbol)
    return Decimal(0) if position is None else position.quantity


def _booked(trades: Iterable[Trade]) -> dict[str, Decimal]:
    booked: dict[str, Decimal] = {}
    for trade in trades:
        booked[trade.symbol] = booked.get(trade.symbol, Decimal(0)) + trade.remaining
    return booked


def _unequal(trades: Sequence[Trade], positions: Mapping[str, Position]) -> bool:
    return _booked(trades) != {symbol: position.quantity for symbol, position in positions.items()}


def _differences(trades: Sequence[Trade], positions: Mapping[str, Position]) -> list[str]:
    booked = _booked(trades)
    return [
        f"{symbol}: {shares(booked.get(symbol, Decimal(0)))} shares in the ledger, "
        f"{shares(_held(positions, symbol))} at the broker"
        for symbol in sorted(booked.keys() | positions.keys())
        if booked.get(symbol, Decimal(0)) != _held(positions, symbol)
    ]
