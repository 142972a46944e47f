"""Bars as sorted arrays, the one structure that every detector reads.

Nothing is repaired here: defective rows stay in the panel until `Panel.clean` leaves them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["DAY_S", "Flags", "Floats", "Ints", "Panel", "build", "daily_of", "starts_of"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

DAY_S = 86_400
REGULAR_S = (9 * 3600 + 1800, 16 * 3600)  # the regular session in seconds of the New York day


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """Rows sorted by symbol, then time, then place in the file. All arrays have one entry per row, except `heads`."""

    names: tuple[str, ...]  # of the series: the symbol
    details: tuple[str, ...]  # of the series: what tells it from another of the same symbol ("raw"), or ""
    is_daily: bool
    code: Ints  # index into names
    day: Ints  # New York calendar day, days since 1970-01-01
    second: Ints  # New York seconds of the day at which the bar begins; 0 in daily files
    row: Ints  # place in the file
    place: Ints  # place in the sorted panel before any row was left out
    open: Floats  # USD, as the file has them; NaN where missing
    high: Floats
    low: Floats
    close: Floats
    volume: Floats  # shares
    split: Floats | None  # new shares per old on the ex-date, 1 = none; None: the file does not say
    dividend: Floats | None  # USD per share on the ex-date
    factor: Floats | None  # total-return close = close x factor
    counted: Floats | None  # intraday bars that a daily bar is made of
    heads: Ints  # (series + 1,): series i owns rows heads[i] up to heads[i + 1]

    def __len__(self) -> int:
        return self.code.size

    @property
    def moment(self) -> Ints:
        """Seconds of New York wall time since 1970-01-01: what bars of one moment share."""
        return self.day * DAY_S + self.second

    @property
    def regular(self) -> Flags:
        """Rows inside the hours of a regular session; all of them in daily files."""
        if self.is_daily:
            return np.ones(len(self), dtype=bool)
        return (self.second >= REGULAR_S[0]) & (self.second < REGULAR_S[1])

    @property
    def priced(self) -> Flags:
        """Rows whose four prices exist and are positive."""
        prices = (self.open, self.high, self.low, self.close)
        usable: Flags = np.logical_and.reduce([np.isfinite(price) & (price > 0) for price in prices])
        return usable

    @property
    def repeated(self) -> Flags:
        """Rows whose symbol and time the row before already has."""
        flags = np.zeros(len(self), dtype=bool)
        flags[1:] = (np.diff(self.code) == 0) & (np.diff(self.day) == 0) & (np.diff(self.second) == 0)
        return flags

    def name(self, row: int) -> str:
        return str(self.names[self.code[row]])

    def detail(self, row: int) -> str:
        """What evidence has to add to the symbol: ", raw", or nothing."""
        found = self.details[self.code[row]]
        return f", {found}" if found else ""

    def clock(self, row: int) -> str:
        """The bar's beginning, "09:35 "; nothing in daily files."""
        if self.is_daily:
            return ""
        second = int(self.second[row])
        return f"{second // 3600:02d}:{second % 3600 // 60:02d} "

    def take(self, keep: Flags) -> Panel:
        """The rows of `keep` alone. Series without rows keep their place."""
        if keep.all():
            return self
        kept: dict[str, Any] = {
            field.name: value[keep]
            for field in fields(self)
            if field.name != "heads" and isinstance(value := getattr(self, field.name), np.ndarray)
        }
        return replace(self, **kept, heads=starts_of(self.code[keep], len(self.names)))

    def clean(self) -> Panel:
        """Without rows that cannot be computed with: no positive prices, no volume, or a time that came before."""
        return self.take(self.priced & np.isfinite(self.volume) & (self.volume >= 0) & ~self.repeated)


def starts_of(code: Ints, series: int) -> Ints:
    """Where each series begins in sorted codes, and the end after the last: (series + 1,)."""
    found: Ints = np.searchsorted(code, np.arange(series + 1)).astype(np.int64)
    return found


def build(
    *,
    names: Sequence[str],
    code: Ints,
    day: Ints,
    prices: dict[str, Floats],
    volume: Floats,
    details: Sequence[str] | None = None,
    second: Ints | None = None,
    extras: dict[str, Floats | None] | None = None,
) -> Panel:
    """A panel from rows in any order.

    names: one per code, in the order the codes stand for; they need not be sorted or distinct.
    second: None for daily bars. extras: split, dividend, factor, counted; what is absent is None.
    """
    clock = np.zeros(code.size, dtype=np.int64) if second is None else second
    labels = [""] * len(names) if details is None else list(details)
    ranked = sorted(range(len(names)), key=lambda i: (names[i], labels[i]))
    rank = np.empty(len(names), dtype=np.int64)
    rank[ranked] = np.arange(len(names))
    ranks = rank[code]
    moment = day * DAY_S + clock
    in_order = bool((np.diff(ranks) >= 0).all()) and bool(((np.diff(ranks) > 0) | (np.diff(moment) >= 0)).all())
    order = np.arange(code.size) if in_order else np.lexsort((moment, ranks))
    more = extras or {}
    sorted_more = {name: None if (values := more.get(name)) is None else values[order] for name in _EXTRAS}
    return Panel(
        names=tuple(names[i] for i in ranked),
        details=tuple(labels[i] for i in ranked),
        is_daily=second is None,
        code=ranks[order],
        day=day[order],
        second=clock[order],
        row=order.astype(np.int64),
        place=np.arange(code.size),
        open=prices["open"][order],
        high=prices["high"][order],
        low=prices["low"][order],
        close=prices["close"][order],
        volume=volume[order],
        split=sorted_more["split"],
        dividend=sorted_more["dividend"],
        factor=sorted_more["factor"],
        counted=sorted_more["counted"],
        heads=starts_of(ranks[order], len(names)),
    )


_EXTRAS = ("split", "dividend", "factor", "counted")


def daily_of(panel: Panel) -> Panel:
    """One bar a day from the regular hours of clean intraday bars; `row` is the day's first row in `panel`."""
    kept = np.flatnonzero(panel.regular)
    code, day = panel.code[kept], panel.day[kept]
    changes = (np.diff(code, prepend=-1) != 0) | (np.diff(day, prepend=-1) != 0)
    first = np.flatnonzero(changes)
    last = np.append(first[1:], kept.size) - 1
    if first.size == 0:
        return replace(panel.take(np.zeros(len(panel), dtype=bool)), is_daily=True)
    codes = code[first]
    return replace(
        panel,
        is_daily=True,
        code=codes,
        day=day[first],
        second=np.zeros(first.size, dtype=np.int64),
        row=kept[first].astype(np.int64),
        place=np.arange(first.size),
        open=panel.open[kept[first]],
        high=np.maximum.reduceat(panel.high[kept], first),
        low=np.minimum.reduceat(panel.low[kept], first),
        close=panel.close[kept[last]],
        volume=np.add.reduceat(panel.volume[kept], first),
        split=None,
        dividend=None,
        factor=None,
        counted=None,
        heads=starts_of(codes, len(panel.names)),
    )
