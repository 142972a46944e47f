"""A market replayed from a Parquet file of real bars, at the prices a live account would have seen.

A file whose prices are split-adjusted is un-adjusted within itself: prices are as traded before each recorded
split, and the split takes effect on its ex-date. Splits after the file's end are unknown to it: those remain in
the prices. Odd ratios such as 1.319 are spin-offs written as splits; they are applied like any split (cash in
lieu of fractions is the account's matter). Which kind a file is, its own splits tell: in a file as traded the
price jumps by the ratio. Sessions are the file's days on which the exchange was open; other rows are left out and
counted. A symbol whose rows end before the file does is delisted on the next session (daily files only).
"""

from __future__ import annotations

import uuid
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from desk.errors import BadInput
from desk.exchange.book import Bars, Book, BookedMarket, DailyBook
from desk.exchange.datafile import BarFile, load_bars
from desk.exchange.daypath import on_grid
from desk.exchange.market import CorporateAction, Listing
from desk.exchange.minutebook import MinuteBook
from desk.exchange.sessions import sessions_between
from desk.market import Session

__all__ = ["FileNotes", "RecordedMarket"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_EPOCH = date(1970, 1, 1)
_EXCHANGES = {"nasdaq": "NASDAQ", "nyse": "NYSE", "nysemkt": "AMEX", "amex": "AMEX", "arca": "ARCA"}
_TELLING = np.log(1.2)  # a smaller split drowns in an ordinary day's move


@dataclass(frozen=True, slots=True)
class FileNotes:
    """What was found and done while a file became a market. Nothing of it is silent."""

    prices: Literal["as traded", "split-adjusted"]  # as the file has them
    rows: int  # in the file
    rows_widened: int  # high or low moved to include open and close
    widened_max: float  # the largest such move, as a fraction of the price
    rows_out_of_session: int  # left out: a closed day, or outside regular hours
    splits_at_odds: int  # recorded splits whose prices contradict the rest of the file; applied all the same

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a reader has to know, one sentence each; none when nothing had to be done."""
        found = []
        if self.prices == "split-adjusted":
            found.append("prices are split-adjusted; shown as traded, splits take effect on their days")
        if self.rows_widened:
            found.append(
                f"{self.rows_widened} of {self.rows} bars widened to include open and close, by at most "
                f"{100 * self.widened_max:.1f} %"
            )
        if self.rows_out_of_session:
            found.append(f"{self.rows_out_of_session} of {self.rows} bars left out: outside of regular sessions")
        if self.splits_at_odds:
            found.append(f"{self.splits_at_odds} recorded splits do not show in the prices")
        return tuple(found)


class RecordedMarket(BookedMarket):
    """Bars of `path`, daily or intraday; `seed` chooses the paths inside them. Raises BadInput, see `load_bars`."""

    def __init__(self, path: str | Path, *, seed: int = 0) -> None:
        file = load_bars(path)
        self.path = file.path
        self._book, self.notes = _daily(file, seed) if file.kind == "daily" else _intraday(file, seed)

    @property
    def label(self) -> str:
        return f"recorded, {self.path.name}"

    @property
    def book(self) -> Book:
        return self._book


def _daily(file: BarFile, seed: int) -> tuple[Book, FileNotes]:
    places = np.repeat(np.arange(len(file.symbols)), np.diff(file.starts))
    adjusted, at_odds = _split_adjusted(file, places)
    ahead = _splits_ahead(file) if adjusted else np.ones(len(file.when))
    sessions = _sessions(file.path, file.when)
    session_of, open_day = _columns(sessions, file.when)

    row_of = np.full((len(file.symbols), len(sessions)), -1, dtype=np.int32)
    row_of[places[open_day], session_of[open_day]] = np.flatnonzero(open_day)
    traded = on_grid(np.stack([file.open, file.high, file.low, file.close]) * ahead)
    shares = np.rint(file.volume / ahead).astype(np.int64)
    bars = Bars(traded[0], traded[1], traded[2], traded[3], shares, row_of)
    listings = _listings(file, sessions, row_of, delists=True)
    actions = _actions(file, sessions, listings, row_of, bars.close, ahead)
    notes = FileNotes(
        prices="split-adjusted" if adjusted else "as traded",
        rows=len(file.when),
        rows_widened=file.widened,
        widened_max=file.widened_max,
        rows_out_of_session=int((~open_day).sum()),
        splits_at_odds=at_odds,
    )
    return DailyBook(sessions=sessions, listings=listings, bars=bars, actions=actions, seed=seed), notes


def _intraday(file: BarFile, seed: int) -> tuple[Book, FileNotes]:
    """Prices as the file has them: intraday files record no splits."""
    length = _bar_length(file)
    days = file.when // 86_400  # regular hours of New York lie within one UTC day
    sessions = _sessions(file.path, days)
    kept = _in_hours(sessions, days, file.when, length)[0]
    if not kept.any():
        raise BadInput(f"{file.path}: no bar inside a regular session; give bars between open and close")
    # A post-market bar belongs to the next UTC day, but makes no session of it.
    sessions = _sessions(file.path, days[kept])
    kept, session_of, opens = _in_hours(sessions, days, file.when, length)

    starts = np.maximum(file.when, opens)[kept]
    prices = on_grid(np.stack([file.open, file.high, file.low, file.close])[:, kept])
    volume = file.volume[kept]
    places = np.repeat(np.arange(len(file.symbols)), np.diff(file.starts))[kept]
    day_key = places * len(sessions) + session_of[kept]
    heads = np.flatnonzero(np.diff(day_key, prepend=-1))
    tails = np.append(heads[1:], len(starts)) - 1
    row_of = np.full((len(file.symbols), len(sessions)), -1, dtype=np.int32)
    row_of.reshape(-1)[day_key[heads]] = np.arange(len(heads))
    totals = Bars(
        open=prices[0, heads],
        high=np.maximum.reduceat(prices[1], heads),
        low=np.minimum.reduceat(prices[2], heads),
        close=prices[3, tails],
        volume=np.add.reduceat(volume, heads),
        row_of=row_of,
    )
    book = MinuteBook(
        sessions=sessions,
        listings=_listings(file, sessions, row_of, delists=False),
        days=totals,
        actions=(),
        seed=seed,
        starts=starts,
        prices=prices,
        volume=volume,
        first=np.append(heads, len(starts)).astype(np.int64),
        length=length,
    )
    left_out = len(file.when) - int(kept.sum())
    return book, FileNotes("as traded", len(file.when), file.widened, file.widened_max, left_out, 0)


def _in_hours(
    sessions: Sequence[Session], days: Ints, when: Ints, length: int
) -> tuple[npt.NDArray[np.bool_], Ints, Ints]:
    """For each row: whether it touches its session's regular hours, the session, and its open in epoch seconds."""
    session_of, open_day = _columns(sessions, days)
    opens = np.array([int(session.opens.timestamp()) for session in sessions])[session_of]
    closes = np.array([int(session.closes.timestamp()) for session in sessions])[session_of]
    return open_day & (when + length > opens) & (when < closes), session_of, opens


def _bar_length(file: BarFile) -> int:
    """Seconds per bar: the step most often taken. Raises BadInput when it does not divide an hour."""
    steps = np.diff(file.when)
    steps = steps[steps > 0]
    if not steps.size:
        raise BadInput(f"{file.path}: one bar per symbol only; give at least two, so that their length can be told")
    values, counts = np.unique(steps, return_counts=True)
    length = int(values[counts.argmax()])
    if length % 60 or 3600 % length:
        raise BadInput(f"{file.path}: bars are {length} s apart; give bars of 1 to 60 minutes that divide an hour")
    return length


def _sessions(path: Path, days: Ints) -> tuple[Session, ...]:
    """Sessions of the exchange on which the file has rows."""
    present = set(np.unique(days).tolist())
    first, last = _EPOCH + timedelta(days=min(present)), _EPOCH + timedelta(days=max(present))
    found = tuple(s for s in sessions_between(first, last) if (s.day - _EPOCH).days in present)
    if not found:
        raise BadInput(f"{path}: no row on a day the exchange was open, {first}..{last}; check the dates")
    return found


def _columns(sessions: Sequence[Session], days: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """For each row, the session it belongs to and whether there is one."""
    known = np.array([(session.day - _EPOCH).days for session in sessions], dtype=np.int64)
    column = np.minimum(known.searchsorted(days), len(known) - 1)
    return column, known[column] == days


def _split_rows(file: BarFile) -> npt.NDArray[np.intp]:
    """Rows of recorded splits that have a row of the same symbol before them."""
    if file.split is None:
        return np.empty(0, dtype=np.intp)
    rows = np.flatnonzero(file.split != 1.0)
    return rows[~np.isin(rows, file.starts)]


def _split_adjusted(file: BarFile, places: npt.NDArray[np.intp]) -> tuple[bool, int]:
    """Whether the file's prices already contain its splits, by the majority of those large enough to show; and how
    many disagree with it. Without such a split there is nothing to tell and nothing to undo."""
    rows = _split_rows(file)
    if file.split is None or not rows.size:
        return False, 0
    ratio = np.log(file.split[rows])
    fall = np.log(file.close[rows - 1] / file.open[rows])  # as traded, about log ratio; adjusted, about 0
    telling = np.abs(ratio) > _TELLING
    smooth = np.abs(fall) < np.abs(fall - ratio)
    votes = smooth[telling] if telling.any() else smooth
    adjusted = bool(votes.mean() > 0.5)
    return adjusted, int((votes != adjusted).sum())


def _splits_ahead(file: BarFile) -> Floats:
    """For each row, the product of the symbol's later split ratios within the file."""
    if file.split is None:
        return np.ones(len(file.when))
    ahead = np.ones(len(file.when))
    begins = file.starts[:-1]
    for row in _split_rows(file).tolist():
        begin = int(begins[begins.searchsorted(row, side="right") - 1])
        ahead[begin:row] *= file.split[row]
    return ahead


def _listings(
    file: BarFile, sessions: Sequence[Session], row_of: npt.NDArray[np.int32], *, delists: bool
) -> list[Listing]:
    listings = []
    for place, symbol in enumerate(file.symbols):
        present = np.flatnonzero(row_of[place] >= 0)
        first, last = (int(present[0]), int(present[-1])) if present.size else (0, len(sessions) - 1)
        code = file.exchanges[place].lower() if file.exchanges else ""
        listings.append(
            Listing(
                symbol=symbol,
                asset_id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"onepath:recorded:{symbol}")),
                name=symbol,
                exchange=_EXCHANGES.get(code, "NYSE"),
                listed=sessions[first].day,
                delisted=sessions[last + 1].day if delists and last + 1 < len(sessions) else None,
            )
        )
    return listings


def _actions(
    file: BarFile,
    sessions: Sequence[Session],
    listings: Sequence[Listing],
    row_of: npt.NDArray[np.int32],
    close: Floats,
    ahead: Floats,
) -> list[CorporateAction]:
    """Splits, dividends (USD per share as traded) and delistings, oldest first."""
    actions: list[CorporateAction] = []
    begins = file.starts[:-1]
    days = [session.day for session in sessions]

    def add(row: int, kind: Literal["split", "dividend"], value: np.float64) -> None:
        place = int(begins.searchsorted(row, side="right")) - 1
        session = bisect_left(days, _EPOCH + timedelta(days=int(file.when[row])))
        if session < len(days):  # one dated on a closed day takes effect on the next session
            actions.append(CorporateAction(file.symbols[place], days[session], kind, _decimal(value)))

    if file.split is not None:
        for row in _split_rows(file).tolist():
            add(row, "split", file.split[row])
    if file.dividend is not None:
        paid = np.flatnonzero(file.dividend > 0)
        for row in paid[~np.isin(paid, begins)].tolist():
            add(row, "dividend", file.dividend[row] * ahead[row])
    for place, listing in enumerate(listings):
        if listing.delisted is not None:
            last = row_of[place, : bisect_left(days, listing.delisted)].max()
            actions.append(CorporateAction(listing.symbol, listing.delisted, "delisting", _decimal(close[last])))
    return sorted(actions, key=lambda action: (action.day, action.symbol, action.kind))


def _decimal(value: np.float64) -> Decimal:
    """The decimal a file's float was written for."""
    return Decimal(f"{float(value):.6f}".rstrip("0").rstrip("."))
