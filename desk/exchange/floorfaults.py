"""What faults do to orders between the venue and us."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Any

from desk.exchange.amounts import money
from desk.exchange.drafts import OrderDraft, rule
from desk.exchange.market import Tick
from desk.exchange.routing import ApiError
from desk.exchange.simorder import SimOrder

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange
    from desk.exchange.faults import Armed

__all__ = ["FloorFaults"]


class FloorFaults:
    """The floor's `Mischief` while faults of that kind are set."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._released: set[str] = set()  # ids of orders that were stuck long enough
        self._ends_after_part: set[str] = set()
        self._wins: set[str] = set()  # ids of orders whose fill beats their replacement

    def refuse(self, draft: OrderDraft) -> None:
        """Raises ApiError for an order that is refused out of turn."""
        if self._fires("untradable", "admit", draft.symbol) is not None:
            raise rule(f'asset "{draft.symbol}" is not tradable')
        if draft.buy and self._fires("pdt_legacy", "admit", draft.symbol) is not None:
            raise ApiError(403, 40310100, "trade denied due to pattern day trading protection")

    def keeps(self, order: SimOrder) -> bool:
        if order.id in self._released:
            return False
        if self._fires("async_reject", "route", order.symbol) is not None:
            floor = self._exchange.floor
            floor.end([order], "rejected")
            floor.end(order.legs, "canceled")
            return True
        stuck = self._fires("stuck_pending", "route", order.symbol)
        if stuck is None:
            return False
        self._after(stuck["for_s"], lambda: self._release(order))
        return True

    def _release(self, order: SimOrder) -> None:
        self._released.add(order.id)
        self._exchange.floor.route(order)

    def share(self, order: SimOrder, qty: Decimal) -> Decimal:
        if order.remaining < 2:
            return qty
        if order.parent is None and any(leg.waiting for leg in order.legs):
            cut = self._fires("entry_partial_cancel", "fill", order.symbol)
            if cut is not None:
                self._ends_after_part.add(order.id)
                return _part(order, cut)
        stalled = self._fires("partial_stall", "fill", order.symbol)
        if stalled is None:
            return qty
        order.stalled = True
        self._after(stalled["for_s"], lambda: self._go_on(order))
        return _part(order, stalled)

    def _go_on(self, order: SimOrder) -> None:
        order.stalled = False
        self._exchange.floor.changed_books.add(order.symbol)

    def after_part(self, order: SimOrder) -> None:
        if order.id in self._ends_after_part:
            self._ends_after_part.discard(order.id)
            self._exchange.floor.end(order.family, "canceled")

    def fills_twin(self, order: SimOrder, twin: SimOrder) -> bool:
        return order.status == "filled" and self._fires("leg_double_fill", "exit", order.symbol) is not None

    def surviving(self, legs: list[SimOrder]) -> list[SimOrder]:
        lost = self._fires("leg_loss", "activate", legs[0].symbol)
        if lost is None:
            return legs
        gone = [leg for leg in legs if lost["leg"] in ("both", "stop" if leg.stop_price is not None else "target")]
        self._exchange.floor.end(gone, "canceled")
        return [leg for leg in legs if leg.is_open]

    def activated(self, legs: Sequence[SimOrder]) -> None:
        silent = self._fires("leg_silent_cancel", "activate", legs[0].symbol) if legs else None
        if silent is not None:
            floor = self._exchange.floor
            self._after(silent["after_s"], lambda: floor.end(legs, "canceled", quietly=True))

    def cancel_fate(self, order: SimOrder, members: list[SimOrder]) -> list[SimOrder] | None:
        floor = self._exchange.floor
        tick = self._trading_with(order)
        if tick is not None and self._fires("cancel_fill_race", "cancel", order.symbol) is not None:
            floor.set_status(order, "pending_cancel")
            self._fill(order, tick)
            floor.tell("order_cancel_rejected", order)
            return []
        stuck = self._fires("cancel_stuck", "cancel", order.symbol)
        if stuck is None:
            return None
        for member in members:
            floor.set_status(member, "pending_cancel")
            self._after(stuck["for_s"], lambda member=member: floor.finish_cancel(member))  # type: ignore[misc]
        return []

    def races(self, order: SimOrder) -> bool:
        if self._trading_with(order) is None or self._fires("replace_race", "replace", order.symbol) is None:
            return False
        self._wins.add(order.id)
        return True

    def before_replacement(self, order: SimOrder) -> None:
        """The venue is about to replace the order."""
        tick = self._trading_with(order)
        if order.id in self._wins and tick is not None:
            self._wins.discard(order.id)
            self._fill(order, tick)

    def _trading_with(self, order: SimOrder) -> Tick | None:
        """The quote that a working order could be filled at; None where no fill can win."""
        exchange = self._exchange
        if exchange.session is None or not order.is_open or not order.routed or order.waiting or order.stalled:
            return None
        return exchange.quotes.live(order.symbol)

    def _fill(self, order: SimOrder, tick: Tick) -> None:
        """At the order's own limit, or at the quote."""
        side = (tick.ask if order.buy else tick.bid) or tick.last
        self._exchange.floor.fill(order, order.limit or money(side), tick, whole=True)

    def _after(self, seconds: float | None, action: Callable[[], Any]) -> None:
        if seconds is not None:
            self._exchange.at(self._exchange.now_s + seconds, action)

    def _fires(self, name: str, stage: str, symbol: str) -> Armed | None:
        return self._exchange.faults.fires(name, stage, (symbol,))


def _part(order: SimOrder, fired: Armed) -> Decimal:
    part = (order.remaining * Decimal(str(fired["fraction"]))).to_integral_value(ROUND_FLOOR)
    return min(max(part, Decimal(1)), order.remaining - 1)
