"""The same agendas on a simulated exchange whose clock we move: whole sessions in seconds, without Prefect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from desk.errors import OnepathError
from desk.exchange.exchange import Exchange
from desk.market import Session, at_new_york
from flows.close_of_day import close_of_day
from flows.position_monitor import position_monitor
from flows.premarket_screening import premarket_screening
from flows.trading import trading

__all__ = ["DayRun", "rehearse"]

_MINUTE = timedelta(minutes=1)


@dataclass
class DayRun:
    """What a session's stages said. `failures` are stages that failed, with their cause: the day goes on without."""

    session: date
    failures: list[str] = field(default_factory=list)


def rehearse(exchange: Exchange, session: Session, *, on_minute: Callable[[datetime], None] | None = None) -> DayRun:
    """One session, minute by minute, in the current office."""
    day = DayRun(session.day)
    for due, stage in timetable(session):
        exchange.set_clock(max(due, exchange.now))
        if on_minute is not None:
            on_minute(due)
        try:
            stage()
        except OnepathError as error:
            day.failures.append(f"{session.day} {stage.name}: {error}")
    return day


def timetable(session: Session) -> Sequence[tuple[datetime, Callable[[], object]]]:
    """Each stage at its time: screening, the monitor each minute, trading ten minutes in, the close."""
    minutes = int((session.closes - session.opens) / _MINUTE)
    stages: list[tuple[datetime, Callable[[], object]]] = [
        (at_new_york(session.day, "04:00"), premarket_screening),
        (session.opens + 10 * _MINUTE, trading),
        (session.closes + 15 * _MINUTE, close_of_day),
    ]
    stages += [(session.opens + minute * _MINUTE, position_monitor) for minute in range(minutes)]
    return sorted(stages, key=lambda entry: entry[0])
