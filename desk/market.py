"""Market data and time as values: sessions, clock, assets, quotes.

Times are aware UTC unless a name says otherwise; prices are USD per share; sizes are shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

__all__ = ["NEW_YORK", "Asset", "MarketClock", "Quote", "Session", "at_new_york", "require_utc"]

NEW_YORK = ZoneInfo("America/New_York")


def require_utc(name: str, at: datetime) -> None:
    """Refuse a time without a zone. Raises ValueError naming the field and the value."""
    if at.utcoffset() is None:
        raise ValueError(f"{name}: time {at.isoformat()} has no zone, an aware UTC time is needed")


def at_new_york(day: date, hhmm: str) -> datetime:
    """The moment `hhmm` (24 h, New York wall clock) of `day`, in UTC."""
    hour, minute = hhmm.split(":")
    local = datetime(day.year, day.month, day.day, int(hour), int(minute), tzinfo=NEW_YORK)
    return local.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Session:
    """One regular trading session of the exchange."""

    day: date  # New York calendar day
    opens: datetime
    closes: datetime  # 16:00 New York, or 13:00 on a half day

    def __post_init__(self) -> None:
        require_utc(f"session {self.day} open", self.opens)
        require_utc(f"session {self.day} close", self.closes)
        if self.closes <= self.opens:
            raise ValueError(f"session {self.day}: close {self.closes} is not after open {self.opens}")

    @property
    def is_half_day(self) -> bool:
        return self.closes - self.opens < timedelta(hours=6)

    def contains(self, at: datetime) -> bool:
        return self.opens <= at < self.closes


@dataclass(frozen=True, slots=True)
class MarketClock:
    """The broker's clock. Whatever asks for the time asks this."""

    now: datetime
    is_open: bool
    next_open: datetime
    next_close: datetime

    def __post_init__(self) -> None:
        require_utc("broker clock", self.now)

    @property
    def today(self) -> date:
        """The New York calendar day."""
        return self.now.astimezone(NEW_YORK).date()


@dataclass(frozen=True, slots=True)
class Asset:
    """What can be traded, as the broker lists it."""

    symbol: str
    asset_id: str  # UUID; survives a rename of the symbol
    name: str
    exchange: str
    tradable: bool
    active: bool
    fractionable: bool
    shortable: bool


@dataclass(frozen=True, slots=True)
class Quote:
    """Best bid and offer. A price of 0 means: no active side."""

    symbol: str
    bid: Decimal
    ask: Decimal
    bid_size: Decimal
    ask_size: Decimal
    at: datetime

    def __post_init__(self) -> None:
        require_utc(f"quote of {self.symbol}", self.at)

    @property
    def mid(self) -> Decimal:
        return (self.bid + self.ask) / 2

    def age_s(self, now: datetime) -> float:
        """Seconds since the quote was made."""
        return (now - self.at).total_seconds()

    def unusable(self, now: datetime, *, age_s_max: float) -> str | None:
        """Why this quote must not decide anything, or None when it may."""
        if self.bid <= 0 or self.ask <= 0:
            return f"zero quote: bid {self.bid}, ask {self.ask}"
        if self.bid > self.ask:
            return f"crossed quote: bid {self.bid} above ask {self.ask}"
        if self.age_s(now) > age_s_max:
            return f"stale quote: {self.age_s(now):.0f} s old, at most {age_s_max:.0f} s allowed"
        return None
