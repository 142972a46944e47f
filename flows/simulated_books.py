"""Ledger and broker as they are, for the proof: read past everything that is under test.

The ledger through a connection of its own that sees what is committed and nothing else; the broker from inside the
simulated exchange, where no fault bends an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import namedtuple_row

from desk.exchange.exchange import Exchange
from desk.exchange.simorder import SimOrder
from desk.ledger.connecting import connect_plainly

__all__ = ["BrokerSide", "LedgerFill", "LedgerRow", "LedgerSide", "LedgerView", "broker_side"]


class LedgerRow(NamedTuple):
    """An order in the ledger. `sending_at`: when SENDING was first committed to, by the broker's clock."""

    client_order_id: str
    parent: str | None
    strategy: str
    session: date
    symbol: str
    leg: str
    generation: int
    state: str
    side: str
    quantity: Decimal
    limit_price: Decimal | None
    filled_quantity: Decimal
    broker_order_id: str | None
    sending_at: datetime | None
    was_unknown: bool


class LedgerFill(NamedTuple):
    activity_id: str
    client_order_id: str
    broker_order_id: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal


@dataclass(frozen=True, slots=True)
class LedgerSide:
    orders: Mapping[str, LedgerRow]  # by client order id
    fills: Mapping[str, LedgerFill]  # by activity id
    adjusted: Mapping[str, Decimal]  # shares by symbol
    held: Mapping[str, Decimal]  # what is left of open trades, by symbol
    paged: frozenset[str]  # symbols of critical alerts


@dataclass(frozen=True, slots=True)
class BrokerSide:
    orders: tuple[SimOrder, ...]
    fills: tuple[Mapping[str, Any], ...]
    held: Mapping[str, Decimal]
    cash: Decimal
    started_with: Decimal
    other_cash: Decimal  # dividends, and fractions of splits
    split: frozenset[str]  # symbols that had one


_ORDERS = """
SELECT o.client_order_id, o.parent_client_order_id, o.strategy, o.session, o.symbol, o.leg, o.generation, o.state,
       o.side, o.quantity, o.limit_price, o.filled_quantity, o.broker_order_id,
       (SELECT min(e.at) FROM order_events e WHERE e.account = o.account AND e.client_order_id = o.client_order_id
        AND e.state = 'sending') AS sending_at,
       EXISTS (SELECT FROM order_events e WHERE e.account = o.account AND e.client_order_id = o.client_order_id
        AND e.state = 'unknown') AS was_unknown
FROM orders o WHERE o.account = %(account)s {only} ORDER BY o.created_at, o.client_order_id
"""
_EVENTS = """
SELECT e.at, e.client_order_id, e.sequence, e.state, e.detail, o.symbol, o.leg, o.generation
FROM order_events e JOIN orders o USING (account, client_order_id)
WHERE e.account = %(account)s ORDER BY e.at, e.client_order_id, e.sequence
"""


class LedgerView:
    """One connection, open as long as the ledger is looked at."""

    def __init__(self, url: str, account: str) -> None:
        self._connection: psycopg.Connection[Any] = connect_plainly(url)
        self._connection.row_factory = namedtuple_row
        self._account = account

    def close(self) -> None:
        self._connection.close()

    def order(self, client_order_id: str) -> LedgerRow | None:
        rows = self._rows(_ORDERS.format(only="AND o.client_order_id = %(id)s"), id=client_order_id)
        return LedgerRow(*rows[0]) if rows else None

    def unsettled_entries(self) -> list[LedgerRow]:
        """Entries on their way or of unknown fate: whether the broker has them is not proven."""
        only = "AND o.leg = 'entry' AND o.state IN ('sending', 'unknown')"
        return [LedgerRow(*row) for row in self._rows(_ORDERS.format(only=only))]

    def trading_state(self) -> str:
        rows = self._rows("SELECT state FROM trading_states WHERE account = %(account)s ORDER BY sequence DESC LIMIT 1")
        return rows[0].state if rows else "ACTIVE"

    def events(self) -> list[Any]:
        """Each state an order entered: at, client_order_id, sequence, state, detail, symbol, leg, generation."""
        return self._rows(_EVENTS)

    def alerts(self) -> list[Any]:
        return self._rows(
            "SELECT at, severity, kind, message FROM alerts WHERE account = %(account)s ORDER BY alert_id"
        )

    def read(self) -> LedgerSide:
        fills = self._rows(
            "SELECT activity_id, client_order_id, broker_order_id, symbol, side, quantity, price FROM fills "
            "WHERE account = %(account)s ORDER BY activity_id"
        )
        return LedgerSide(
            orders={row.client_order_id: LedgerRow(*row) for row in self._rows(_ORDERS.format(only=""))},
            fills={row.activity_id: LedgerFill(*row) for row in fills},
            adjusted=self._by_symbol(
                "SELECT symbol, sum(quantity_change) FROM adjustments WHERE account = %(account)s GROUP BY symbol"
            ),
            held=self._by_symbol(
                "SELECT symbol, sum(quantity - quantity_closed) FROM trades "
                "WHERE account = %(account)s AND status = 'open' GROUP BY symbol"
            ),
            paged=frozenset(
                row.symbol
                for row in self._rows(
                    "SELECT DISTINCT symbol FROM alerts WHERE account = %(account)s AND severity = 'critical'"
                    " AND symbol IS NOT NULL"
                )
            ),
        )

    def _rows(self, query: str, **named: object) -> list[Any]:
        return self._connection.execute(query, {"account": self._account, **named}).fetchall()

    def _by_symbol(self, query: str) -> dict[str, Decimal]:
        return {row[0]: row[1] for row in self._rows(query)}


def broker_side(exchange: Exchange) -> BrokerSide:
    account = exchange.account
    others = [activity for activity in account.activities if activity.kind != "FILL"]
    return BrokerSide(
        orders=tuple(exchange.floor.register.orders),
        fills=tuple(activity.document for activity in account.activities if activity.kind == "FILL"),
        held={symbol: holding.qty for symbol, holding in account.holdings.items()},
        cash=account.cash,
        started_with=account.started_with,
        other_cash=sum((Decimal(activity.document["net_amount"]) for activity in others), Decimal(0)),
        split=frozenset(activity.document["symbol"] for activity in others if activity.kind == "SPLIT"),
    )
