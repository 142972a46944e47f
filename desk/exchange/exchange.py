"""The simulated Alpaca: one account, one market, one virtual clock. No input or output of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, Literal

from desk.exchange.admission import admit, priced, refuse_blocked, refuse_twin, tradable
from desk.exchange.amounts import plain, rfc3339
from desk.exchange.assets import SimAsset
from desk.exchange.auctions import AUCTIONS, IMMEDIATE, refuse_outside_window
from desk.exchange.bent import BentMarket
from desk.exchange.clockwork import Clockwork
from desk.exchange.drafts import OrderDraft, read_draft, rule
from desk.exchange.faults import Armed, Faults
from desk.exchange.floorfaults import FloorFaults
from desk.exchange.journal import Entry
from desk.exchange.market import CorporateAction
from desk.exchange.replacing import Replacer, read_change
from desk.exchange.resting import Tape
from desk.exchange.routing import ApiError
from desk.exchange.simorder import SimOrder
from desk.exchange.streamfaults import interfering
from desk.exchange.worldfaults import plan
from desk.market import at_new_york

__all__ = ["Exchange"]


class Exchange(Clockwork):
    """What requests, the admin and faults can do, on top of the clockwork.

    The clock stands still until someone moves it. Moving it walks everything that happens on the way in order of
    time: orders due, ticks that touch resting orders, opens (after the day's corporate actions) and closes.
    """

    def _begin(self, now: datetime, cash: Decimal) -> None:
        super()._begin(now, cash)
        self._replacer = Replacer(self.floor, self.journal, self.options)
        self.faults = Faults(lambda: self._now, self._note_fault, seed=self.options.seed)
        self.journal.interfere = None
        self._to_cut: list[Callable[[], None]] = []  # connections that hear trade updates

    # -- orders ----------------------------------------------------------------------------------

    def asset(self, symbol_or_id: str) -> SimAsset | None:
        """As listed today."""
        return self.assets.find(symbol_or_id, self.today)

    def submit(self, body: Mapping[str, Any] | None) -> bytes:
        """Take an order as POST /v2/orders does. Returns its JSON as it was before it was routed.
        Raises ApiError with the refusal; a refused order does not use up its client order id."""
        with self:
            try:
                order = self._admit(body)
            except ApiError as refusal:
                asked = body or {}
                self.journal.note(
                    self._now, "order.refused", symbol=str(asked.get("symbol")), reason=refusal.message,
                    client_order_id=str(asked.get("client_order_id")),
                )  # fmt: skip
                raise
            answer = order.nested_json()
            if order.extended_hours:
                self._plan_extended_hours(order)
            if self.options.fill_on_submit_latency_s:
                self._later(self.options.fill_on_submit_latency_s, self.floor.route, order)
            else:
                self.floor.route(order)
            return answer

    def _admit(self, body: Mapping[str, Any] | None) -> SimOrder:
        draft = read_draft(body)
        if self.floor.mischief is not None:
            self.floor.mischief.refuse(draft)
        refuse_blocked(self.account.blocked, self.account.configuration)
        fractions = self.account.configuration.fractional_trading
        asset = tradable(draft, self.asset(draft.symbol), self.options, fractions=fractions)
        draft = draft if asset.symbol == draft.symbol else replace(draft, symbol=asset.symbol)
        refuse_twin(draft.client_order_id, self.floor.register.by_client_id)
        self._check_time_in_force(draft)
        now = self.floor.situation(draft.symbol)
        if draft.notional is not None:
            draft = replace(draft, qty=priced(draft, now, self.options))
        shorting = self.options.shorting and not self.account.configuration.no_shorting
        opens = now.opens(draft, shorting=shorting)
        reserve = admit(draft, asset, now, self.options, opens=opens)
        return self.floor.admit(draft, asset, reserve, opens=opens)

    def _check_time_in_force(self, draft: OrderDraft) -> None:
        if draft.time_in_force not in (*AUCTIONS, *IMMEDIATE):
            return
        if not self.options.auction_and_immediate_orders:
            raise rule(f"time_in_force {draft.time_in_force} is not enabled for this account")
        refuse_outside_window(draft.time_in_force, self._now, self.timetable)

    def _plan_extended_hours(self, order: SimOrder) -> None:
        """When the order goes to work, and when a day order is over."""
        span = self.timetable.extended_day(self._now_s)
        if span is None:
            return
        if self._now_s < span[0]:
            self.at(span[0], partial(self.floor.begin_extended, order))
        if order.time_in_force == "day":
            self.at(span[1], partial(self.floor.end_day, order))

    def replace(self, order: SimOrder, body: Mapping[str, Any] | None) -> bytes:
        """Ask for a replacement as PATCH /v2/orders/{id} does. Returns the new order's JSON; whether it takes the
        old one's place is decided later (`order_replace_rejected` when not). Raises ApiError."""
        with self:
            wanted = self._replacer.ask(order, read_change(body))
            answer = wanted.nested_json()
            if wanted.extended_hours:
                self._plan_extended_hours(wanted)
            if self.options.replace_latency_s and self.session is not None:
                self._later(self.options.replace_latency_s, self._replacer.finish, wanted)
            else:
                self._replacer.finish(wanted)
            return answer

    def cancel(self, order: SimOrder) -> None:
        """Cancel an order and its group. Raises ApiError when it has ended."""
        with self:
            for member in self.floor.ask_cancel(order):
                self._later(self.options.cancel_latency_s, self.floor.finish_cancel, member)

    # -- for those who answer requests -----------------------------------------------------------

    def answer(self, key: Any, build: Callable[[], bytes]) -> bytes:
        """What `build` returns, remembered under `key` until anything changes or time moves."""
        moment = (self._now_s, self.floor.changes)
        if moment != self._answers_at:
            self._answers.clear()
            self._answers_at = moment
        try:
            return self._answers[key]
        except KeyError:
            built = self._answers[key] = build()
            return built

    def log(self, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """What happened, oldest first, entries numbered above `after`."""
        with self:
            return [_entry(entry) for entry in self.journal.entries(after, limit)]

    def reset(self, *, now: datetime | None = None, cash: Decimal | None = None) -> None:
        """Begin a new life, by default at the present moment with the first life's cash."""
        with self:
            self._begin(now or self._now, self._started_with if cash is None else cash)

    # -- faults ----------------------------------------------------------------------------------

    def arm(self, *scripts: Mapping[str, Any]) -> list[Armed]:
        """Set faults, see `desk.exchange.faults`; all or, when one cannot be followed, none. Raises BadInput."""
        from desk.exchange.routes import ROUTES  # it knows the handlers, and those know the exchange

        operations = {route.handler.__name__ for route in ROUTES.routes if route.needs_keys}
        with self:
            armed = self.faults.arm(scripts, operations)
            self._heed_faults()
            for one in armed:
                plan(self, one)
            return armed

    def disarm(self, number: int | None = None) -> int:
        """Clear one fault, or all; what has happened stays happened, but halts end. Returns how many were set."""
        with self:
            gone = self.faults.clear(number)
            if number is None:
                for symbol in sorted(self.floor.halted):
                    self.resume(symbol)
            self._heed_faults()
            self.journal.note(self._now, "fault.cleared", set_as="all" if number is None else str(number))
            return gone

    def _heed_faults(self) -> None:
        if not self.faults.on_floor:
            self.floor.mischief = None
        elif self.floor.mischief is None:
            self.floor.mischief = FloorFaults(self)
        if not self.faults.at_updates:
            self.journal.interfere = None
        elif self.journal.interfere is None:
            self.journal.interfere = interfering(self, self.cut_streams)

    def _note_fault(self, event: str, armed: Armed, **fields: str) -> None:
        self.journal.note(self._now, event, fault=armed.kind.name, set_as=str(armed.number), **fields)

    def on_cut(self, close: Callable[[], None]) -> Callable[[], None]:
        """Call `close` when connections that hear trade updates are to be cut. Returns what ends it."""
        self._to_cut.append(close)
        return lambda: self._to_cut.remove(close) if close in self._to_cut else None

    def cut_streams(self) -> None:
        for close in tuple(self._to_cut):
            close()

    # -- upheavals -------------------------------------------------------------------------------

    def halt(self, symbol: str) -> None:
        """Nothing trades in the symbol until `resume`: orders are taken and rest."""
        if symbol not in self.floor.halted:
            self.floor.halted.add(symbol)
            self.floor.changed_books.add(symbol)
            self._bulletin(symbol, "H", "Trading Halt", "T1", "Halt News Pending")
            self.journal.note(self._now, "symbol.halted", symbol=symbol)

    def resume(self, symbol: str) -> None:
        if symbol in self.floor.halted:
            self.floor.halted.discard(symbol)
            self._bulletin(symbol, "T", "Trading Resumption", "T3", "News and Resumption Times")
            self.journal.note(self._now, "symbol.resumed", symbol=symbol)
            self._reprice(symbol)

    def _bulletin(self, symbol: str, code: str, said: str, reason: str, because: str) -> None:
        self.bulletins.append(
            {"T": "s", "S": symbol, "sc": code, "sm": said, "rc": reason, "rm": because, "t": self._now, "z": "C"}
        )

    def bend(self, symbol: str, from_s: float, factor: float) -> None:
        """From that moment on the symbol's prices are so many times what the market says."""
        self._bent_market().bend(symbol, from_s, factor)
        self.journal.note(self._now, "market.bent", symbol=symbol, factor=f"{factor:g}")
        self._reprice(symbol)

    def _bent_market(self) -> BentMarket:
        if not isinstance(self.market, BentMarket):
            self.market = BentMarket(self.market)
        self.quotes.rebase(self.market)
        return self.market

    def _reprice(self, symbol: str) -> None:
        """Resting orders meet the price of the moment."""
        self._tapes.pop(symbol, None)
        self._closes.clear()
        self.floor.changes += 1
        self.floor.changed_books.add(symbol)
        tick = self.quotes.live(symbol)
        if tick is not None:
            self.floor.match(symbol, tick, arriving=frozenset())

    def close_early(self, closes: datetime) -> None:
        """The running session ends then, unannounced."""
        assert self.session is not None
        self.session = self.timetable.close_early(self.session.day, closes)
        self._tapes = {
            symbol: Tape([tick for tick in tape.ticks if tick.at <= closes.timestamp()])
            for symbol, tape in self._tapes.items()
        }
        self.floor.changes += 1
        self.floor.changed_books.update(self.floor.books)
        self.journal.note(self._now, "session.shortened", closes=rfc3339(closes))

    def add_action(self, symbol: str, kind: Literal["split", "dividend"], value: Decimal) -> None:
        """It takes effect before the next open. Raises ApiError when there is none."""
        index = self.timetable.days.index(self.session.day) + 1 if self.session is not None else None
        following = [s for s in self.timetable.sessions if s.opens > self._now] if index is None else (
            self.timetable.sessions[index:]
        )  # fmt: skip
        if not following:
            raise ApiError(422, None, "the market has no further session")
        day = following[0].day
        self._bent_market().add(CorporateAction(symbol, day, kind, value), at_new_york(day, "00:00").timestamp())
        self.journal.note(self._now, "market.action", symbol=symbol, kind=kind, value=plain(value), day=day.isoformat())


def _entry(entry: Entry) -> dict[str, Any]:
    return {"number": entry.number, "at": rfc3339(entry.at), "event": entry.event, **entry.fields}
