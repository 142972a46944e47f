"""What a reader of the ledger sees: rows as values, put together by `desk.ledger.telling`.

Times are aware UTC by the broker's clock, money and prices USD, quantities shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

__all__ = [
    "AccountFact",
    "DecisionFact",
    "EventFact",
    "FillFact",
    "MonitorExit",
    "OrderFact",
    "ScoredFact",
    "ScreeningFact",
    "TradeFact",
    "VerdictFact",
    "WatchFact",
]


@dataclass(frozen=True, slots=True)
class AccountFact:
    account: str
    broker: str  # "simulated", "paper" or "live"
    venue: str  # "simulated: synthetic, seed 7"


@dataclass(frozen=True, slots=True)
class ScreeningFact:
    """One session's screening as a whole."""

    session: date
    screener: str
    data_hash: str  # sha256 of the panel that was scored
    last_bar: date
    universe: int
    eligible: int
    screened_at: datetime
    listed: int  # rows of the watchlist


@dataclass(frozen=True, slots=True)
class ScoredFact:
    """One row of a watchlist."""

    symbol: str
    rank: int
    buy_probability: float
    sell_probability: float
    last_close: Decimal
    volume_20d: int
    features: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class DecisionFact:
    session: date
    strategy: str
    strategy_version: int
    symbol: str
    action: str
    decider: str
    policy_digest: str | None
    input_hash: str
    reason: str
    quantity: Decimal
    reference_price: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    target_price: Decimal | None
    buy_probability: float | None
    sell_probability: float | None
    equity: Decimal  # of the account when it was decided
    buying_power: Decimal
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class VerdictFact:
    """What one control said about one order, sent or not."""

    client_order_id: str
    control: str
    session: date
    symbol: str
    allowed: bool
    limit: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class EventFact:
    sequence: int
    state: str
    detail: Mapping[str, object]
    at: datetime


@dataclass(frozen=True, slots=True)
class FillFact:
    activity_id: str
    client_order_id: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal
    filled_at: datetime


@dataclass(frozen=True, slots=True)
class OrderFact:
    """One order with its history and its fills. A leg made by the broker names its parent."""

    client_order_id: str
    parent_client_order_id: str | None
    session: date  # of the decision that opened the trade
    strategy: str
    strategy_version: int
    symbol: str
    leg: str
    generation: int
    side: str
    order_type: str
    order_class: str
    time_in_force: str
    quantity: Decimal
    limit_price: Decimal | None
    stop_price: Decimal | None
    take_profit_price: Decimal | None
    stop_loss_price: Decimal | None
    reason: str
    state: str
    broker_order_id: str | None
    filled_quantity: Decimal
    filled_avg_price: Decimal | None
    attempt: int
    created_at: datetime
    sent_at: datetime | None
    updated_at: datetime
    events: tuple[EventFact, ...] = ()
    fills: tuple[FillFact, ...] = ()


@dataclass(frozen=True, slots=True)
class TradeFact:
    """One position from entry to exit. `profit` is realised, USD."""

    strategy: str
    strategy_version: int
    session: date  # of the entry decision
    symbol: str
    entry_client_order_id: str
    quantity: Decimal
    entry_price: Decimal
    entered_at: datetime
    stop_price: Decimal
    target_price: Decimal
    high_water_price: Decimal
    hold_until: date
    status: str  # "open" or "closed"
    quantity_closed: Decimal
    exit_price: Decimal | None
    exited_at: datetime | None
    close_reason: str | None
    profit: Decimal | None

    @property
    def is_open(self) -> bool:
        return self.status == "open"


@dataclass(frozen=True, slots=True)
class MonitorExit:
    """The monitor decided in this cycle to close a position."""

    cycle_at: datetime
    session: date
    symbol: str
    reason: str


@dataclass(frozen=True, slots=True)
class WatchFact:
    """Monitor cycles of a span of time, summed up."""

    cycles: int
    red: int
    quote_age_max_s: float | None
    stops_verified_max: int
    first_at: datetime | None
    last_at: datetime | None
