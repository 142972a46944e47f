"""Synthetic bars without a defect, to plant defects in: a market factor, own moves, volume that grows with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from desk.exchange.sessions import sessions_between
from expectations.audit.panel import Panel, build

Floats = npt.NDArray[np.float64]
PRICES = ("open", "high", "low", "close")
COLUMNS = (*PRICES, "volume", "split", "dividend", "factor")
_EPOCH = date(1970, 1, 1)


@dataclass
class Bars:
    """Every column as (sessions, symbols), to be changed in place; what is not `kept` has no row."""

    days: npt.NDArray[np.int64]
    names: list[str]
    columns: dict[str, Floats]
    kept: npt.NDArray[np.bool_]
    extra: list[tuple[int, int, int]] = field(default_factory=list)  # rows once more: session, symbol, another day

    def __getitem__(self, column: str) -> Floats:
        return self.columns[column]

    def day(self, session: int) -> date:
        return _EPOCH + timedelta(days=int(self.days[session]))

    def scale(self, rows: slice | int, symbol: int, by: float) -> None:
        """Multiply all prices of some sessions of a symbol."""
        for name in PRICES:
            self[name][rows, symbol] *= by

    def rows(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], dict[str, Floats]]:
        """Symbol codes, days and columns, sorted by symbol and day; the extra rows at the end."""
        symbol, session = np.nonzero(self.kept.T)
        more = np.array(self.extra, dtype=np.int64).reshape(-1, 3)
        at = np.append(session, more[:, 0]), np.append(symbol, more[:, 1])
        days = np.append(self.days[session], more[:, 2])
        return at[1].astype(np.int64), days, {name: self[name][at] for name in COLUMNS}

    def panel(self, order: npt.NDArray[np.intp] | None = None) -> Panel:
        """`order`: another sequence of the rows in the file."""
        code, days, columns = self.rows()
        if order is not None:
            code, days = code[order], days[order]
            columns = {name: values[order] for name, values in columns.items()}
        return build(
            names=self.names,
            code=code,
            day=days,
            prices={name: columns[name] for name in PRICES},
            volume=columns["volume"],
            extras={name: columns[name] for name in ("split", "dividend", "factor")},
        )

    def write(self, path: Path) -> Path:
        """The same as a Parquet file with the columns that files in use have."""
        code, days, columns = self.rows()
        table = {
            "symbol": pa.array(np.array(self.names, dtype=object)[code].tolist()),
            "date": pa.array(days.astype(np.int32)).cast(pa.date32()),
            **{name: pa.array(columns[name].astype(np.float32)) for name in PRICES},
            "volume": pa.array(columns["volume"].astype(np.int64)),
            "dividend": pa.array(columns["dividend"]),
            "split": pa.array(columns["split"]),
            "adj_factor": pa.array(columns["factor"]),
        }
        pq.write_table(pa.table(table), path)
        return path


def clean_bars(*, symbols: int = 40, start: date = date(2019, 1, 2), sessions: int = 160, seed: int = 7) -> Bars:
    """Raw daily bars. Every fifth symbol splits 2 for 1, every fourth pays a dividend, as the columns say; none
    of them within 30 sessions or less."""
    span = sessions_between(start, start + timedelta(days=int(sessions * 1.6) + 10))[:sessions]
    days = np.array([(each.day - _EPOCH).days for each in span], dtype=np.int64)
    random = np.random.default_rng(seed)
    shape = sessions, symbols
    volatility = random.uniform(0.008, 0.03, symbols)
    own = np.clip(random.standard_t(5, shape), -6, 6) * volatility * 0.75
    moves = 0.008 * random.standard_normal((sessions, 1)) + own
    close = random.uniform(10, 200, symbols) * np.exp(np.cumsum(moves, axis=0))
    before = np.vstack([close[:1], close[:-1]])
    open_ = before * np.exp(0.4 * moves + 0.2 * volatility * random.standard_normal(shape))
    wicks = volatility * np.abs(random.standard_normal((2, *shape))) * 0.5
    volume = np.exp(random.uniform(11, 15, symbols) + 0.3 * random.standard_normal(shape) + 8 * np.abs(own))
    columns = {
        "open": open_,
        "high": np.maximum(open_, close) * np.exp(wicks[0]),
        "low": np.minimum(open_, close) * np.exp(-wicks[1]),
        "close": close,
        "volume": np.floor(volume),
        "split": np.ones(shape),
        "dividend": np.zeros(shape),
        "factor": np.ones(shape),
    }
    bars = Bars(days, [f"S{i:03d}" for i in range(symbols)], columns, np.ones(shape, dtype=bool))
    for symbol in range(0, symbols if sessions > 30 else 0, 5):
        _split(bars, sessions // 3 + symbol % 7, symbol)
    for symbol in range(0, symbols if sessions > 30 else 0, 4):
        _dividend(bars, sessions // 2 + symbol % 11, symbol)
    return bars


def _split(bars: Bars, session: int, symbol: int) -> None:
    bars.scale(slice(session, None), symbol, 0.5)
    bars["volume"][session:, symbol] *= 2
    bars["split"][session, symbol] = 2.0
    bars["factor"][:session, symbol] *= 0.5


def _dividend(bars: Bars, session: int, symbol: int) -> None:
    """One percent of the close, and the price falls by it."""
    paid = 0.01 * bars["close"][session, symbol]
    fall = bars["close"][session, symbol] / (bars["close"][session, symbol] + paid)
    bars.scale(slice(session, None), symbol, fall)
    bars["dividend"][session, symbol] = paid * fall
    bars["factor"][:session, symbol] *= fall
