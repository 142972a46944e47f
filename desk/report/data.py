"""What a report is made of. Amounts are USD, prices USD per share, times aware UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from desk.ledger.facts import (
    AccountFact,
    DecisionFact,
    FillFact,
    MonitorExit,
    OrderFact,
    ScoredFact,
    ScreeningFact,
    TradeFact,
    VerdictFact,
    WatchFact,
)
from desk.ledger.records import Alert, Closing, GateRecord, Run

__all__ = ["ReplayReport", "SessionReport", "StrategyUsed"]


@dataclass(frozen=True, slots=True)
class StrategyUsed:
    name: str
    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class SessionReport:
    """One session of one account, as the ledger has it."""

    account: AccountFact
    session: date
    opens_at: datetime
    closes_at: datetime
    is_half_day: bool
    strategies: tuple[StrategyUsed, ...]
    deciders: tuple[str, ...]
    screening: ScreeningFact | None
    candidates: tuple[ScoredFact, ...]  # the best of the watchlist
    decisions: tuple[DecisionFact, ...]
    refusals: tuple[VerdictFact, ...]
    orders: tuple[OrderFact, ...]  # made or changed in this session
    fills: tuple[FillFact, ...]
    opened: tuple[TradeFact, ...]
    closed: tuple[TradeFact, ...]
    held: tuple[TradeFact, ...]  # open when the session closed
    closing: Closing | None
    equity: tuple[tuple[date, Decimal], ...]  # at each close so far
    equity_start: Decimal | None  # before the first of them
    watch: WatchFact
    exits: tuple[MonitorExit, ...]
    red: tuple[tuple[datetime, str], ...]  # RED cycles: when and why
    gates: tuple[GateRecord, ...]
    alerts: tuple[Alert, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """A range of sessions. `trades` are rows with at least the keys of `REPLAY_COLUMNS`, oldest entry first."""

    label: str  # what was replayed on: "recorded: sp500_daily_2016_2020.parquet"
    strategy: str  # "default version 1, digest 0123abcd"
    equity_start: Decimal
    equity: tuple[tuple[date, Decimal], ...]  # at each close
    trades: tuple[Mapping[str, object], ...]
    invested: tuple[Decimal, ...] = ()  # market value held at each close; empty when not known
    notes: tuple[str, ...] = ()  # what a reader has to know: limits of the data, differences found
