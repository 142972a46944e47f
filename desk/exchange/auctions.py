"""Orders for the opening and the closing auction: when they may be sent, and at what price they fill.

An auction has one price for all: the session's first trade, or its last. What does not fill is cancelled.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta

from desk.exchange.admission import forbidden
from desk.exchange.market import Tick
from desk.exchange.timetable import Timetable
from desk.market import NEW_YORK

__all__ = ["AUCTIONS", "IMMEDIATE", "auction_tick", "refuse_outside_window"]

AUCTIONS = ("opg", "cls")
IMMEDIATE = ("ioc", "fok")

_EVENING = time(19)
_OPG_END = timedelta(minutes=2)  # before the open
_CLS_END = timedelta(minutes=10)  # before the close


def refuse_outside_window(time_in_force: str, now: datetime, timetable: Timetable) -> None:
    """opg orders are taken from 19:00 to 09:28 New York, cls orders from 19:00 to 15:50 (on a half day to ten
    minutes before the close). On a day without a session they are always taken, for the next one."""
    local = now.astimezone(NEW_YORK)
    session = timetable.session_of(local.date())
    if session is None or local.time() >= _EVENING:
        return
    if time_in_force == "opg" and now >= session.opens - _OPG_END:
        raise forbidden("opg orders must be submitted after 7:00pm and before 9:28am")
    if time_in_force == "cls" and now >= session.closes - _CLS_END:
        raise forbidden("cls orders must be submitted after 7:00pm and before 3:50pm")


def auction_tick(tick: Tick) -> Tick:
    """The auction's one price, on both sides."""
    return tick._replace(bid=tick.last, ask=tick.last)
