"""The exchange's sessions, against its published calendar."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from desk.errors import BadInput
from desk.exchange.sessions import sessions_between
from desk.market import at_new_york
from tasks.shift import session_meant


def test_a_half_day_ends_at_one_in_new_york() -> None:
    """The day after Thanksgiving 2023, as the exchange announced it."""
    (friday,) = sessions_between(date(2023, 11, 24), date(2023, 11, 26))

    assert friday.is_half_day
    assert friday.closes == datetime(2023, 11, 24, 18, 0, tzinfo=UTC)


def test_the_open_moves_in_utc_when_new_york_changes_its_clock() -> None:
    """13:30 UTC in summer, 14:30 in winter: both changes of 2024."""
    opens = {s.day: s.opens.hour for s in sessions_between(date(2024, 3, 1), date(2024, 11, 30))}

    assert (opens[date(2024, 3, 8)], opens[date(2024, 3, 11)]) == (14, 13)
    assert (opens[date(2024, 11, 1)], opens[date(2024, 11, 4)]) == (13, 14)


@pytest.mark.parametrize("closed", [date(2023, 11, 23), date(2024, 3, 29), date(2025, 1, 9), date(2024, 3, 2)])
def test_a_closed_day_has_no_session(closed: date) -> None:
    """Thanksgiving, Good Friday, the day of mourning for President Carter, a Saturday."""
    assert sessions_between(closed, closed) == ()


def test_sessions_beyond_the_calendar_are_refused() -> None:
    with pytest.raises(BadInput, match=r"1950-01-01.*outside the calendar"):
        sessions_between(date(1950, 1, 1), date(1950, 2, 1))
    with pytest.raises(BadInput, match="start 2024-02-01 is after end 2024-01-01"):
        sessions_between(date(2024, 2, 1), date(2024, 1, 1))


def test_a_scheduled_run_retried_on_a_later_day_stays_with_its_own_session() -> None:
    monday, tuesday = date(2024, 3, 4), date(2024, 3, 5)
    due = at_new_york(monday, "09:40")

    assert session_meant(monday, due) == monday
    assert session_meant(tuesday, due) == monday


def test_a_run_somebody_asked_for_is_about_today_and_none_is_about_a_day_ahead() -> None:
    """A simulated broker may live in the past of the schedule's clock."""
    assert session_meant(date(2024, 3, 5), None) == date(2024, 3, 5)
    assert session_meant(date(2024, 3, 5), at_new_york(date(2026, 11, 24), "04:00")) == date(2024, 3, 5)


def test_the_evening_of_new_york_is_still_that_day() -> None:
    assert session_meant(date(2024, 3, 6), at_new_york(date(2024, 3, 5), "21:30")) == date(2024, 3, 5)
