"""Time at the simulated exchange, and the price of everything at each moment.

The clock stands still until someone moves it. Moving it walks everything that happens on the way in order of
time: orders due, ticks that touch resting orders, opens (after the day's corporate actions) and closes.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import threading
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from types import TracebackType
from typing import Any, Self

from desk.errors import BadInput
from desk.exchange.account import AVERAGE_PLACES, SimAccount
from desk.exchange.amounts import at_s, money, plain
from desk.exchange.assets import AssetBook
from desk.exchange.corporate import Registrar
from desk.exchange.floor import Floor
from desk.exchange.journal import Journal, Listener
from desk.exchange.market import Market, Tick
from desk.exchange.options import ExchangeOptions
from desk.exchange.quotes import Quotes
from desk.exchange.ratelimit import MinuteLimit
from desk.exchange.resting import Tape
from desk.exchange.simorder import SimOrder
from desk.exchange.timetable import Boundary, Timetable
from desk.market import NEW_YORK, Session

__all__ = ["Clockwork"]

_NEVER = math.inf
_JUST_BEFORE = timedelta(milliseconds=1)  # so that the tick at the opening moment itself is included


class Clockwork:
    """The half of the exchange that knows the time and the prices. Safe to use from several threads; `with` keeps
    others out for several calls. `keys` are the API key id and secret it accepts; `cash` is USD."""

    def __init__(
        self,
        market: Market,
        now: datetime,
        *,
        keys: tuple[str, str] = ("SIMULATED", "simulated-secret"),
        cash: Decimal = Decimal(100_000),
        options: ExchangeOptions | None = None,
        account_number: str | None = None,
    ) -> None:
        self._planned_market = market
        self.keys = keys
        self.options = options or ExchangeOptions()
        self.account_number = account_number or f"SIM{hashlib.sha256(market.label.encode()).hexdigest()[:6].upper()}"
        self.assets = AssetBook(market.listings())
        self.journal = Journal(self.account_number)
        self.rate_limits = {
            name: MinuteLimit(limit, lambda: self._now_s)
            for name, limit in (
                ("trading", self.options.rate_limit_per_minute),
                ("data", self.options.data_rate_limit_per_minute),
            )
            if limit is not None
        }
        self._lock = threading.RLock()
        self._depth = 0
        self._started_with = cash
        self._begin(now, cash)

    def _begin(self, now: datetime, cash: Decimal) -> None:
        if now.utcoffset() is None:
            raise BadInput(f"clock: time {now.isoformat()} has no zone; give UTC, as 2024-03-05T14:35:00Z")
        self.market = self._planned_market
        self.timetable = Timetable(self.market.sessions())
        self.journal.restart()
        self.assets.restart()
        self.bulletins: list[dict[str, Any]] = []  # halts and corrected bars, for the market data stream
        self._now, self._now_s = now, now.timestamp()
        self.session: Session | None = self.timetable.session_at(self._now_s)
        self._ticked_s = self._now_s  # ticks up to here have met the orders
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._due_count = 0
        self._today: date | None = None  # worked out when asked for
        self._tapes: dict[str, Tape] = {}
        self._splits: dict[str, tuple[date, Decimal]] = {}
        self._closes: dict[tuple[str, date], Decimal | None] = {}
        self._answers: dict[Any, bytes] = {}
        self._answers_at: tuple[float, int] | None = None
        self._extended_day: tuple[float, float] | None = (-_NEVER, -_NEVER)  # epoch seconds; None: there is none ahead
        self.quotes = Quotes(
            self.market,
            hold_overrides=self.options.override_holds == "until_replaced",
            extended_from=self.options.extended_hours_quotes,
        )
        self.account = SimAccount(cash, now)
        self.floor = Floor(self.account, self.quotes, self.journal, self.options)
        self._registrar = Registrar(self.floor, self.quotes, self.assets, self.journal, self.options)
        self._place(now, self._now_s)

    # -- taking turns ----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._lock.acquire()
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        last = self._depth == 0
        self._lock.release()
        if last:
            self.journal.deliver()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every trade update from now on, in order, outside of the exchange's lock.

        An update is {event, execution_id, order, timestamp} and, for fills, {price, qty, position_qty}.
        Returns a function that ends it.
        """
        with self:
            return self.journal.subscribe(listener)

    # -- time ------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return self._now

    @property
    def now_s(self) -> float:
        """The same in epoch seconds."""
        return self._now_s

    @property
    def today(self) -> date:
        """The New York calendar day."""
        if self._today is None:
            self._today = self._now.astimezone(NEW_YORK).date()
        return self._today

    @property
    def is_open(self) -> bool:
        return self.session is not None

    def advance(self, seconds: float) -> None:
        """Let virtual time pass. Raises BadInput when `seconds` is negative or not a number."""
        if not 0 <= seconds < _NEVER:
            raise BadInput(f"clock: advance by {seconds} s; a number of seconds from 0 is needed")
        with self:
            self.set_clock(self._now + timedelta(seconds=seconds))

    def set_clock(self, now: datetime) -> None:
        """Move the clock to `now`, through everything on the way. Raises BadInput when that is in the past."""
        if now.utcoffset() is None:
            raise BadInput(f"clock: time {now.isoformat()} has no zone; give UTC, as 2024-03-05T14:35:00Z")
        with self:
            if now < self._now:
                raise BadInput(f"clock: {now.isoformat()} is before {self._now.isoformat()}; the clock never goes back")
            self._walk(now, now.timestamp())
            self.journal.note(now, "clock.moved")

    def _later(self, seconds: float, action: Callable[[SimOrder], None], order: SimOrder) -> None:
        self.at(self._now_s + seconds, partial(action, order))

    def at(self, moment_s: float, action: Callable[[], object]) -> None:
        """Do that when the clock gets there; at once when it is past that already."""
        self._due_count += 1  # of two due at one moment, the earlier request goes first
        heapq.heappush(self._due, (max(moment_s, self._now_s), self._due_count, action))

    def _walk(self, until: datetime, until_s: float) -> None:
        while True:
            ahead = self.timetable.next_boundary(self._now_s)
            if ahead is None or ahead.at_s > until_s:
                self._trade(until_s)
                self._place(until, until_s)
                return
            self._trade(ahead.at_s)
            self._place(ahead.at, ahead.at_s)
            if ahead.opens:
                self._open(ahead)
            else:
                self._close()

    def _trade(self, until_s: float) -> None:
        """Orders due and ticks up to `until_s`, in order of time."""
        while True:
            self._search_books()
            due_s = self._due[0][0] if self._due else _NEVER
            book = min(self.floor.books.values(), key=lambda book: book.next_at, default=None)
            tick_s = book.next_at if book is not None else _NEVER
            if min(due_s, tick_s) > until_s:
                break
            if due_s <= tick_s:
                action = heapq.heappop(self._due)[2]
                self._place(at_s(due_s), due_s)
                self._ticked_s = max(self._ticked_s, due_s)
                action()
            else:
                assert book is not None and book.next_tick is not None  # it is due now
                self._place(at_s(tick_s), tick_s)
                self._ticked_s = tick_s
                opening = self.session is not None and tick_s <= self.session.opens.timestamp()
                self.floor.match(book.symbol, book.next_tick, arriving=None if opening else frozenset())
        self._ticked_s = max(self._ticked_s, until_s)

    def _search_books(self) -> None:
        for symbol in self.floor.changed_books:
            book = self.floor.books.get(symbol)
            if book is None:
                continue
            if not book.orders:
                del self.floor.books[symbol]
            elif self.session is None or self.quotes.holds(symbol) or symbol in self.floor.halted:
                book.sleep()
            else:
                book.look_ahead(self._tape(symbol, self.session), self._ticked_s)
        self.floor.changed_books.clear()

    def _tape(self, symbol: str, session: Session) -> Tape:
        tape = self._tapes.get(symbol)
        if tape is None:
            tape = Tape(self.market.ticks(symbol, session.opens - _JUST_BEFORE, session.closes))
            self._tapes[symbol] = tape
        return tape

    def _place(self, now: datetime, now_s: float) -> None:
        self._now, self._now_s = now, now_s
        self._today = None
        self.floor.now = now
        self.floor.in_session = self.session is not None
        self.floor.in_extended_hours = self.session is None and self._in_extended_hours(now_s)
        self.quotes.move(now_s, opened_s=None if self.session is None else self.session.opens.timestamp())

    def _in_extended_hours(self, now_s: float) -> bool:
        span = self._extended_day
        if span is not None and now_s >= span[1]:
            span = self._extended_day = self.timetable.extended_day(now_s)
        return span is not None and span[0] <= now_s < span[1]

    def _open(self, boundary: Boundary) -> None:
        actions = list(self.market.corporate_actions(boundary.session.day))
        self._registrar.apply(actions)
        self._splits.update((a.symbol, (a.day, a.value)) for a in actions if a.kind == "split")
        self._closes.clear()
        self.session = boundary.session
        self._ticked_s = (boundary.at - _JUST_BEFORE).timestamp()
        self._place(boundary.at, boundary.at_s)
        self.journal.note(boundary.at, "session.opened")
        self.floor.open_session()
        for symbol in list(self.floor.books):
            tick = self.quotes.effective(symbol) if self.quotes.holds(symbol) else None
            if tick is not None:  # the market's own opening tick counts for nothing here
                self.floor.match(symbol, tick, arriving=None)

    def _close(self) -> None:
        self.floor.close_session()
        equity = self.equity()
        self.account.closed(self.today, equity)
        self.session = None
        self._tapes.clear()
        self._place(self._now, self._now_s)
        self.floor.changed_books.update(self.floor.books)
        self.journal.note(self._now, "session.closed", equity=plain(equity))

    # -- prices ----------------------------------------------------------------------------------

    def quote(self, symbol: str) -> Tick | None:
        """The quote the world sees now: overrides included, stamped with the present moment while the session
        runs (see Quotes). None before the symbol's first tick."""
        with self:
            return self.quotes.shown(symbol)

    def price(self, symbol: str) -> Decimal | None:
        """The last trade."""
        tick = self.quotes.effective(symbol)
        return None if tick is None else money(tick.last)

    def close_before(self, symbol: str) -> Decimal | None:
        """The close of the last session before today, in today's shares."""
        key = (symbol, self.today)
        if key not in self._closes:
            self._closes[key] = self._close_before(symbol, key[1])
        return self._closes[key]

    def _close_before(self, symbol: str, today: date) -> Decimal | None:
        session = self.timetable.closed_before(self._now_s)
        last = None if session is None else self.quotes.last_at(symbol, session.closes.timestamp())
        if last is None:
            return None
        day, ratio = self._splits.get(symbol, (None, Decimal(1)))
        return round(money(last) / ratio, AVERAGE_PLACES) if day == today else money(last)

    def values(self) -> tuple[Decimal, Decimal]:
        """USD, long and short holdings (below 0) at the last trade, or at cost when the symbol never traded."""
        worth = [held.qty * (self.price(held.symbol) or held.avg_price) for held in self.account.holdings.values()]
        return sum((v for v in worth if v > 0), Decimal(0)), sum((v for v in worth if v < 0), Decimal(0))

    def equity(self) -> Decimal:
        """USD: cash and holdings."""
        return self.account.cash + sum(self.values())

    def set_market(
        self,
        symbol: str,
        *,
        bid: float | None = None,
        ask: float | None = None,
        last: float | None = None,
        at: datetime | None = None,
    ) -> Tick:
        """Set the price of a symbol by hand; what is not given stays. Orders meet it at once when in session.
        A bid or ask of 0 is a side that is not there. `at`: the time the quote shows (to make it stale).
        Raises BadInput for an unknown symbol or prices that cannot be."""
        with self:
            if self.assets.find(symbol, self.today) is None:
                raise BadInput(f"market of {symbol}: no such asset; add it with POST /admin/assets")
            known = self.quotes.effective(symbol)
            tick = _moved(symbol, known, self._now_s, bid, ask, last)
            self.quotes.override(symbol, tick, stamp_s=None if at is None else at.timestamp())
            self.floor.changes += 1
            self.floor.changed_books.add(symbol)
            self.journal.note(
                self._now, "market.moved", symbol=symbol, bid=str(tick.bid), ask=str(tick.ask), last=str(tick.last)
            )
            if self.session is not None or self.floor.in_extended_hours:
                self.floor.match(symbol, tick, arriving=frozenset())
            return tick


def _moved(
    symbol: str, known: Tick | None, now_s: float, bid: float | None, ask: float | None, last: float | None
) -> Tick:
    for name, price in (("bid", bid), ("ask", ask), ("last", last)):
        if price is not None and not 0 <= price < _NEVER:
            raise BadInput(f"market of {symbol}: {name} {price}; a price from 0 is needed")
    if known is None and last is None and not (bid and ask):
        raise BadInput(f"market of {symbol}: it has no price yet; give last, or bid and ask")
    base = known or Tick(now_s, last or bid or 0.0, last or ask or 0.0, last or 0.0, 0)
    new_bid = base.bid if bid is None else bid
    new_ask = base.ask if ask is None else ask
    new_last = last if last is not None else (base.last or round((new_bid + new_ask) / 2, 4))
    if new_last <= 0:
        raise BadInput(f"market of {symbol}: last {new_last}; a price above 0 is needed")
    return Tick(now_s, new_bid, new_ask, new_last, 0)
