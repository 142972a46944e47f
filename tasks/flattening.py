"""Getting out of everything: nothing is bought any more, and every trade is closed through the order protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TypeVar

from desk.errors import OnepathError
from desk.ledger.orders import LedgerOrder, live_orders, orders_of_trade
from desk.ledger.records import TradingState
from desk.ledger.trades import Trade, open_trades
from desk.ledger.trading_state import tighten_state
from desk.orders import Leg
from desk.portfolio import shares
from desk.reconcile import Books
from tasks.office import Office

__all__ = ["Flattened", "Sold", "Standing", "flatten", "standing"]

T = TypeVar("T")

_ROUNDS = 3  # an exit may be refused, or lost, and made anew
_FILL_S = 30.0


@dataclass(frozen=True, slots=True)
class Standing:
    """What there is to get out of."""

    trades: tuple[Trade, ...]
    entries: tuple[LedgerOrder, ...]
    others: tuple[tuple[str, Decimal], ...]  # shares at the broker that belong to no trade here


@dataclass(frozen=True, slots=True)
class Sold:
    symbol: str
    quantity: Decimal  # shares
    price: Decimal | None  # USD per share, average; None: none were sold


@dataclass(frozen=True, slots=True)
class Flattened:
    """How it went. `left`: sentences, none when all is closed; `problems`: what went wrong on the way."""

    sold: tuple[Sold, ...]
    cancelled: tuple[str, ...]  # symbols of entries
    left: tuple[str, ...]
    problems: tuple[str, ...]


def standing(desk: Office) -> Standing:
    """Read broker and ledger; the ledger is brought up to the broker by it."""
    books = desk.orders.reconcile()
    ours = {trade.symbol for trade in books.trades}
    return Standing(
        trades=books.trades,
        entries=tuple(order for order in books.orders if order.leg is Leg.ENTRY),
        others=tuple((p.symbol, p.quantity) for p in books.positions.values() if p.symbol not in ours),
    )


def flatten(desk: Office, *, by: str) -> Flattened:
    """Halt trading, cancel entries, close every trade and follow the exits to their end.

    One position that cannot be closed keeps no other from it. Halting comes first: a stage at work elsewhere would
    go on buying.
    """
    now = desk.broker.clock().now
    with desk.ledger.transaction() as connection:
        tighten_state(connection, account=desk.account, state=TradingState.HALTED, reason="flatten", by=by, at=now)
        before = open_trades(connection, account=desk.account)
    problems: list[str] = []
    cancelled = _attempt(problems, "entries", desk.orders.stand_down) or []
    _attempt(problems, "orders", partial(desk.orders.resolve, patient=False))
    books = desk.orders.reconcile()
    known = {_key(trade): trade for trade in (*before, *books.trades)}
    for _ in range(_ROUNDS):
        for trade in books.trades:
            known[_key(trade)] = trade
            _attempt(problems, trade.symbol, partial(desk.orders.close, trade, "flatten"))
        with desk.ledger.transaction() as connection:
            exits = [o for o in live_orders(connection, account=desk.account) if o.leg is Leg.EXIT]
        books = desk.orders.settle([order.client_order_id for order in exits], within_s=_FILL_S)
        if not books.trades:
            break
    return Flattened(
        sold=tuple(_sold(desk, trade) for trade in known.values()),
        cancelled=tuple(cancelled),
        left=tuple(_left(books)),
        problems=tuple(dict.fromkeys(problems)),
    )


def _attempt(problems: list[str], what: str, act: Callable[[], T]) -> T | None:
    try:
        return act()
    except OnepathError as error:
        problems.append(f"{what}: {type(error).__name__}: {error}")
        return None


def _key(trade: Trade) -> tuple[object, ...]:
    return trade.strategy, trade.session, trade.symbol


def _sold(desk: Office, trade: Trade) -> Sold:
    """What the exits of a trade have filled until now."""
    with desk.ledger.transaction() as connection:
        orders = orders_of_trade(
            connection, account=desk.account, strategy=trade.strategy, session=trade.session, symbol=trade.symbol
        )
    exits = [order for order in orders if order.leg is Leg.EXIT and order.reason == "flatten" and order.filled_quantity]
    quantity = sum((order.filled_quantity for order in exits), Decimal(0))
    value = sum((order.filled_quantity * (order.filled_avg_price or Decimal(0)) for order in exits), Decimal(0))
    return Sold(trade.symbol, quantity, value / quantity if quantity else None)


def _left(books: Books) -> list[str]:
    """Whatever is still held or still live at the broker, as sentences."""
    closing = {order.symbol for order in books.orders if order.leg is Leg.EXIT}
    ours = {trade.symbol for trade in books.trades}
    left = []
    for symbol, position in sorted(books.positions.items()):
        held = f"{symbol}: {shares(position.quantity)} shares held"
        if symbol in closing:
            left.append(f"{held}, their sale is under way")
        elif symbol in ours:
            left.append(f"{held}, not sold")
        else:
            left.append(f"{held} that no trade here bought; sell them where they were bought")
    for order in books.orders:
        if order.symbol not in books.positions:
            left.append(f"{order.symbol}: {order.leg.value} order {order.client_order_id} is {order.state.value}")
    return left
