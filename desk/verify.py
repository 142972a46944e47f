"""The invariants of orders-and-liveness, section 5, as pure functions over what was read of ledger and broker.

1 to 6, 9 and 11 are checked here, on any ledger and broker at rest. 7 and 8 are a matter of seconds and belong to the
monitor and the watchdog; 10 and 12 to a simulation, which calls `violations` after each of its runs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from desk.evidence import Evidence
from desk.ledger.proof import Books
from desk.ledger.tables import APPEND_ONLY
from desk.market import NEW_YORK
from desk.orders import OUR_PREFIX, BrokerOrder, BrokerStatus, OrderClass, Side
from desk.portfolio import Fill, shares
from desk.submissions import exceeded

__all__ = ["CHECKED", "Violation", "violations"]

CHECKED = (1, 2, 3, 4, 5, 6, 9, 11)
_CENT = Decimal("0.01")
_CLOCK = timedelta(seconds=1)  # a POST and the clock read before it are answered by two calls
_IDLE_S_MAX = 5.0
_HELD_CALL = "a database connection is checked out during an outside call"


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that does not hold: which, of what, what was found and what is needed."""

    invariant: int
    what: str
    found: str
    needed: str

    def __str__(self) -> str:
        return f"invariant {self.invariant}: {self.what}: found {self.found}, needed {self.needed}"


def violations(seen: Evidence) -> list[Violation]:
    """Every violation, by invariant. None: all of `CHECKED` hold."""
    return [
        *_one_order_per_id(seen),
        *_one_live_chain(seen.books),
        *_intent_before_order(seen),
        *_shares_agree(seen),
        *_cash_agrees(seen),
        *_only_grows(seen.books),
        *_fills_applied_once(seen),
        *(Violation(5, each.what, each.found, each.needed) for each in exceeded(seen.books)),
        *_never_short(seen),
        *_no_connection_held(seen.books),
        *_decisions_traced(seen.books),
    ]


# 1 -------------------------------------------------------------------------------------------------------------------


def _one_order_per_id(seen: Evidence) -> Iterator[Violation]:
    counted = Counter(order.client_order_id for order in _flat(seen.broker_orders))
    for order_id, count in sorted(counted.items()):
        if count > 1:
            yield Violation(1, f"client order id {order_id}", f"{count} orders at the broker", "at most 1")


def _one_live_chain(books: Books) -> Iterator[Violation]:
    """A stop and its target are two legs of one chain; two stops, or an entry beside an entry, are two chains."""
    chains = Counter(
        (order.strategy, order.session, order.symbol, order.leg) for order in books.orders if order.is_live
    )
    for (strategy, session, symbol, leg), count in sorted(chains.items()):
        if count > 1:
            yield Violation(1, f"{leg} of {symbol} of {session} ({strategy})", f"{count} live orders", "at most 1")


# 2 -------------------------------------------------------------------------------------------------------------------


def _intent_before_order(seen: Evidence) -> Iterator[Violation]:
    known = {order.client_order_id for order in seen.books.orders}
    begun: dict[str, datetime] = {}
    for event in seen.books.events:
        if event.state == "sending":
            begun[event.client_order_id] = min(event.at, begun.get(event.client_order_id, event.at))
    for order in _flat(seen.broker_orders):
        name = f"order {order.client_order_id} of {order.symbol}"
        if not order.client_order_id.startswith(OUR_PREFIX):
            continue
        if order.client_order_id not in known:
            yield Violation(2, name, "no intent in the ledger", "one committed before it was sent")
        elif order.client_order_id not in begun:
            yield Violation(2, name, "never marked as being sent", "SENDING committed before it was sent")
        elif begun[order.client_order_id] > order.submitted_at + _CLOCK:
            found = f"marked as being sent at {begun[order.client_order_id]:%H:%M:%S.%f}"
            yield Violation(2, name, found, f"before {order.submitted_at:%H:%M:%S.%f}, when the broker had it")


# 3 -------------------------------------------------------------------------------------------------------------------


def _shares_agree(seen: Evidence) -> Iterator[Violation]:
    booked: dict[str, Decimal] = defaultdict(Decimal)
    for kept in seen.books.fills:
        booked[kept.fill.symbol] += _signed(kept.fill)
    for adjustment in seen.books.adjustments:
        booked[adjustment.symbol] += adjustment.quantity_change
    held = {position.symbol: position.quantity for position in seen.positions}
    for symbol in sorted(booked.keys() | held.keys()):
        ours, theirs = booked.get(symbol, Decimal(0)), held.get(symbol, Decimal(0))
        if ours != theirs:
            yield Violation(
                3,
                f"shares of {symbol}",
                f"{shares(ours)} by fills and adjustments",
                f"{shares(theirs)}, as the broker has",
            )
    open_trades: dict[str, Decimal] = defaultdict(Decimal)
    for trade in seen.books.trades:
        if trade.status == "open":
            open_trades[trade.symbol] += trade.remaining
    for symbol in sorted(open_trades.keys() | held.keys()):
        ours, theirs = open_trades.get(symbol, Decimal(0)), held.get(symbol, Decimal(0))
        if ours != theirs and booked.get(symbol, Decimal(0)) == theirs:
            yield Violation(
                3, f"open trade in {symbol}", f"{shares(ours)} shares", f"{shares(theirs)}, as its fills say"
            )


def _cash_agrees(seen: Evidence) -> Iterator[Violation]:
    """From one closing to the next, and to now, cash moves by our fills, by splits, and by dividends and the like."""
    closings = seen.books.closings
    points = [(closing.closed_at, closing.cash, f"closing of {closing.session}") for closing in closings]
    points.append((seen.read_at, seen.cash, "the broker's cash now"))
    for (start, before, _), (end, found, name) in pairwise(points):
        days = (start.astimezone(NEW_YORK).date(), end.astimezone(NEW_YORK).date())
        moved = sum((_flow(kept.fill) for kept in seen.books.fills if start < kept.fill.at <= end), Decimal(0))
        moved += sum((each.cash for each in seen.books.adjustments if days[0] < each.day <= days[1]), Decimal(0))
        moved += sum((each.amount for each in seen.moved if days[0] < each.day <= days[1]), Decimal(0))
        if abs(before + moved - found) > _CENT:
            yield Violation(3, f"cash, {name}", f"{found:.2f} USD", f"{before + moved:.2f} USD by the ledger")


# 4 -------------------------------------------------------------------------------------------------------------------


def _only_grows(books: Books) -> Iterator[Violation]:
    for table in APPEND_ONLY:
        if table not in books.guarded:
            yield Violation(4, f"table {table}", "it can be edited", "its trigger refuses changes")
    sequences: dict[str, list[int]] = defaultdict(list)
    for event in books.events:
        sequences[event.client_order_id].append(event.sequence)
    for order in books.orders:
        found = sequences.get(order.client_order_id, [])
        if not found or found != list(range(found[0], found[0] + len(found))) or found[0] > 1:
            said = ", ".join(map(str, found)) or "none"
            yield Violation(4, f"events of order {order.client_order_id}", said, "all from the first on")


def _fills_applied_once(seen: Evidence) -> Iterator[Violation]:
    books = seen.books
    theirs = {fill.activity_id: fill for fill in seen.broker_fills}
    ours = {kept.fill.activity_id for kept in books.fills}
    by_order: dict[str, Decimal] = defaultdict(Decimal)
    for kept in books.fills:
        fill, at_broker = kept.fill, theirs.get(kept.fill.activity_id)
        by_order[kept.client_order_id] += fill.quantity
        if at_broker is None or _facts(at_broker) != _facts(fill):
            said = "no such fill" if at_broker is None else _told(at_broker)
            yield Violation(4, f"fill {fill.activity_id}", f"{_told(fill)} in the ledger", f"{said}, as the broker has")
    known = {order.broker_order_id for order in books.orders}
    for fill in seen.broker_fills:
        if fill.activity_id not in ours and fill.broker_order_id in known:
            yield Violation(4, f"fill {fill.activity_id}", "not in the ledger", f"{_told(fill)}, once")
    split = {adjustment.symbol for adjustment in books.adjustments if adjustment.ratio != 1}
    for order in books.orders:
        if order.symbol not in split and by_order.get(order.client_order_id, Decimal(0)) != order.filled_quantity:
            found = f"filled {shares(order.filled_quantity)}"
            needed = f"{shares(by_order.get(order.client_order_id, Decimal(0)))}, the sum of its fills"
            yield Violation(4, f"order {order.client_order_id} of {order.symbol}", found, needed)
    yield from _trades_are_their_fills(books, split)


def _trades_are_their_fills(books: Books, split: set[str]) -> Iterator[Violation]:
    keys = {order.client_order_id: (order.strategy, order.session, order.symbol) for order in books.orders}
    bought: dict[tuple[object, ...], Decimal] = defaultdict(Decimal)
    sold: dict[tuple[object, ...], Decimal] = defaultdict(Decimal)
    for kept in books.fills:
        side = bought if kept.fill.side is Side.BUY else sold
        side[keys[kept.client_order_id]] += kept.fill.quantity
    for trade in books.trades:
        key = (trade.strategy, trade.session, trade.symbol)
        pairs = (("bought", trade.quantity, bought[key]), ("sold", trade.quantity_closed, sold[key]))
        for verb, found, needed in pairs:
            if trade.symbol not in split and found != needed:
                said = f"{verb} {shares(found)}"
                yield Violation(
                    4, f"trade in {trade.symbol} of {trade.session}", said, f"{shares(needed)} by its fills"
                )


# 6 -------------------------------------------------------------------------------------------------------------------


def _never_short(seen: Evidence) -> Iterator[Violation]:
    held = {position.symbol: position.quantity for position in seen.positions}
    for symbol, quantity in sorted(held.items()):
        if quantity < 0:
            yield Violation(6, f"position in {symbol}", f"{shares(quantity)} shares", "0 or more")
    selling: dict[str, Decimal] = defaultdict(Decimal)
    for order in seen.broker_orders:
        selling[order.symbol] += _sells(order)
    for symbol, quantity in sorted(selling.items()):
        if quantity > max(held.get(symbol, Decimal(0)), Decimal(0)):
            position = shares(held.get(symbol, Decimal(0)))
            yield Violation(6, f"live sells of {symbol}", f"{shares(quantity)} shares", f"at most the {position} held")


def _sells(order: BrokerOrder) -> Decimal:
    """Shares this order, or the pair it is, may still sell: of a pair only one leg fills, so the larger counts."""
    own = order.remaining if order.side is Side.SELL and not order.status.is_terminal else Decimal(0)
    is_asleep = order.side is Side.BUY and order.status is not BrokerStatus.FILLED  # its legs wait for its fill
    legs = [
        leg.remaining
        for leg in order.legs
        if leg.side is Side.SELL and not leg.status.is_terminal and not (is_asleep and leg.status is BrokerStatus.HELD)
    ]
    if order.order_class in (OrderClass.BRACKET, OrderClass.OCO, OrderClass.OTO):
        return max([own, *legs], default=Decimal(0))
    return own


# 9 -------------------------------------------------------------------------------------------------------------------


def _no_connection_held(books: Books) -> Iterator[Violation]:
    for failure in books.failures:
        if _HELD_CALL in failure:
            yield Violation(9, failure.split(": ")[0], "a connection held during a call", "none")
    if books.idle_s > _IDLE_S_MAX:
        yield Violation(9, "a transaction", f"idle for {books.idle_s:.0f} s", f"at most {_IDLE_S_MAX:.0f} s")


# 11 ------------------------------------------------------------------------------------------------------------------


def _decisions_traced(books: Books) -> Iterator[Violation]:
    by_set = {(each.session, each.strategy): each for each in books.decision_sets}
    for each in books.decision_sets:
        name = f"decisions of {each.session} ({each.strategy})"
        if len(each.input_hash) != 64:
            yield Violation(11, name, f"data hash {each.input_hash!r}", "a sha256")
        if each.decider.startswith("fallback: "):
            if each.policy_digest is not None:
                yield Violation(11, name, f"{each.decider} with a policy's digest", "a fallback without one")
            if each.session not in books.fallbacks_told:
                yield Violation(11, name, f"{each.decider}, of which nobody was told", "an alert about it")
        elif not each.decider.startswith("policy "):
            yield Violation(11, name, f"decided by {each.decider!r}", "a policy or the fallback, by name")
        elif each.policy_digest not in books.approved:
            yield Violation(11, name, f"policy digest {each.policy_digest}", "one that was approved")
    for session, strategy, symbol, decider, input_hash in books.decisions:
        whole = by_set.get((session, strategy))
        if whole is not None and (decider, input_hash) != (whole.decider, whole.input_hash):
            name = f"decision on {symbol} of {session} ({strategy})"
            yield Violation(11, name, f"{decider} on {input_hash[:8]}", f"{whole.decider} on {whole.input_hash[:8]}")


# what the others share -----------------------------------------------------------------------------------------------


def _flat(orders: Sequence[BrokerOrder]) -> Iterator[BrokerOrder]:
    for order in orders:
        yield order
        yield from _flat(order.legs)


def _signed(fill: Fill) -> Decimal:
    return fill.quantity if fill.side is Side.BUY else -fill.quantity


def _flow(fill: Fill) -> Decimal:
    """USD this fill brought in."""
    return -_signed(fill) * fill.price


def _facts(fill: Fill) -> tuple[object, ...]:
    return fill.broker_order_id, fill.symbol, fill.side, fill.quantity, fill.price


def _told(fill: Fill) -> str:
    return f"{fill.side} {shares(fill.quantity)} {fill.symbol} at {fill.price.normalize():f}"
