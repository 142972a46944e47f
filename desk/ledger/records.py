"""What the ledger answers, as values. Times are aware UTC, money and prices USD, quantities shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from desk.screening import Screening

__all__ = [
    "Alert",
    "Anchors",
    "Closing",
    "DecisionSet",
    "Exit",
    "GateRecord",
    "HeldPosition",
    "MonitorCycle",
    "Run",
    "RunState",
    "ScreeningRecord",
    "Severity",
    "StateChange",
    "TradingState",
    "Verdict",
]


class RunState(StrEnum):
    """How an expected run stands. Each ends as ran, skipped with a reason, or missed and alerted."""

    EXPECTED = "expected"
    RUNNING = "running"
    RAN = "ran"
    SKIPPED = "skipped"
    FAILED = "failed"
    MISSED = "missed"


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class TradingState(StrEnum):
    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"  # no entries, exits as ever
    HALTED = "HALTED"  # no entries, entries cancelled, protective stops kept; a named person resumes


class Verdict(StrEnum):
    OK = "OK"
    RED = "RED"  # unknown is red, too


@dataclass(frozen=True, slots=True)
class Run:
    """One stage of one day. `evidence` is there once the stage has run through, also while it runs again."""

    session: date
    stage: str
    due_at: datetime
    cutoff_at: datetime  # later than this a start is a miss
    state: RunState
    reason: str | None  # why skipped, failed or missed
    attempts: int
    started_at: datetime | None  # broker's clock
    ended_at: datetime | None
    flow_run: str | None  # Prefect flow run id
    evidence: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class Alert:
    alert_id: int  # 0: paged without a ledger to number it
    account: str
    session: date | None
    stage: str | None
    symbol: str | None
    severity: Severity
    kind: str  # "stage.failed", "quote.unusable"
    message: str  # what happened, and to what
    detail: Mapping[str, object]
    at: datetime


@dataclass(frozen=True, slots=True)
class GateRecord:
    """What a gate found in one frame between two stages."""

    session: date
    stage: str
    frame: str  # "bars", "watchlist", "decisions"
    data_hash: str
    passed: bool
    rows: int
    results: Sequence[Mapping[str, object]]  # expectation, column, bound, observed, passed, severity, examples
    checked_at: datetime


@dataclass(frozen=True, slots=True)
class StateChange:
    """Who set the trading state, when and why. `sequence` 0: nobody ever did."""

    sequence: int
    state: TradingState
    reason: str
    set_by: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class ScreeningRecord:
    session: date
    screening: Screening
    screened_at: datetime


@dataclass(frozen=True, slots=True)
class DecisionSet:
    """One session's decisions as a whole; it also proves that nothing was decided."""

    session: date
    strategy: str
    strategy_version: int
    decider: str  # "policy onepath-policy/7" or "fallback: no champion"
    policy_digest: str | None
    input_hash: str
    equity: Decimal
    buying_power: Decimal
    decided_at: datetime
    gate_hash: str | None = None  # of the check that let these very decisions pass


@dataclass(frozen=True, slots=True)
class Anchors:
    """What losses are measured from, in USD."""

    sequence: int
    session: date
    opening_equity: Decimal
    high_water_equity: Decimal


@dataclass(frozen=True, slots=True)
class Exit:
    symbol: str
    reason: str


@dataclass(frozen=True, slots=True)
class MonitorCycle:
    """The evidence of one monitor cycle, written last."""

    cycle_at: datetime  # broker's clock
    session: date
    verdict: Verdict
    positions_expected: int | None  # by the broker; None: could not be read
    positions_evaluated: int
    position_hash: str | None
    quote_age_max_s: float | None
    stops_verified: int
    exits: tuple[Exit, ...]
    errors: tuple[str, ...]
    next_due_at: datetime

    def __post_init__(self) -> None:
        if self.verdict is Verdict.OK and (self.positions_expected != self.positions_evaluated or self.errors):
            raise ValueError(
                f"monitor cycle {self.cycle_at}: OK with {self.positions_evaluated} of {self.positions_expected} "
                f"positions evaluated and errors {self.errors}; all of them and none are needed"
            )


@dataclass(frozen=True, slots=True)
class HeldPosition:
    """A position marked to market at the close."""

    symbol: str
    quantity: Decimal
    price: Decimal
    value: Decimal
    entry_price: Decimal


@dataclass(frozen=True, slots=True)
class Closing:
    """The books of a session, closed."""

    session: date
    equity_before: Decimal  # at the previous close
    equity: Decimal
    cash: Decimal
    long_market_value: Decimal
    positions: tuple[HeldPosition, ...]
    differences: tuple[str, ...]  # what reconcile could not explain; none when all is proven
    report: str | None  # path of the HTML report
    closed_at: datetime
