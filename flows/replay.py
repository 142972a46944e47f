"""A range of recorded sessions through the whole path, in this process, and what came of it as files.

The agendas are the very ones of a live day; the broker is a simulated exchange over the file, the clock its own.
The ledger is a database of its own, made anew each time and left behind for reading.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from desk import metrics
from desk.barstore import BarStore
from desk.broker.connect import connect_in_process
from desk.errors import BadInput
from desk.exchange.exchange import Exchange
from desk.exchange.recorded import RecordedMarket
from desk.ledger import migrate
from desk.ledger.closings import closings
from desk.ledger.engine import Ledger, recreate_database
from desk.ledger.facts import TradeFact
from desk.ledger.records import Closing, StateChange, TradingState
from desk.ledger.telling import trade_facts
from desk.ledger.trading_state import current_state, set_state, state_changes
from desk.market import NEW_YORK, Session, at_new_york
from desk.report.data import ReplayReport
from desk.report.render import write_replay_report
from desk.settings import BrokerKind, load_settings
from desk.strategy import Strategy
from desk.waiting import InProcessClock
from expectations.gate import warm_up
from flows.rehearsal import rehearse
from models.screener import sessions_needed
from tasks.office import Office, in_office, open_books

__all__ = ["Replay", "Result", "folder_for", "plan", "run", "write_files"]

_WAKES = "03:55"  # New York, five minutes before the first stage is due
_FAILURES_SHOWN = 5
_STAND_IN = "replay"  # resumes trading each morning


@dataclass(frozen=True, slots=True)
class Replay:
    """What will be replayed: checked, nothing begun."""

    market: RecordedMarket
    sessions: tuple[Session, ...]
    strategy: Strategy
    cash: Decimal  # USD


@dataclass(frozen=True, slots=True)
class Result:
    """How it went. `equity` is at each close; `failures` are stages that failed, one sentence each."""

    label: str
    strategy: str
    equity_start: Decimal
    closings: tuple[Closing, ...]
    trades: tuple[TradeFact, ...]  # oldest entry first
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    stops: tuple[str, ...] = ()  # when and why a control had stopped entries; also among the notes

    @property
    def equity(self) -> tuple[tuple[date, Decimal], ...]:
        return tuple((each.session, each.equity) for each in self.closings)

    @property
    def profits(self) -> list[Decimal]:
        """USD of each closed trade."""
        return [each.profit or Decimal(0) for each in self.trades if not each.is_open]

    @property
    def total_return(self) -> float | None:
        return metrics.total_return(self._curve)

    @property
    def max_drawdown(self) -> float:
        return metrics.max_drawdown(self._curve)

    @property
    def _curve(self) -> list[Decimal]:
        return [self.equity_start, *(each.equity for each in self.closings)]


def plan(bars: Path, *, start: date, end: date, strategy: Strategy, cash: Decimal) -> Replay:
    """Read the file and choose the sessions from `start` to `end`, both inclusive.

    Raises BadInput for a file that cannot be trusted, a range without sessions, and too little history before it.
    """
    if end < start:
        raise BadInput(f"--end {end}: before --start {start}; give a later one")
    market = RecordedMarket(bars)
    known = market.sessions()
    chosen = tuple(session for session in known if start <= session.day <= end)
    if not chosen:
        raise BadInput(
            f"--start {start} --end {end}: no session between them in {bars.name}, "
            f"which has {known[0].day} to {known[-1].day}"
        )
    needed = sessions_needed(strategy.universe)
    before = known.index(chosen[0])
    if before < needed:
        earliest = f"begin on {known[needed].day} or later" if len(known) > needed else "give a longer file"
        raise BadInput(
            f"--start {start}: {before} sessions of {bars.name} before it, {needed} are needed by the screener; "
            f"{earliest}"
        )
    return Replay(market=market, sessions=chosen, strategy=strategy, cash=cash)


def run(
    replay: Replay,
    *,
    server_url: str,
    database: str,
    home: Path,
    on_close: Callable[[Session, Decimal], None] | None = None,
) -> Result:
    """Replay it into a database of this name, made anew. `on_close` hears each session's equity, USD."""
    threading.Thread(target=warm_up, name="warm-up", daemon=True).start()  # its import takes seconds
    url = recreate_database(server_url, database)
    migrate.upgrade(url)
    ledger = Ledger.connect(url, durable=False)
    exchange = Exchange(replay.market, at_new_york(replay.sessions[0].day, _WAKES), cash=replay.cash)
    broker, market_data = connect_in_process(exchange)
    account = broker.account().number
    failures: list[str] = []
    try:
        strategy, version = open_books(
            ledger, account=account, broker=BrokerKind.SIMULATED, venue=broker.venue, wanted=replay.strategy
        )
        with TemporaryDirectory(prefix="onepath-bars-") as bars:
            desk = Office(
                settings=load_settings(broker=BrokerKind.SIMULATED, home=home),
                ledger=ledger,
                broker=broker,
                market_data=market_data,
                waiter=InProcessClock(exchange),
                bars=BarStore(Path(bars)),
                account=account,
                strategy=strategy,
                strategy_version=version,
                home=home,
                publishes_reports=False,
            )
            with in_office(desk):
                for session in replay.sessions:
                    _resume(desk, session)
                    failures += rehearse(exchange, session).failures
                    if on_close is not None:
                        on_close(session, broker.account().equity)
        with ledger.transaction() as connection:
            closed = closings(connection, account=account)
            trades = trade_facts(connection, account=account)
            states = state_changes(connection, account=account)
    finally:
        broker.close()
        market_data.close()
        ledger.close()
    return Result(
        label=replay.market.label,
        strategy=f"{strategy.name} version {version}, digest {strategy.digest[:8]}",
        equity_start=replay.cash,
        closings=tuple(closed),
        trades=tuple(sorted(trades, key=lambda trade: (trade.entered_at, trade.symbol, trade.strategy))),
        failures=tuple(failures),
        notes=tuple(_notes(replay.market.notes.sentences, closed, failures, states)),
        stops=tuple(_stops(states)),
    )


def _resume(desk: Office, session: Session) -> None:
    """Stand in for the person who looks in the morning and lets trading go on: nobody is there to be asked.

    Losses count from where they did: a drawdown that halted trading halts it again until it is made good.
    """
    with desk.ledger.transaction() as connection:
        held = current_state(connection, account=desk.account)
        if held.state is not TradingState.ACTIVE:
            set_state(
                connection,
                account=desk.account,
                state=TradingState.ACTIVE,
                reason="a new session of a replay",
                by=_STAND_IN,
                at=at_new_york(session.day, _WAKES),
            )


@contextmanager
def folder_for(out: Path) -> Iterator[Path]:
    """A folder to write into; what is in it when the block ends well is moved to `out`, file by file.

    A block that raises leaves `out` as it was. Raises BadInput when `out` cannot be written to.
    """
    is_new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        staging = TemporaryDirectory(prefix=".unfinished-", dir=out)
    except OSError as error:
        raise BadInput(f"--out {out}: cannot be written to ({error.strerror}); give another folder") from error
    try:
        with staging as inside:
            yield Path(inside)
            for file in sorted(Path(inside).iterdir()):
                file.replace(out / file.name)
    finally:
        if is_new and not any(out.iterdir()):
            out.rmdir()


def write_files(result: Result, folder: Path) -> None:
    """trades.parquet, equity.parquet and report.html. The same result gives the same bytes."""
    pq.write_table(_trade_table(result.trades), folder / "trades.parquet", compression="zstd")
    pq.write_table(_equity_table(result.closings), folder / "equity.parquet", compression="zstd")
    write_replay_report(
        folder / "report.html",
        ReplayReport(
            label=result.label,
            strategy=result.strategy,
            equity_start=result.equity_start,
            equity=result.equity,
            trades=tuple(asdict(trade) for trade in result.trades),
            invested=tuple(closing.long_market_value for closing in result.closings),
            notes=result.notes,
        ),
    )


def _notes(
    of_the_file: Sequence[str], closed: Sequence[Closing], failures: Sequence[str], states: Sequence[StateChange]
) -> Iterator[str]:
    yield from of_the_file
    yield from _stops(states)
    for closing in closed:
        for difference in closing.differences:
            yield f"{closing.session}: books closed with a difference, {difference}"
    for failure in failures[:_FAILURES_SHOWN]:
        yield f"stage failed: {failure}"
    if len(failures) > _FAILURES_SHOWN:
        yield f"{len(failures) - _FAILURES_SHOWN} more stages failed"


def _stops(states: Sequence[StateChange]) -> Iterator[str]:
    """When the controls stopped entries: one note for sessions in a row that the same control stopped."""
    stops = [change for change in states if change.state is not TradingState.ACTIVE and change.at is not None]
    for _, group in groupby(stops, key=lambda change: (change.state, change.set_by)):
        changes = list(group)
        first = changes[0]
        days = sorted({change.at.astimezone(NEW_YORK).date() for change in changes if change.at is not None})
        when = f"{days[0]}" if len(days) == 1 else f"{days[0]} to {days[-1]}, {len(days)} sessions"
        yield f"{when}: {first.state.value} by {first.set_by}, resumed each next morning ({first.reason})"


_TIME = pa.timestamp("us", tz="UTC")
_TRADE_COLUMNS: Mapping[str, pa.DataType] = {
    "symbol": pa.string(),
    "session": pa.date32(),  # of the entry decision
    "strategy": pa.string(),
    "strategy_version": pa.int32(),
    "status": pa.string(),
    "quantity": pa.float64(),  # shares as they are at the end: a split restates them with the prices
    "entry_price": pa.float64(),  # USD per share
    "entered_at": _TIME,
    "stop_price": pa.float64(),
    "target_price": pa.float64(),
    "high_water_price": pa.float64(),
    "hold_until": pa.date32(),
    "quantity_closed": pa.float64(),
    "exit_price": pa.float64(),
    "exited_at": _TIME,
    "close_reason": pa.string(),
    "profit": pa.float64(),  # USD, realised
}
_EQUITY_COLUMNS: Mapping[str, pa.DataType] = {
    "session": pa.date32(),
    "equity": pa.float64(),  # USD, at the close
    "cash": pa.float64(),
    "long_market_value": pa.float64(),
    "positions": pa.int32(),
    "differences": pa.int32(),  # between ledger and broker
}


def _trade_table(trades: Sequence[TradeFact]) -> pa.Table:
    return _table(_TRADE_COLUMNS, ({name: getattr(trade, name) for name in _TRADE_COLUMNS} for trade in trades))


def _equity_table(closed: Sequence[Closing]) -> pa.Table:
    rows = (
        {
            "session": closing.session,
            "equity": closing.equity,
            "cash": closing.cash,
            "long_market_value": closing.long_market_value,
            "positions": len(closing.positions),
            "differences": len(closing.differences),
        }
        for closing in closed
    )
    return _table(_EQUITY_COLUMNS, rows)


def _table(columns: Mapping[str, pa.DataType], rows: Iterable[Mapping[str, object]]) -> pa.Table:
    plain = [{name: float(v) if isinstance(v, Decimal) else v for name, v in row.items()} for row in rows]
    return pa.Table.from_pylist(plain, schema=pa.schema(list(columns.items())))
