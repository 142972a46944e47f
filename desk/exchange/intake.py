"""What the trading floor takes in: the account's means, and new orders with their legs."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from desk.exchange.account import SimAccount
from desk.exchange.admission import Situation
from desk.exchange.amounts import money
from desk.exchange.assets import SimAsset
from desk.exchange.drafts import OrderDraft, rule
from desk.exchange.journal import Journal
from desk.exchange.options import ExchangeOptions
from desk.exchange.quotes import Quotes
from desk.exchange.register import Register
from desk.exchange.resting import Book
from desk.exchange.simorder import SimOrder
from desk.market import NEW_YORK, at_new_york

if TYPE_CHECKING:
    from desk.exchange.mischief import Mischief

__all__ = ["Intake"]

_GTC_LIFE = timedelta(days=90)


class Intake:
    """The half of the floor that knows who may order what, and makes the orders."""

    def __init__(self, account: SimAccount, quotes: Quotes, journal: Journal, options: ExchangeOptions) -> None:
        self.account = account
        self.now = account.opened
        self.in_session = False
        self.in_extended_hours = False  # outside of the session, on a session's day
        self.register = Register()
        self.books: dict[str, Book] = {}
        self.changed_books: set[str] = set()  # their next tick has to be searched again
        self.changes = 0  # counts everything that changes an answer
        self.halted: set[str] = set()  # symbols in which nothing trades for now
        self.mischief: Mischief | None = None  # what faults do to orders; None: no such fault is set
        self._auction: list[SimOrder] = []  # routed orders for the next opening or closing auction
        self._quotes = quotes
        self._journal = journal
        self._options = options
        self._chance = random.Random(options.seed)

    # -- what the account can do -----------------------------------------------------------------

    @property
    def orders(self) -> list[SimOrder]:
        return self.register.orders

    def open_orders(self, symbol: str | None = None) -> list[SimOrder]:
        """Oldest first within a symbol; waiting legs included."""
        return self.register.open_orders(symbol)

    @property
    def buying_power(self) -> Decimal:
        """USD: cash less what open orders reserve and what short positions tie."""
        return self.account.cash - self.register.reserved - self._tied()

    def _tied(self) -> Decimal:
        """USD: a short position's proceeds, and as much again to buy it back, at the present price."""
        if not self.account.shorts:
            return Decimal(0)
        held = (self.account.holdings[symbol] for symbol in self.account.shorts)
        return sum((-2 * one.qty * self._price_of(one.symbol, one.avg_price) for one in held), Decimal(0))

    def _price_of(self, symbol: str, otherwise: Decimal) -> Decimal:
        tick = self._quotes.effective(symbol)
        return otherwise if tick is None else money(tick.last)

    def available(self, symbol: str) -> Decimal:
        """Shares no open order holds; of a short position, shares no open order buys back."""
        return abs(self.account.shares(symbol)) - self.register.held(symbol)

    def situation(self, symbol: str) -> Situation:
        return Situation(
            shares=self.account.shares(symbol),
            held=self.register.held(symbol),
            buying_power=self.buying_power,
            buys=self.register.open_side(symbol, buy=True),
            sells=self.register.open_side(symbol, buy=False),
            tick=self._quotes.effective(symbol),
        )

    # -- admission and routing -------------------------------------------------------------------

    def admit(self, draft: OrderDraft, asset: SimAsset, reserve: Decimal, *, opens: bool) -> SimOrder:
        """Take an order in, with its legs. It is not matched before `route`."""
        trades = self.in_session or (self.in_extended_hours and draft.extended_hours)
        status = self._options.submitted_status if trades else "accepted"
        parent = self.make(draft, asset, status, reserve, opens=opens)
        if draft.order_class == "oco":
            parent.limit_price = draft.target_price
        for price, kind in ((draft.target_price, "limit"), (draft.stop_loss_price, "stop")):
            if price is None or (draft.order_class == "oco" and kind == "limit"):
                continue
            self._add_leg(parent, draft, asset, kind, price)
        pair = [parent, *parent.legs] if draft.order_class == "oco" else parent.legs
        if len(pair) == 2:
            pair[0].sibling, pair[1].sibling = pair[1], pair[0]
        self.tell(status, parent)
        return parent

    def make(self, draft: OrderDraft, asset: SimAsset, status: str, reserve: Decimal, *, opens: bool) -> SimOrder:
        """An order without legs, written into the register."""
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
            expires_at=self.expiry(draft.time_in_force),
            reserve_price=reserve,
            notional=draft.notional,
            trail_price=draft.trail_price,
            trail_percent=draft.trail_percent,
            opens=opens,
        )
        if order.type == "trailing_stop":
            tick = self._quotes.effective(order.symbol)
            if tick is None:
                raise rule(f'no market price for "{order.symbol}"')
            order.trail(money(tick.last))
        self.enter(order)
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
        self.enter(leg)

    def enter(self, order: SimOrder) -> None:
        """Write a new order into the register."""
        self.register.enter(order)
        self.changes += 1

    def expiry(self, time_in_force: str) -> datetime | None:
        """A gtc order is cancelled by the broker at 16:15 New York 90 days later."""
        if time_in_force != "gtc":
            return None
        return at_new_york((self.now + _GTC_LIFE).astimezone(NEW_YORK).date(), "16:15")

    def tell(self, event: str, order: SimOrder) -> None:
        """Log an event of that order, and send it to the streams."""
        self._journal.trade_update(event, order, self.now, position_qty=self.account.shares(order.symbol))
