"""No submission exceeds a control: what was sent is held against what the controls said of it, and counted again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation

from desk.ledger.orders import LedgerOrder
from desk.ledger.proof import Books, Event, Judged
from desk.market import NEW_YORK
from desk.orders import TERMINAL_STATES, Leg, OrderState

__all__ = ["Exceeded", "exceeded"]

_TERMINAL = frozenset(state.value for state in TERMINAL_STATES)
_MINUTE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Exceeded:
    what: str
    found: str
    needed: str


def exceeded(books: Books) -> Iterator[Exceeded]:
    """Entries that were sent though a control denied them, were not judged, or were more than was judged."""
    verdicts: dict[str, list[Judged]] = defaultdict(list)
    for verdict in books.verdicts:
        verdicts[verdict.client_order_id].append(verdict)
    events: dict[str, list[Event]] = defaultdict(list)
    for event in books.events:
        events[event.client_order_id].append(event)
    entries = [order for order in books.orders if order.leg is Leg.ENTRY]
    sent = [order for order in entries if any(event.state == "sending" for event in events[order.client_order_id])]
    for order in sent:
        judged = verdicts.get(order.client_order_id, [])
        yield from _as_judged(order, judged)
        yield from _unknown_in_full(order, judged, entries, events)
    yield from _counted_again(books, sent, events)


def _as_judged(order: LedgerOrder, judged: Sequence[Judged]) -> Iterator[Exceeded]:
    if not judged:
        yield Exceeded(_name(order), "sent without a control's verdict", "every control's")
    for verdict in judged:
        if not verdict.allowed:
            yield Exceeded(_name(order), f"sent although denied by {verdict.control} ({verdict.value})", verdict.limit)
    value = next((verdict for verdict in judged if verdict.control == "order value"), None)
    limit = None if value is None else _usd(value.limit)
    if value is not None and limit is not None and _size(order) > limit:
        yield Exceeded(f"{_name(order)}, order value", f"{_size(order):.2f} USD", f"<= {limit:.2f} USD, as judged")


def _unknown_in_full(
    order: LedgerOrder, judged: Sequence[Judged], entries: Sequence[LedgerOrder], events: Mapping[str, Sequence[Event]]
) -> Iterator[Exceeded]:
    """The gross exposure that was judged holds at least every entry then not proven to have ended, at full size."""
    verdict = next((each for each in judged if each.control == "gross exposure"), None)
    found = None if verdict is None else _usd(verdict.value)
    if verdict is None or found is None:
        return
    under_way = [
        other
        for other in entries
        if other is not order and _was_live(events.get(other.client_order_id, ()), verdict.recorded_at)
    ]
    needed = _size(order) + sum((_size(other) for other in under_way), Decimal(0))
    if found < needed - Decimal("0.01"):  # the verdict is rounded to the cent
        names = ", ".join(other.symbol for other in under_way)
        yield Exceeded(
            f"{_name(order)}, gross exposure",
            f"judged with {found:.2f} USD",
            f"at least {needed:.2f} USD, with {names} in full",
        )


def _counted_again(
    books: Books, entries: Sequence[LedgerOrder], events: Mapping[str, Sequence[Event]]
) -> Iterator[Exceeded]:
    symbols = {order.client_order_id: order.symbol for order in books.orders}
    sendings = [event for event in books.events if event.state == "sending"]
    first = {order.client_order_id: _first_sending(events[order.client_order_id]) for order in entries}
    for order in entries:
        own, strategy = first[order.client_order_id], books.strategies.get((order.strategy, order.strategy_version))
        if strategy is None:
            continue
        limits = strategy.controls
        before = [event for event in sendings if event.recorded_at <= own.recorded_at]
        minute = [event for event in before if event.at > own.at - _MINUTE]
        day = {event.client_order_id for event in before if _day(event.at) == _day(own.at)}
        twins = {each for each in day if each in first and symbols[each] == order.symbol}
        of_symbol = sum(symbols[event.client_order_id] == order.symbol for event in minute)
        for name, count, most in (
            ("orders a minute", len(minute), limits.messages_minute_max),
            ("orders a minute in the symbol", of_symbol, limits.messages_minute_symbol_max),
            ("entries a day in the symbol", len(twins), limits.entries_symbol_day_max),
            ("orders a day", len(day), limits.orders_day_max),
        ):
            if count > most:
                yield Exceeded(f"{_name(order)}, {name}", str(count), f"<= {most}")


def _was_live(events: Sequence[Event], at: datetime) -> bool:
    """Whether an order was reserved and not proven to have ended, by what was committed until then."""
    known = [event.state for event in events if event.recorded_at < at]
    return bool(known) and known[-1] not in _TERMINAL and known[-1] != OrderState.PLANNED.value


def _first_sending(events: Sequence[Event]) -> Event:
    return next(event for event in events if event.state == "sending")


def _size(order: LedgerOrder) -> Decimal:
    return order.quantity * (order.limit_price or Decimal(0))


def _day(at: datetime) -> date:
    return at.astimezone(NEW_YORK).date()


def _name(order: LedgerOrder) -> str:
    return f"entry in {order.symbol} of {order.session}"


def _usd(said: str) -> Decimal | None:
    """The amount of a verdict's text: "<= 5000.00 USD" or "1005.00 USD"."""
    try:
        return Decimal(said.removeprefix("<= ").removesuffix(" USD"))
    except InvalidOperation:
        return None
