"""A bar file is read whole or refused in one line that says where it is wrong and what to do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from desk.errors import BadInput
from desk.exchange.datafile import load_bars

Table = dict[str, list[Any]]


def good() -> Table:
    """Two symbols, two days."""
    return {
        "symbol": ["AAA", "AAA", "BBB", "BBB"],
        "date": [date(2024, 3, 4), date(2024, 3, 5)] * 2,
        "open": [10.0, 10.5, 50.0, 51.0],
        "high": [10.6, 11.0, 52.0, 51.5],
        "low": [9.9, 10.4, 49.5, 50.0],
        "close": [10.5, 10.8, 51.0, 50.5],
        "volume": [1000, 1200, 300, 0],
    }


def write(path: Path, table: Table, **types: pa.DataType) -> Path:
    schema = pa.table(table).schema
    fields = [pa.field(f.name, types.get(f.name, pa.float32() if f.type == pa.float64() else f.type)) for f in schema]
    pq.write_table(pa.table(table, schema=pa.schema(fields)), path)
    return path


def test_a_good_file_is_read(tmp_path: Path) -> None:
    file = load_bars(write(tmp_path / "bars.parquet", good()))

    assert (file.kind, file.symbols, file.starts.tolist(), file.widened) == ("daily", ("AAA", "BBB"), [0, 2, 4], 0)
    assert file.close.dtype == np.float64
    assert (file.split, file.dividend, file.exchanges) == (None, None, None)


def test_a_file_of_intraday_bars_is_told_by_its_ts(tmp_path: Path) -> None:
    table = good()
    del table["date"]
    table["ts"] = [datetime(2024, 3, 4, 14, 30, tzinfo=UTC), datetime(2024, 3, 4, 14, 31, tzinfo=UTC)] * 2

    file = load_bars(write(tmp_path / "bars.parquet", table))

    assert (file.kind, file.when.tolist()[:2]) == ("minute", [1709562600, 1709562660])


def test_a_bar_slightly_too_narrow_is_widened_and_counted(tmp_path: Path) -> None:
    table = good()
    table["close"][0] = 10.8  # above the high of 10.6
    table["open"][2] = 49.0  # below the low of 49.5

    file = load_bars(write(tmp_path / "bars.parquet", table))

    assert file.widened == 2
    assert file.widened_max == pytest.approx(10.8 / 10.6 - 1, abs=1e-6)
    assert (file.high >= file.close).all() and (file.low <= file.open).all()


def edit(column: str, row: int, value: object) -> Callable[[Table], object]:
    return lambda table: table[column].__setitem__(row, value)


def without_zone(table: Table) -> None:
    del table["date"]
    table["ts"] = [datetime(2024, 3, 4, tzinfo=UTC).replace(tzinfo=None)] * 4


def swap(table: Table) -> None:
    for values in table.values():
        values[0], values[1] = values[1], values[0]


def symbols_apart(table: Table) -> None:
    table["symbol"] = ["AAA", "BBB", "AAA", "BBB"]
    table["date"] = [date(2024, 3, day) for day in (4, 4, 5, 5)]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.pop("close"), r"no column close; rename or add"),
        (lambda t: t.pop("date"), r"no column date \(daily\) or ts \(intraday\)"),
        (lambda t: t.update(ts=[datetime(2024, 3, 4, tzinfo=UTC)] * 4), r"has both date and ts"),
        (without_zone, r"column ts is timestamp\[us\]; cast it to timestamp with time zone"),
        (lambda t: t.update(date=["2024-03-04"] * 4), r"column date is string; cast it to date32"),
        (lambda t: t.update(volume=[1.5] * 4), r"column volume is float; cast it to int64"),
        (lambda t: t.update(open=["10"] * 4), r"column open is string; cast it to float32 or float64"),
        (edit("open", 1, float("nan")), r"open is nan in row 1 \(AAA 2024-03-05\); finite numbers are needed"),
        (edit("open", 1, None), r"open is missing in row 1"),
        (edit("symbol", 1, None), r"symbol is missing in row 1"),
        (edit("low", 2, 0.0), r"low is 0.0 in row 2 \(BBB 2024-03-04\); positive prices"),
        (edit("volume", 3, -1), r"volume is -1 in row 3 \(BBB 2024-03-05\)"),
        (edit("date", 1, date(2024, 3, 4)), r"two rows for the same symbol and date, .* row 1 \(AAA 2024-03-04\)"),
        (swap, r"out of order at row 1 \(AAA 2024-03-04\), after row 0 \(AAA 2024-03-05\); sort by symbol"),
        (symbols_apart, r"out of order at row 2 \(AAA 2024-03-05\), after row 1 \(BBB 2024-03-04\)"),
        (edit("high", 0, 5.0), r"distance of open or close .* row 0 \(AAA 2024-03-04\)"),
        (lambda t: t.update(split=[1.0, 1.0, 0.0, 1.0]), r"split is 0.0 in row 2"),
        (lambda t: t.update(dividend=[0.0, -0.5, 0.0, 0.0]), r"dividend is -0.5 in row 1"),
        (lambda t: [values.clear() for values in t.values()], r"no rows; give a file with bars|column"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, damage: Callable[[Table], object], message: str) -> None:
    """The line begins with the file and ends with the remedy."""
    table = good()
    damage(table)
    path = write(tmp_path / "bars.parquet", table)

    with pytest.raises(BadInput, match=message) as refusal:
        load_bars(path)

    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)


def test_an_empty_table_of_the_right_shape_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "bars.parquet", good())
    pq.write_table(pq.read_table(path).slice(0, 0), path)

    with pytest.raises(BadInput, match="no rows"):
        load_bars(path)


def test_what_is_no_parquet_file_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "bars.parquet"
    text.write_text("symbol,date\n")

    with pytest.raises(BadInput, match=r"bars\.parquet: not a readable Parquet file"):
        load_bars(text)
    with pytest.raises(BadInput, match="does not exist"):
        load_bars(tmp_path / "none.parquet")
    with pytest.raises(BadInput, match="is a folder"):
        load_bars(tmp_path)
