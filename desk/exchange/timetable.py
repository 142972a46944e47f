"""When the simulated exchange trades."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

from desk.market import NEW_YORK, Session, at_new_york

__all__ = ["Boundary", "Timetable", "extended_hours"]


class Boundary(NamedTuple):
    """A session's open or close."""

    at: datetime
    at_s: float  # the same, epoch seconds
    session: Session
    opens: bool


def extended_hours(session: Session) -> tuple[datetime, datetime]:
    """When extended hours begin and end on that day."""
    return at_new_york(session.day, "04:00"), at_new_york(session.day, "17:00" if session.is_half_day else "20:00")


class Timetable:
    """A market's sessions, searchable by time. Beyond the last one, the clock promises ordinary weekdays
    (nothing trades then: there is no market any more)."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._set(sessions)

    def close_early(self, day: date, closes: datetime) -> Session:
        """The session of that day ends at another time than was planned. Returns it."""
        index = bisect_left(self.days, day)
        changed = Session(day, self.sessions[index].opens, closes)
        self._set([*self.sessions[:index], changed, *self.sessions[index + 1 :]])
        return changed

    def _set(self, sessions: Sequence[Session]) -> None:
        self.sessions = tuple(sessions)
        self.days = [session.day for session in self.sessions]
        self._boundaries = [
            Boundary(at, at.timestamp(), session, opens)
            for session in self.sessions
            for at, opens in ((session.opens, True), (session.closes, False))
        ]
        self._times = [boundary.at_s for boundary in self._boundaries]

    def next_boundary(self, after_s: float) -> Boundary | None:
        """The first open or close later than `after_s`."""
        index = bisect_right(self._times, after_s)
        return self._boundaries[index] if index < len(self._boundaries) else None

    def session_at(self, now_s: float) -> Session | None:
        """The session trading at that moment, opening included, close excluded."""
        index = bisect_right(self._times, now_s) - 1
        if index < 0 or not self._boundaries[index].opens:
            return None
        return self._boundaries[index].session

    def closed_before(self, now_s: float) -> Session | None:
        """The last session that has closed by then, leaving out one that closes today in New York:
        "yesterday's close" in positions and account."""
        today = datetime.fromtimestamp(now_s, NEW_YORK).date()
        index = bisect_left(self.days, today) - 1
        return self.sessions[index] if index >= 0 else None

    def next_open(self, now: datetime, now_s: float) -> datetime:
        index = bisect_right(self._times, now_s)
        if index < len(self._times) and not self._boundaries[index].opens:
            index += 1
        if index < len(self._times):
            return self._boundaries[index].at
        return self._weekday_after(now, "09:30")

    def next_close(self, now: datetime, now_s: float) -> datetime:
        index = bisect_right(self._times, now_s)
        if index < len(self._times) and self._boundaries[index].opens:
            index += 1
        if index < len(self._times):
            return self._boundaries[index].at
        return self._weekday_after(now, "16:00")

    def extended_day(self, now_s: float) -> tuple[float, float] | None:
        """Epoch seconds from and until which the extended hours of the present or the next session day last: 04:00
        to 20:00, on a half day to 17:00. None beyond the last session."""
        index = bisect_left(self.days, datetime.fromtimestamp(now_s, NEW_YORK).date())
        for session in self.sessions[index : index + 2]:
            begin, end = extended_hours(session)
            if now_s < end.timestamp():
                return begin.timestamp(), end.timestamp()
        return None

    def session_of(self, day: date) -> Session | None:
        index = bisect_left(self.days, day)
        return self.sessions[index] if index < len(self.days) and self.days[index] == day else None

    def between(self, start: date | None, end: date | None) -> Sequence[Session]:
        """Sessions with start <= day <= end."""
        first = 0 if start is None else bisect_left(self.days, start)
        last = len(self.days) if end is None else bisect_right(self.days, end)
        return self.sessions[first:last]

    def settles(self, day: date) -> date:
        """When a trade of that session settles: one session later, two before 2024-05-28."""
        ahead = 1 if day >= date(2024, 5, 28) else 2
        index = bisect_left(self.days, day) + ahead
        return self.days[index] if index < len(self.days) else day + timedelta(days=ahead)

    @staticmethod
    def _weekday_after(now: datetime, hhmm: str) -> datetime:
        day = now.astimezone(NEW_YORK).date() + timedelta(days=1)
        while day.weekday() >= 5:
            day += timedelta(days=1)
        return at_new_york(day, hhmm)
