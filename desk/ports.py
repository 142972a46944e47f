"""The ports: what live, paper, replay and simulation plug in differently. Nothing else differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Literal, Protocol

from desk.market import Asset, MarketClock, Quote, Session
from desk.orders import BrokerOrder, OrderRequest
from desk.portfolio import Account, Adjustment, CashMovement, Fill, Position

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Broker", "MarketData", "Waiter"]


class Broker(Protocol):
    """One trading account at one broker.

    Every call may raise Transient (nothing changed), Refused (definitive no), Ambiguous (only calls that
    change something: it may have happened) or Halt (bad keys, blocked account). No call may be made while
    a database connection is checked out: `desk.guard` raises.
    """

    @property
    def venue(self) -> str:
        """What is traded on, for people: "alpaca live", "alpaca paper", "simulated: synthetic, seed 7"."""
        ...

    def account(self) -> Account: ...

    def clock(self) -> MarketClock: ...

    def calendar(self, start: date, end: date) -> list[Session]:
        """Sessions from start to end, both inclusive, oldest first."""
        ...

    def assets(self) -> list[Asset]:
        """Active US equities, by symbol."""
        ...

    def submit(self, request: OrderRequest) -> BrokerOrder:
        """Send one order once. Never repeated here: repeating is the resolver's decision."""
        ...

    def order(self, client_order_id: str) -> BrokerOrder | None:
        """The order with its legs, or None when the broker says it has none of that id (404)."""
        ...

    def orders(
        self,
        *,
        status: Literal["open", "closed", "all"],
        after: datetime | None = None,
        symbols: Sequence[str] = (),
    ) -> list[BrokerOrder]:
        """All matching orders (paged to the end), legs nested under their parents, oldest first."""
        ...

    def cancel(self, broker_order_id: str) -> None:
        """Ask for a cancel. A fill may still win; a terminal order is not an error here."""
        ...

    def positions(self) -> list[Position]:
        """By symbol."""
        ...

    def fills(self, after: datetime) -> list[Fill]:
        """Executions later than or at `after` (paged to the end), oldest first."""
        ...

    def adjustments(self, after: date) -> list[Adjustment]:
        """Splits applied to the account since that day, oldest first."""
        ...

    def cash_movements(self, after: date) -> list[CashMovement]:
        """Dividends, interest, fees, deposits and withdrawals booked on that day or later, oldest first."""
        ...


class MarketData(Protocol):
    def daily_bars(self, symbols: Sequence[str], start: date, end: date) -> pd.DataFrame:
        """Split-adjusted daily bars, start to end inclusive.

        Columns: symbol (str), session (datetime.date), open, high, low, close (float64 USD),
        volume (int64 shares). Sorted by symbol, then session; symbols without bars are absent.
        """
        ...

    def quotes(self, symbols: Iterable[str]) -> Mapping[str, Quote]:
        """Latest quotes in one call (batched only by URL length). A symbol without a quote is absent."""
        ...


class Waiter(Protocol):
    """How to let time pass. The wall clock live; on a standing virtual clock, waiting moves it."""

    def wait(self, seconds: float) -> None: ...
