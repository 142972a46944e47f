"""What the watchdog pages on: pure judgement over what it read from ledger, broker and machine.

Evidence counts, not a pulse. What could not be read is itself a finding, and whatever breaks the evidence keeps the
dead-man's URL from being pinged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal

from desk.ledger.records import MonitorCycle, RunState, Severity, Verdict
from desk.ledger.standing import MONITOR, RUNNING_MAX, Standing
from desk.market import NEW_YORK, Session
from desk.orders import BrokerOrder, BrokerStatus, OrderClass, OrderType, Side
from desk.portfolio import Fill, Position
from desk.report.words import clock_time, day_time, duration

__all__ = [
    "BrokerSight",
    "Disk",
    "Finding",
    "LedgerSight",
    "Sight",
    "bare_symbols",
    "has_evidence",
    "judge",
    "still_bare",
]

EVIDENCE_S_MAX = 145.0  # two cycles missed; looked at every 30 s, the page is out before it is 180 s old
BARE_S_MAX = 60.0  # an exit cancels the stop a moment before it sells, and a fill is protected within 30 s
SKEW_S_MAX = 5.0
UNDELIVERED_S_MAX = 300.0
DELIVERY_STUCK_S_MAX = 120.0
DISK_FREE_PCT_MIN = 5.0
OVERDUE_TOLD = timedelta(days=1)  # older ones are for the next stage to close as missed

_STOPS = (OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something someone must hear of now."""

    kind: str
    message: str
    severity: Severity = Severity.CRITICAL
    session: date | None = None
    stage: str | None = None
    symbol: str | None = None
    breaks_evidence: bool = True  # it leaves open whether positions are looked after


@dataclass(frozen=True, slots=True)
class BrokerSight:
    """What the broker told in one look."""

    account: str
    now: datetime
    skew_s: float | None  # its clock less this machine's; None where its clock is a simulation's own
    positions: tuple[Position, ...]
    orders: tuple[BrokerOrder, ...]  # all since the oldest position may have been entered, legs nested
    fills: tuple[Fill, ...] = ()  # since the last cycle of the monitor; only asked for when the numbers differ
    session: Session | None = None  # today's


@dataclass(frozen=True, slots=True)
class LedgerSight:
    standing: Standing
    undelivered_since: datetime | None = None  # the oldest message that is due and has reached nobody
    now: datetime | None = None  # the database's clock


@dataclass(frozen=True, slots=True)
class Disk:
    path: str
    free_pct: float


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at everything. A source is either there, or its error is."""

    at: datetime
    broker: BrokerSight | None = None
    broker_error: str | None = None
    ledger: LedgerSight | None = None
    ledger_error: str | None = None
    prefect_error: str | None = None
    new_failures: frozenset[str] = frozenset()  # of "broker" and "prefect": failed now, answered the look before
    disks: Sequence[Disk] = ()
    stuck_channels: Sequence[str] = ()
    bare_since: Mapping[str, datetime] = field(default_factory=dict)  # symbols without a live stop, by the broker

    @property
    def day(self) -> date:
        return self.at.astimezone(NEW_YORK).date()

    @property
    def session(self) -> Session | None:
        """Today's: the broker's word, else the ledger's."""
        if self.broker is not None:
            return self.broker.session
        return None if self.ledger is None else self.ledger.standing.session

    @property
    def is_in_session(self) -> bool:
        return self.session is not None and self.session.contains(self.at)


def judge(sight: Sight) -> list[Finding]:
    """Everything to page on."""
    return [
        *_about_sources(sight),
        *_about_broker(sight),
        *_about_monitor(sight),
        *_about_stages(sight),
        *_about_delivery(sight),
        *_about_machine(sight),
    ]


def has_evidence(sight: Sight, findings: Sequence[Finding]) -> bool:
    """Whether this look proves that positions are looked after: both books read, and in session a fresh OK cycle."""
    if sight.broker is None or sight.ledger is None or any(finding.breaks_evidence for finding in findings):
        return False
    if not sight.is_in_session:
        return True
    cycle = sight.ledger.standing.cycle
    is_fresh = cycle is not None and cycle.session == sight.day and cycle.verdict is Verdict.OK
    return is_fresh or _since_open_s(sight) <= EVIDENCE_S_MAX


def bare_symbols(broker: BrokerSight) -> set[str]:
    """Positions whose shares are not all under a live stop, or on their way out."""
    return {
        position.symbol for position in broker.positions if _covered(position, broker.orders) < abs(position.quantity)
    }


def still_bare(before: Mapping[str, datetime], broker: BrokerSight) -> dict[str, datetime]:
    """Since when each symbol has been seen without its stop."""
    return {symbol: before.get(symbol, broker.now) for symbol in bare_symbols(broker)}


def _covered(position: Position, orders: Sequence[BrokerOrder]) -> Decimal:
    away = Side.SELL if position.quantity > 0 else Side.BUY
    return sum(
        (
            order.remaining
            for order in _live(orders)
            if order.symbol == position.symbol
            and order.side is away
            and (order.order_type in _STOPS or order.order_type is OrderType.MARKET)
        ),
        Decimal(0),
    )


def _live(orders: Sequence[BrokerOrder]) -> Iterator[BrokerOrder]:
    """Orders in force. Legs of an entry are so only once all of it is filled."""
    for order in orders:
        if not order.status.is_terminal:
            yield order
        if order.status is BrokerStatus.FILLED or order.order_class is OrderClass.OCO:
            yield from (leg for leg in order.legs if not leg.status.is_terminal)


# ---------------------------------------------------------------------------------------------------------- judgements


def _about_sources(sight: Sight) -> Iterator[Finding]:
    """A hiccup of a server over the network pages nobody: it has to fail twice in a row. The ledger pages at once."""
    day = sight.day
    if sight.broker_error is not None and "broker" not in sight.new_failures:
        yield Finding("broker.unreachable", f"the broker cannot be read: {sight.broker_error}", session=day)
    if sight.ledger_error is not None:
        yield Finding("ledger.unreachable", f"the ledger cannot be read: {sight.ledger_error}", session=day)
    if sight.prefect_error is not None and "prefect" not in sight.new_failures:
        yield Finding(
            "prefect.unreachable",
            f"Prefect's server does not answer: {sight.prefect_error}",
            session=day,
            breaks_evidence=False,  # the monitor's own evidence says whether it matters
        )
    if sight.broker is not None and sight.ledger is not None:
        told, kept = sight.broker.account, sight.ledger.standing.account.account
        if told != kept:
            yield Finding("broker.unlike", f"the broker holds account {told}, the ledger is of {kept}", session=day)


def _about_broker(sight: Sight) -> Iterator[Finding]:
    if sight.broker is None:
        return
    for symbol, since in sorted(sight.bare_since.items()):
        bare_s = (sight.broker.now - since).total_seconds()
        if sight.is_in_session and bare_s >= BARE_S_MAX:
            yield Finding(
                "position.uncovered",
                f"{symbol}: no live stop at the broker for all of its shares, for {duration(bare_s)}",
                session=sight.day,
                symbol=symbol,
            )
    if sight.broker.skew_s is not None and abs(sight.broker.skew_s) > SKEW_S_MAX:
        yield Finding(
            "clock.skewed",
            f"this machine's clock is {abs(sight.broker.skew_s):.0f} s "
            f"{'behind' if sight.broker.skew_s > 0 else 'ahead of'} the broker's",
            severity=Severity.WARNING,
            session=sight.day,
            breaks_evidence=False,
        )


def _about_monitor(sight: Sight) -> Iterator[Finding]:
    if sight.ledger is None or not sight.is_in_session:
        return
    cycle = sight.ledger.standing.cycle
    if cycle is None or cycle.session != sight.day:
        if (since_open_s := _since_open_s(sight)) > EVIDENCE_S_MAX:
            yield Finding(
                "monitor.stale",
                f"no cycle of the monitor since the open, {duration(since_open_s)} ago",
                session=sight.day,
                stage=MONITOR,
            )
        return
    age_s = sight.ledger.standing.cycle_age_s or 0.0
    if age_s > EVIDENCE_S_MAX:
        yield Finding(
            "monitor.stale",
            f"the monitor's last evidence is {duration(age_s)} old, of {clock_time(cycle.cycle_at)}",
            session=sight.day,
            stage=MONITOR,
        )
    elif sight.broker is not None:
        yield from _about_cycle(sight, sight.broker, cycle)


def _about_cycle(sight: Sight, broker: BrokerSight, cycle: MonitorCycle) -> Iterator[Finding]:
    """What was evaluated against what the broker holds. A fill since then explains it until the next cycle."""
    held = len(broker.positions)
    if cycle.positions_evaluated != held and not any(fill.at >= cycle.cycle_at for fill in broker.fills):
        yield Finding(
            "monitor.unlike",
            f"the monitor evaluated {cycle.positions_evaluated} positions at {clock_time(cycle.cycle_at)}, "
            f"the broker holds {held}",
            session=sight.day,
            stage=MONITOR,
        )


def _about_stages(sight: Sight) -> Iterator[Finding]:
    if sight.ledger is None:
        return
    for each in sight.ledger.standing.stages:
        for run in each.overdue:
            is_watched_above = each.stage == MONITOR and sight.is_in_session
            if not is_watched_above and sight.at - run.due_at < OVERDUE_TOLD:
                late = duration((sight.at - run.due_at).total_seconds())
                yield Finding(
                    "stage.overdue",
                    f"{each.stage} of {run.session} has not begun: due {day_time(run.due_at)}, {late} ago",
                    session=run.session,
                    stage=each.stage,
                    breaks_evidence=False,
                )
        last = each.last
        if last is not None and last.state is RunState.RUNNING and last.started_at and each.stage != MONITOR:
            running = sight.at - last.started_at
            if RUNNING_MAX < running < OVERDUE_TOLD:
                yield Finding(
                    "stage.hanging",
                    f"{each.stage} of {last.session} has been running for {duration(running.total_seconds())}",
                    session=last.session,
                    stage=each.stage,
                    breaks_evidence=False,
                )


def _about_delivery(sight: Sight) -> Iterator[Finding]:
    if sight.stuck_channels:
        yield Finding(
            "alerts.undelivered",
            f"delivery does not come round on {', '.join(sight.stuck_channels)}",
            session=sight.day,
        )
    if sight.ledger is None or sight.ledger.undelivered_since is None or sight.ledger.now is None:
        return
    waited_s = (sight.ledger.now - sight.ledger.undelivered_since).total_seconds()
    if waited_s > UNDELIVERED_S_MAX:
        yield Finding(
            "alerts.undelivered",
            f"an alert has been waiting for {duration(waited_s)}: it got through on no channel",
            session=sight.day,
        )


def _about_machine(sight: Sight) -> Iterator[Finding]:
    for disk in sight.disks:
        if disk.free_pct < DISK_FREE_PCT_MIN:
            yield Finding(
                "disk.filling",
                f"{disk.path}: {disk.free_pct:.1f} % free, at least {DISK_FREE_PCT_MIN:g} % needed",
                session=sight.day,
                breaks_evidence=False,
            )


def _since_open_s(sight: Sight) -> float:
    return 0.0 if sight.session is None else (sight.at - sight.session.opens).total_seconds()
