"""What a market-data request asks for, read from its query string. Malformed parts are 400, as Alpaca answers."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from desk.exchange.book import ADJUSTMENTS
from desk.exchange.routing import ApiError, Query
from desk.market import NEW_YORK, at_new_york, require_utc

__all__ = ["HistoryQuery", "Timeframe", "bad_request", "check_source", "read_symbols", "read_timeframe"]

LIMIT_MAX, LIMIT_DEFAULT = 10_000, 1_000  # points over all symbols
FEEDS = ("sip", "iex", "delayed_sip", "otc", "boats", "overnight")

_SYMBOL = re.compile(r"[A-Z][A-Z0-9./-]*")
_TIMEFRAME = re.compile(r"(\d{1,2})(Min|T|Hour|H|Day|D|Week|W|Month|M)")
_DAY_ONLY = re.compile(r"\d{4}-\d{2}-\d{2}")
_DAY = timedelta(days=1)
_UNITS = {"T": "Min", "H": "Hour", "D": "Day", "W": "Week", "M": "Month"}
_LENGTHS = {"Min": range(1, 60), "Hour": range(1, 24), "Day": (1,), "Week": (1,), "Month": (1, 2, 3, 6, 12)}


def bad_request(message: str) -> ApiError:
    """The data API's refusals carry a message and no code."""
    return ApiError(400, None, message)


@dataclass(frozen=True, slots=True)
class Timeframe:
    """Length of a bar."""

    count: int
    unit: Literal["Min", "Hour", "Day", "Week", "Month"]

    @property
    def minutes(self) -> int | None:
        """Length in minutes; None for a day and longer."""
        return {"Min": self.count, "Hour": 60 * self.count}.get(self.unit)

    def first_day(self, day: date) -> date:
        """The calendar day that stamps the bar holding `day`, for bars of a day and longer."""
        if self.unit == "Week":
            return day - timedelta(days=day.weekday())
        if self.unit == "Month":
            return date(day.year, (day.month - 1) // self.count * self.count + 1, 1)
        return day

    def last_day(self, day: date) -> date:
        """The last calendar day of the bar holding `day`."""
        if self.unit == "Week":
            return self.first_day(day) + timedelta(days=6)
        if self.unit == "Month":
            return self.first_day(self.first_day(day) + timedelta(days=31 * self.count)) - _DAY
        return day


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """A request for bars, quotes or trades over a span, start and end inclusive."""

    symbols: tuple[str, ...]  # in the order rows are served: by symbol
    start: datetime
    end: datetime
    limit: int
    newest_first: bool
    resume: tuple[str, datetime] | None  # symbol and time of the last point already served
    adjustment: str

    @classmethod
    def read(cls, query: Query, now: datetime) -> HistoryQuery:
        """Raises ApiError 400. Without a start, the span begins with the New York day of `now`."""
        check_source(query)
        today = now.astimezone(NEW_YORK).date()
        start = _moment(query, "start", end_of_day=False) or at_new_york(today, "00:00")
        end = _moment(query, "end", end_of_day=True) or now
        if end < start:
            raise bad_request("end should not be before start")
        symbols = read_symbols(query)
        sort = _choice(query, "sort", ("asc", "desc")) or "asc"
        return cls(
            symbols=tuple(sorted(symbols)),
            start=start,
            end=end,
            limit=_limit(query),
            newest_first=sort == "desc",
            resume=_resume(query),
            adjustment=_choice(query, "adjustment", ADJUSTMENTS) or "raw",
        )

    def token(self, symbol: str, at: datetime) -> str:
        """Where the next page goes on."""
        return base64.urlsafe_b64encode(f"{symbol}|{at.isoformat()}".encode()).decode()

    def remaining(self) -> tuple[str, ...]:
        """Symbols that still have something to serve."""
        if self.resume is None:
            return self.symbols
        return tuple(symbol for symbol in self.symbols if symbol >= self.resume[0])


def check_source(query: Query) -> None:
    """Feed, currency (USD alone) and the day symbols are meant as of. Raises ApiError 400."""
    _choice(query, "feed", FEEDS)
    _choice(query, "currency", ("USD",))
    asof = query.get("asof")
    if asof and asof != "-" and not _DAY_ONLY.fullmatch(asof):
        raise bad_request(f"invalid asof: {asof}")


def read_symbols(query: Query) -> tuple[str, ...]:
    """The distinct symbols asked for, in the order given. Raises ApiError 400."""
    names = [name.strip() for name in query.get("symbols", "").split(",")]
    names = [name for name in dict.fromkeys(names) if name]
    if not names:
        raise bad_request("symbols is required")
    for name in names:
        if not _SYMBOL.fullmatch(name):
            raise bad_request(f"invalid symbol: {name}")
    return tuple(names)


def read_timeframe(query: Query) -> Timeframe:
    """Raises ApiError 400 when it is missing or none that exists."""
    text = query.get("timeframe", "")
    if not text:
        raise bad_request("timeframe is required")
    match = _TIMEFRAME.fullmatch(text)
    if match is None:
        raise bad_request(f"invalid timeframe: {text}")
    count, unit = int(match[1]), _UNITS.get(match[2], match[2])
    if count not in _LENGTHS[unit]:
        raise bad_request(f"invalid timeframe: {text}")
    return Timeframe(count, unit)  # type: ignore[arg-type]  # the pattern holds no other unit


def _choice(query: Query, name: str, allowed: Sequence[str]) -> str | None:
    value = query.get(name)
    if value and value not in allowed:
        raise bad_request(f"invalid {name}: {value}")
    return value or None


def _limit(query: Query) -> int:
    text = query.get("limit")
    if not text:
        return LIMIT_DEFAULT
    if not text.isdecimal() or not 1 <= int(text) <= LIMIT_MAX:
        raise bad_request(f"invalid limit: {text}: it must be between 1 and {LIMIT_MAX}")
    return int(text)


def _moment(query: Query, name: str, *, end_of_day: bool) -> datetime | None:
    """A time with offset (without one: UTC), or a whole New York day."""
    text = query.get(name)
    if not text:
        return None
    try:
        if _DAY_ONLY.fullmatch(text):
            day = date.fromisoformat(text)
            return (
                at_new_york(day + _DAY, "00:00") - timedelta(microseconds=1)
                if end_of_day
                else at_new_york(day, "00:00")
            )
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # an unescaped plus arrives as a space
    except (ValueError, OverflowError) as error:
        raise bad_request(f"invalid {name}: {text}") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _resume(query: Query) -> tuple[str, datetime] | None:
    text = query.get("page_token")
    if not text:
        return None
    try:
        symbol, at = base64.urlsafe_b64decode(text.encode()).decode().split("|")
        moment = datetime.fromisoformat(at)
        require_utc("page_token", moment)
        return symbol, moment
    except (ValueError, binascii.Error) as error:
        raise bad_request("invalid page_token") from error
