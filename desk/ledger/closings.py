"""The closed books of each session. The first closing committed stands."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from decimal import Decimal

from sqlalchemy import Connection, select
from sqlalchemy.engine import RowMapping

from desk.ledger.records import Closing, HeldPosition
from desk.ledger.tables import closings as table
from desk.ledger.writing import insert_first

__all__ = ["closing_of", "closings", "record_closing"]

_AMOUNTS = ("quantity", "price", "value", "entry_price")


def record_closing(connection: Connection, *, account: str, closing: Closing) -> bool:
    """Close a session's books. False, and nothing written, when they are closed already."""
    values = {name: getattr(closing, name) for name in Closing.__slots__}
    values["positions"] = [asdict(position) for position in closing.positions]
    values["differences"] = list(closing.differences)
    return insert_first(connection, table, {"account": account, **values})


def closing_of(connection: Connection, *, account: str, session: date) -> Closing | None:
    row = (
        connection.execute(select(table).where(table.c.account == account, table.c.session == session))
        .mappings()
        .one_or_none()
    )
    return None if row is None else _closing(row)


def closings(
    connection: Connection, *, account: str, start: date | None = None, end: date | None = None
) -> list[Closing]:
    """The account's closings from `start` to `end`, both inclusive, oldest first: its equity curve."""
    query = select(table).where(table.c.account == account)
    if start is not None:
        query = query.where(table.c.session >= start)
    if end is not None:
        query = query.where(table.c.session <= end)
    return [_closing(row) for row in connection.execute(query.order_by(table.c.session)).mappings()]


def _closing(row: RowMapping) -> Closing:
    values = {name: row[name] for name in Closing.__slots__}
    values["positions"] = tuple(
        HeldPosition(symbol=each["symbol"], **{name: Decimal(each[name]) for name in _AMOUNTS})
        for each in row["positions"]
    )
    values["differences"] = tuple(row["differences"])
    return Closing(**values)
