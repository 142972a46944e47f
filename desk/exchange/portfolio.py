"""GET /v2/account/portfolio/history: the account's worth over time.

Nothing is sampled while the clock runs: what was held at each moment is replayed from the account's activities and
valued at the market's last trade then (prices set by hand count for the present moment alone).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from desk.exchange.account import Activity
from desk.exchange.amounts import money
from desk.exchange.drafts import malformed
from desk.exchange.queries import read_choice, read_day, read_flag, read_moment, read_words
from desk.exchange.routing import Body, Params, Query, Reply, Route
from desk.exchange.timetable import extended_hours
from desk.market import NEW_YORK, Session, at_new_york

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange

__all__ = ["PORTFOLIO_ROUTES"]

_MINUTES = {"1Min": 1, "5Min": 5, "15Min": 15, "1H": 60}
_PERIOD = re.compile(r"(\d{1,3})([DWMA])")
_DAYS_IN = {"D": 1, "W": 7, "M": 30, "A": 365}
_DAYS_OF_MINUTES = 7  # 1Min is served for so many days at most, other intraday windows for 30
_DAYS_OF_INTRADAY = 30


@dataclass(frozen=True, slots=True)
class _Asked:
    start: datetime
    end: datetime
    timeframe: str
    reporting: str
    per_day: bool
    cashflows: tuple[str, ...]

    @property
    def step(self) -> timedelta | None:
        """Length of a window; None for a day."""
        minutes = _MINUTES.get(self.timeframe)
        return None if minutes is None else timedelta(minutes=minutes)


@dataclass(frozen=True, slots=True)
class _Window:
    label: datetime  # its begin
    end: datetime
    day: date


class _Replay:
    """The account as its activities tell it, moved forward in time."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._activities: Sequence[Activity] = exchange.account.activities
        self._next = 0
        self._cash = exchange.account.started_with
        self._held: dict[str, Decimal] = {}

    def worth_at(self, at: datetime) -> Decimal:
        """USD. Moments must not go back."""
        while self._next < len(self._activities) and self._activities[self._next].at <= at:
            self._apply(self._activities[self._next].document)
            self._next += 1
        if at >= self._exchange.now:
            return self._exchange.equity()
        tick = self._exchange.market.tick
        worth = self._cash
        for symbol, qty in self._held.items():
            price = tick(symbol, at) if qty else None
            worth += qty * money(price.last) if price is not None else Decimal(0)
        return worth

    def _apply(self, row: dict[str, Any]) -> None:
        symbol, qty = row["symbol"], Decimal(row["qty"])
        if row["activity_type"] == "FILL":
            signed = qty if row["side"] == "buy" else -qty
            self._held[symbol] = self._held.get(symbol, Decimal(0)) + signed
            self._cash -= signed * Decimal(row["price"])
            return
        self._cash += Decimal(row["net_amount"])
        if row["activity_type"] == "SPLIT":
            self._held[symbol] = self._held.get(symbol, Decimal(0)) + qty


def portfolio_history(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    """Windows that begin before the account was opened are left out; the running one ends now."""
    asked = _read(exchange, query)
    windows = list(_windows(exchange, asked))
    replay = _Replay(exchange)
    opened = exchange.account.opened
    base = exchange.account.started_with if asked.start <= opened else replay.worth_at(asked.start)
    equity, gains, fractions = list[float](), list[float](), list[float | None]()
    day, day_base, latest = None, base, base
    for window in windows:
        if asked.per_day and window.day != day:
            day, day_base = window.day, latest
        latest = replay.worth_at(window.end)
        against = day_base if asked.per_day else base
        equity.append(float(latest))
        gains.append(float(latest - against))
        fractions.append(float((latest - against) / against) if against else None)
    return 200, {
        "timestamp": [int(window.label.timestamp()) for window in windows],
        "equity": equity,
        "profit_loss": gains,
        "profit_loss_pct": fractions,
        "base_value": float(base),
        "base_value_asof": max(asked.start, opened).astimezone(NEW_YORK).date().isoformat(),
        "timeframe": asked.timeframe,
        "cashflow": {kind: _cashflow(exchange, kind, windows) for kind in asked.cashflows},
    }


def _cashflow(exchange: Exchange, kind: str, windows: Sequence[_Window]) -> list[float]:
    """USD in each window. A payment between windows counts to the next."""
    rows = [(one.at, Decimal(one.document["net_amount"])) for one in exchange.account.activities if one.kind == kind]
    sums, place = list[float](), 0
    for window in windows:
        total = Decimal(0)
        while place < len(rows) and rows[place][0] <= window.end:
            total += rows[place][1]
            place += 1
        sums.append(float(total))
    return sums


def _windows(exchange: Exchange, asked: _Asked) -> Iterator[_Window]:
    opened = exchange.account.opened
    for session in exchange.timetable.between(
        asked.start.astimezone(NEW_YORK).date(), asked.end.astimezone(NEW_YORK).date()
    ):
        if asked.step is None:
            midnight = at_new_york(session.day, "00:00")
            if session.opens <= asked.end and session.closes > opened and midnight >= asked.start:
                yield _Window(midnight, min(session.closes, exchange.now), session.day)
            continue
        begin, close = _reported(session, asked.reporting)
        while begin < close:
            end = min(begin + asked.step, close)
            if begin >= asked.start and begin < asked.end and end > opened:
                yield _Window(begin, min(end, exchange.now), session.day)
            begin = end


def _reported(session: Session, reporting: str) -> tuple[datetime, datetime]:
    if reporting == "market_hours":
        return session.opens, session.closes
    if reporting == "extended_hours":
        return extended_hours(session)
    return at_new_york(session.day, "00:00"), at_new_york(session.day + timedelta(days=1), "00:00")


def _read(exchange: Exchange, query: Query) -> _Asked:
    """Raises ApiError 422 for what cannot be."""
    now = exchange.now
    start, end = read_moment(query, "start"), read_moment(query, "end")
    last_day = read_day(query, "date_end")
    if end is None:
        end = now if last_day is None else at_new_york(last_day + timedelta(days=1), "00:00")
    end = min(end, now)
    days = _period_days(query)
    if start is not None and end is not None and query.get("period") and (query.get("end") or last_day):
        raise malformed("only two of start, end and period are accepted")
    if start is None:
        first_day = end.astimezone(NEW_YORK).date() - timedelta(days=days - 1)
        start = at_new_york(first_day, "00:00")
    if start > end:
        raise malformed(f"start {start.isoformat()} is after end {end.isoformat()}")
    span = (end - start).total_seconds() / 86_400
    default = "1Min" if span < _DAYS_OF_MINUTES else "15Min" if span < _DAYS_OF_INTRADAY else "1D"
    timeframe = read_choice(query, "timeframe", (*_MINUTES, "1D"), default)
    longest = {"1D": float("inf"), "1Min": _DAYS_OF_MINUTES + 1}.get(timeframe, _DAYS_OF_INTRADAY + 1)
    if span > longest:
        raise malformed(f"timeframe {timeframe} is not served for {span:.0f} days: at most {longest - 1:.0f}")
    reporting = "extended_hours" if read_flag(query, "extended_hours") else "market_hours"
    reporting = read_choice(query, "intraday_reporting", ("market_hours", "extended_hours", "continuous"), reporting)
    reset = read_choice(query, "pnl_reset", ("per_day", "no_reset"), "per_day")
    kinds = tuple(read_words(query, "cashflow_types"))
    if kinds == ("ALL",):
        kinds = ("DIV", "SPLIT")
    return _Asked(
        start=start.astimezone(UTC),
        end=end.astimezone(UTC),
        timeframe=timeframe,
        reporting=reporting,
        per_day=reset == "per_day" and timeframe != "1D",
        cashflows=() if kinds == ("NONE",) else tuple(kind for kind in kinds if kind != "FILL"),
    )


def _period_days(query: Query) -> int:
    period = query.get("period") or "1M"
    match = _PERIOD.fullmatch(period)
    if match is None or not int(match[1]):
        raise malformed(f"invalid period {period!r}: a number and D, W, M or A is needed, as 1M")
    return int(match[1]) * _DAYS_IN[match[2]]


PORTFOLIO_ROUTES: tuple[Route, ...] = (Route("GET", "/v2/account/portfolio/history", portfolio_history),)
