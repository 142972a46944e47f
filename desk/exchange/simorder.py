"""An order as the simulated exchange keeps it, and as it is written on the wire."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson

from desk.exchange.amounts import plain, rfc3339, stop_cap

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
    type: str  # market, limit, stop, stop_limit
    time_in_force: str  # day, gtc
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
    filled_qty: Decimal = Decimal(0)
    filled_value: Decimal = Decimal(0)  # USD, sum of quantity times price
    reserve_price: Decimal = Decimal(0)  # what a share of an open buy reserves, USD
    waiting: bool = False  # a leg whose entry is not completely filled
    elected: bool = False  # a stop that was triggered
    routed: bool = False  # the venue has it: it takes part in matching
    parent: SimOrder | None = None
    legs: list[SimOrder] = field(default_factory=list)
    sibling: SimOrder | None = None
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
        """The worst price it may fill at. A triggered buy stop is capped above its stop;
        a triggered sell stop is a market order."""
        if self.limit_price is None and self.stop_price is not None and self.buy:
            return stop_cap(self.stop_price)
        return self.limit_price

    @property
    def held_shares(self) -> Decimal:
        """Shares of the position this order keeps from other sells. A pair of exits holds once."""
        if self.buy or self.waiting or not self.is_open:
            return Decimal(0)
        twin = self.sibling
        if self.stop_price is not None and twin is not None and twin.is_open:
            return Decimal(0)
        return self.remaining

    @property
    def reserved_cash(self) -> Decimal:
        """USD an open buy keeps from other buys."""
        return self.remaining * self.reserve_price if self.buy and self.is_open else Decimal(0)

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
            "submitted_at": created,
            "filled_at": _time(self.filled_at),
            "expired_at": _time(self.expired_at),
            "expires_at": _time(self.expires_at),
            "canceled_at": _time(self.canceled_at),
            "failed_at": None,
            "replaced_at": None,
            "replaced_by": None,
            "replaces": None,
            "asset_id": self.asset_id,
            "symbol": self.symbol,
            "asset_class": "us_equity",
            "notional": None,
            "qty": plain(self.qty),
            "filled_qty": plain(self.filled_qty),
            "filled_avg_price": None if average is None else plain(round(average, 6)),
            "order_class": self.order_class,
            "order_type": self.type,
            "type": self.type,
            "side": self.side,
            "position_intent": "buy_to_open" if self.buy else "sell_to_close",
            "time_in_force": self.time_in_force,
            "limit_price": _amount(self.limit_price),
            "stop_price": _amount(self.stop_price),
            "status": self.status,
            "extended_hours": self.extended_hours,
            "trail_percent": None,
            "trail_price": None,
            "hwm": None,
            "ratio_qty": None,
            "subtag": None,
            "source": None,
        }


def _time(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)


def _amount(amount: Decimal | None) -> str | None:
    return None if amount is None else plain(amount)
