"""Everything a session's report shows, read from the ledger in one go."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from itertools import islice

from sqlalchemy import ColumnElement, Connection, select

from desk.errors import BadInput
from desk.ledger.alerts import alerts_of
from desk.ledger.closings import closings
from desk.ledger.facts import OrderFact
from desk.ledger.gates import gates_of
from desk.ledger.monitor import cycles_of
from desk.ledger.records import Verdict
from desk.ledger.runs import recorded_session, runs_of
from desk.ledger.tables import decision_sets, fills, order_events, orders, strategies, trades
from desk.ledger.telling import (
    account_fact,
    decision_facts,
    fill_facts,
    monitor_exits,
    order_facts,
    scored_facts,
    screening_fact,
    trade_facts,
    verdict_facts,
    watch_fact,
)
from desk.market import at_new_york
from desk.report.data import SessionReport, StrategyUsed

__all__ = ["CANDIDATES_MAX", "session_book"]

CANDIDATES_MAX = 15
RED_MAX = 20


def session_book(connection: Connection, *, account: str, session: date) -> SessionReport:
    """The session as the ledger has it now. Raises BadInput when account or session are not recorded."""
    known = account_fact(connection, account)
    times = recorded_session(connection, account=account, day=session)
    if known is None or times is None:
        what = f"account {account}" if known is None else f"session {session} of account {account}"
        raise BadInput(f"{what}: not in the ledger; give one that was recorded")
    start, end = at_new_york(session, "00:00"), at_new_york(session + timedelta(days=1), "00:00")
    verdicts = verdict_facts(connection, account=account, session=session)
    curve = closings(connection, account=account, end=session)
    closed_now = next((each for each in reversed(curve) if each.session == session), None)
    cycles = cycles_of(connection, account=account, session=session)
    red = ((each.cycle_at, "; ".join(each.errors)) for each in cycles if each.verdict is Verdict.RED)
    is_open_at_close = (trades.c.entered_at < end) & (trades.c.exited_at.is_(None) | (trades.c.exited_at >= end))
    return SessionReport(
        account=known,
        session=session,
        opens_at=times.opens,
        closes_at=times.closes,
        is_half_day=times.is_half_day,
        strategies=_strategies(connection, account, session),
        deciders=_deciders(connection, account, session),
        screening=screening_fact(connection, account=account, session=session),
        candidates=scored_facts(connection, account=account, session=session, limit=CANDIDATES_MAX),
        decisions=decision_facts(connection, account=account, session=session),
        refusals=tuple(each for each in verdicts if not each.allowed),
        orders=_orders(connection, account, start, end),
        fills=fill_facts(connection, account=account, where=_within(fills.c.filled_at, start, end)),
        opened=trade_facts(connection, account=account, where=_within(trades.c.entered_at, start, end)),
        closed=trade_facts(connection, account=account, where=_within(trades.c.exited_at, start, end)),
        held=trade_facts(connection, account=account, where=is_open_at_close),
        closing=closed_now,
        equity=tuple((each.session, each.equity) for each in curve),
        equity_start=curve[0].equity_before if curve else None,
        watch=watch_fact(connection, account=account, start=start, end=end),
        exits=monitor_exits(connection, account=account, start=start, end=end),
        red=tuple(islice(red, RED_MAX)),
        gates=tuple(gates_of(connection, account=account, session=session)),
        alerts=tuple(reversed(alerts_of(connection, account=account, session=session))),
        runs=tuple(runs_of(connection, account=account, session=session)),
    )


def _within(column: ColumnElement[datetime], start: datetime, end: datetime) -> ColumnElement[bool]:
    return (column >= start) & (column < end)


def _orders(connection: Connection, account: str, start: datetime, end: datetime) -> tuple[OrderFact, ...]:
    """Orders made in the day, and older ones to which something happened in it."""
    touched = select(order_events.c.client_order_id).where(
        order_events.c.account == account, _within(order_events.c.at, start, end)
    )
    return order_facts(
        connection,
        account=account,
        where=_within(orders.c.created_at, start, end) | orders.c.client_order_id.in_(touched),
    )


def _strategies(connection: Connection, account: str, session: date) -> tuple[StrategyUsed, ...]:
    rows = connection.execute(
        select(strategies.c.strategy, strategies.c.version, strategies.c.digest)
        .join(
            decision_sets,
            (decision_sets.c.account == strategies.c.account)
            & (decision_sets.c.strategy == strategies.c.strategy)
            & (decision_sets.c.strategy_version == strategies.c.version),
        )
        .where(decision_sets.c.account == account, decision_sets.c.session == session)
        .order_by(strategies.c.strategy)
    )
    return tuple(StrategyUsed(row.strategy, row.version, row.digest) for row in rows)


def _deciders(connection: Connection, account: str, session: date) -> tuple[str, ...]:
    return tuple(
        connection.execute(
            select(decision_sets.c.decider)
            .where(decision_sets.c.account == account, decision_sets.c.session == session)
            .order_by(decision_sets.c.strategy)
        ).scalars()
    )
