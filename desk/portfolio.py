"""What the account holds and what happened to it, as the broker reports it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from desk.market import require_utc
from desk.orders import Side

__all__ = ["Account", "Adjustment", "CashMovement", "Fill", "Position", "shares"]


def shares(quantity: Decimal) -> str:
    """A quantity for people: the ledger's nine decimals without their zeros."""
    return f"{quantity.normalize():f}"


@dataclass(frozen=True, slots=True)
class Account:
    """Amounts in USD."""

    number: str
    status: str
    equity: Decimal
    last_equity: Decimal  # at the previous close
    cash: Decimal
    buying_power: Decimal
    long_market_value: Decimal
    trading_blocked: bool


@dataclass(frozen=True, slots=True)
class Position:
    """Shares held of one symbol; negative when short."""

    symbol: str
    asset_id: str
    quantity: Decimal
    available: Decimal  # not held for open sell orders
    avg_entry_price: Decimal
    current_price: Decimal | None
    market_value: Decimal | None


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution, keyed by the broker's activity id. Never edited; a bust is a new fact."""

    activity_id: str
    broker_order_id: str
    symbol: str
    side: Side
    quantity: Decimal  # shares, above 0
    price: Decimal  # USD per share
    at: datetime

    def __post_init__(self) -> None:
        require_utc(f"fill {self.activity_id}", self.at)
        if self.quantity <= 0 or self.price <= 0:
            raise ValueError(
                f"fill {self.activity_id} of {self.symbol}: {self.quantity} shares at {self.price}, "
                "both must be above 0"
            )


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A change of a position that no order caused: a split, with cash paid for the fraction."""

    activity_id: str
    symbol: str
    kind: str  # "split"
    day: date  # ex-date
    quantity_change: Decimal  # shares, signed
    ratio: Decimal  # new shares per old
    cash: Decimal  # USD paid in lieu of a fraction


@dataclass(frozen=True, slots=True)
class CashMovement:
    """Cash that came or went without a fill or a split: a dividend, interest, a fee, a deposit."""

    activity_id: str
    kind: str  # the broker's word: "DIV", "FEE", "CSD"
    day: date
    amount: Decimal  # USD, signed
