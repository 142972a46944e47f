"""What a market knows, and answering for it: sessions, listings, bars as traded, the ticks inside each day.

Both markets are a `Book`: the synthetic one and a recorded daily file walk a seeded path through each daily bar
(`DailyBook`), a recorded minute file walks its own bars (`desk.exchange.minutebook`). Nothing here looks ahead: a
bar exists once it is complete, a split once its ex-date has begun in New York.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from desk.errors import BadInput
from desk.exchange.daypath import AT, Path, day_path, minutes_of_path
from desk.exchange.market import BarRow, CorporateAction, Listing, Tick
from desk.market import NEW_YORK, Session, at_new_york

__all__ = ["ADJUSTMENTS", "Bars", "Book", "BookedMarket", "DailyBook"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ADJUSTMENTS = ("raw", "split", "dividend", "all")
_PATHS_KEPT = 2048  # symbol-days, about 16 KB each
_SHARES_PER_TRADE = 120  # a typical print; bars state a number of trades nobody recorded


@dataclass(frozen=True, slots=True)
class Bars:
    """Daily bars as traded, any number of rows. `row_of` finds them: (symbols, sessions), -1 where there is none."""

    open: Floats  # USD, on the tick grid
    high: Floats
    low: Floats
    close: Floats
    volume: Ints  # shares
    row_of: npt.NDArray[np.int32]

    def ohlc(self, row: int) -> tuple[float, float, float, float]:
        return float(self.open[row]), float(self.high[row]), float(self.low[row]), float(self.close[row])


class _Factor(NamedTuple):
    """What a corporate action does to the bars before it."""

    session: int  # of the ex-date, index
    price: float
    shares: float


class Book(ABC):
    """Answers the questions of `desk.exchange.market.Market` from daily bars and a way to walk through a day."""

    def __init__(
        self,
        *,
        sessions: Sequence[Session],
        listings: Sequence[Listing],
        bars: Bars,
        actions: Sequence[CorporateAction],
        seed: int,
    ) -> None:
        """listings: in the order of the rows of `bars.row_of`; sessions: of its columns, oldest first."""
        self.sessions = tuple(sessions)
        self.listings = tuple(listings)
        self.bars = bars
        self.seed = seed
        self._days = [session.day for session in self.sessions]
        self._opens = [session.opens.timestamp() for session in self.sessions]
        self._closes = [session.closes.timestamp() for session in self.sessions]
        self._midnights = [at_new_york(session.day, "00:00") for session in self.sessions]
        self._place = {listing.symbol: place for place, listing in enumerate(self.listings)}
        self._paths: dict[tuple[int, int], Path] = {}
        self._paths_lock = threading.Lock()  # requests and streams ask from threads of their own
        self._actions: Mapping[date, tuple[CorporateAction, ...]] = _by_day(actions)
        splits, dividends = self._factors(actions, "split"), self._factors(actions, "dividend")
        both = {place: splits.get(place, []) + dividends.get(place, []) for place in {*splits, *dividends}}
        self._factors_of = {"split": splits, "dividend": dividends, "all": both}

    @abstractmethod
    def _walk(self, place: int, session: int, row: int) -> Path:
        """The ticks of one symbol's day, (5, ticks)."""

    @abstractmethod
    def _minutes(self, place: int, session: int, row: int) -> tuple[Ints, Floats, int]:
        """Intraday bars of one symbol's day: starts (n,) epoch seconds, (5, n) open, high, low, close and volume,
        and the length of a bar in seconds."""

    # -- ticks ---------------------------------------------------------------------------------------------------

    def tick(self, symbol: str, at: datetime) -> Tick | None:
        """The latest tick at or before `at`; None before the first, and for a symbol this market does not know."""
        place = self._place.get(symbol)
        if place is None:
            return None
        moment = at.timestamp()
        session = bisect_right(self._opens, moment) - 1
        while (session := self._latest_session(place, session)) >= 0:
            path = self._path(place, session)
            found = int(path[AT].searchsorted(moment, side="right")) - 1
            if found >= 0:
                return _tick(path[:, found].tolist())
            session -= 1
        return None

    def ticks(self, symbol: str, after: datetime, until: datetime) -> list[Tick]:
        """Ticks in (after, until], oldest first; none for an unknown symbol."""
        place = self._place.get(symbol)
        if place is None:
            return []
        begin, end = after.timestamp(), until.timestamp()
        found: list[Tick] = []
        # A session touches (after, until] when it has not closed by `after` and has opened by `until`.
        for session in range(bisect_right(self._closes, begin), bisect_right(self._opens, end)):
            if self.bars.row_of[place, session] >= 0:
                path = self._path(place, session)
                times = path[AT]
                chosen = path[:, times.searchsorted(begin, side="right") : times.searchsorted(end, side="right")]
                found += map(_tick, chosen.T.tolist())
        return found

    def _latest_session(self, place: int, session: int) -> int:
        """The latest session up to `session` in which the symbol has a bar; -1 when there is none."""
        if session < 0:
            return -1
        rows = self.bars.row_of[place]
        if rows[session] >= 0:
            return session
        present = np.flatnonzero(rows[:session] >= 0)
        return int(present[-1]) if present.size else -1

    def _path(self, place: int, session: int) -> Path:
        """The ticks of a symbol-day that has a bar; the latest used ones are kept."""
        key = (place, session)
        with self._paths_lock:
            path = self._paths.pop(key, None)
            if path is None:
                path = self._walk(place, session, int(self.bars.row_of[place, session]))
                if len(self._paths) >= _PATHS_KEPT:
                    del self._paths[next(iter(self._paths))]
            self._paths[key] = path  # last in, last to be dropped
        return path

    # -- bars ----------------------------------------------------------------------------------------------------

    def daily_bars(
        self, symbols: Sequence[str], start: date, end: date, *, adjustment: str, known_at: datetime
    ) -> dict[str, list[BarRow]]:
        """See `Market.daily_bars`. Symbols without bars are absent. Raises BadInput for an unknown adjustment."""
        if adjustment not in ADJUSTMENTS:
            raise BadInput(f"adjustment: {adjustment!r} is not one of {', '.join(ADJUSTMENTS)}")
        first = bisect_left(self._days, start)
        complete = bisect_right(self._closes, known_at.timestamp())
        last = min(bisect_right(self._days, end), complete)
        known = [symbol for symbol in dict.fromkeys(symbols) if symbol in self._place]
        if first >= last or not known:
            return {}
        places = np.fromiter((self._place[symbol] for symbol in known), dtype=np.intp, count=len(known))
        rows = self.bars.row_of[places, first:last]
        present = rows >= 0
        picked = rows[present]
        session_of = np.nonzero(present)[1] + first
        ends = np.cumsum(present.sum(axis=1)).tolist()
        prices = np.stack(
            [self.bars.open[picked], self.bars.high[picked], self.bars.low[picked], self.bars.close[picked]]
        )
        volume = self.bars.volume[picked]
        if adjustment != "raw":
            prices, volume = self._adjusted(places, ends, session_of, prices, volume, adjustment, known_at)
        rows_out = _bar_rows([self._midnights[i] for i in session_of.tolist()], prices, volume)
        begins = [0, *ends[:-1]]
        return {s: rows_out[b:e] for s, b, e in zip(known, begins, ends, strict=True) if e > b}

    def minute_bars(
        self, symbols: Sequence[str], start: datetime, end: datetime, *, minutes: int, known_at: datetime
    ) -> dict[str, list[BarRow]]:
        """See `Market.minute_bars`; as traded, aligned to the New York clock (an hour's first bar is stamped 09:00)."""
        if minutes < 1:
            raise BadInput(f"minutes: {minutes} is not a bar length; give at least 1")
        begin, stop, known = start.timestamp(), end.timestamp(), known_at.timestamp()
        # A bar may be stamped before the open (09:00 for 09:30): look from the session that begins after it too.
        first = bisect_right(self._closes, begin)
        last = bisect_right(self._opens, min(stop + 60.0 * minutes, known))
        answer: dict[str, list[BarRow]] = {}
        for symbol in dict.fromkeys(symbols):
            place = self._place.get(symbol)
            if place is None:
                continue
            found: list[BarRow] = []
            for session in range(first, last):
                if self.bars.row_of[place, session] >= 0:
                    found += self._session_bars(place, session, 60 * minutes, (begin, stop, known))
            if found:
                answer[symbol] = found
        return answer

    def _session_bars(self, place: int, session: int, length: int, span: tuple[float, float, float]) -> list[BarRow]:
        starts, bars, own_length = self._minutes(place, session, int(self.bars.row_of[place, session]))
        if not starts.size:
            return []
        midnight = int(self._midnights[session].timestamp())
        length = max(length, own_length)  # what was recorded in 5 minutes cannot be told apart by minute
        # Counting from midnight is safe: New York changes its clocks on Sundays.
        bucket = midnight + (starts - midnight) // length * length
        heads = np.flatnonzero(np.diff(bucket, prepend=bucket[0] - 1))
        tails = np.append(heads[1:], len(starts)) - 1
        begin, stop, known = span
        stamps = bucket[heads]
        complete_at = np.minimum(stamps + length, self._closes[session])
        chosen = (stamps >= begin) & (stamps <= stop) & (complete_at <= known)
        prices = np.stack(
            [
                bars[0, heads],
                np.maximum.reduceat(bars[1], heads),
                np.minimum.reduceat(bars[2], heads),
                bars[3, tails],
            ]
        )[:, chosen]
        volume = np.add.reduceat(bars[4], heads)[chosen].astype(np.int64)
        return _bar_rows([datetime.fromtimestamp(at, UTC) for at in stamps[chosen].tolist()], prices, volume)

    # -- corporate actions ---------------------------------------------------------------------------------------

    def corporate_actions(self, day: date) -> tuple[CorporateAction, ...]:
        return self._actions.get(day, ())

    def _factors(self, actions: Sequence[CorporateAction], kind: str) -> dict[int, list[_Factor]]:
        """By place of the symbol: what each split or dividend does to prices and shares before it."""
        factors: dict[int, list[_Factor]] = defaultdict(list)
        for action in actions:
            if action.kind != kind:
                continue
            place, session = self._place[action.symbol], bisect_left(self._days, action.day)
            value = float(action.value)
            if kind == "split":
                factors[place].append(_Factor(session, 1.0 / value, value))
                continue
            before = self._latest_session(place, session - 1)
            close = float(self.bars.close[self.bars.row_of[place, before]]) if before >= 0 else 0.0
            if value < close:  # a pay-out above the price adjusts nothing sensibly
                factors[place].append(_Factor(session, 1.0 - value / close, 1.0))
        return dict(factors)

    def _adjusted(
        self,
        places: npt.NDArray[np.intp],
        ends: list[int],
        session_of: npt.NDArray[np.intp],
        prices: Floats,
        volume: Ints,
        adjustment: str,
        known_at: datetime,
    ) -> tuple[Floats, Ints]:
        """Prices and volumes on the basis of `known_at`: only what has taken effect by then is applied."""
        effective = bisect_right(self._days, known_at.astimezone(NEW_YORK).date())
        price_factor = np.ones(len(session_of))
        share_factor = np.ones(len(session_of))
        factors = self._factors_of[adjustment]
        begin = 0
        for place, stop in zip(places.tolist(), ends, strict=True):
            for session, price, shares in factors.get(place, ()):
                if session < effective and begin < stop and session > session_of[begin]:
                    before = begin + int(session_of[begin:stop].searchsorted(session))
                    price_factor[begin:before] *= price
                    share_factor[begin:before] *= shares
            begin = stop
        untouched = price_factor == 1.0
        adjusted = np.where(untouched, prices, np.round(prices * price_factor, 4))
        return adjusted, np.rint(volume * share_factor).astype(np.int64)


class DailyBook(Book):
    """A book of daily bars: each day is a seeded path through its bar."""

    def _walk(self, place: int, session: int, row: int) -> Path:
        symbol, volume = self.listings[place].symbol, int(self.bars.volume[row])
        return day_path(symbol, self.sessions[session], self.bars.ohlc(row), volume, self.seed)

    def _minutes(self, place: int, session: int, row: int) -> tuple[Ints, Floats, int]:
        return *minutes_of_path(self._path(place, session)), 60


class BookedMarket(ABC):
    """A `Market` that answers from its book."""

    @property
    @abstractmethod
    def label(self) -> str: ...

    @property
    @abstractmethod
    def book(self) -> Book: ...

    def sessions(self) -> Sequence[Session]:
        return self.book.sessions

    def listings(self) -> Sequence[Listing]:
        return self.book.listings

    def corporate_actions(self, day: date) -> Sequence[CorporateAction]:
        return self.book.corporate_actions(day)

    def tick(self, symbol: str, at: datetime) -> Tick | None:
        return self.book.tick(symbol, at)

    def ticks(self, symbol: str, after: datetime, until: datetime) -> Sequence[Tick]:
        return self.book.ticks(symbol, after, until)

    def daily_bars(
        self, symbols: Sequence[str], start: date, end: date, *, adjustment: str, known_at: datetime
    ) -> dict[str, list[BarRow]]:
        return self.book.daily_bars(symbols, start, end, adjustment=adjustment, known_at=known_at)

    def minute_bars(
        self, symbols: Sequence[str], start: datetime, end: datetime, *, minutes: int, known_at: datetime
    ) -> dict[str, list[BarRow]]:
        return self.book.minute_bars(symbols, start, end, minutes=minutes, known_at=known_at)


def _tick(values: list[float]) -> Tick:
    at, bid, ask, last, volume = values
    return Tick(at, bid, ask, last, int(volume))


def _bar_rows(at: Sequence[datetime], prices: Floats, volume: Ints) -> list[BarRow]:
    """Rows for the data API; trades and vwap are estimates, nobody recorded them. prices: (4, n)."""
    trades = -(-volume // _SHARES_PER_TRADE)
    vwap = np.round(prices.mean(axis=0), 4)
    columns = zip(at, *prices.tolist(), volume.tolist(), trades.tolist(), vwap.tolist(), strict=True)
    return [BarRow._make(row) for row in columns]


def _by_day(actions: Sequence[CorporateAction]) -> dict[date, tuple[CorporateAction, ...]]:
    days: dict[date, list[CorporateAction]] = defaultdict(list)
    for action in actions:
        days[action.day].append(action)
    return {day: tuple(found) for day, found in days.items()}
