"""An order as the simulated exchange keeps it, and as it is written on the wire."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson

from desk.exchange.amounts import plain, rfc3339, stop_cap, to_step

__all__ = ["TERMINAL", "SimOrder"]

TERMINAL = frozenset({"filled", "canceled", "expired", "rejected", "replaced"})


@dataclass(slots=True, eq=False)
class SimOrder:
    """Mutable on purpose: the exchange is where orders change. Whoever changes a field that is written on the
    wire calls `touch`.

    `parent` and `legs` follow Alpaca: a bracket's or OTO's parent is the entry; an OCO's parent is itself the
    take-profit and its only leg the stop. `sibling` is the other exit of a pair.
    """

    id: str
    client_order_id: str
    asset_id: str
    symbol: str
    buy: bool
    qty: Decimal
    type: str  # market, limit, stop, stop_limit, trailing_stop
    time_in_force: str  # day, gtc, opg, cls, ioc, fok
    order_class: str  # "", bracket, oco, oto
    limit_price: Decimal | None
    stop_price: Decimal | None
    extended_hours: bool
    status: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    filled_at: datetime | None = None
    expired_at: datetime | None = None
    canceled_at: datetime | None = None
    failed_at: datetime | None = None
    replaced_at: datetime | None = None
    submitted_at: datetime | None = None  # None: as created
    replaces: str | None = None  # order ids
    replaced_by: str | None = None
    notional: Decimal | None = None  # USD; `qty` is then what it comes to at the price of the moment
    trail_price: Decimal | None = None  # USD behind the best price; or
    trail_percent: Decimal | None = None
    hwm: Decimal | None = None  # the best price since a trailing stop was sent
    opens: bool = False  # it opens or adds to a position: it takes buying power, and no shares
    filled_qty: Decimal = Decimal(0)
    filled_value: Decimal = Decimal(0)  # USD, sum of quantity times price
    reserve_price: Decimal = Decimal(0)  # what a share of an open buy reserves, USD
    waiting: bool = False  # a leg whose entry is not completely filled
    elected: bool = False  # a stop that was triggered
    routed: bool = False  # the venue has it: it takes part in matching
    parent: SimOrder | None = None
    legs: list[SimOrder] = field(default_factory=list)
    sibling: SimOrder | None = None
    successor: SimOrder | None = None  # a replacement that the venue has not confirmed
    shadow: bool = False  # such a replacement itself: what it needs is counted with the order it replaces
    stalled: bool = False  # by a fault: no tick meets it
    _json: bytes | None = None

    @property
    def remaining(self) -> Decimal:
        return self.qty - self.filled_qty

    @property
    def side(self) -> str:
        return "buy" if self.buy else "sell"

    @property
    def is_open(self) -> bool:
        return self.status not in TERMINAL

    @property
    def is_complex(self) -> bool:
        return self.order_class != ""

    @property
    def family(self) -> list[SimOrder]:
        """All members of the group, parent first; the order alone when it is simple."""
        root = self.parent or self
        return [root, *root.legs]

    @property
    def is_stop(self) -> bool:
        """Still waiting for its stop price."""
        return self.stop_price is not None and not self.elected

    @property
    def limit(self) -> Decimal | None:
        """The worst price it may fill at. A triggered buy stop is capped above its stop; a triggered sell stop and
        a triggered trailing stop are market orders."""
        if self.limit_price is None and self.type == "stop" and self.buy and self.stop_price is not None:
            return stop_cap(self.stop_price)
        return self.limit_price

    @property
    def held_shares(self) -> Decimal:
        """Shares of the position this order keeps from other closing orders. A pair of exits holds once."""
        if self.opens or self.waiting or self.shadow or not self.is_open:
            return Decimal(0)
        twin = self.sibling
        if self.stop_price is not None and twin is not None and twin.is_open:
            return Decimal(0)
        return self.remaining if self.successor is None else max(self.remaining, self._rest_as_replaced)

    @property
    def reserved_cash(self) -> Decimal:
        """USD an open order to open a position keeps from others; while it is being replaced, the larger of both."""
        if not self.opens or self.shadow or not self.is_open:
            return Decimal(0)
        mine, next_one = self.remaining * self.reserve_price, self.successor
        return mine if next_one is None else max(mine, self._rest_as_replaced * next_one.reserve_price)

    @property
    def _rest_as_replaced(self) -> Decimal:
        """What the pending replacement leaves to fill: it counts this order's fills."""
        assert self.successor is not None
        return max(self.successor.qty - self.filled_qty, Decimal(0))

    @property
    def intent(self) -> str:
        return f"{self.side}_to_{'open' if self.opens else 'close'}"

    def trail(self, last: Decimal) -> bool:
        """Let a trailing stop follow a trade, in its favour only. Returns whether its stop moved."""
        best = last if self.hwm is None else min(self.hwm, last) if self.buy else max(self.hwm, last)
        if best == self.hwm:
            return False
        behind = self.trail_price if self.trail_percent is None else best * self.trail_percent / 100
        assert behind is not None  # a trailing stop has one of both
        self.hwm, self.stop_price = best, to_step(best + behind if self.buy else best - behind)
        return True

    def touch(self, at: datetime) -> None:
        """Something visible changed at that time."""
        self.updated_at = at
        self._json = None

    def flat_json(self) -> bytes:
        """Alone, `legs` null."""
        return self._head() + b',"legs":null}'

    def nested_json(self) -> bytes:
        """With its legs."""
        if not self.legs:
            return self.flat_json()
        return self._head() + b',"legs":[' + b",".join(leg.flat_json() for leg in self.legs) + b"]}"

    def nested_document(self) -> dict[str, Any]:
        document: dict[str, Any] = orjson.loads(self.nested_json())
        return document

    def _head(self) -> bytes:
        if self._json is None:
            self._json = orjson.dumps(self._fields())[:-1]
        return self._json

    def _fields(self) -> dict[str, Any]:
        created = rfc3339(self.created_at)
        average = self.filled_value / self.filled_qty if self.filled_qty else None
        return {
            "id": self.id,
            "client_order_id": self.client_order_id,
            "created_at": created,
            "updated_at": rfc3339(self.updated_at),
            "submitted_at": created if self.submitted_at is None else rfc3339(self.submitted_at),
            "filled_at": _time(self.filled_at),
            "expired_at": _time(self.expired_at),
            "expires_at": _time(self.expires_at),
            "canceled_at": _time(self.canceled_at),
            "failed_at": _time(self.failed_at),
            "replaced_at": _time(self.replaced_at),
            "replaced_by": self.replaced_by,
            "replaces": self.replaces,
            "asset_id": self.asset_id,
            "symbol": self.symbol,
            "asset_class": "us_equity",
            "notional": _amount(self.notional),
            "qty": plain(self.qty) if self.notional is None else None,
            "filled_qty": plain(self.filled_qty),
            "filled_avg_price": None if average is None else plain(round(average, 6)),
            "order_class": self.order_class,
            "order_type": self.type,
            "type": self.type,
            "side": self.side,
            "position_intent": self.intent,
            "time_in_force": self.time_in_force,
            "limit_price": _amount(self.limit_price),
            "stop_price": _amount(self.stop_price),
            "status": self.status,
            "extended_hours": self.extended_hours,
            "trail_percent": _amount(self.trail_percent),
            "trail_price": _amount(self.trail_price),
            "hwm": _amount(self.hwm),
            "ratio_qty": None,
            "subtag": None,
            "source": None,
        }


def _time(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)


def _amount(amount: Decimal | None) -> str | None:
    return None if amount is None else plain(amount)
