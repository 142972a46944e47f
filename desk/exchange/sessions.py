"""Regular sessions of the New York Stock Exchange as they really were: holidays, half days, both DST changes."""

from __future__ import annotations

from datetime import UTC, date, timedelta
from functools import lru_cache

from exchange_calendars import get_calendar
from exchange_calendars.errors import CalendarError

from desk.errors import BadInput
from desk.market import Session

__all__ = ["sessions_between"]

EARLIEST = date(1990, 1, 1)  # before this the calendar itself is patchy
LATEST = date(2059, 12, 31)  # holidays further ahead are nobody's promise
_MARGIN = timedelta(days=10)  # a span of closed days alone cannot be asked for; none is this long


@lru_cache(maxsize=32)
def sessions_between(start: date, end: date) -> tuple[Session, ...]:
    """Sessions with start <= day <= end, oldest first; empty when the exchange is closed throughout.

    Takes about 0.2 s for any span, hence the cache. Raises BadInput outside 1990..2059 or when start is after end.
    """
    if start > end:
        raise BadInput(f"sessions: start {start} is after end {end}; give the earlier day first")
    if start < EARLIEST or end > LATEST:
        raise BadInput(f"sessions: {start}..{end} is outside the calendar {EARLIEST}..{LATEST}; choose days inside")
    try:
        calendar = get_calendar("XNYS", start=(start - _MARGIN).isoformat(), end=(end + _MARGIN).isoformat())
    except CalendarError as error:
        raise BadInput(f"sessions: no exchange calendar for {start}..{end}: {error}") from error
    schedule = calendar.schedule
    return tuple(
        Session(day.date(), opens.to_pydatetime().astimezone(UTC), closes.to_pydatetime().astimezone(UTC))
        for day, opens, closes in zip(schedule.index, schedule["open"], schedule["close"], strict=True)
        if start <= day.date() <= end
    )
