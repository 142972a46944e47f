"""PATCH /v2/orders/{id}: an order is replaced by a new one, unless a fill wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from desk.exchange.admission import check_buying_power, check_shares, check_wash, refuse_twin
from desk.exchange.drafts import amount_of, client_order_id_of, malformed, price_of, rule
from desk.exchange.floor import Floor
from desk.exchange.journal import Journal
from desk.exchange.options import ExchangeOptions
from desk.exchange.simorder import TERMINAL, SimOrder

__all__ = ["Change", "Replacer", "read_change"]

_CLOSED_TO_CHANGE = frozenset({"accepted", "pending_new", "pending_cancel", "pending_replace", *TERMINAL})


@dataclass(frozen=True, slots=True)
class Change:
    """What is asked to be different; None stays as it is."""

    qty: Decimal | None
    time_in_force: str | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    trail: Decimal | None
    client_order_id: str | None


def read_change(body: Mapping[str, Any] | None) -> Change:
    """Raises ApiError 422 naming the first field that is wrong."""
    fields = body or {}
    qty, trail = amount_of(fields.get("qty"), "qty"), amount_of(fields.get("trail"), "trail")
    if qty is not None and (qty <= 0 or qty % 1):
        raise malformed("qty must be a whole number > 0")
    if trail is not None and trail <= 0:
        raise malformed("trail must be > 0")
    time_in_force = fields.get("time_in_force")
    if time_in_force is not None and time_in_force not in ("day", "gtc"):
        raise malformed(f"invalid time_in_force {time_in_force!r}: one of day, gtc is needed")
    return Change(
        qty=qty,
        time_in_force=time_in_force,
        limit_price=price_of(fields, "limit_price", "limit_price"),
        stop_price=price_of(fields, "stop_price", "stop_price"),
        trail=trail,
        client_order_id=client_order_id_of(fields),
    )


class Replacer:
    def __init__(self, floor: Floor, journal: Journal, options: ExchangeOptions) -> None:
        self._floor = floor
        self._journal = journal
        self._options = options

    def ask(self, order: SimOrder, change: Change) -> SimOrder:
        """The order that is to replace `order`, not yet at the venue: `finish` decides. Raises ApiError."""
        self._refuse(order, change)
        wanted = self._draft(order, change)
        self._check_means(order, wanted)
        self._floor.enter(wanted)
        order.successor = wanted
        if self._floor.in_session and (self._options.replace_latency_s or self._delays(order)):
            self._floor.set_status(order, "pending_replace")
        self._floor.register.weigh(order)
        self._floor.tell(wanted.status, wanted)
        return wanted

    def _delays(self, order: SimOrder) -> bool:
        return self._floor.mischief is not None and self._floor.mischief.races(order)

    def finish(self, wanted: SimOrder) -> None:
        """The venue decides: the old order goes and the new one works, or the old one has ended meanwhile."""
        assert wanted.replaces is not None
        order = self._floor.register.by_id[wanted.replaces]
        if self._floor.mischief is not None:
            self._floor.mischief.before_replacement(order)
        order.successor = None
        if not order.is_open or not wanted.is_open or order.status == "pending_cancel":
            self._floor.register.weigh(order)
            self._floor.end([wanted], "rejected")
            if order.status == "pending_replace":
                order.status = _working_status(order)
            order.touch(self._floor.now)
            self._floor.changes += 1
            self._floor.tell("order_replace_rejected", order)
            return
        if self._options.replace_keeps_fills:
            wanted.filled_qty, wanted.filled_value = order.filled_qty, order.filled_value
            wanted.filled_at = order.filled_at
        else:
            wanted.qty = max(wanted.qty - order.filled_qty, Decimal(0))
        wanted.shadow, wanted.waiting, wanted.elected = False, order.waiting, order.elected
        self._take_place(order, wanted)
        order.replaced_by = wanted.id
        self._floor.end([order], "replaced")
        self._floor.register.weigh(wanted)
        if wanted.remaining <= 0:
            self._floor.end([wanted], "canceled")
            return
        wanted.touch(self._floor.now)
        if order.routed:
            self._floor.rest(wanted)
        status = _working_status(wanted)
        if status != wanted.status:
            self._floor.set_status(wanted, status)
        if order.routed and self._floor.in_session:
            self._floor.arrive(wanted)

    def _refuse(self, order: SimOrder, change: Change) -> None:
        if order.shadow and order.is_open:
            raise rule("order chain not fully replaced")
        if order.status in _CLOSED_TO_CHANGE:
            raise rule(f"cannot replace order in {order.status} status")
        if order.notional is not None:
            raise rule("notional orders cannot be replaced")
        if order.order_class == "oto":
            raise rule("oto orders cannot be replaced")
        refuse_twin(change.client_order_id, self._floor.register.by_client_id)
        self._refuse_fields(order, change)
        if change.qty is not None and change.qty <= order.filled_qty:
            raise rule("qty must be > filled_qty")
        if change.qty not in (None, order.qty) and order.sibling is not None:
            raise rule("qty of an exit of a pair cannot be changed")

    def _refuse_fields(self, order: SimOrder, change: Change) -> None:
        if change.qty is not None and order.qty % 1:
            raise rule("qty of a fractional order cannot be changed")
        if change.time_in_force == "gtc" and order.qty % 1:
            raise rule("fractional orders must be DAY orders")
        if change.limit_price is not None and order.type not in ("limit", "stop_limit"):
            raise malformed(f"{order.type} orders require no limit price")
        if change.stop_price is not None and order.type not in ("stop", "stop_limit"):
            raise malformed(f"{order.type} orders require no stop price")
        if change.trail is not None and order.type != "trailing_stop":
            raise malformed(f"{order.type} orders require no trail")
        same = (
            change.qty in (None, order.qty)
            and change.time_in_force in (None, order.time_in_force)
            and change.limit_price in (None, order.limit_price)
            and change.stop_price in (None, order.stop_price)
            and change.trail in (None, order.trail_price, order.trail_percent)
        )
        if same:
            raise rule("order parameters are not changed")

    def _draft(self, order: SimOrder, change: Change) -> SimOrder:
        floor = self._floor
        time_in_force = change.time_in_force or order.time_in_force
        limit, stop = change.limit_price or order.limit_price, change.stop_price or order.stop_price
        twin = order.sibling
        if twin is not None:
            self._check_pair(order, limit, stop)
        wanted = replace(
            order,
            id=self._journal.new_id(),
            client_order_id=change.client_order_id or self._journal.new_id(),
            qty=change.qty or order.qty,
            time_in_force=time_in_force,
            limit_price=limit,
            stop_price=stop,
            trail_price=change.trail if change.trail and order.trail_price is not None else order.trail_price,
            trail_percent=change.trail if change.trail and order.trail_percent is not None else order.trail_percent,
            expires_at=floor.expiry(time_in_force),
            status="held" if order.status == "held" else self._options.submitted_status,
            created_at=floor.now,
            updated_at=floor.now,
            submitted_at=None,
            filled_at=None,
            replaces=order.id,
            filled_qty=Decimal(0),
            filled_value=Decimal(0),
            routed=False,
            shadow=True,
            sibling=None,
            parent=order.parent,
            legs=[],
            _json=None,
        )
        if order.opens and order.buy and limit is not None:
            wanted.reserve_price = limit
        if change.trail and order.hwm is not None:
            best, wanted.hwm = order.hwm, None
            wanted.trail(best)
        return wanted

    def _check_pair(self, order: SimOrder, limit: Decimal | None, stop: Decimal | None) -> None:
        twin = order.sibling
        assert twin is not None
        is_target = order.stop_price is None
        target, trigger = (limit, twin.stop_price) if is_target else (twin.limit_price, stop)
        if target is None or trigger is None:
            return
        if target <= trigger if not order.buy else target >= trigger:
            raise rule(f"take_profit.limit_price must be {'<' if order.buy else '>'} stop_loss.stop_price")

    def _check_means(self, order: SimOrder, wanted: SimOrder) -> None:
        """The larger of both is reserved until the venue has decided."""
        now = self._floor.situation(order.symbol)
        rest = wanted.qty - order.filled_qty
        if order.opens:
            more = rest * wanted.reserve_price - order.reserved_cash
            check_buying_power(max(more, Decimal(0)), max(now.buying_power, Decimal(0)))
        elif not order.waiting and rest > order.remaining:
            check_shares(order.symbol, rest - order.remaining, now, buy=order.buy)
        if not order.is_complex and order.type != "trailing_stop":
            limit = wanted.limit_price if order.type == "limit" else None
            check_wash(order.buy, limit, now.against(buy=order.buy), self._options)

    def _take_place(self, order: SimOrder, wanted: SimOrder) -> None:
        """In its group: as the entry of the legs, or as one of them, or as half of a pair."""
        for leg in order.legs:
            leg.parent = wanted
            if leg.qty != wanted.qty and leg.waiting:
                leg.qty = wanted.qty
                leg.touch(self._floor.now)
        wanted.legs, order.legs = order.legs, []
        if order.parent is not None:
            order.parent.legs = [wanted if leg is order else leg for leg in order.parent.legs]
            order.parent.touch(self._floor.now)
        twin = order.sibling
        if twin is not None:
            twin.sibling, wanted.sibling, order.sibling = wanted, twin, None


def _working_status(order: SimOrder) -> str:
    """Of an order at the venue. An exit whose entry is not filled is held, and so is the stop of a pair."""
    twin = order.sibling
    if order.waiting or (order.is_stop and twin is not None and twin.is_open):
        return "held"
    return "partially_filled" if order.filled_qty else "new"
