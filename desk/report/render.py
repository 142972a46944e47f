"""Reports as self-contained HTML: nothing in them asks a network, and the same data gives the same bytes."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from desk import metrics
from desk.ledger.facts import TradeFact
from desk.report import plots, words
from desk.report.data import ReplayReport, SessionReport

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["REPLAY_COLUMNS", "render", "render_replay", "report_path", "write_replay_report", "write_report"]

REPLAY_COLUMNS = ("symbol", "session", "quantity", "entry_price", "exit_price", "close_reason", "profit")
REPLAY_TRADES_MAX = 500
DETAILS_MAX = 200  # rows of a table nobody reads to the end


def report_path(home: Path, account: str, session: date) -> Path:
    """Where the session's report of an account is, written or not."""
    return home / "reports" / account / f"{session}.html"


def write_report(home: Path, report: SessionReport) -> Path:
    """Render and put the report in its place, whole or not at all. Written again, it is replaced."""
    return _write(report_path(home, report.account.account, report.session), render(report))


def write_replay_report(path: Path, report: ReplayReport) -> Path:
    """Render and write a replay's report to `path`, whole or not at all."""
    return _write(path, render_replay(report))


def render(report: SessionReport) -> str:
    """The session's report as one HTML document."""
    marks = {each.symbol: each.price for each in report.closing.positions} if report.closing else {}
    # A trade of today that closed today is under closed; held is what was left at the close.
    shown = [TradeRow.closed(trade) for trade in report.closed]
    shown += [TradeRow.held(trade, marks.get(trade.symbol)) for trade in report.held]
    profits = [(row.trade.symbol, row.profit, row.is_closed) for row in shown if row.profit is not None]
    return _page(
        "session.html.j2",
        report=report,
        rows=shown,
        actions=Counter(each.action for each in report.decisions),
        acted=[each for each in report.decisions if each.action != "hold"],
        left_alone=[each for each in report.decisions if each.action == "hold"],
        realised=sum((trade.profit or Decimal(0) for trade in report.closed), Decimal(0)),
        day_return=_day_return(report),
        equity_plot=_equity_plot(report.equity_start, report.equity),
        profit_plot=plots.profit_plot(profits) if profits else None,
        details_max=DETAILS_MAX,
    )


def render_replay(report: ReplayReport) -> str:
    """A replayed range of sessions as one HTML document. Raises ValueError for trades without the named columns."""
    trades = [_replayed(trade) for trade in report.trades]
    profits = [profit for trade in trades if isinstance(profit := trade["profit"], Decimal)]
    curve = [report.equity_start, *(value for _, value in report.equity)]
    return _page(
        "replay.html.j2",
        report=report,
        trades=trades[:REPLAY_TRADES_MAX],
        trades_left_out=max(0, len(trades) - REPLAY_TRADES_MAX),
        closed=len(profits),
        total_return=metrics.total_return(curve),
        max_drawdown=metrics.max_drawdown(curve),
        win_rate=metrics.win_rate(profits),
        profit_factor=metrics.profit_factor(profits),
        mean_profit=metrics.mean_profit(profits),
        exposure=metrics.exposure(report.invested, [value for _, value in report.equity]) if report.invested else None,
        months=_by_year(metrics.monthly_returns(report.equity_start, report.equity)),
        reasons=Counter(trade["close_reason"] for trade in trades if trade["close_reason"]).most_common(),
        equity_plot=_equity_plot(report.equity_start, report.equity, with_drawdown=True),
        profit_plot=plots.profits_in_order_plot(profits) if profits else None,
    )


@dataclass(frozen=True, slots=True)
class TradeRow:
    """A trade as it is shown: where it stood at the close, or where it left, and the picture of that."""

    trade: TradeFact
    is_closed: bool
    now: Decimal | None  # exit price, or the mark at the close
    profit: Decimal | None  # realised; for an open trade with the mark at the close
    picture: str

    @classmethod
    def closed(cls, trade: TradeFact) -> TradeRow:
        return cls(trade, True, trade.exit_price, trade.profit, _picture(trade, trade.exit_price))

    @classmethod
    def held(cls, trade: TradeFact, mark: Decimal | None) -> TradeRow:
        """As it stood at the close, also when it has been closed since."""
        realised, left = Decimal(0), trade.quantity
        if trade.is_open:
            realised, left = trade.profit or Decimal(0), trade.quantity - trade.quantity_closed
        profit = None if mark is None else realised + left * (mark - trade.entry_price)
        return cls(trade, False, mark, profit, _picture(trade, mark))


def _picture(trade: TradeFact, now: Decimal | None) -> str:
    return plots.price_bar(stop=trade.stop_price, entry=trade.entry_price, target=trade.target_price, now=now)


def _day_return(report: SessionReport) -> float | None:
    closing = report.closing
    return None if closing is None else float(closing.equity / closing.equity_before - 1)


def _equity_plot(
    start: Decimal | None, equity: tuple[tuple[date, Decimal], ...], *, with_drawdown: bool = False
) -> str | None:
    if start is None or not equity:
        return None
    return plots.equity_plot(plots.labelled(start, equity), with_drawdown=with_drawdown)


def _replayed(trade: Mapping[str, object]) -> dict[str, object]:
    if missing := [name for name in REPLAY_COLUMNS if name not in trade]:
        raise ValueError(f"replayed trade {dict(trade)}: without {', '.join(missing)}")
    money = {"quantity", "entry_price", "exit_price", "profit"}
    return {
        name: Decimal(str(trade[name])) if name in money and trade[name] is not None else trade[name]
        for name in REPLAY_COLUMNS
    }


def _by_year(months: Iterable[tuple[int, int, float]]) -> list[tuple[int, list[float | None], float]]:
    """(year, the returns of its twelve months, the return of the year)."""
    years: dict[int, list[float | None]] = {}
    for year, month, gain in months:
        years.setdefault(year, [None] * 12)[month - 1] = gain
    found = []
    for year, gains in years.items():
        growth = math.prod(1 + gain for gain in gains if gain is not None)
        found.append((year, gains, growth - 1))
    return found


def _page(template: str, **values: object) -> str:
    return _environment().get_template(template).render(**values)


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("desk.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        clock=words.clock_time,
        day_minute=words.day_minute,
        day_time=words.day_time,
        number=words.number,
        percent=words.percent,
        price=words.price,
        shares=words.shares,
        short=words.short,
        usd=words.usd,
    )
    return environment


def _write(path: Path, document: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(document, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
