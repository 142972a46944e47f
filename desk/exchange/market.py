"""The seam inside the simulated exchange: what the matching engine needs to know of a market.

Two markets exist: synthetic (seeded) and recorded (Parquet). The engine asks, the market answers; the
market never sees an order. All answers are a pure function of (market, arguments): same seed, same answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal, NamedTuple, Protocol

from desk.market import Session

__all__ = ["BarRow", "CorporateAction", "Listing", "Market", "Tick"]


class Tick(NamedTuple):
    """The market of one symbol at one moment. Prices are USD, already on the tick grid.

    Floats, because thousands are walked per session; the engine converts what it fills to Decimal.
    """

    at: float  # epoch seconds, UTC
    bid: float
    ask: float
    last: float  # last trade
    volume: int  # shares traded since the previous tick


@dataclass(frozen=True, slots=True)
class Listing:
    """A symbol of this market. `asset_id` is a UUID that survives a rename."""

    symbol: str
    asset_id: str
    name: str  # the synthetic market's names say "Synthetic"
    exchange: str  # NASDAQ, NYSE, ARCA, AMEX
    listed: date
    delisted: date | None = None  # first day it no longer trades


@dataclass(frozen=True, slots=True)
class CorporateAction:
    """Takes effect before the open of `day` (the ex-date)."""

    symbol: str
    day: date
    kind: Literal["split", "dividend", "delisting"]
    value: Decimal  # split: new shares per old; dividend: USD per share; delisting: last price


class BarRow(NamedTuple):
    """One bar as the data API serves it."""

    at: datetime  # bar open, UTC; daily bars: New York midnight
    open: float
    high: float
    low: float
    close: float
    volume: int
    trades: int
    vwap: float


class Market(Protocol):
    @property
    def label(self) -> str:
        """For people, shown everywhere: "synthetic, seed 7" or "recorded, sp500_daily_2016_2020.parquet"."""
        ...

    def sessions(self) -> Sequence[Session]:
        """All sessions of this market, oldest first (half days and DST as the real exchange had them)."""
        ...

    def listings(self) -> Sequence[Listing]: ...

    def corporate_actions(self, day: date) -> Sequence[CorporateAction]:
        """What takes effect before the open of `day`."""
        ...

    def tick(self, symbol: str, at: datetime) -> Tick | None:
        """The latest tick at or before `at`, also outside of session; None before the first."""
        ...

    def ticks(self, symbol: str, after: datetime, until: datetime) -> Sequence[Tick]:
        """Regular-session ticks in (after, until], oldest first: one at each open, then at least one a minute,
        and every extreme of the bar is touched by some tick's `last`."""
        ...

    def daily_bars(
        self, symbols: Sequence[str], start: date, end: date, *, adjustment: str, known_at: datetime
    ) -> dict[str, list[BarRow]]:
        """Completed daily bars with start <= day <= end, as known at `known_at` (a session's bar is
        complete at its close; "split" adjustment uses only splits effective by then)."""
        ...

    def minute_bars(
        self, symbols: Sequence[str], start: datetime, end: datetime, *, minutes: int, known_at: datetime
    ) -> dict[str, list[BarRow]]:
        """Completed intraday bars with start <= bar open <= end, consistent with `ticks`."""
        ...
