"""Ledger and broker, made equal by evidence: orders, positions, orders again, then the fills behind a change.

Only what the broker gives evidence for is healed. What it does not explain is a difference, and stays one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Protocol

from sqlalchemy import Connection

from desk.adoption import UNPROVEN, adopt, ledger_state
from desk.errors import Transient
from desk.ledger.alerts import raise_alert
from desk.ledger.engine import Ledger
from desk.ledger.external import record_external
from desk.ledger.orders import (
    LedgerOrder,
    books_stamp,
    live_orders,
    order_by_broker_id,
    orders_of_trade,
    record_fill,
    record_order,
    restate,
)
from desk.ledger.records import Severity
from desk.ledger.trades import Trade, apply_adjustment, apply_fill, open_trades
from desk.orders import OUR_PREFIX, BrokerOrder, Leg, OrderState, OrderType, Side, TimeInForce
from desk.portfolio import Fill, Position, shares
from desk.ports import Broker
from desk.strategy import Controls
from desk.tripping import trip_on_slippage

__all__ = ["Books", "Reconciler"]

_UNSENT = frozenset({OrderState.PLANNED, OrderState.RESERVED})
_OVERLAP = timedelta(minutes=1)
_READINGS_MAX = 5
_FIRST_LOOK = timedelta(days=1)  # of a process that just began
_EXTERNAL = "external-"  # begins the ids given here to orders of others that end a trade


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
        self._seen: set[str] = set()  # client order ids of which it is known whose they are
        self._looked_at: datetime | None = None  # when the broker's orders were read last

    def reconcile(self, now: datetime) -> Books:
        """Read orders and positions, and the fills and splits behind whatever changed.

        What is as the ledger has it agrees with an earlier reading already. Anything else is read until two readings
        of the orders, with the positions between them, agree. Raises Transient when they never do, or the broker
        cannot be read: a failed read is not "flat".
        """
        trades, known = self._booked()
        since = self._since(known, trades, now)
        found = self._read_orders(known, trades, since)
        positions = self._read_positions()
        if not found.keys() <= self._seen:
            self._note_foreign(found, now)
        self._looked_at = now
        if _changed(known, found) or _unequal(trades, positions):
            found, positions = self._read_until_agreed(known, trades, since, found, positions)
            self._heal(known, _changed(known, found), trades, found, positions, since, now)
            trades, known = self._booked()
        return Books(
            trades=tuple(trades),
            orders=tuple(known),
            broker_orders=found,
            positions=positions,
            differences=tuple(_differences(trades, positions)),
        )

    def compare(self, now: datetime) -> tuple[str, ...]:
        """Every difference between ledger and broker as they are now, shares and orders; nothing is healed by it."""
        trades, known = self._booked()
        since = self._since(known, trades, now)
        found = self._read_orders(known, trades, since)
        positions = self._read_positions()
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

    def _since(self, known: Sequence[LedgerOrder], trades: Sequence[Trade], now: datetime) -> datetime:
        """From when on the broker's orders are read: as far back as anything lives, and as we last looked."""
        looked_at = now - _FIRST_LOOK if self._looked_at is None else self._looked_at
        return min([order.created_at for order in known] + [trade.entered_at for trade in trades] + [looked_at])

    def _note_foreign(self, found: Mapping[str, BrokerOrder], now: datetime) -> None:
        """An order with an id the ledger does not know, and no parent of ours: somebody else is at work here."""
        legs = {leg.client_order_id for order in found.values() for leg in order.legs}
        new = [order for name, order in found.items() if name not in self._seen and name not in legs]
        if new:
            with self._ledger.transaction() as connection:
                record_external(connection, account=self._account, orders=new, at=now)
        self._seen |= found.keys()

    def _read_positions(self) -> dict[str, Position]:
        return {position.symbol: position for position in self._broker.positions()}

    def _read_until_agreed(
        self,
        known: Sequence[LedgerOrder],
        trades: Sequence[Trade],
        since: datetime,
        found: dict[str, BrokerOrder],
        positions: dict[str, Position],
    ) -> tuple[dict[str, BrokerOrder], dict[str, Position]]:
        for _ in range(_READINGS_MAX):
            again = self._read_orders(known, trades, since)
            if _said(again) == _said(found):
                return again, positions
            found, positions = again, self._read_positions()
        raise Transient(
            f"orders of account {self._account}: no two of {_READINGS_MAX + 1} readings agree; nothing is healed"
        )

    def _read_orders(
        self, known: Sequence[LedgerOrder], trades: Sequence[Trade], since: datetime
    ) -> dict[str, BrokerOrder]:
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
        is_adopted = order is None and fill.broker_order_id in foreign
        if is_adopted:
            order = self._adopt_foreign(connection, fill, now)
        if order is None or not record_fill(
            connection, account=self._account, client_order_id=order.client_order_id, fill=fill
        ):
            return
        if not is_adopted and order.client_order_id.startswith(_EXTERNAL):
            self._grow_foreign(connection, order, fill, now)
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

    def _grow_foreign(self, connection: Connection, order: LedgerOrder, fill: Fill, now: datetime) -> None:
        """A further fill of an adopted order of others: it was written down as large as its first one."""
        filled = order.filled_quantity + fill.quantity
        value = order.filled_quantity * (order.filled_avg_price or fill.price) + fill.quantity * fill.price
        restate(
            connection,
            account=self._account,
            client_order_id=order.client_order_id,
            at=now,
            quantity=filled,
            filled_quantity=filled,
            filled_avg_price=value / filled,
        )

    def _adopt_foreign(self, connection: Connection, fill: Fill, now: datetime) -> LedgerOrder | None:
        """A sell nobody here sent, of something we hold: somebody (or a delisting) closed it. The trade ends by it."""
        trade = next((t for t in open_trades(connection, account=self._account) if t.symbol == fill.symbol), None)
        if trade is None or fill.side is Side.BUY or fill.quantity > trade.remaining:
            return None
        siblings = orders_of_trade(
            connection, account=self._account, strategy=trade.strategy, session=trade.session, symbol=trade.symbol
        )
        order = LedgerOrder(
            client_order_id=f"{_EXTERNAL}{fill.broker_order_id}"[:48],
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


def _changed(known: Sequence[LedgerOrder], found: Mapping[str, BrokerOrder]) -> list[LedgerOrder]:
    """Live orders of which the broker says something new."""
    ours = {order.client_order_id for order in known}
    return [
        order
        for order in known
        if _differs(order, found.get(order.client_order_id)) or _has_unborn_legs(order, ours, found)
    ]


def _said(found: Mapping[str, BrokerOrder]) -> dict[str, tuple[object, ...]]:
    return {name: (order.status, order.filled_quantity, order.quantity) for name, order in found.items()}


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
