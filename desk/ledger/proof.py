"""The whole ledger of one account, as it is needed to prove that nothing in it is wrong. Read only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, select, text

from desk.ledger.closings import closings
from desk.ledger.orders import LedgerOrder, all_orders
from desk.ledger.records import Closing, DecisionSet
from desk.ledger.tables import (
    adjustments,
    alerts,
    control_verdicts,
    decision_sets,
    decisions,
    expected_runs,
    fills,
    order_events,
    policy_approvals,
    strategies,
)
from desk.ledger.trades import Trade, all_trades
from desk.orders import Side
from desk.portfolio import Adjustment, Fill
from desk.strategy import Strategy

__all__ = ["BookedFill", "Books", "Event", "Judged", "read_books"]


@dataclass(frozen=True, slots=True)
class Event:
    client_order_id: str
    sequence: int
    state: str
    at: datetime  # by the broker's clock
    recorded_at: datetime  # by the database server's, like all of this name: it tells what came first


@dataclass(frozen=True, slots=True)
class BookedFill:
    """A fill of the ledger, with the order it was booked to."""

    client_order_id: str
    fill: Fill


@dataclass(frozen=True, slots=True)
class Judged:
    """A control's verdict as it was recorded."""

    client_order_id: str
    control: str
    allowed: bool
    limit: str
    value: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Books:
    """The ledger of one account, all of it."""

    orders: Sequence[LedgerOrder]
    events: Sequence[Event]
    fills: Sequence[BookedFill]
    adjustments: Sequence[Adjustment]
    trades: Sequence[Trade]
    verdicts: Sequence[Judged]
    decision_sets: Sequence[DecisionSet]
    decisions: Sequence[tuple[date, str, str, str, str]]  # session, strategy, symbol, decider, input hash
    approved: frozenset[str]  # digests of policies
    fallbacks_told: frozenset[date]  # sessions with an alert about their fallback
    closings: Sequence[Closing]
    strategies: Mapping[tuple[str, int], Strategy]
    guarded: frozenset[str]  # tables that refuse to be edited
    failures: Sequence[str]  # why runs failed, with their session and stage
    idle_s: float  # of the longest transaction that is idle now


def read_books(connection: Connection, *, account: str) -> Books:
    """In one transaction, so that what is compared belongs together."""
    events, kept, judged = order_events.c, fills.c, control_verdicts.c
    return Books(
        orders=all_orders(connection, account=account),
        events=[
            Event(row.client_order_id, row.sequence, row.state, row.at, row.recorded_at)
            for row in connection.execute(
                select(order_events).where(events.account == account).order_by(events.client_order_id, events.sequence)
            )
        ],
        fills=[
            BookedFill(
                row.client_order_id,
                Fill(
                    row.activity_id,
                    row.broker_order_id,
                    row.symbol,
                    Side(row.side),
                    row.quantity,
                    row.price,
                    row.filled_at,
                ),
            )
            for row in connection.execute(select(fills).where(kept.account == account).order_by(kept.filled_at))
        ],
        adjustments=[
            Adjustment(**{name: getattr(row, name) for name in Adjustment.__slots__})
            for row in connection.execute(select(adjustments).where(adjustments.c.account == account))
        ],
        trades=all_trades(connection, account=account),
        verdicts=[
            Judged(row.client_order_id, row.control, row.allowed, row.limit, row.value, row.recorded_at)
            for row in connection.execute(select(control_verdicts).where(judged.account == account))
        ],
        **_decided(connection, account),
        closings=closings(connection, account=account),
        strategies={
            (row.strategy, row.version): Strategy.model_validate(row.document)
            for row in connection.execute(select(strategies).where(strategies.c.account == account))
        },
        guarded=frozenset(connection.execute(_GUARDED).scalars()),
        failures=[
            f"{row.stage} of {row.session}: {row.reason}"
            for row in connection.execute(
                select(expected_runs).where(expected_runs.c.account == account, expected_runs.c.reason.is_not(None))
            )
        ],
        idle_s=float(connection.execute(_IDLE).scalar_one()),
    )


def _decided(connection: Connection, account: str) -> Mapping[str, Any]:
    sets = connection.execute(select(decision_sets).where(decision_sets.c.account == account)).mappings()
    each = connection.execute(
        select(
            decisions.c.session,
            decisions.c.strategy,
            decisions.c.symbol,
            decisions.c.decider,
            decisions.c.input_hash,
        ).where(decisions.c.account == account)
    )
    digests = connection.execute(select(policy_approvals.c.digest).where(policy_approvals.c.account == account))
    told = connection.execute(
        select(alerts.c.session).where(alerts.c.account == account, alerts.c.kind == "decider.fallback")
    )
    return {
        "decision_sets": [DecisionSet(**{name: row[name] for name in DecisionSet.__slots__}) for row in sets],
        "decisions": [tuple(row) for row in each],
        "approved": frozenset(digests.scalars()),
        "fallbacks_told": frozenset(told.scalars()),
    }


_GUARDED = text(
    """
    SELECT relname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE tgname = 'append_only' AND tgenabled IN ('O', 'A')
    """
)
_IDLE = text(
    """
    SELECT coalesce(max(extract(epoch FROM clock_timestamp() - state_change)), 0) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'onepath' AND state LIKE 'idle in transaction%'
    """
)
