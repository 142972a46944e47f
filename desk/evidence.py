"""What the invariants are checked on: the ledger's rows and the broker's own word, read once, changed by nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from desk.ledger.engine import Ledger
from desk.ledger.proof import Books, read_books
from desk.orders import BrokerOrder
from desk.portfolio import CashMovement, Fill, Position
from desk.ports import Broker

__all__ = ["Evidence", "gather"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Ledger and broker, read one after the other."""

    books: Books
    broker_orders: Sequence[BrokerOrder]  # top level, legs nested
    broker_fills: Sequence[Fill]
    positions: Sequence[Position]
    cash: Decimal  # USD, at the broker
    moved: Sequence[CashMovement]  # dividends and the like, as the broker booked them
    read_at: datetime


def gather(ledger: Ledger, broker: Broker, *, account: str) -> Evidence:
    """Read everything there is of this account. Raises Transient when the broker cannot be read."""
    with ledger.transaction() as connection:
        books = read_books(connection, account=account)
    now = broker.clock().now
    times = [order.created_at for order in books.orders]
    since = min(times, default=now) - timedelta(days=1)
    return Evidence(
        books=books,
        broker_orders=broker.orders(status="all", after=since),
        broker_fills=broker.fills(since),
        positions=broker.positions(),
        cash=broker.account().cash,
        moved=broker.cash_movements(since.date()),
        read_at=now,
    )
