"""Steps of premarket screening."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date

import pandas as pd

from desk.errors import BadInput
from desk.ledger.alerts import raise_alert
from desk.ledger.records import Severity
from desk.ledger.screenings import record_screening, screening_of
from desk.ledger.trades import open_trades
from desk.screening import Screening
from expectations.bars import facts
from expectations.watchlist import frame as watchlist_frame
from models.panel import build_panel
from models.screener import screen, sessions_needed
from tasks.gates import gate
from tasks.office import office
from tasks.shift import Shift
from tasks.step import step

__all__ = ["held_symbols", "refresh_bars", "score", "tradable_symbols", "write_watchlist"]


@step(retries=3, retry_delay_seconds=[1, 4, 15])
def tradable_symbols(today: Shift) -> list[str]:
    """Every symbol the broker lets us trade, sorted."""
    symbols = sorted(asset.symbol for asset in office().broker.assets() if asset.active and asset.tradable)
    if not symbols:
        raise BadInput(f"premarket-screening of {today.day}: the broker lists no tradable symbol")
    today.evidence["assets"] = len(symbols)
    return symbols


@step
def held_symbols(_today: Shift) -> list[str]:
    desk = office()
    with desk.ledger.transaction() as connection:
        return [trade.symbol for trade in open_trades(connection, account=desk.account)]


@step(retries=3, retry_delay_seconds=[1, 4, 15], timeout_seconds=1800)
def refresh_bars(today: Shift, symbols: Sequence[str]) -> pd.DataFrame:
    """Bring the local store up to the last close, and hand on the window the screener needs, gate passed."""
    desk = office()
    window = _window(today)
    report = desk.bars.update(desk.market_data, symbols, window[-1], window, len(window))
    bars = desk.bars.load(window[0], window[-1])
    outcome = gate(today, "bars", facts(bars, window))
    if outcome.suspects:
        bars = bars[~bars["symbol"].isin(outcome.suspects)]
        _warn_of_suspects(today, outcome.suspects)
    today.evidence |= {
        "bars_added": report.added,
        "symbols_refetched": len(report.refetched),
        "symbols_left_out": len(outcome.suspects),
    }
    return bars


@step
def score(today: Shift, bars: pd.DataFrame, held: Collection[str]) -> Screening:
    """Features and scores on the last close; the watchlist's gate."""
    desk = office()
    panel = build_panel(bars, _window(today))
    screening = screen(panel, desk.strategy.universe, desk.settings.watchlist_size, held)
    gate(today, "watchlist", watchlist_frame(screening.rows))
    return screening


@step
def write_watchlist(today: Shift, screening: Screening) -> None:
    """Commit the watchlist. The first one of a session stands: a rerun finds it and changes nothing."""
    desk = office()
    with desk.ledger.transaction() as connection:
        is_new = record_screening(
            connection,
            account=desk.account,
            session=today.day,
            screening=screening,
            screened_at=today.started_at,
        )
        standing = screening_of(connection, account=desk.account, session=today.day)
    stands = screening if standing is None else standing.screening
    today.evidence |= {
        "universe": stands.universe,
        "eligible": stands.eligible,
        "watchlist": len(stands.rows),
        "data_hash": stands.data_hash,
        "already_screened": not is_new,
    }


def _window(today: Shift) -> list[date]:
    """The sessions the screener looks at: up to the last one closed before this one opens."""
    desk = office()
    needed = sessions_needed(desk.strategy.universe)
    before = [session.day for session in desk.sessions(today.day) if session.day < today.day]
    if len(before) < needed:
        raise BadInput(
            f"premarket-screening of {today.day}: {len(before)} sessions before it, {needed} are needed by the screener"
        )
    return before[-needed:]


def _warn_of_suspects(today: Shift, suspects: Sequence[str]) -> None:
    desk = office()
    with desk.ledger.transaction() as connection:
        raise_alert(
            connection,
            account=desk.account,
            severity=Severity.WARNING,
            kind="bars.suspect",
            message=f"{len(suspects)} symbols left out of the screening, their bars break a rule: "
            + ", ".join(suspects[:10]),
            at=today.started_at,
            session=today.day,
            stage=today.stage,
            detail={"symbols": list(suspects)},
        )
