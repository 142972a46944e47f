"""The accounts this installation trades."""

from __future__ import annotations

from sqlalchemy import Connection, select

from desk.errors import Halt
from desk.ledger.tables import accounts
from desk.ledger.writing import insert_first

__all__ = ["known_accounts", "open_account"]


def open_account(connection: Connection, *, account: str, broker: str, venue: str) -> None:
    """Record the account on first sight; later, prove that it is still the same one.

    Raises Halt when the account was opened on another broker or venue: its orders and fills would not be ours.
    """
    insert_first(connection, accounts, {"account": account, "broker": broker, "venue": venue})
    known = connection.execute(select(accounts.c.broker, accounts.c.venue).where(accounts.c.account == account)).one()
    if (known.broker, known.venue) != (broker, venue):
        raise Halt(
            f"account {account}: the ledger knows it on {known.broker} ({known.venue}), found {broker} ({venue}); "
            "use another ledger database for another venue"
        )


def known_accounts(connection: Connection) -> list[str]:
    """Accounts that were ever opened here, by number."""
    return list(connection.execute(select(accounts.c.account).order_by(accounts.c.account)).scalars())
