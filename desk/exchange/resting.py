"""Orders resting in one symbol, and the tick that will be the next to touch one of them.

A session has over a thousand ticks a symbol and a handful of orders. So the ticks of the session are read
once, the first one that triggers anything is searched once after each change of the book, and letting time
pass is a comparison per symbol.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from desk.exchange.auctions import IMMEDIATE
from desk.exchange.market import Tick
from desk.exchange.simorder import SimOrder

__all__ = ["Book", "Tape", "fill_price", "triggers"]

_NEVER = math.inf


class Tape:
    """The regular-session ticks of one symbol, oldest first."""

    def __init__(self, ticks: Sequence[Tick]) -> None:
        self.ticks = ticks
        self._times = [tick.at for tick in ticks]

    def index_after(self, at: float) -> int:
        """Of the first tick later than that."""
        return bisect_right(self._times, at)


class Book:
    """The routed, open orders of a symbol. `next_at` is infinite when no tick of this session triggers one."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.orders: list[SimOrder] = []  # in the order they arrived
        self.next_at = _NEVER  # epoch seconds
        self.next_tick: Tick | None = None

    def add(self, order: SimOrder) -> None:
        if order not in self.orders:
            self.orders.append(order)

    def remove(self, order: SimOrder) -> None:
        if order in self.orders:
            self.orders.remove(order)

    def sleep(self) -> None:
        """No tick is coming."""
        self.next_at, self.next_tick = _NEVER, None

    def look_ahead(self, tape: Tape, after: float) -> None:
        """Find the first tick later than `after` that triggers any order."""
        self.sleep()
        found = self._first(tape.ticks, tape.index_after(after)) if self.orders else None
        if found is not None:
            self.next_at, self.next_tick = found.at, found

    def _first(self, ticks: Sequence[Tick], start: int) -> Tick | None:
        ask_down, bid_up, last_down, last_up = self._bounds()
        for index in range(start, len(ticks)):
            tick = ticks[index]
            _, bid, ask, last, _ = tick
            if bid >= bid_up or ask <= ask_down or last <= last_down or last >= last_up:
                return tick
        return None

    def _bounds(self) -> tuple[float, float, float, float]:
        """An ask at or below the first, a bid at or above the second, a trade at or below the third or at or
        above the fourth triggers something (a market order: any tick)."""
        ask_down, bid_up, last_down, last_up = -_NEVER, _NEVER, -_NEVER, _NEVER
        for order in self.orders:
            if order.stalled:
                continue
            if order.is_stop:
                down, up = _stop_bounds(order)
                last_down, last_up = max(last_down, down), min(last_up, up)
                continue
            limit = order.limit
            if limit is None or order.time_in_force in IMMEDIATE:
                return _NEVER, -_NEVER, _NEVER, -_NEVER
            if order.buy:
                ask_down = max(ask_down, float(limit))
            else:
                bid_up = min(bid_up, float(limit))
        return ask_down, bid_up, last_down, last_up


def _stop_bounds(order: SimOrder) -> tuple[float, float]:
    """A trade at or below the first or at or above the second matters to a stop. To a trailing one every better
    price does, because it follows."""
    assert order.stop_price is not None  # it is a stop
    stop = float(order.stop_price)
    down, up = (-_NEVER, stop) if order.buy else (stop, _NEVER)
    if order.hwm is None:
        return down, up
    best = float(order.hwm)
    return (math.nextafter(best, -_NEVER), up) if order.buy else (down, math.nextafter(best, _NEVER))


def triggers(order: SimOrder, tick: Tick) -> bool:
    """Whether a waiting stop is triggered by that tick's trade."""
    assert order.stop_price is not None  # only asked of stops
    stop = float(order.stop_price)
    return tick.last >= stop if order.buy else tick.last <= stop


def fill_price(order: SimOrder, tick: Tick, *, arriving: bool) -> float | None:
    """USD a share at which the order fills at that tick, or None.

    An arriving order (just sent, just activated, or at a session's first tick) takes the quote, which may be
    better than its limit. A resting limit fills at its limit when the other side comes to it. A side priced 0
    is not there.
    """
    price = tick.ask if order.buy else tick.bid
    if price <= 0:
        return None
    limit = order.limit
    if limit is None:
        return price
    at_limit = float(limit)
    reached = price <= at_limit if order.buy else price >= at_limit
    if not reached:
        return None
    # A capped buy stop is a price limit on a market order: it takes the quote.
    return price if arriving or order.limit_price is None else at_limit
