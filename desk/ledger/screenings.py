"""Screenings and their watchlists. The first one committed for a session stands."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import Connection, insert, select

from desk.ledger.records import ScreeningRecord
from desk.ledger.tables import screenings, watchlist
from desk.ledger.writing import insert_first
from desk.screening import ScreenedSymbol, Screening

__all__ = ["record_screening", "screening_of", "watchlist_of"]


def record_screening(
    connection: Connection, *, account: str, session: date, screening: Screening, screened_at: datetime
) -> bool:
    """Record the screening with its watchlist. False, and nothing written, when the session has one already."""
    is_first = insert_first(
        connection,
        screenings,
        {
            "account": account,
            "session": session,
            "screener": screening.screener,
            "data_hash": screening.data_hash,
            "last_bar": screening.last_bar,
            "universe": screening.universe,
            "eligible": screening.eligible,
            "screened_at": screened_at,
        },
    )
    if is_first and screening.rows:
        connection.execute(
            insert(watchlist),
            [
                {
                    "account": account,
                    "session": session,
                    "symbol": row.symbol,
                    "rank": row.rank,
                    "buy_probability": row.buy_probability,
                    "sell_probability": row.sell_probability,
                    "last_close": row.last_close,
                    "volume_20d": row.volume_20d,
                    "features": dict(row.features),
                }
                for row in screening.rows
            ],
        )
    return is_first


def screening_of(connection: Connection, *, account: str, session: date) -> ScreeningRecord | None:
    """The session's screening with its watchlist, by rank."""
    row = connection.execute(
        select(screenings).where(screenings.c.account == account, screenings.c.session == session)
    ).one_or_none()
    if row is None:
        return None
    screening = Screening(
        screener=row.screener,
        rows=watchlist_of(connection, account=account, session=session),
        universe=row.universe,
        eligible=row.eligible,
        data_hash=row.data_hash,
        last_bar=row.last_bar,
    )
    return ScreeningRecord(session=row.session, screening=screening, screened_at=row.screened_at)


def watchlist_of(connection: Connection, *, account: str, session: date) -> tuple[ScreenedSymbol, ...]:
    """The session's watchlist, by rank; empty also when nothing was screened."""
    rows = connection.execute(
        select(watchlist)
        .where(watchlist.c.account == account, watchlist.c.session == session)
        .order_by(watchlist.c.rank)
    )
    return tuple(
        ScreenedSymbol(
            symbol=row.symbol,
            rank=row.rank,
            buy_probability=row.buy_probability,
            sell_probability=row.sell_probability,
            last_close=row.last_close,
            volume_20d=row.volume_20d,
            features={name: float(value) for name, value in row.features.items()},
        )
        for row in rows
    )
