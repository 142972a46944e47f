"""What an order is: its identity, its states, what is asked of the broker and what the broker says.

The protocol that moves an order through these states is in `desk.protocol`.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from desk.market import require_utc

__all__ = [
    "LIVE_STATES",
    "OUR_PREFIX",
    "TERMINAL_STATES",
    "BrokerOrder",
    "BrokerStatus",
    "Leg",
    "OrderClass",
    "OrderRequest",
    "OrderState",
    "OrderType",
    "Side",
    "TimeInForce",
    "client_order_id",
]


OUR_PREFIX = "op-"  # of every client order id we send


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"


class OrderType(StrEnum):
    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    STOP_LIMIT = "stop_limit"
    TRAILING_STOP = "trailing_stop"


class OrderClass(StrEnum):
    SIMPLE = "simple"
    BRACKET = "bracket"
    OCO = "oco"
    OTO = "oto"


class TimeInForce(StrEnum):
    DAY = "day"
    GTC = "gtc"


class Leg(StrEnum):
    """The part an order plays in a trade."""

    ENTRY = "entry"  # the bracket's parent
    TARGET = "target"  # take-profit leg made by the broker
    STOP = "stop"  # stop-loss leg made by the broker
    PROTECT = "protect"  # our own OCO over a partial fill
    EXIT = "exit"  # our own closing order


class OrderState(StrEnum):
    """States of an order in the ledger (orders-and-liveness, section 2)."""

    PLANNED = "planned"
    RESERVED = "reserved"
    SENDING = "sending"
    ACKED = "acked"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    PARTIAL = "partial"
    FILLED = "filled"
    CANCELLING = "cancelling"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REPLACED = "replaced"
    LAPSED = "lapsed"  # never arrived, proven
    QUARANTINED = "quarantined"  # a person must look


TERMINAL_STATES = frozenset(
    {
        OrderState.REJECTED,
        OrderState.FILLED,
        OrderState.CANCELED,
        OrderState.EXPIRED,
        OrderState.REPLACED,
        OrderState.LAPSED,
    }
)
LIVE_STATES = frozenset(OrderState) - TERMINAL_STATES


class BrokerStatus(StrEnum):
    """Alpaca's order statuses. One we do not know becomes UNRECOGNISED, never a guess."""

    NEW = "new"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    DONE_FOR_DAY = "done_for_day"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REPLACED = "replaced"
    PENDING_CANCEL = "pending_cancel"
    PENDING_REPLACE = "pending_replace"
    PENDING_REVIEW = "pending_review"
    ACCEPTED = "accepted"
    PENDING_NEW = "pending_new"
    ACCEPTED_FOR_BIDDING = "accepted_for_bidding"
    STOPPED = "stopped"
    REJECTED = "rejected"
    SUSPENDED = "suspended"
    CALCULATED = "calculated"
    HELD = "held"
    UNRECOGNISED = "unrecognised"

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL_AT_BROKER


_TERMINAL_AT_BROKER = frozenset(
    {
        BrokerStatus.FILLED,
        BrokerStatus.CANCELED,
        BrokerStatus.EXPIRED,
        BrokerStatus.REJECTED,
        BrokerStatus.REPLACED,
    }
)


def client_order_id(*, account: str, strategy: str, session: date, decision: str, leg: Leg, generation: int) -> str:
    """Same intent, same id: the broker refuses the twin, we look up the first.

    `"op-" + base32(sha256(account | strategy | session | decision | leg | generation))`, 48 characters
    (225 of the 256 bits). `decision` is the symbol decided on: one decision per symbol and session.
    """
    intent = "|".join((account, strategy, session.isoformat(), decision, leg, str(generation)))
    digest = base64.b32encode(hashlib.sha256(intent.encode()).digest()).decode().lower()
    return f"{OUR_PREFIX}{digest[:45]}"


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """What we ask of the broker: whole shares, one client order id, nothing left to a default."""

    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal  # shares
    order_type: OrderType
    time_in_force: TimeInForce
    order_class: OrderClass = OrderClass.SIMPLE
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    take_profit_price: Decimal | None = None  # bracket and OCO
    stop_loss_price: Decimal | None = None  # bracket and OCO

    def __post_init__(self) -> None:
        name = f"order {self.client_order_id} for {self.symbol}"
        if self.quantity <= 0 or self.quantity != self.quantity.to_integral_value():
            raise ValueError(f"{name}: quantity {self.quantity}, a whole number of shares above 0 is needed")
        if self.order_type in (OrderType.LIMIT, OrderType.STOP_LIMIT) and self.limit_price is None:
            raise ValueError(f"{name}: a {self.order_type} order needs a limit price, found none")
        if self.order_type in (OrderType.STOP, OrderType.STOP_LIMIT) and self.stop_price is None:
            raise ValueError(f"{name}: a {self.order_type} order needs a stop price, found none")
        if self.order_class in (OrderClass.BRACKET, OrderClass.OCO) and (
            self.take_profit_price is None or self.stop_loss_price is None
        ):
            raise ValueError(f"{name}: a {self.order_class} order needs take-profit and stop-loss prices")
        for label, price in (
            ("limit", self.limit_price),
            ("stop", self.stop_price),
            ("take-profit", self.take_profit_price),
            ("stop-loss", self.stop_loss_price),
        ):
            if price is not None and price <= 0:
                raise ValueError(f"{name}: {label} price {price}, a price above 0 is needed")


@dataclass(frozen=True, slots=True)
class BrokerOrder:
    """An order as the broker reports it. `legs` are the children of a bracket, OCO or OTO."""

    broker_order_id: str
    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    filled_quantity: Decimal
    filled_avg_price: Decimal | None
    order_type: OrderType
    order_class: OrderClass
    time_in_force: str
    limit_price: Decimal | None
    stop_price: Decimal | None
    status: BrokerStatus
    submitted_at: datetime
    updated_at: datetime
    replaced_by: str | None = None
    replaces: str | None = None
    legs: tuple[BrokerOrder, ...] = field(default=())

    def __post_init__(self) -> None:
        require_utc(f"order {self.broker_order_id} submitted_at", self.submitted_at)

    @property
    def remaining(self) -> Decimal:
        return self.quantity - self.filled_quantity
