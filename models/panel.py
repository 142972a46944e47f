"""Bars as one dense block: (session, symbol) arrays, NaN where there is no bar.

One panel feeds features, screener and, later, the market environment: a per-symbol loop over a long frame
costs seconds, the same arithmetic on the block milliseconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from desk.errors import BadInput

__all__ = ["FIELDS", "Panel", "build_panel"]

FIELDS = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """Prices (USD, split-adjusted) and volume (shares) as float32 (session, symbol), NaN: no bar."""

    sessions: tuple[date, ...]  # oldest first
    symbols: tuple[str, ...]  # sorted when built without a list of symbols
    open: NDArray[np.float32]
    high: NDArray[np.float32]
    low: NDArray[np.float32]
    close: NDArray[np.float32]
    volume: NDArray[np.float32]

    def __post_init__(self) -> None:
        shape = (len(self.sessions), len(self.symbols))
        for name in FIELDS:
            if (found := getattr(self, name).shape) != shape:
                raise ValueError(f"panel: {name} has shape {found}, (sessions, symbols) {shape} is needed")

    @property
    def data_hash(self) -> str:
        """sha256 over symbols, sessions and arrays: same bars, same hash, on any machine."""
        named = {"symbols": self.symbols, "sessions": [day.isoformat() for day in self.sessions]}
        digest = hashlib.sha256(json.dumps(named, separators=(",", ":")).encode())
        for name in FIELDS:
            values = getattr(self, name)
            one_nan_one_zero = np.where(np.isnan(values), np.float32("nan"), values) + np.float32(0)
            digest.update(np.ascontiguousarray(one_nan_one_zero, dtype="<f4").tobytes())
        return digest.hexdigest()

    def tail(self, sessions: int) -> Panel:
        """The last `sessions` sessions (all, when there are fewer)."""
        return Panel(self.sessions[-sessions:], self.symbols, *(getattr(self, name)[-sessions:] for name in FIELDS))


def build_panel(frame: pd.DataFrame, sessions: Sequence[date], symbols: Sequence[str] | None = None) -> Panel:
    """The bars of `frame` in `sessions`, as a panel.

    frame: columns symbol, session (dates or datetime64), open, high, low, close, volume, in any order of rows.
    sessions: oldest first, the calendar of the panel; bars before or after it are left out. symbols: the
    columns of the panel; by default, all of the frame, sorted.

    Raises BadInput for a missing column, two bars of one symbol and session, or a bar on a day within the
    panel that is no session.
    """
    missing = [name for name in ("symbol", "session", *FIELDS) if name not in frame.columns]
    if missing:
        raise BadInput(f"bars without {', '.join(missing)}; found columns {', '.join(map(str, frame.columns))}")
    days = np.array(sessions, dtype="datetime64[D]")
    names, of_symbol = _codes(frame["symbol"], symbols)
    bar_days = frame["session"].to_numpy().astype("datetime64[D]")
    inside = (
        (of_symbol >= 0) & (bar_days >= days[0]) & (bar_days <= days[-1]) if days.size else np.zeros(len(frame), bool)
    )
    of_session = np.searchsorted(days, bar_days[inside])
    cells = of_session * len(names) + of_symbol[inside]
    _refuse_strangers(names, days, bar_days[inside], of_session, of_symbol[inside], cells)

    arrays = []
    for name in FIELDS:
        block = np.full(days.size * len(names), np.nan, dtype=np.float32)
        block[cells] = frame[name].to_numpy(dtype=np.float32, na_value=np.nan)[inside]
        arrays.append(block.reshape(days.size, len(names)))
    return Panel(tuple(sessions), names, *arrays)


def _codes(column: pd.Series, symbols: Sequence[str] | None) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """Names of the panel's columns, and each row's place among them (-1: not wanted)."""
    codes, found = pd.factorize(column, sort=True)
    if symbols is None:
        return tuple(map(str, found)), codes
    place = {symbol: at for at, symbol in enumerate(symbols)}
    mapped = np.array([*(place.get(str(symbol), -1) for symbol in found), -1], dtype=np.intp)
    return tuple(symbols), mapped[codes]


def _refuse_strangers(
    names: Sequence[str],
    days: NDArray[np.datetime64],
    bar_days: NDArray[np.datetime64],
    of_session: NDArray[np.intp],
    of_symbol: NDArray[np.intp],
    cells: NDArray[np.intp],
) -> None:
    strange = np.flatnonzero(days[of_session] != bar_days) if cells.size else cells
    if strange.size:
        at = strange[0]
        raise BadInput(f"bars: {names[of_symbol[at]]} has a bar on {bar_days[at]}, which is not a session")
    filled = np.bincount(cells, minlength=1)
    if cells.size and filled.max() > 1:
        session, symbol = divmod(int(filled.argmax()), len(names))
        raise BadInput(f"bars: {filled.max()} bars of {names[symbol]} on {days[session]}, one is needed")
