"""Reading the ledger for people: queries that put rows together as facts. Nothing here writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from datetime import date, datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Date, cast, func, select
from sqlalchemy.engine import RowMapping

from desk.ledger.facts import (
    AccountFact,
    DecisionFact,
    EventFact,
    FillFact,
    MonitorExit,
    OrderFact,
    ScoredFact,
    ScreeningFact,
    TradeFact,
    VerdictFact,
    WatchFact,
)
from desk.ledger.tables import (
    accounts,
    control_verdicts,
    decision_sets,
    decisions,
    fills,
    monitor_cycles,
    order_events,
    orders,
    screenings,
    trades,
    watchlist,
)

__all__ = [
    "account_fact",
    "decision_facts",
    "fill_facts",
    "monitor_exits",
    "new_york_day",
    "order_facts",
    "scored_facts",
    "screening_fact",
    "trade_facts",
    "verdict_facts",
    "watch_fact",
]

F = TypeVar("F")


def account_fact(connection: Connection, account: str) -> AccountFact | None:
    row = connection.execute(select(accounts).where(accounts.c.account == account)).mappings().one_or_none()
    return None if row is None else _fact(AccountFact, row)


def screening_fact(connection: Connection, *, account: str, session: date) -> ScreeningFact | None:
    listed = (
        select(func.count())
        .where(watchlist.c.account == screenings.c.account, watchlist.c.session == screenings.c.session)
        .scalar_subquery()
    )
    query = select(screenings, listed.label("listed")).where(
        screenings.c.account == account, screenings.c.session == session
    )
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _fact(ScreeningFact, row)


def scored_facts(
    connection: Connection, *, account: str, session: date, symbol: str | None = None, limit: int | None = None
) -> tuple[ScoredFact, ...]:
    """Rows of the session's watchlist, by rank; of one symbol alone when given."""
    query = select(watchlist).where(watchlist.c.account == account, watchlist.c.session == session)
    if symbol is not None:
        query = query.where(watchlist.c.symbol == symbol)
    rows = connection.execute(query.order_by(watchlist.c.rank).limit(limit)).mappings()
    return tuple(_fact(ScoredFact, row) for row in rows)


def decision_facts(
    connection: Connection, *, account: str, session: date | None = None, symbol: str | None = None
) -> tuple[DecisionFact, ...]:
    """Decisions with the set they belong to, newest session first, then by symbol."""
    together = decisions.join(
        decision_sets,
        (decision_sets.c.account == decisions.c.account)
        & (decision_sets.c.session == decisions.c.session)
        & (decision_sets.c.strategy == decisions.c.strategy),
    )
    of_set = ("strategy_version", "policy_digest", "equity", "buying_power", "decided_at")
    query = (
        select(decisions, *(decision_sets.c[name] for name in of_set))
        .select_from(together)
        .where(decisions.c.account == account)
    )
    if session is not None:
        query = query.where(decisions.c.session == session)
    if symbol is not None:
        query = query.where(decisions.c.symbol == symbol)
    rows = connection.execute(
        query.order_by(decisions.c.session.desc(), decisions.c.symbol, decisions.c.strategy)
    ).mappings()
    return tuple(_fact(DecisionFact, row) for row in rows)


def verdict_facts(
    connection: Connection, *, account: str, session: date, symbol: str | None = None
) -> tuple[VerdictFact, ...]:
    """What the controls said in a session, refusals first."""
    columns = control_verdicts.c
    query = select(control_verdicts).where(columns.account == account, columns.session == session)
    if symbol is not None:
        query = query.where(columns.symbol == symbol)
    rows = connection.execute(
        query.order_by(columns.allowed, columns.symbol, columns.client_order_id, columns.control)
    ).mappings()
    return tuple(_fact(VerdictFact, row) for row in rows)


def order_facts(connection: Connection, *, account: str, where: ColumnElement[bool]) -> tuple[OrderFact, ...]:
    """Orders with their events and fills, oldest first. `where` is over the columns of `orders`."""
    known = (orders.c.account == account) & where
    rows = connection.execute(
        select(orders).where(known).order_by(orders.c.created_at, orders.c.symbol, orders.c.leg, orders.c.generation)
    ).mappings()
    bare = [_fact(OrderFact, row) for row in rows]
    ids = select(orders.c.client_order_id).where(known)
    events: dict[str, list[EventFact]] = defaultdict(list)
    for row in connection.execute(
        select(order_events)
        .where(order_events.c.account == account, order_events.c.client_order_id.in_(ids))
        .order_by(order_events.c.sequence)
    ).mappings():
        events[row["client_order_id"]].append(_fact(EventFact, row))
    filled: dict[str, list[FillFact]] = defaultdict(list)
    for fill in fill_facts(connection, account=account, where=fills.c.client_order_id.in_(ids)):
        filled[fill.client_order_id].append(fill)
    return tuple(
        replace(order, events=tuple(events[order.client_order_id]), fills=tuple(filled[order.client_order_id]))
        for order in bare
    )


def fill_facts(connection: Connection, *, account: str, where: ColumnElement[bool]) -> tuple[FillFact, ...]:
    """Fills, oldest first. `where` is over the columns of `fills`."""
    rows = connection.execute(
        select(fills).where(fills.c.account == account, where).order_by(fills.c.filled_at, fills.c.activity_id)
    ).mappings()
    return tuple(_fact(FillFact, row) for row in rows)


def trade_facts(
    connection: Connection, *, account: str, where: ColumnElement[bool] | None = None
) -> tuple[TradeFact, ...]:
    """Trades, newest entry first. `where` is over the columns of `trades`."""
    query = select(trades).where(trades.c.account == account)
    if where is not None:
        query = query.where(where)
    rows = connection.execute(query.order_by(trades.c.session.desc(), trades.c.symbol, trades.c.strategy)).mappings()
    return tuple(_fact(TradeFact, row) for row in rows)


def monitor_exits(
    connection: Connection, *, account: str, start: datetime, end: datetime | None, symbol: str | None = None
) -> tuple[MonitorExit, ...]:
    """Exits the monitor decided on from `start` to `end`, both inclusive, oldest first."""
    query = select(monitor_cycles).where(_cycles_within(account, start, end), monitor_cycles.c.exits != [])
    if symbol is not None:
        query = query.where(monitor_cycles.c.exits.contains([{"symbol": symbol}]))
    found = []
    for row in connection.execute(query.order_by(monitor_cycles.c.cycle_at)).mappings():
        found += [
            MonitorExit(row["cycle_at"], row["session"], each["symbol"], each["reason"])
            for each in row["exits"]
            if symbol in (None, each["symbol"])
        ]
    return tuple(found)


def watch_fact(connection: Connection, *, account: str, start: datetime, end: datetime | None) -> WatchFact:
    """The monitor's evidence from `start` to `end`, both inclusive."""
    columns = monitor_cycles.c
    row = (
        connection.execute(
            select(
                func.count().label("cycles"),
                func.count().filter(columns.verdict == "RED").label("red"),
                func.max(columns.quote_age_max_s).label("quote_age_max_s"),
                func.coalesce(func.max(columns.stops_verified), 0).label("stops_verified_max"),
                func.min(columns.cycle_at).label("first_at"),
                func.max(columns.cycle_at).label("last_at"),
            ).where(_cycles_within(account, start, end))
        )
        .mappings()
        .one()
    )
    return _fact(WatchFact, row)


def new_york_day(column: ColumnElement[datetime]) -> ColumnElement[date]:
    """The New York calendar day of a time."""
    return cast(func.timezone("America/New_York", column), Date)


def _cycles_within(account: str, start: datetime, end: datetime | None) -> ColumnElement[bool]:
    within = (monitor_cycles.c.account == account) & (monitor_cycles.c.cycle_at >= start)
    return within if end is None else within & (monitor_cycles.c.cycle_at <= end)


def _fact(kind: type[F], row: RowMapping | Mapping[str, Any]) -> F:
    """The fact of a row: each field from the column of its name; fields without one keep their default."""
    names: Iterable[str] = (field.name for field in fields(kind))  # type: ignore[arg-type]  # facts are dataclasses
    return kind(**{name: row[name] for name in names if name in row})
