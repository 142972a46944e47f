"""`onepath replay`: recorded sessions through the full path, minute by minute, with what came of it as files."""

from __future__ import annotations

import time
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from desk.errors import BadInput
from flows.cli.exchange import read_cash
from flows.cli.reading import REPLAY_DATABASE, HomeOption, serving, settings_of

if TYPE_CHECKING:
    from flows.replay import Replay, Result

__all__ = ["replay"]

_STOPS_SHOWN = 5
_FAILURES_SHOWN = 5


def replay(
    bars: Annotated[Path, typer.Option(help="Parquet file of daily or intraday bars.")],
    start: Annotated[str, typer.Option(help="First session, YYYY-MM-DD.")],
    end: Annotated[str, typer.Option(help="Last session, YYYY-MM-DD.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the files; default replays/START_END under the home.", show_default=False),
    ] = None,
    cash: Annotated[str, typer.Option(help="USD in the account.")] = "100000",
    strategy: Annotated[
        Path | None, typer.Option(help="Strategy TOML file; default ONEPATH_STRATEGY.", show_default=False)
    ] = None,
    home: HomeOption = None,
) -> None:
    """Replay sessions of a bar file: screening, decisions, orders, the monitor each minute, the close.

    Writes trades.parquet, equity.parquet and report.html; the same command twice writes the same bytes. The ledger
    of the last replay stays in database onepath_replay.
    """
    first, last, funds = _day("--start", start), _day("--end", end), read_cash(cash)
    if funds <= 0:
        raise BadInput(f"--cash {cash}: give USD above 0")
    settings = settings_of(home)

    from desk.strategy import Strategy, load_strategy
    from flows.replay import folder_for, plan, write_files

    given = strategy or settings.strategy
    chosen = plan(
        bars, start=first, end=last, strategy=Strategy() if given is None else load_strategy(given), cash=funds
    )
    target = out or settings.home / "replays" / f"{first}_{last}"
    with folder_for(target) as folder, serving(settings) as (url, _):
        began = time.perf_counter()
        result = _with_progress(chosen, url, settings.home)
        took_s = time.perf_counter() - began
        write_files(result, folder)
    _tell(result, chosen, took_s, target, home)


def _with_progress(chosen: Replay, url: str, home: Path) -> Result:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from desk.market import Session
    from flows.replay import run

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as progress:
        bar = progress.add_task("replay", total=len(chosen.sessions))

        def closed(session: Session, equity: Decimal) -> None:
            progress.update(bar, advance=1, description=f"{session.day}  {equity:,.2f} USD")

        return run(chosen, server_url=url, database=REPLAY_DATABASE, home=home, on_close=closed)


def _tell(result: Result, chosen: Replay, took_s: float, target: Path, home: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from desk import metrics

    profits, sessions = result.profits, chosen.sessions
    still_open = len(result.trades) - len(profits)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("market", result.label)
    table.add_row("sessions", f"{len(sessions)}, {sessions[0].day} to {sessions[-1].day}")
    table.add_row("strategy", result.strategy)
    table.add_row(
        "return",
        f"{_percent(result.total_return)}, to {result.closings[-1].equity:,.2f} USD" if result.closings else "-",
    )
    table.add_row("trades", f"{len(profits)} closed, {still_open} open")
    table.add_row("win rate", _percent(metrics.win_rate(profits)))
    table.add_row("max drawdown", _percent(result.max_drawdown))
    if result.failures:
        table.add_row("stages failed", f"{len(result.failures)}")
        for failure in result.failures[:_FAILURES_SHOWN]:
            table.add_row("", failure)
    for stop in result.stops[:_STOPS_SHOWN]:
        table.add_row("entries stopped", stop)
    if len(result.stops) > _STOPS_SHOWN:
        table.add_row("", f"and {len(result.stops) - _STOPS_SHOWN} times more, see the report")
    table.add_row("took", f"{took_s:.1f} s, {len(sessions) / took_s:.2f} sessions a second")
    table.add_row("files", f"{target}: trades.parquet, equity.parquet, report.html")
    if result.trades:
        where = "" if home is None else f" --home {home}"
        table.add_row("a trade's story", f"onepath why {result.trades[-1].symbol} --replay{where}")
    Console(soft_wrap=True, highlight=False).print(table)


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def _day(option: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"{option} {text}: not a date; give it as YYYY-MM-DD, 2019-01-02") from error
