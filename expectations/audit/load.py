"""Reading a Parquet file for an audit: everything that resembles bars is taken as it is, defects included.

`desk.exchange.datafile` refuses what cannot be traded on; here that is the finding. Refused is only what is no bar
file at all: not Parquet, no symbol, time, price or volume column, values that are not numbers or times, no rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from desk.errors import BadInput
from expectations.audit.finding import EVERY, Finding, Grade, Kind, as_date
from expectations.audit.panel import DAY_S, Floats, Ints, Panel, build

__all__ = ["Loaded", "load"]

_PRICES = ("open", "high", "low", "close")
_NUMBERS = {"split": "split", "dividend": "dividend", "adj_factor": "factor", "n_bars": "counted"}
_NEW_YORK = "America/New_York"
_PLAUSIBLE = (date(1900, 1, 1), date(2100, 1, 1))


@dataclass(frozen=True, slots=True)
class Loaded:
    """The bars of a file, and what had to be overlooked to read them."""

    panel: Panel
    findings: tuple[Finding, ...]


def load(path: Path) -> Loaded:
    """Read a Parquet file of daily or intraday bars. Raises BadInput when it is not one."""
    table = _read(path)
    time = _time_column(path, table)
    day, second, remarks = _moments(path, table, time)
    code, names = _codes(path, table, "symbol")
    code, names, details = _with_details(path, table, code, names, day, second)
    numbers = {name: _floats(path, table, name) for name in (*_PRICES, "volume")}
    remarks += _odd_types(table)
    extras = {ours: _floats(path, table, theirs) for theirs, ours in _NUMBERS.items() if theirs in table.column_names}
    panel = build(
        names=names,
        details=details,
        code=code,
        day=day,
        second=second,
        prices={name: numbers[name] for name in _PRICES},
        volume=numbers["volume"],
        extras=dict(extras),
    )
    days = as_date(day.min()), as_date(day.max())
    found = (Finding(Kind.TYPE, Grade.WARNING, EVERY, *days, table.num_rows, remark) for remark in remarks)
    return Loaded(panel, tuple(found))


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise BadInput(f"{path}: {found}; give a Parquet file of bars")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path}: not a readable Parquet file ({reason}); write it again") from error
    missing = [name for name in ("symbol", *_PRICES, "volume") if name not in table.column_names]
    if not {"date", "ts"} & set(table.column_names):
        missing.append("date (daily) or ts (intraday)")
    if missing:
        raise BadInput(f"{path}: no column {', '.join(missing)}; rename or add what is missing")
    if table.num_rows == 0:
        raise BadInput(f"{path}: no rows; give a file with bars")
    return table.combine_chunks()


def _time_column(path: Path, table: pa.Table) -> str:
    present = [name for name in ("date", "ts") if name in table.column_names]
    if len(present) > 1:
        raise BadInput(f"{path}: has both date and ts; keep date for daily bars or ts for intraday bars")
    if table[present[0]].null_count:
        raise BadInput(f"{path}: {present[0]} is missing in {table[present[0]].null_count} rows; fill or drop them")
    return present[0]


def _moments(path: Path, table: pa.Table, name: str) -> tuple[Ints, Ints | None, list[str]]:
    """New York calendar day, second of that day (None: daily), and remarks on the column's type."""
    column, remarks = table[name], []
    kind = column.type
    if name == "date":
        if not pa.types.is_date32(kind):
            remarks.append(f"date is {kind}, not date32")
        try:
            days = column.cast(pa.timestamp("s")).cast(pa.date32()) if not pa.types.is_date32(kind) else column
        except pa.ArrowException as error:
            raise BadInput(f"{path}: column date is {kind}; cast it to date32") from error
        day: Ints = days.cast(pa.int32()).to_numpy().astype(np.int64)
        return _plausible(path, day), None, remarks
    if not pa.types.is_timestamp(kind):
        raise BadInput(f"{path}: column ts is {kind}; cast it to timestamp with time zone")
    if kind.tz is None:
        remarks.append("ts has no time zone; read as UTC")
    seconds = column.cast(pa.timestamp("s", tz="UTC"), safe=False).cast(pa.int64()).to_numpy()
    _plausible(path, seconds // DAY_S)
    wall = _new_york(seconds)
    return wall // DAY_S, wall % DAY_S, remarks


def _new_york(seconds: Ints) -> Ints:
    """Epoch seconds as seconds of New York wall time. Offsets change on the hour: one look-up per distinct hour."""
    hours, at = np.unique(seconds // 3600, return_inverse=True)
    local = pd.to_datetime(hours * 3600, unit="s", utc=True).tz_convert(_NEW_YORK).tz_localize(None)
    offset = local.as_unit("s").to_numpy().astype(np.int64) - hours * 3600
    shifted: Ints = seconds + offset[at]
    return shifted


def _plausible(path: Path, day: Ints) -> Ints:
    first, last = ((limit - date(1970, 1, 1)).days for limit in _PLAUSIBLE)
    wrong = (day < first) | (day > last)
    if wrong.any():
        row = int(wrong.argmax())
        raise BadInput(
            f"{path}: the time in row {row} is outside {_PLAUSIBLE[0].year}..{_PLAUSIBLE[1].year} "
            f"({int(wrong.sum())} such rows); drop or correct them"
        )
    return day


def _codes(path: Path, table: pa.Table, name: str) -> tuple[Ints, list[str]]:
    """A code per row and the texts that the codes stand for."""
    column = table[name]
    if column.null_count:
        raise BadInput(f"{path}: {name} is missing in {column.null_count} rows; fill or drop them")
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise BadInput(f"{path}: column {name} is {column.type}; cast it to string")
    encoded = pa.array(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist()


def _with_details(
    path: Path, table: pa.Table, code: Ints, names: list[str], day: Ints, second: Ints | None
) -> tuple[Ints, list[str], list[str]]:
    """Series instead of symbols when a symbol has several rows for one time and one text column tells all of them
    apart, as "adjustment" does in a file with raw and adjusted prices."""
    plain = code, names, [""] * len(names)
    if _distinct(code, day, second):
        return plain
    for column in table.column_names:
        if column in ("symbol", "date", "ts") or not pa.types.is_string(table.schema.field(column).type):
            continue
        if table[column].null_count:
            continue
        kind, labels = _codes(path, table, column)
        both = code * len(labels) + kind
        if _distinct(both, day, second):
            series, at = np.unique(both, return_inverse=True)
            split = [divmod(each, len(labels)) for each in series.tolist()]
            return at.astype(np.int64), [names[one] for one, _ in split], [labels[other] for _, other in split]
    return plain


def _distinct(code: Ints, day: Ints, second: Ints | None) -> bool:
    moment = day * DAY_S + (0 if second is None else second)
    moment = moment - moment.min()
    key = code * (int(moment.max()) + 1) + moment
    if bool((np.diff(key) > 0).all()):
        return True
    return bool(np.unique(key).size == key.size)


def _floats(path: Path, table: pa.Table, name: str) -> Floats:
    column = table[name]
    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise BadInput(f"{path}: column {name} is {kind}; cast it to float64")
    values: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
    return values.astype(np.float64)


def _odd_types(table: pa.Table) -> list[str]:
    remarks = []
    for name in _PRICES:
        kind = table.schema.field(name).type
        if not pa.types.is_floating(kind):
            remarks.append(f"{name} is {kind}, not float32 or float64")
    kind = table.schema.field("volume").type
    if not pa.types.is_integer(kind):
        remarks.append(f"volume is {kind}, not int64")
    return remarks
