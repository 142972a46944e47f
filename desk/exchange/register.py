"""Every order there ever was, and what the open ones keep from others: shares and cash."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from desk.exchange.simorder import SimOrder

__all__ = ["Register"]

_NONE = Decimal(0)


class Register:
    """Reservations are kept as a running sum: asking does not walk the open orders. Whoever changes an order's
    quantity, fills or price calls `weigh`."""

    def __init__(self) -> None:
        self.orders: list[SimOrder] = []  # all ever admitted, legs after their parent
        self.by_id: dict[str, SimOrder] = {}
        self.by_client_id: dict[str, SimOrder] = {}
        self.reserved = _NONE  # USD, of all open orders
        self._reserves: dict[str, Decimal] = {}  # order id: USD
        self._open: dict[str, dict[str, SimOrder]] = {}  # symbol, then order id
        self._by_side: dict[tuple[str, bool], dict[str, SimOrder]] = {}  # symbol and whether it buys, then order id
        self._closing: dict[str, dict[str, SimOrder]] = {}  # symbol, then order id: those that close a position
        self._places: dict[str, int] = {}  # order id: index in `orders`, of the open ones

    def enter(self, order: SimOrder) -> None:
        self._places[order.id] = len(self.orders)
        self.orders.append(order)
        self.by_id[order.id] = order
        self.by_client_id[order.client_order_id] = order
        self._open.setdefault(order.symbol, {})[order.id] = order
        self._by_side.setdefault((order.symbol, order.buy), {})[order.id] = order
        if not order.opens:
            self._closing.setdefault(order.symbol, {})[order.id] = order
        self.weigh(order)

    def leave(self, order: SimOrder) -> None:
        """It has ended."""
        of_symbol = self._open.get(order.symbol)
        if of_symbol is None or of_symbol.pop(order.id, None) is None:
            return
        if not of_symbol:
            del self._open[order.symbol]
        del self._by_side[order.symbol, order.buy][order.id]
        if not order.opens:
            del self._closing[order.symbol][order.id]
        del self._places[order.id]
        self.reserved -= self._reserves.pop(order.id, _NONE)

    def weigh(self, order: SimOrder) -> None:
        """Its reservation may have changed."""
        if not order.opens:
            return
        before, now = self._reserves.get(order.id, _NONE), order.reserved_cash
        if before != now:
            self._reserves[order.id] = now
            self.reserved += now - before

    def open_orders(self, symbol: str | None = None) -> list[SimOrder]:
        """Oldest first within a symbol; waiting legs included."""
        if symbol is not None:
            return list(self._open.get(symbol, {}).values())
        return [order for orders in self._open.values() for order in orders.values()]

    def open_side(self, symbol: str, *, buy: bool) -> Iterable[SimOrder]:
        """Open orders of the symbol that buy, or that sell."""
        return self._by_side.get((symbol, buy), {}).values()

    def closing(self, symbol: str) -> Iterable[SimOrder]:
        """Open orders that close a position in the symbol."""
        return self._closing.get(symbol, {}).values()

    def open_in_order(self) -> list[SimOrder]:
        """All open orders as they were submitted."""
        return [self.orders[place] for place in sorted(self._places.values())]

    def held(self, symbol: str) -> Decimal:
        """Shares that open orders keep from other closing orders."""
        return sum((order.held_shares for order in self.closing(symbol)), _NONE)
