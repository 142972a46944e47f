"""The local store of daily bars: Parquet by month, filled incrementally, safe to kill.

    <root>/daily/2019-01.parquet    symbol, session, open, high, low, close, volume; by symbol, then session
    <root>/daily/coverage.parquet   symbol, first, through: what was asked for, whether or not bars came
    <root>/daily/.lock              one writer, or any number of readers

Coverage is written last and vouches for the months: what a killed update leaves behind is not covered, so
the next update fetches it again.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from desk.barfiles import ParquetFolder, locked
from desk.errors import BadInput
from desk.ports import MarketData

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BarStore", "UpdateReport"]

_PRICES = ("open", "high", "low", "close")
_BARS = pa.schema(
    [("symbol", pa.string()), ("session", pa.date32()), *((p, pa.float64()) for p in _PRICES), ("volume", pa.int64())]
)
_COVERAGE = pa.schema([("symbol", pa.string()), ("first", pa.date32()), ("through", pa.date32())])
_KEY = ["symbol", "session"]
_SYMBOLS_PER_FETCH = 500  # bounds the memory of one answer: 500 symbols x 10 years is 1.3 million rows


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What one update did. Symbols are sorted."""

    through: date
    added: int  # bars written because they were missing or differed
    new: tuple[str, ...]  # fetched in full: not known before, or not as far back
    refetched: tuple[str, ...]  # fetched in full again: a split, a correction, or no bar to compare with
    absent: tuple[str, ...]  # asked for, but without a bar of the session `through`


@dataclass(frozen=True, slots=True)
class _Coverage:
    spans: Mapping[str, _Span]
    months: frozenset[str]  # files that must exist


class _Span(NamedTuple):
    """What was asked for of one symbol."""

    first: date
    through: date | None  # None: its bars are being replaced, from `first` on; what is stored is not vouched for


class BarStore:
    """Split-adjusted daily bars under `root`. One instance per thread; any number of processes."""

    def __init__(self, root: Path, *, lock_wait_s_max: float = 300.0) -> None:
        folder = root / "daily"
        self._remedy = f"remove the folder {folder}, the next screening fetches every bar anew"
        self._files = ParquetFolder(folder, remedy=self._remedy)
        self._lock_wait_s_max = lock_wait_s_max
        self._parsed: tuple[pa.Table | None, _Coverage] = (None, _Coverage({}, frozenset()))

    def update(
        self, market_data: MarketData, symbols: Sequence[str], through: date, sessions: Sequence[date], history: int
    ) -> UpdateReport:
        """Bring the bars of `symbols` up to the session `through`, at least `history` sessions of them.

        Only what is missing is fetched, plus the last session already covered. A vendor rewrites the past at each
        split, and that shows in the overlapping bar: when its prices differ, the symbol is fetched in full. A
        correction of an older bar alone is not noticed. `sessions` is the calendar, oldest first.

        Raises BadInput for a date without a session, a damaged store, or an answer that is not daily bars;
        Transient when another process keeps the store locked; whatever `market_data` raises.
        """
        start = _window_start(sessions, through, history)
        wanted = sorted(set(symbols))
        self._files.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(exclusive=True):
            self._files.sweep()
            coverage = self._coverage()
            spans = coverage.spans
            new, tails = _missing(wanted, coverage, start, through)

            fetched: list[pa.Table] = []
            covered: dict[str, _Span] = {}
            refetched: set[str] = set()
            for overlap, group in sorted(tails.items()):
                answer = _fetch(market_data, group, overlap, through)
                differing, tail = _compare(group, self._bars_of(overlap, coverage), answer, overlap)
                refetched |= differing
                fetched.append(tail)
                covered |= {symbol: _Span(spans[symbol].first, through) for symbol in group if symbol not in differing}
            whole = new | refetched
            if whole:
                known = [spans[symbol] for symbol in whole if symbol in spans]
                first = min([start, *(span.first for span in known)])
                last = max([through, *(span.through for span in known if span.through)])
                fetched.append(_fetch(market_data, sorted(whole), first, last))
                covered |= dict.fromkeys(whole, _Span(first, last))
            added = self._commit(pa.concat_tables(fetched), coverage, covered, replaced=whole) if covered else 0
            absent = set(wanted) - self._bars_of(through, self._coverage()).keys()
        return UpdateReport(through, added, *(tuple(sorted(names)) for names in (new, refetched, absent)))

    def load(self, start: date, end: date) -> pd.DataFrame:
        """All bars of the sessions start to end, both inclusive, by symbol, then session.

        Columns: symbol (str), session (datetime64), open, high, low, close (float64 USD, split-adjusted), volume
        (int64 shares). Empty when nothing is stored. Raises BadInput when the store is damaged.
        """
        if not self._files.folder.is_dir():
            return _frame(_BARS.empty_table())
        with self._locked(exclusive=False):
            coverage = self._coverage()
            names = sorted(name for name in coverage.months if f"{start:%Y-%m}" <= name <= f"{end:%Y-%m}")
            bars = pa.concat_tables([_BARS.empty_table(), *(self._month(name, coverage) for name in names)])
        inside = pc.and_(
            pc.and_(pc.greater_equal(bars["session"], _day(start)), pc.less_equal(bars["session"], _day(end))),
            _is_one_of(bars["symbol"], [symbol for symbol, span in coverage.spans.items() if span.through]),
        )
        return _frame(_in_order(bars.filter(inside)))

    def _commit(self, bars: pa.Table, coverage: _Coverage, covered: Mapping[str, _Span], *, replaced: set[str]) -> int:
        """Merge `bars` into the months; every stored bar of a `replaced` symbol leaves. Returns how many were written.

        Replaced symbols lose their coverage before a month is touched: half-replaced bars are never vouched for.
        """
        if replaced & coverage.spans.keys():
            open_ended = {s: _Span(span.first, None) for s, span in coverage.spans.items() if s in replaced}
            self._write_coverage(_Coverage({**coverage.spans, **open_ended}, coverage.months))
        month_of = _months_of(bars)
        arriving = set(month_of.tolist())
        for name in sorted(arriving | coverage.months if replaced else arriving):
            stored = self._month(name, coverage)
            arrived = bars.filter(pa.array(month_of == name))
            kept_bars = stored.filter(pc.invert(_is_one_of(stored["symbol"], replaced))) if replaced else stored
            kept_bars = kept_bars.join(arrived.select(_KEY), keys=_KEY, join_type="left anti")
            if arrived.num_rows or kept_bars.num_rows < stored.num_rows:
                self._files.write(name, _in_order(pa.concat_tables([kept_bars, arrived])))
        self._write_coverage(_Coverage({**coverage.spans, **covered}, coverage.months | arriving))
        return int(bars.num_rows)

    def _locked(self, *, exclusive: bool) -> AbstractContextManager[None]:
        return locked(self._files.folder / ".lock", exclusive=exclusive, wait_s_max=self._lock_wait_s_max)

    def _coverage(self) -> _Coverage:
        table = self._files.read("coverage", _COVERAGE)
        if table is self._parsed[0]:
            return self._parsed[1]
        if table is None:
            return _Coverage({}, frozenset())
        symbols, firsts, lasts = (table[name].to_pylist() for name in _COVERAGE.names)
        months = json.loads((table.schema.metadata or {}).get(b"months", b"[]"))
        coverage = _Coverage(dict(zip(symbols, map(_Span, firsts, lasts), strict=True)), frozenset(months))
        self._parsed = table, coverage
        return coverage

    def _write_coverage(self, coverage: _Coverage) -> None:
        rows = [(symbol, *span) for symbol, span in sorted(coverage.spans.items())]
        columns = [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(_COVERAGE)]
        named = _COVERAGE.with_metadata({"months": json.dumps(sorted(coverage.months))})
        self._files.write("coverage", pa.Table.from_arrays(columns, schema=named))

    def _month(self, name: str, coverage: _Coverage) -> pa.Table:
        """One month as vouched for: what lies in a file that no coverage names was left by a killed update."""
        if name not in coverage.months:
            return _BARS.empty_table()
        table = self._files.read(name, _BARS)
        if table is None:
            raise BadInput(f"{self._files.folder}: the file of {name} is missing; {self._remedy}")
        return table

    def _bars_of(self, session: date, coverage: _Coverage) -> dict[str, tuple[float, ...]]:
        """Stored bars of one session: symbol → open, high, low, close, volume."""
        month = self._month(f"{session:%Y-%m}", coverage)
        return _by_symbol(month.filter(pc.equal(month["session"], _day(session))))


def _window_start(sessions: Sequence[date], through: date, history: int) -> date:
    index = bisect_left(sessions, through)
    if index == len(sessions) or sessions[index] != through:
        raise BadInput(f"bars through {through}: not a session of the exchange; give a trading day")
    return sessions[max(0, index - history + 1)]


def _missing(
    wanted: Sequence[str], coverage: _Coverage, start: date, through: date
) -> tuple[set[str], dict[date, list[str]]]:
    """Symbols to fetch in full, and the others that end too early, by the session they are covered through."""
    whole: set[str] = set()
    tails: dict[date, list[str]] = defaultdict(list)
    for symbol in wanted:
        span = coverage.spans.get(symbol)
        if span is None or span.through is None or span.first > start:
            whole.add(symbol)
        elif span.through < through:
            tails[span.through].append(symbol)
    return whole, tails


def _fetch(market_data: MarketData, symbols: Sequence[str], start: date, end: date) -> pa.Table:
    """Bars from start to end, checked for shape alone: whether they are plausible is the gate's question."""
    tables = [_BARS.empty_table()]
    for at in range(0, len(symbols), _SYMBOLS_PER_FETCH):
        part = symbols[at : at + _SYMBOLS_PER_FETCH]
        frame = market_data.daily_bars(part, start, end)
        missing = [name for name in _BARS.names if name not in frame.columns]
        if missing:
            raise BadInput(
                f"market data: daily bars without {', '.join(missing)}; columns {list(_BARS.names)} are needed"
            )
        columns = {name: frame[name].to_numpy() for name in _BARS.names} | {"symbol": frame["symbol"].astype(object)}
        columns["session"] = columns["session"].astype("datetime64[D]")
        try:
            table = pa.table({name: pa.array(columns[name], _BARS.field(name).type) for name in _BARS.names})
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise BadInput(f"market data: daily bars of a wrong type ({error}); {_BARS} is needed") from error
        asked = pc.and_(
            _is_one_of(table["symbol"], part),
            pc.and_(pc.greater_equal(table["session"], _day(start)), pc.less_equal(table["session"], _day(end))),
        )
        tables.append(table.filter(asked))
    bars = _in_order(pa.concat_tables(tables))
    _refuse_twins(bars)
    return bars


def _refuse_twins(bars: pa.Table) -> None:
    symbols, days = bars["symbol"].combine_chunks(), _days(bars)
    same_symbol = pc.equal(symbols[1:], symbols[:-1]).to_numpy(zero_copy_only=False)
    twins = np.flatnonzero(same_symbol & (days[1:] == days[:-1]))
    if twins.size:
        raise BadInput(f"market data: two bars of {symbols[int(twins[0])]} on {days[twins[0]]}, one is needed")


def _compare(
    symbols: Sequence[str], stored: Mapping[str, tuple[float, ...]], answer: pa.Table, overlap: date
) -> tuple[set[str], pa.Table]:
    """Symbols whose overlapping bar says that their past was rewritten, and the bars worth adding of the others.

    Without an overlapping bar on either side, new bars cannot be joined to the old ones: rewritten, too. A
    difference in volume alone is the vendor's late count: that bar is replaced, the past is left.
    """
    at_overlap = pc.equal(answer["session"], _day(overlap))
    again = _by_symbol(answer.filter(at_overlap))
    arrived = set(answer["symbol"].to_pylist())
    rewritten, unchanged = set(), set()
    for symbol in symbols:
        before, now = stored.get(symbol), again.get(symbol)
        if before is not None and before == now:
            unchanged.add(symbol)
        elif before is not None and now is not None and before[:4] == now[:4]:
            continue
        elif before is not None or symbol in arrived:
            rewritten.add(symbol)
    stale = pc.or_(
        _is_one_of(answer["symbol"], rewritten), pc.and_(at_overlap, _is_one_of(answer["symbol"], unchanged))
    )
    return rewritten, answer.filter(pc.invert(stale))


def _by_symbol(bars: pa.Table) -> dict[str, tuple[float, ...]]:
    values = zip(*(bars[name].to_pylist() for name in (*_PRICES, "volume")), strict=True)
    return dict(zip(bars["symbol"].to_pylist(), values, strict=True))


def _is_one_of(column: pa.ChunkedArray, symbols: Collection[str]) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=pa.array(list(symbols), pa.string()))


def _in_order(bars: pa.Table) -> pa.Table:
    return bars.sort_by([(name, "ascending") for name in _KEY])


def _day(day: date) -> pa.Scalar:
    return pa.scalar(day, pa.date32())


def _days(bars: pa.Table) -> NDArray[np.datetime64]:
    days: NDArray[np.datetime64] = bars["session"].to_numpy().astype("datetime64[D]")
    return days


def _months_of(bars: pa.Table) -> NDArray[np.str_]:
    return np.datetime_as_string(_days(bars).astype("datetime64[M]")) if bars.num_rows else np.empty(0, "U7")


def _frame(bars: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = bars.to_pandas(date_as_object=False)
    return frame
