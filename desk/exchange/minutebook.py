"""A book of recorded intraday bars: each is walked as it is, open, both extremes in seeded order, close."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from desk.exchange.book import Bars, Book
from desk.exchange.daypath import ASK, AT, BID, LAST, VOLUME, Path, on_grid, quotes, rng_for
from desk.exchange.market import CorporateAction, Listing
from desk.market import Session

__all__ = ["MinuteBook"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class MinuteBook(Book):
    """Bars of `length` seconds in the regular session, one after another; minutes without a bar have no ticks."""

    def __init__(
        self,
        *,
        sessions: Sequence[Session],
        listings: Sequence[Listing],
        days: Bars,
        actions: Sequence[CorporateAction],
        seed: int,
        starts: Ints,
        prices: Floats,
        volume: Ints,
        first: Ints,
        length: int,
    ) -> None:
        """days: what each day's bars add up to. Intraday: starts (n,) epoch seconds, not before the session's open,
        prices (4, n), volume (n,). Daily row r owns intraday rows first[r] up to first[r + 1]."""
        super().__init__(sessions=sessions, listings=listings, bars=days, actions=actions, seed=seed)
        self._starts, self._prices, self._volume = starts, prices, volume
        self._first, self._length = first, length

    def _rows(self, row: int) -> slice:
        return slice(int(self._first[row]), int(self._first[row + 1]))

    def _walk(self, place: int, session: int, row: int) -> Path:
        rows = self._rows(row)
        starts, prices, volume = self._starts[rows], self._prices[:, rows], self._volume[rows]
        rng = rng_for(self.seed, self.listings[place].symbol, self.sessions[session].day)
        offsets, weights = self._steps()
        steps, bars = len(offsets), len(starts)
        low_first = rng.random(bars) < 0.5
        second, third = np.where(low_first, prices[2], prices[1]), np.where(low_first, prices[1], prices[2])
        corners = np.stack([prices[0], second, third, prices[3]])  # (4, bars)
        path = np.empty((5, bars * steps))
        # An hourly bar labelled 09:00 begins at the open: its walk is squeezed into what is left of the bar.
        ends = np.minimum((starts // self._length + 1) * self._length, int(self._closes[session]))
        path[AT] = np.floor(starts[:, None] + offsets * (ends - starts)[:, None] / self._length).reshape(-1)
        path[LAST] = on_grid(weights.T @ corners).T.reshape(-1)
        day = self.bars.ohlc(row)
        dollars = day[3] * float(self.bars.volume[row])
        path[BID], path[ASK] = quotes(path[LAST], day, dollars, rng.random(bars * steps))
        shares = np.floor(volume[:, None] * np.arange(1, steps + 1) / steps)
        path[VOLUME] = np.diff(shares, axis=1, prepend=0.0).reshape(-1)
        return path

    def _steps(self) -> tuple[Floats, Floats]:
        """When ticks fall within a bar, seconds (steps,), and their mix of its four corners (4, steps).

        Each corner is touched exactly, with at least a tick a minute; the last is a second before the bar ends.
        """
        length = self._length
        corners = np.floor(np.array([0.0, length / 3, 2 * length / 3, length - 1.0]))
        offsets = np.union1d(corners, np.arange(0.0, length - 1.0, 60.0)) if length > 60 else corners
        weights = np.stack([np.interp(offsets, corners, np.eye(4)[corner]) for corner in range(4)])
        return offsets, weights

    def _minutes(self, place: int, session: int, row: int) -> tuple[Ints, Floats, int]:
        rows = self._rows(row)
        return self._starts[rows], np.vstack([self._prices[:, rows], self._volume[rows]]), self._length
