"""Reports people read: one for each session, one for each replay. Self-contained HTML."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from desk.ledger.engine import Ledger

__all__ = ["write_session_report"]


def write_session_report(ledger: Ledger, *, account: str, session: date, home: Path) -> Path:
    """Write the session's report as the ledger has it now, in place of an earlier one. Returns its path.

    Raises BadInput when the ledger does not know the account or the session.
    """
    from desk.ledger.sessionbook import session_book  # on use: jinja2 and SQLAlchemy wait until a report is wanted
    from desk.report.render import write_report

    with ledger.transaction() as connection:
        book = session_book(connection, account=account, session=session)
    return write_report(home, book)
