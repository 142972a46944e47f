"""The trading floor: the life of each order from admission to its end, and what fills do to the account.

Time is told to the floor (`now`); it never moves by itself. When a tick touches a stop and a target at once,
the stop goes first: the simulation never flatters.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from decimal import Decimal

from desk.exchange.account import SimAccount
from desk.exchange.admission import Situation
from desk.exchange.amounts import money
from desk.exchange.assets import SimAsset
from desk.exchange.drafts import OrderDraft, rule
from desk.exchange.journal import Journal
from desk.exchange.market import Tick
from desk.exchange.options import ExchangeOptions
from desk.exchange.quotes import Quotes
from desk.exchange.resting import Book, fill_price, triggers
from desk.exchange.simorder import SimOrder
from desk.market import NEW_YORK, at_new_york

__all__ = ["Floor"]

_GTC_LIFE = timedelta(days=90)
_GTC_SWEEP = timedelta(hours=4)  # from the close, at the earliest 13:00, past 16:15 New York


class Floor:
    def __init__(self, account: SimAccount, quotes: Quotes, journal: Journal, options: ExchangeOptions) -> None:
        self.account = account
        self.now = account.opened
        self.in_session = False
        self.orders: list[SimOrder] = []  # all ever admitted, legs after their parent
        self.by_id: dict[str, SimOrder] = {}
        self.by_client_id: dict[str, SimOrder] = {}
        self.books: dict[str, Book] = {}
        self.changed_books: set[str] = set()  # their next tick has to be searched again
        self.changes = 0  # counts everything that changes an answer
        self._open: dict[str, dict[str, SimOrder]] = {}  # symbol, then order id
        self._open_buys: dict[str, SimOrder] = {}
        self._quotes = quotes
        self._journal = journal
        self._options = options
        self._chance = random.Random(options.seed)

    # -- what the account can do -----------------------------------------------------------------

    def open_orders(self, symbol: str | None = None) -> list[SimOrder]:
        """Oldest first within a symbol; waiting legs included."""
        if symbol is not None:
            return list(self._open.get(symbol, {}).values())
        return [order for orders in self._open.values() for order in orders.values()]

    @property
    def buying_power(self) -> Decimal:
        """USD: cash less what open buys reserve (a cash account, multiplier 1)."""
        return self.account.cash - sum((order.reserved_cash for order in self._open_buys.values()), Decimal(0))

    def available(self, symbol: str) -> Decimal:
        """Shares no open order holds."""
        return self.account.shares(symbol) - sum((order.held_shares for order in self.open_orders(symbol)), Decimal(0))

    def situation(self, symbol: str) -> Situation:
        return Situation(
            shares=self.account.shares(symbol),
            buying_power=self.buying_power,
            open_orders=tuple(self.open_orders(symbol)),
            tick=self._quotes.effective(symbol),
        )

    # -- admission and routing -------------------------------------------------------------------

    def admit(self, draft: OrderDraft, asset: SimAsset, reserve: Decimal) -> SimOrder:
        """Take an order in, with its legs. It is not matched before `route`."""
        status = self._options.submitted_status if self.in_session else "accepted"
        parent = self._new(draft, asset, status, reserve)
        if draft.order_class == "oco":
            parent.limit_price = draft.target_price
        for price, kind in ((draft.target_price, "limit"), (draft.stop_loss_price, "stop")):
            if price is None or (draft.order_class == "oco" and kind == "limit"):
                continue
            self._add_leg(parent, draft, asset, kind, price)
        pair = [parent, *parent.legs] if draft.order_class == "oco" else parent.legs
        if len(pair) == 2:
            pair[0].sibling, pair[1].sibling = pair[1], pair[0]
        self._tell(status, parent)
        return parent

    def _new(self, draft: OrderDraft, asset: SimAsset, status: str, reserve: Decimal) -> SimOrder:
        order_id = self._journal.new_id()
        order = SimOrder(
            id=order_id,
            client_order_id=draft.client_order_id or self._journal.new_id(),
            asset_id=asset.asset_id,
            symbol=draft.symbol,
            buy=draft.buy,
            qty=draft.qty,
            type=draft.type,
            time_in_force=draft.time_in_force,
            order_class=draft.order_class,
            limit_price=draft.limit_price,
            stop_price=draft.stop_price,
            extended_hours=draft.extended_hours,
            status=status,
            created_at=self.now,
            updated_at=self.now,
            expires_at=self._expiry(draft.time_in_force),
            reserve_price=reserve,
        )
        self._enter(order)
        return order

    def _add_leg(self, parent: SimOrder, draft: OrderDraft, asset: SimAsset, kind: str, price: Decimal) -> None:
        is_stop = kind == "stop"
        limit = draft.stop_loss_limit if is_stop else price
        leg = SimOrder(
            id=self._journal.new_id(),
            client_order_id=self._journal.new_id(),
            asset_id=asset.asset_id,
            symbol=draft.symbol,
            buy=draft.buy if draft.order_class == "oco" else not draft.buy,
            qty=draft.qty,
            type=("stop_limit" if limit is not None else "stop") if is_stop else "limit",
            time_in_force=draft.time_in_force,
            order_class=draft.order_class,
            limit_price=limit,
            stop_price=price if is_stop else None,
            extended_hours=False,
            status="held",
            created_at=self.now,
            updated_at=self.now,
            expires_at=parent.expires_at,
            waiting=draft.order_class != "oco",
            parent=parent,
        )
        parent.legs.append(leg)
        self._enter(leg)

    def _enter(self, order: SimOrder) -> None:
        self.orders.append(order)
        self.by_id[order.id] = order
        self.by_client_id[order.client_order_id] = order
        self._open.setdefault(order.symbol, {})[order.id] = order
        if order.buy:
            self._open_buys[order.id] = order
        self.changes += 1

    def _expiry(self, time_in_force: str) -> datetime | None:
        """A gtc order is cancelled by the broker at 16:15 New York 90 days later."""
        if time_in_force != "gtc":
            return None
        return at_new_york((self.now + _GTC_LIFE).astimezone(NEW_YORK).date(), "16:15")

    def route(self, order: SimOrder) -> None:
        """The venue takes the order: in session it is matched against the quote at once, otherwise it is
        queued until the session opens."""
        if not order.is_open or order.routed:
            return
        self._rest(order)
        if order.order_class == "oco":
            self._rest(order.legs[0])
        if not self.in_session:
            return
        self._become_new(order)
        tick = self._quotes.live(order.symbol)
        if tick is not None:
            self.match(order.symbol, tick, arriving=frozenset((order, *order.legs)))

    def open_session(self) -> None:
        """Queued orders reach the venue, but for gtc orders that ended over a weekend."""
        self._expire(day_orders=False, by=self.now)
        for book in self.books.values():
            for order in book.orders:
                self._become_new(order)
            self.changed_books.add(book.symbol)

    def _become_new(self, order: SimOrder) -> None:
        if order.status in ("pending_new", "accepted"):
            self._set(order, "new")

    def _rest(self, order: SimOrder) -> None:
        order.routed = True
        self.books.setdefault(order.symbol, Book(order.symbol)).add(order)
        self.changed_books.add(order.symbol)

    # -- matching --------------------------------------------------------------------------------

    def match(self, symbol: str, tick: Tick, *, arriving: frozenset[SimOrder] | None) -> None:
        """Let that tick meet the resting orders. `arriving` takes the quote; None: all do (a session's first
        tick)."""
        book = self.books.get(symbol)
        if book is None:
            return
        self.changed_books.add(symbol)
        for order in sorted(book.orders, key=lambda order: not order.is_stop):
            if order.routed and order.is_open:
                self._meet(order, tick, arriving=arriving is None or order in arriving)

    def _meet(self, order: SimOrder, tick: Tick, *, arriving: bool) -> None:
        if order.is_stop:
            if not triggers(order, tick):
                return
            self._elect(order)
            arriving = True
        price = fill_price(order, tick, arriving=arriving)
        if price is not None:
            self._fill(order, money(price), tick)

    def _elect(self, order: SimOrder) -> None:
        """A stop is triggered: it becomes an order to trade now, and the other exit of the pair goes."""
        order.elected = True
        twin = order.sibling
        if twin is not None and twin.is_open:
            self._end(twin, "canceled")
        if order.status == "held":
            self._set(order, "new")

    def _fill(self, order: SimOrder, price: Decimal, tick: Tick) -> None:
        qty = self._share_of(order.remaining)
        order.filled_qty += qty
        order.filled_value += qty * price
        if order.buy:
            self.account.bought(order.symbol, order.asset_id, qty, price)
        else:
            self.account.sold(order.symbol, qty, price)
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
        elif order.status != "pending_cancel":
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
        self._after_fill(order, tick, complete=complete)

    def _share_of(self, remaining: Decimal) -> Decimal:
        chance = self._options.partial_fill_probability
        if not chance or remaining < 2 or self._chance.random() >= chance:
            return remaining
        return Decimal(self._chance.randint(1, int(remaining) - 1))

    def _after_fill(self, order: SimOrder, tick: Tick, *, complete: bool) -> None:
        twin = order.sibling
        if twin is not None and twin.is_open:
            if complete:
                self._end(twin, "canceled")
            else:
                twin.qty = twin.filled_qty + order.remaining
                twin.touch(self.now)
        waiting = [leg for leg in order.legs if leg.waiting and leg.is_open]
        if complete and waiting:
            self._activate(waiting, tick)

    def _activate(self, legs: list[SimOrder], tick: Tick) -> None:
        """The entry is complete: the target works, the stop of a pair stays `held` but watches the price."""
        symbol = legs[0].symbol
        free = self.available(symbol)
        for leg in legs:
            leg.waiting = False
            if leg.qty > free:  # shares of a part-filled entry were sold meanwhile: never sell what is not there
                leg.qty = free
            if leg.qty <= 0:
                self._end(leg, "canceled")
                continue
            self._rest(leg)
            if leg.stop_price is None or leg.sibling is None:
                self._set(leg, "new")
            leg.touch(self.now)
        self.match(symbol, tick, arriving=frozenset(legs))

    # -- endings ---------------------------------------------------------------------------------

    def ask_cancel(self, order: SimOrder) -> list[SimOrder]:
        """Cancel the order and the rest of its group. Returns those that wait as `pending_cancel`.
        Raises ApiError 422 when the order has ended."""
        if not order.is_open:
            raise rule(f'order is already in "{order.status}" state')
        waits = self._options.cancel_latency_s > 0 and self.in_session
        members = [member for member in order.family if member.is_open and member.status != "pending_cancel"]
        for member in members:
            if waits:
                self._set(member, "pending_cancel")
            else:
                self._end(member, "canceled")
        return members if waits else []

    def finish_cancel(self, order: SimOrder) -> None:
        """The venue confirms; a fill may have come first."""
        if order.is_open:
            self._end(order, "canceled")

    def close_session(self) -> None:
        """Day orders end with the session, and gtc orders that have reached their last day."""
        self._expire(day_orders=True, by=self.now + _GTC_SWEEP)

    def _expire(self, *, day_orders: bool, by: datetime) -> None:
        for order in self.open_orders():
            outlived = order.expires_at is not None and order.expires_at <= by
            if order.is_open and (outlived or (day_orders and order.time_in_force == "day")):
                self._end(order, "expired")

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
        self.changes += 1
        self.changed_books.add(order.symbol)

    def force_sale(self, symbol: str, asset: SimAsset, price: Decimal) -> None:
        """The broker sells what is held of a symbol that ceases to trade, by an order of its own."""
        qty = self.account.shares(symbol)
        draft = OrderDraft(
            symbol=symbol,
            buy=False,
            qty=qty,
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
        order = self._new(draft, asset, "new", Decimal(0))
        self._fill_whole(order, price)

    def _fill_whole(self, order: SimOrder, price: Decimal) -> None:
        at = float(price)
        order.routed = True
        self._fill(order, price, Tick(self.now.timestamp(), at, at, at, 0))

    def _end(self, order: SimOrder, status: str) -> None:
        order.waiting = False
        if status == "expired":
            order.expired_at = self.now
        else:
            order.canceled_at = self.now
        self._leave(order)
        self._set(order, status)

    def _leave(self, order: SimOrder) -> None:
        self._open_buys.pop(order.id, None)
        self._open[order.symbol].pop(order.id, None)
        if not self._open[order.symbol]:
            del self._open[order.symbol]
        book = self.books.get(order.symbol)
        if book is not None:
            book.remove(order)
            self.changed_books.add(order.symbol)

    def _set(self, order: SimOrder, status: str) -> None:
        order.status = status
        order.touch(self.now)
        self.changes += 1
        self._tell(status, order)

    def _tell(self, event: str, order: SimOrder) -> None:
        self._journal.trade_update(event, order, self.now, position_qty=self.account.shares(order.symbol))
