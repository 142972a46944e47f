"""What `onepath demo` shows: a line that moves while it runs, then what the session came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from desk.ledger.facts import TradeFact
from desk.market import NEW_YORK

if TYPE_CHECKING:
    from desk.report.data import SessionReport
    from flows.demo import Beat, Demo

__all__ = ["Playing", "further", "summary"]

TOP = 5


class Playing:
    """The moving line, and above it one line for each thing worth remembering."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("premarket-screening", total=None, facts="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, beat: Beat) -> None:
        facts = f"{beat.session.day} {beat.at.astimezone(NEW_YORK):%H:%M} New York | "
        facts += f"{beat.positions} positions | equity {beat.equity:,.0f} USD"
        self._progress.update(self._task, description=beat.stage, total=beat.of, completed=beat.done, facts=facts)
        if not beat.is_watch:
            self._say(beat, f"[bold]{beat.stage}[/]  {told(beat)}")
        for trade in beat.closed:
            self._say(beat, f"closed {trade.symbol}: {trade.close_reason}, {signed(trade.profit)} USD")

    def _say(self, beat: Beat, text: str) -> None:
        self._console.print(f"{beat.session.day} {beat.at.astimezone(NEW_YORK):%H:%M}  {text}")


def told(beat: Beat) -> str:
    """A daily stage in half a line."""
    facts = beat.evidence
    if beat.stage == "premarket-screening":
        symbols, eligible, listed = (facts.get(name) for name in ("universe", "eligible", "watchlist"))
        return f"{symbols} symbols, {eligible} eligible, {listed} on the watchlist"
    if beat.stage == "trading":
        bought = facts.get("bought")
        return f"decided by {facts.get('decider')}; bought {len(bought) if isinstance(bought, list) else 0}"
    return f"equity {beat.equity:,.2f} USD, {beat.positions} positions"


def summary(reports: Sequence[SessionReport], demo: Demo) -> Iterator[RenderableType]:
    """Tables of what was screened, bought and closed, and the equity."""
    yield ""
    yield _screened(reports, demo)
    yield _bought(reports)
    yield _closed(reports)
    yield _equity(reports)


def _screened(reports: Sequence[SessionReport], demo: Demo) -> Table:
    table = _table(f"Screened ({demo.market})", "session", "symbols", "eligible", "watchlist", "top, buy probability")
    for report in reports:
        found = report.screening
        if found is not None:
            top = ", ".join(f"{row.symbol} {row.buy_probability:.2f}" for row in report.candidates[:TOP])
            table.add_row(str(report.session), str(found.universe), str(found.eligible), str(found.listed), top)
    return table


def _bought(reports: Sequence[SessionReport]) -> RenderableType:
    table = _table("Bought", "session", "symbol", "shares", "entry", "stop", "target")
    trades = [trade for report in reports for trade in report.opened]
    for trade in trades:
        prices = (f"{price:.2f}" for price in (trade.entry_price, trade.stop_price, trade.target_price))
        table.add_row(str(trade.session), trade.symbol, f"{trade.quantity.normalize():f}", *prices)
    return table if trades else "Bought: nothing; no symbol passed the entry thresholds and the controls."


def _closed(reports: Sequence[SessionReport]) -> RenderableType:
    table = _table("Closed", "at (New York)", "symbol", "shares", "entry", "exit", "why", "profit USD")
    trades = sorted((trade for report in reports for trade in report.closed), key=lambda trade: str(trade.exited_at))
    for trade in trades:
        at = "" if trade.exited_at is None else f"{trade.exited_at.astimezone(NEW_YORK):%Y-%m-%d %H:%M}"
        table.add_row(at, trade.symbol, f"{trade.quantity_closed.normalize():f}", *_ending(trade))
    return table if trades else "Closed: nothing; no position reached an exit."


def _ending(trade: TradeFact) -> tuple[str, str, str, str]:
    exit_price = "" if trade.exit_price is None else f"{trade.exit_price:.2f}"
    return f"{trade.entry_price:.2f}", exit_price, trade.close_reason or "", signed(trade.profit)


def _equity(reports: Sequence[SessionReport]) -> Table:
    table = _table("Equity, USD", "session", "before", "at the close", "change", "monitor runs", "red", "held")
    for report in reports:
        books, watch = report.closing, report.watch
        if books is not None:
            change = 100 * (books.equity / books.equity_before - 1)
            table.add_row(
                str(report.session),
                f"{books.equity_before:,.2f}",
                f"{books.equity:,.2f}",
                f"{change:+.2f} %",
                str(watch.cycles),
                str(watch.red),
                str(len(report.held)),
            )
    return table


def further(reports: Sequence[SessionReport], demo: Demo) -> Iterator[str]:
    """Where to look next, in lines to be printed uncut: paths and commands are there to be copied."""
    home = demo.stack.home
    settings = demo.stack.settings
    database = demo.office.ledger.place.rsplit("/", 1)[-1]
    where = f"--home {home}" if settings.database_url is None else f"--database {database}"
    symbol = next((trade.symbol for report in reports for trade in (*report.closed, *report.opened)), "SYMBOL")
    lines = [("report", report.closing.report) for report in reports if report.closing is not None]
    lines += [
        ("Prefect UI, while it is up", demo.stack.ui_url),
        ("why a symbol was traded", f"onepath why {symbol} {where}"),
        ("how every stage ended", f"onepath status --home {home} --database {database}"),
        ("the same by the clock, each day", "onepath up"),
    ]
    yield "[bold]Look further[/]"
    for what, told in lines:
        yield f"{what:<33}{told}"


def signed(amount: Decimal | None) -> str:
    return "" if amount is None else f"{amount:+,.2f}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in _NUMBERS else "left")
    return table


_NUMBERS = {"symbols", "eligible", "watchlist", "shares", "entry", "stop", "target", "exit", "profit USD", "before"} | {
    "at the close", "change", "monitor runs", "red", "held"
}  # fmt: skip
