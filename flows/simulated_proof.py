"""The invariants, as pure functions over what ledger and broker hold. Numbers are those of the design.

`in_session`: the market is open, nothing has gone wrong for minutes, and the monitor ran each of them.
`at_rest`: the session is closed and its books too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from desk.evidence import Evidence
from desk.exchange.simorder import SimOrder
from desk.orders import LIVE_STATES, OUR_PREFIX, OrderState
from desk.verify import violations
from flows.simulated_books import BrokerSide, LedgerSide

__all__ = ["Violation", "at_rest", "grown", "in_session", "verified"]

_NONE = Decimal(0)
_LIVE = {state.value for state in LIVE_STATES}
_UNPROVEN = ("sending", "unknown")
_CENT = Decimal("0.01")
_OUTSIDE = "external-"  # ids the ledger gives to orders of others that closed a trade of ours


@dataclass(frozen=True, slots=True)
class Violation:
    """`invariant`: its number in the design; 0 for a defect that is none of them, as an exception nobody meant."""

    invariant: int
    sentence: str

    def __str__(self) -> str:
        return f"invariant {self.invariant}: {self.sentence}"


def in_session(ledger: LedgerSide, broker: BrokerSide) -> list[Violation]:
    """What must hold five virtual minutes after the last fault, while the market is open."""
    return [*_identities(ledger, broker), *_limits(broker), *_protected(ledger, broker), *_proven(ledger, broker)]


def at_rest(ledger: LedgerSide, broker: BrokerSide) -> list[Violation]:
    """What must hold when the books of a session without faults are closed."""
    return [*_identities(ledger, broker), *_equal(ledger, broker), *_limits(broker), *_settled(ledger)]


def verified(seen: Evidence, broker: BrokerSide, *, skewed: bool) -> list[Violation]:
    """What `onepath verify` says, less what the simulation did itself.

    Shares and cash with trades of others in them are `at_rest`'s to compare. `skewed`: the broker's clock was told
    wrong, so times the ledger took from it prove nothing; that an intent is written before it leaves is seen when it
    leaves.
    """
    ours = {order.id for order in broker.orders if _is_ours(order)}
    mixed = any(document["order_id"] not in ours for document in broker.fills)
    return [
        Violation(each.invariant, f"{each.what}: found {each.found}, needed {each.needed}")
        for each in violations(seen)
        if not (each.invariant == 3 and mixed)
        and not (skewed and each.invariant == 2 and each.found.startswith("marked as being sent at"))
    ]


def grown(before: LedgerSide, after: LedgerSide) -> list[Violation]:
    """Invariant 4: fills stay as they are, and no order's filled quantity falls."""
    found = [
        Violation(4, f"fill {number} of {fill.symbol} is gone or changed")
        for number, fill in before.fills.items()
        if after.fills.get(number) != fill
    ]
    for name, order in before.orders.items():
        now = after.orders.get(name)
        if now is None or now.filled_quantity < order.filled_quantity:
            found.append(Violation(4, f"order {name} of {order.symbol} is gone, or its filled quantity fell"))
    return found


def _identities(ledger: LedgerSide, broker: BrokerSide) -> Iterator[Violation]:
    """Invariants 1 and 2."""
    seen: set[str] = set()
    live: dict[tuple[object, ...], str] = {}
    for order in broker.orders:
        if order.client_order_id in seen:
            yield Violation(1, f"two broker orders have the id {order.client_order_id}")
        seen.add(order.client_order_id)
        if not order.client_order_id.startswith(OUR_PREFIX):
            continue
        row = ledger.orders.get(order.client_order_id)
        if row is None:
            yield Violation(2, f"broker order {order.client_order_id} ({_shown(order)}) has no intent in the ledger")
            continue
        if row.sending_at is None:
            yield Violation(2, f"{row.leg} {row.client_order_id} of {row.symbol} was never marked as being sent")
        if order.is_open:
            chain = (row.strategy, row.session, row.symbol, row.leg)
            if chain in live:
                yield Violation(1, f"{row.symbol} of {row.session}: two live orders for its {row.leg}")
            live[chain] = order.client_order_id


def _equal(ledger: LedgerSide, broker: BrokerSide) -> Iterator[Violation]:
    """Invariant 3. What others traded is theirs: it counts unless the ledger has taken it as the end of a trade."""
    ours = _ours(ledger, broker)
    foreign: dict[str, Decimal] = {}
    cash = broker.started_with + broker.other_cash
    for document in broker.fills:
        quantity, price = Decimal(document["qty"]), Decimal(document["price"])
        signed = quantity if document["side"] == "buy" else -quantity
        if document["order_id"] not in ours:
            foreign[document["symbol"]] = foreign.get(document["symbol"], _NONE) + signed
            cash -= signed * price
            continue
        if document["id"] not in ledger.fills:
            yield Violation(3, f"fill {document['id']} ({document['side']} {quantity} {document['symbol']}) is not in "
                            "the ledger")  # fmt: skip
    booked: dict[str, Decimal] = dict(ledger.adjusted)
    for fill in ledger.fills.values():
        signed = fill.quantity if fill.side == "buy" else -fill.quantity
        booked[fill.symbol] = booked.get(fill.symbol, _NONE) + signed
        cash -= signed * fill.price
    if abs(cash - broker.cash) > _CENT:
        yield Violation(3, f"cash is {broker.cash:.2f} at the broker, {cash:.2f} by the ledger's fills")
    for symbol in sorted({*booked, *broker.held, *ledger.held}):
        if symbol in broker.split and foreign.get(symbol, _NONE):
            continue  # a split of shares of others is not ours to write down
        theirs = broker.held.get(symbol, _NONE) - foreign.get(symbol, _NONE)
        if symbol not in broker.split and booked.get(symbol, _NONE) != theirs:
            yield Violation(3, f"{symbol}: {booked.get(symbol, _NONE):f} by the ledger's fills, {theirs:f} at the "
                            "broker")  # fmt: skip
        if ledger.held.get(symbol, _NONE) != theirs:
            yield Violation(3, f"{symbol}: {ledger.held.get(symbol, _NONE):f} in open trades, {theirs:f} at the "
                            "broker")  # fmt: skip
    for row in ledger.orders.values():
        order = next((each for each in broker.orders if each.client_order_id == row.client_order_id), None)
        if order is not None and order.is_open and row.state not in _LIVE:
            yield Violation(3, f"{row.leg} of {row.symbol} is {row.state} in the ledger and {order.status} at the "
                            "broker")  # fmt: skip


def _ours(ledger: LedgerSide, broker: BrokerSide) -> set[str | None]:
    """Ids at the broker of orders that count as ours: sent by us, made under those, or taken as the end of a trade."""
    return {order.id for order in broker.orders if _is_ours(order)} | {
        row.broker_order_id for row in ledger.orders.values()
    }


def _is_ours(order: SimOrder) -> bool:
    return any(member.client_order_id.startswith(OUR_PREFIX) for member in order.family)


def _limits(broker: BrokerSide) -> Iterator[Violation]:
    """Invariant 6."""
    for symbol, quantity in sorted(broker.held.items()):
        if quantity < 0:
            yield Violation(6, f"{symbol}: position is {quantity:f}")
    selling: dict[str, Decimal] = {}
    for order in broker.orders:
        if not order.buy and order.is_open:
            selling[order.symbol] = selling.get(order.symbol, _NONE) + order.held_shares
    for symbol, quantity in sorted(selling.items()):
        if quantity > broker.held.get(symbol, _NONE):
            yield Violation(6, f"{symbol}: {quantity:f} offered for sale, {broker.held.get(symbol, _NONE):f} held")


def _protected(ledger: LedgerSide, broker: BrokerSide) -> Iterator[Violation]:
    """Invariant 7: what is held for a trade has a working stop or a sale under way, over all of it."""
    for symbol, quantity in sorted(ledger.held.items()):
        covered = sum(
            (
                order.remaining
                for order in broker.orders
                if order.symbol == symbol and not order.buy and order.is_open and not order.waiting and _guards(order)
            ),
            _NONE,
        )
        held = min(quantity, broker.held.get(symbol, _NONE))
        if covered < held:
            yield Violation(7, f"{symbol}: {held:f} held, {covered:f} under a stop or being sold")


def _guards(order: SimOrder) -> bool:
    return order.stop_price is not None or order.type == "market"


def _proven(ledger: LedgerSide, broker: BrokerSide) -> Iterator[Violation]:
    """Invariant 10, in session: whatever the broker has is found by then, and whatever gets us out is sent by then.

    An entry that never arrived stays UNKNOWN until the close: absence in session never means rejected.
    """
    there = {order.client_order_id for order in broker.orders}
    for row in ledger.orders.values():
        if row.state in _UNPROVEN and (row.client_order_id in there or row.leg != "entry"):
            yield Violation(10, f"{row.leg} of {row.symbol} is still {row.state}, although nothing goes wrong any more")


def _settled(ledger: LedgerSide) -> Iterator[Violation]:
    """Invariant 10, after the close: nothing is unproven."""
    for row in ledger.orders.values():
        if row.state in _UNPROVEN:
            yield Violation(10, f"{row.leg} of {row.symbol} of {row.session} is still {row.state} after the close")
        if row.state == OrderState.QUARANTINED and row.symbol not in ledger.paged:
            yield Violation(10, f"{row.leg} of {row.symbol} is quarantined and nobody was told")


def _shown(order: SimOrder) -> str:
    return f"{order.side} {order.qty:f} {order.symbol}, {order.status}"
