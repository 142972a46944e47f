"""The trading floor: the life of each order from admission to its end, and what fills do to the account.

Time is told to the floor (`now`); it never moves by itself. When a tick touches a stop and a target at once,
the stop goes first: the simulation never flatters.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import ROUND_FLOOR, Decimal

from desk.exchange.amounts import money
from desk.exchange.assets import SimAsset
from desk.exchange.auctions import AUCTIONS, IMMEDIATE, auction_tick
from desk.exchange.drafts import OrderDraft, rule
from desk.exchange.intake import Intake
from desk.exchange.market import Tick
from desk.exchange.resting import Book, fill_price, triggers
from desk.exchange.simorder import SimOrder

__all__ = ["Floor"]

_GTC_SWEEP = timedelta(hours=4)  # from the close, at the earliest 13:00, past 16:15 New York
_SHARE_STEP = Decimal("0.000000001")


class Floor(Intake):
    # -- routing ---------------------------------------------------------------------------------

    def route(self, order: SimOrder) -> None:
        """The venue takes the order: while it trades it is matched against the quote at once, otherwise it is
        queued until the session opens."""
        if not order.is_open or order.routed or (self.mischief is not None and self.mischief.keeps(order)):
            return
        self.rest(order)
        if order.order_class == "oco":
            self.rest(order.legs[0])
        if not self.in_session and not (self.in_extended_hours and order.extended_hours):
            return
        self._become_new(order)
        if order.time_in_force in AUCTIONS:
            return
        self.arrive(order)
        if order.time_in_force in IMMEDIATE and order.is_open:
            self._end(order, "canceled")

    def arrive(self, order: SimOrder) -> None:
        """An order that rests already meets the quote of the moment, when there is one."""
        tick = self._quotes.live(order.symbol) if self.in_session else self._quotes.extended(order.symbol)
        if tick is not None:
            self._match_arriving(order, tick)

    def _match_arriving(self, order: SimOrder, tick: Tick) -> None:
        """The others in its book have met this tick."""
        if order.symbol in self.halted:
            return
        self.changed_books.add(order.symbol)
        for member in sorted((order, *order.legs), key=lambda member: not member.is_stop):
            if member.routed and member.is_open and not member.waiting:
                self._meet(member, tick, arriving=True)

    def begin_extended(self, order: SimOrder) -> None:
        """Extended hours have begun: an order queued for them goes to work."""
        if order.is_open and order.routed and self.in_extended_hours:
            self._become_new(order)
            self.arrive(order)

    def open_session(self) -> None:
        """Queued orders reach the venue, but for gtc orders that ended over a weekend; then the opening auction."""
        self._expire(day_orders=False, by=self.now)
        for book in self.books.values():
            for order in book.orders:
                self._become_new(order)
            self.changed_books.add(book.symbol)
        self._hold_auction("opg")

    def _hold_auction(self, time_in_force: str) -> None:
        """All orders for this auction fill at its price, or end. A symbol that does not trade has no auction."""
        taking_part = [order for order in self._auction if order.time_in_force == time_in_force and order.is_open]
        self._auction = [order for order in self._auction if order.time_in_force != time_in_force and order.is_open]
        for order in taking_part:
            self._become_new(order)
            tick = self._quotes.live(order.symbol)
            if tick is not None and order.symbol not in self.halted:
                self._meet(order, auction_tick(tick), arriving=True)
            if order.is_open:
                self._end(order, "canceled")

    def _become_new(self, order: SimOrder) -> None:
        if order.status in ("pending_new", "accepted"):
            if self._options.submitted_at_when_routed and order.status == "accepted":
                order.submitted_at = self.now
            self.set_status(order, "new")

    def rest(self, order: SimOrder) -> None:
        """From now on the order meets ticks, or waits for its auction."""
        order.routed = True
        if order.time_in_force in AUCTIONS:
            self._auction.append(order)
            return
        self.books.setdefault(order.symbol, Book(order.symbol)).add(order)
        self.changed_books.add(order.symbol)

    # -- matching --------------------------------------------------------------------------------

    def match(self, symbol: str, tick: Tick, *, arriving: frozenset[SimOrder] | None) -> None:
        """Let that tick meet the resting orders. `arriving` takes the quote; None: all do (a session's first
        tick)."""
        book = self.books.get(symbol)
        if book is None or symbol in self.halted:
            return
        self.changed_books.add(symbol)
        for order in sorted(book.orders, key=lambda order: not order.is_stop):
            if order.routed and order.is_open and (self.in_session or order.extended_hours):
                self._meet(order, tick, arriving=arriving is None or order in arriving)
                if order.time_in_force in IMMEDIATE and order.is_open:
                    self._end(order, "canceled")

    def _meet(self, order: SimOrder, tick: Tick, *, arriving: bool) -> None:
        if order.stalled:
            return
        if order.is_stop:
            if order.type == "trailing_stop" and not triggers(order, tick) and order.trail(money(tick.last)):
                order.touch(self.now)
                self.changes += 1
            if not triggers(order, tick):
                return
            self._elect(order)
            arriving = True
        price = fill_price(order, tick, arriving=arriving)
        if price is not None:
            self.fill(order, money(price), tick)

    def _elect(self, order: SimOrder) -> None:
        """A stop is triggered: it becomes an order to trade now, and the other exit of the pair goes."""
        order.elected = True
        twin = order.sibling
        if twin is not None and twin.is_open:
            self._end(twin, self._options.stop_trigger_ends_target)
        if order.status == "held":
            self.set_status(order, "new")

    def fill(self, order: SimOrder, price: Decimal, tick: Tick, *, whole: bool = False) -> None:
        """The order trades at that price, wholly unless chance (or a fault) gives it a part."""
        if order.notional is not None and not order.filled_qty:
            order.qty = self._shares_for(order, price)
        qty = order.remaining if whole else self._share_of(order)
        order.filled_qty += qty
        order.filled_value += qty * price
        signed = qty if order.buy else -qty
        may_cross = order.opens or self.mischief is not None
        self.account.traded(order.symbol, order.asset_id, signed, price, may_cross=may_cross)
        self.register.weigh(order)
        self._write_fill(order, qty, price)
        self._after_fill(order, tick, complete=order.status == "filled")

    def _shares_for(self, order: SimOrder, price: Decimal) -> Decimal:
        """What a notional order comes to at that price; a sale never takes more than is there."""
        assert order.notional is not None
        qty = (order.notional / price).quantize(_SHARE_STEP, ROUND_FLOOR)
        return qty if order.opens else min(qty, self.available(order.symbol) + order.held_shares)

    def _write_fill(self, order: SimOrder, qty: Decimal, price: Decimal) -> None:
        complete = order.remaining == 0
        execution_id = self._journal.new_id()
        order.filled_at = self.now
        self.account.record_fill(
            self.now,
            execution_id,
            order_id=order.id,
            symbol=order.symbol,
            side=order.side,
            qty=qty,
            price=price,
            cum_qty=order.filled_qty,
            leaves_qty=order.remaining,
        )
        if complete:
            order.status = "filled"
        elif order.status not in ("pending_cancel", "pending_replace"):
            order.status = "partially_filled"
        order.touch(self.now)
        if complete:
            self._leave(order)
        self.changes += 1
        self._journal.trade_update(
            "fill" if complete else "partial_fill",
            order,
            self.now,
            position_qty=self.account.shares(order.symbol),
            execution_id=execution_id,
            price=price,
            qty=qty,
        )

    def _share_of(self, order: SimOrder) -> Decimal:
        remaining, chance = order.remaining, self._options.partial_fill_probability
        if order.time_in_force != "fok":
            if chance and remaining >= 2 and self._chance.random() < chance:
                remaining = Decimal(self._chance.randint(1, int(remaining) - 1))
            if self.mischief is not None:
                return self.mischief.share(order, remaining)
        return remaining

    def _after_fill(self, order: SimOrder, tick: Tick, *, complete: bool) -> None:
        twin = order.sibling
        if twin is not None and twin.is_open:
            if self.mischief is not None and self.mischief.fills_twin(order, twin):
                self.fill(twin, twin.limit or twin.stop_price or money(tick.last), tick, whole=True)
            elif complete:
                self._end(twin, "canceled", quietly=not self._options.sibling_cancel_event)
            else:
                twin.qty = twin.filled_qty + order.remaining
                if twin.successor is not None:
                    twin.successor.qty = twin.qty
                twin.touch(self.now)
        waiting = [leg for leg in order.legs if leg.waiting and leg.is_open]
        if complete and waiting:
            self._activate(waiting, tick)
        if self.mischief is not None and order.is_open:
            self.mischief.after_part(order)

    def _activate(self, legs: list[SimOrder], tick: Tick) -> None:
        """The entry is complete: the target works, the stop of a pair stays `held` but watches the price."""
        symbol = legs[0].symbol
        free = self.available(symbol)
        if self.mischief is not None:
            legs = self.mischief.surviving(legs)
        for leg in legs:
            leg.waiting = False
            if leg.qty > free:  # shares of a part-filled entry were sold meanwhile: never sell what is not there
                leg.qty = free
            if leg.qty <= 0:
                self._end(leg, "canceled")
                continue
            self.rest(leg)
            if leg.status == "held" and (leg.stop_price is None or leg.sibling is None):
                self.set_status(leg, "new")
            leg.touch(self.now)
        if self.mischief is not None:
            self.mischief.activated(legs)
        self.match(symbol, tick, arriving=frozenset(legs))

    # -- endings ---------------------------------------------------------------------------------

    def ask_cancel(self, order: SimOrder) -> list[SimOrder]:
        """Cancel the order and the rest of its group. Returns those that wait as `pending_cancel`.
        Raises ApiError 422 when the order has ended."""
        if not order.is_open:
            if order.status == "canceled" and self._options.repeated_cancel == "accept":
                return []
            raise rule(f'order is already in "{order.status}" state')
        waits = self._options.cancel_latency_s > 0 and self.in_session
        members = [member for member in order.family if member.is_open and member.status != "pending_cancel"]
        kept = None if self.mischief is None else self.mischief.cancel_fate(order, members)
        if kept is not None:
            return kept
        for member in members:
            if waits:
                self.set_status(member, "pending_cancel")
            else:
                self._end(member, "canceled")
        return members if waits else []

    def finish_cancel(self, order: SimOrder) -> None:
        """The venue confirms; a fill may have come first."""
        if order.is_open:
            self._end(order, "canceled")
        elif order.status == "filled":
            self.tell("order_cancel_rejected", order)

    def close_session(self) -> None:
        """The closing auction; then day orders end with the session (with extended hours, see `end_day`), and gtc
        orders that have reached their last day."""
        self._hold_auction("cls")
        self._expire(day_orders=True, by=self.now + _GTC_SWEEP)

    def end_day(self, order: SimOrder) -> None:
        """Extended hours are over for a day order."""
        if order.is_open and order.time_in_force == "day":
            self._end(order, self._options.day_order_ends)

    def _expire(self, *, day_orders: bool, by: datetime) -> None:
        for order in self.open_orders():
            ends = day_orders and order.time_in_force in ("day", *IMMEDIATE) and not order.extended_hours
            if not order.is_open:
                continue  # it went together with another
            if order.expires_at is not None and order.expires_at <= by:
                self._end(order, "expired")
            elif ends:
                self._end(order, self._options.day_order_ends)

    def cancel_symbol(self, symbol: str) -> None:
        """The symbol ceases to trade."""
        for order in self.open_orders(symbol):
            if order.is_open:
                self._end(order, "canceled")

    def resize(self, order: SimOrder, qty: Decimal, limit: Decimal | None, stop: Decimal | None) -> None:
        """A split changes an open order; at zero shares it ends."""
        if qty <= order.filled_qty:
            self._end(order, "canceled")
            return
        order.qty, order.limit_price, order.stop_price = qty, limit, stop
        order.touch(self.now)
        self.register.weigh(order)
        self.changes += 1
        self.changed_books.add(order.symbol)

    def force_close(self, symbol: str, asset: SimAsset, price: Decimal) -> SimOrder:
        """The broker closes the position by an order of its own, which nobody here asked for."""
        held = self.account.shares(symbol)
        draft = OrderDraft(
            symbol=symbol,
            buy=held < 0,
            qty=abs(held),
            type="market",
            time_in_force="day",
            order_class="",
            limit_price=None,
            stop_price=None,
            target_price=None,
            stop_loss_price=None,
            stop_loss_limit=None,
            client_order_id=None,
            extended_hours=False,
        )
        order = self.make(draft, asset, "new", Decimal(0), opens=False)
        order.routed = True
        at = float(price)
        self.fill(order, price, Tick(self.now.timestamp(), at, at, at, 0), whole=True)
        return order

    def end(self, orders: Iterable[SimOrder], status: str, *, quietly: bool = False) -> None:
        """Those of them that are open end now."""
        for order in orders:
            if order.is_open:
                self._end(order, status, quietly=quietly)

    def _end(self, order: SimOrder, status: str, *, quietly: bool = False) -> None:
        order.waiting = False
        stamp = {"expired": "expired_at", "rejected": "failed_at", "replaced": "replaced_at"}.get(status, "canceled_at")
        setattr(order, stamp, self.now)
        self._leave(order)
        if quietly:
            order.status = status
            order.touch(self.now)
            self.changes += 1
        else:
            self.set_status(order, status)

    def _leave(self, order: SimOrder) -> None:
        self.register.leave(order)
        book = self.books.get(order.symbol)
        if book is not None:
            book.remove(order)
            self.changed_books.add(order.symbol)

    def set_status(self, order: SimOrder, status: str) -> None:
        """And tell the streams."""
        order.status = status
        order.touch(self.now)
        self.changes += 1
        self.tell(status, order)
