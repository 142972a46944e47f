"""Reading a Parquet file of bars, and refusing what cannot be trusted.

Refused, in one line that names file, place, finding and remedy: a file that is missing or not Parquet, missing
columns, wrong types, no rows, missing values, prices that are not positive, negative volumes, dividends or
splits, two rows for one moment, rows out of order, and a high or low more than 20 % inside its bar.
Repaired and counted in `BarFile.widened`: open or close up to 20 % outside high and low, by widening the bar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from desk.errors import BadInput

__all__ = ["BarFile", "load_bars"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

WIDEN_MAX = 0.20  # of the price: files in use have up to 14 %; beyond it the row is wrong rather than imprecise
_PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True, slots=True)
class BarFile:
    """Bars sorted by symbol, then time. Symbol i owns rows starts[i] up to starts[i + 1]."""

    path: Path
    kind: Literal["daily", "minute"]
    symbols: tuple[str, ...]
    starts: Ints  # (symbols + 1,)
    when: Ints  # daily: days since 1970-01-01 (New York calendar day); minute: bar open, epoch seconds UTC
    open: Floats  # USD, as the file has them
    high: Floats
    low: Floats
    close: Floats
    volume: Ints  # shares
    split: Floats | None  # new shares per old on the ex-date, 1 = none; None: the file does not say
    dividend: Floats | None  # USD per share on the ex-date
    exchanges: tuple[str, ...] | None  # per symbol, as the file writes it
    widened: int  # rows whose high or low was moved to include open and close
    widened_max: float  # the largest such move, as a fraction of the price


def load_bars(path: str | Path) -> BarFile:
    """Read and check a bar file; see the module for what is refused. Raises BadInput."""
    path = Path(path)
    table = _read(path)
    kind = _kind(path, table)
    where = _Locator(path, table, kind)
    if table.num_rows == 0:
        raise BadInput(f"{path}: no rows; give a file with bars")

    codes, names = _symbols(path, table)
    when = _moments(path, table, kind)
    _in_order(where, codes, names, when)
    prices = {name: _numbers(where, name) for name in _PRICES}
    for name, values in prices.items():
        where.refuse(~(values > 0), f"{name}", "positive prices are needed: drop the row or correct it", values)
    volume = _shares(where)
    widened, widened_max = _widen(where, prices)
    split, dividend = _optional(where, "split"), _optional(where, "dividend")
    if split is not None:
        where.refuse(~(split > 0), "split", "new shares per old are needed, 1 for none", split)
    if dividend is not None:
        where.refuse(dividend < 0, "dividend", "USD per share are needed, 0 for none", dividend)

    heads = np.flatnonzero(np.diff(codes, prepend=-1))
    return BarFile(
        path=path,
        kind=kind,
        symbols=tuple(names[code] for code in codes[heads].tolist()),
        starts=np.append(heads, len(codes)).astype(np.int64),
        when=when,
        open=prices["open"],
        high=prices["high"],
        low=prices["low"],
        close=prices["close"],
        volume=volume,
        split=split,
        dividend=dividend,
        exchanges=_exchanges(table, heads),
        widened=widened,
        widened_max=widened_max,
    )


class _Locator:
    """Says where in the file something is: row, symbol, date."""

    def __init__(self, path: Path, table: pa.Table, kind: Literal["daily", "minute"]) -> None:
        self.path, self.table, self.kind = path, table, kind
        self.time = "date" if kind == "daily" else "ts"

    def row(self, row: int) -> str:
        symbol = self.table["symbol"][row].as_py()
        when = self.table[self.time][row].as_py()
        return f"row {row} ({symbol} {when.isoformat() if when is not None else 'without ' + self.time})"

    def refuse(self, wrong: npt.NDArray[np.bool_], column: str, remedy: str, values: Floats | Ints) -> None:
        """Raise for the first wrong row, if there is one."""
        if wrong.any():
            row, count = int(wrong.argmax()), int(wrong.sum())
            more = f" (and {count - 1} more rows)" if count > 1 else ""
            raise BadInput(f"{self.path}: {column} is {values[row].item()} in {self.row(row)}{more}; {remedy}")


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise BadInput(f"{path}: {found}; give a Parquet file of bars")
    try:
        schema = pq.read_schema(path)
        wanted = ("symbol", "date", "ts", *_PRICES, "volume", "split", "dividend", "exchange")
        present = [name for name in wanted if name in schema.names]
        return pq.read_table(path, columns=present, read_dictionary=["symbol", "exchange"]).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path}: not a readable Parquet file ({reason}); write it again") from error


def _kind(path: Path, table: pa.Table) -> Literal["daily", "minute"]:
    """Daily files have a date, intraday files a ts. Raises BadInput naming missing columns and wrong types."""
    names = set(table.column_names)
    if "date" in names and "ts" in names:
        raise BadInput(f"{path}: has both date and ts; keep date for daily bars or ts for intraday bars")
    missing = [name for name in ("symbol", *_PRICES, "volume") if name not in names]
    if not {"date", "ts"} & names:
        missing.append("date (daily) or ts (intraday)")
    if missing:
        raise BadInput(f"{path}: no column {', '.join(missing)}; rename or add what is missing")
    checks: dict[str, tuple[Callable[[pa.DataType], bool], str]] = {
        "symbol": (_is_text, "string"),
        "date": (pa.types.is_date32, "date32"),
        "ts": (lambda kind: pa.types.is_timestamp(kind) and kind.tz is not None, "timestamp with time zone"),
        "volume": (pa.types.is_integer, "int64"),
        **{name: (_is_number, "float32 or float64") for name in (*_PRICES, "split", "dividend")},
    }
    for name, (fits, needed) in checks.items():
        if name in names and not fits(table.schema.field(name).type):
            found = table.schema.field(name).type
            raise BadInput(f"{path}: column {name} is {found}; cast it to {needed}")
    return "daily" if "date" in names else "minute"


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _symbols(path: Path, table: pa.Table) -> tuple[Ints, list[str]]:
    """A code per row and the names the codes stand for."""
    column = table["symbol"]
    _complete(path, table, "symbol")
    encoded = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    names: list[str] = encoded.dictionary.to_pylist()
    if "" in names:
        raise BadInput(f"{path}: a symbol is empty; name each row's symbol")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), names


def _complete(path: Path, table: pa.Table, name: str) -> None:
    column = table[name]
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise BadInput(f"{path}: {name} is missing in row {row} (of {column.null_count} such rows); fill or drop them")


def _moments(path: Path, table: pa.Table, kind: Literal["daily", "minute"]) -> Ints:
    name = "date" if kind == "daily" else "ts"
    _complete(path, table, name)
    if kind == "daily":
        days: Ints = table[name].cast(pa.int32()).to_numpy().astype(np.int64)
        return days
    moments: Ints = table[name].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    return moments // 1_000_000


def _in_order(where: _Locator, codes: Ints, names: list[str], when: Ints) -> None:
    """Symbols ascending, times ascending within each: refuses twins first, then disorder."""
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    ranked = rank[codes]
    step = np.diff(ranked)
    forward = (step > 0) | ((step == 0) & (np.diff(when) > 0))
    if forward.all():
        return
    by_key = np.lexsort((when, ranked))
    twins = (np.diff(ranked[by_key]) == 0) & (np.diff(when[by_key]) == 0)
    if twins.any():
        row = int(by_key[int(twins.argmax()) + 1])
        raise BadInput(
            f"{where.path}: two rows for the same symbol and {where.time}, the second in {where.row(row)}, "
            f"{int(twins.sum())} such pairs; keep one row each"
        )
    row = int((~forward).argmax()) + 1
    raise BadInput(
        f"{where.path}: out of order at {where.row(row)}, after {where.row(row - 1)}; sort by symbol, then {where.time}"
    )


def _numbers(where: _Locator, name: str) -> Floats:
    _complete(where.path, where.table, name)
    values: Floats = where.table[name].to_numpy().astype(np.float64)
    where.refuse(~np.isfinite(values), name, "finite numbers are needed: fill or drop the row", values)
    return values


def _optional(where: _Locator, name: str) -> Floats | None:
    return _numbers(where, name) if name in where.table.column_names else None


def _shares(where: _Locator) -> Ints:
    _complete(where.path, where.table, "volume")
    volume: Ints = where.table["volume"].to_numpy().astype(np.int64)
    where.refuse(volume < 0, "volume", "shares are needed, 0 or more", volume)
    return volume


def _widen(where: _Locator, prices: dict[str, Floats]) -> tuple[int, float]:
    """Move high and low, in place, to include open and close; returns how many rows and the largest move."""
    top = np.maximum(prices["open"], prices["close"])
    bottom = np.minimum(prices["open"], prices["close"])
    # How far the bar must grow, as a fraction of the price; a high below its low shows up here too.
    up = np.maximum(top, prices["low"]) / prices["high"] - 1.0
    down = 1.0 - np.minimum(bottom, prices["high"]) / prices["low"]
    growth = np.maximum(up, down)
    where.refuse(
        growth > WIDEN_MAX,
        "the distance of open or close from the bar's high and low",
        f"up to {WIDEN_MAX} of the price is repaired: correct or drop the row",
        growth,
    )
    prices["high"] = np.maximum(np.maximum(prices["high"], prices["low"]), top)
    prices["low"] = np.minimum(prices["low"], bottom)
    widened = growth > 0
    return int(widened.sum()), float(growth.max(initial=0.0))


def _exchanges(table: pa.Table, heads: npt.NDArray[np.intp]) -> tuple[str, ...] | None:
    if "exchange" not in table.column_names:
        return None
    return tuple(value or "" for value in table["exchange"].take(pa.array(heads)).to_pylist())
