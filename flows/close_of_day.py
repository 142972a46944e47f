"""16:15 New York, or a quarter past an early close: the books of the session are closed and shown."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from flows.agenda import agenda
from tasks.closing import close_books, publish_report, reconcile_to_rest
from tasks.shift import shift


@agenda("close-of-day", description="Reconciles to rest, marks to market, writes the session's report.")
def close_of_day(session: date | None = None) -> Mapping[str, object]:
    with shift("close-of-day", session) as today:
        if not today.skipped:
            books = reconcile_to_rest(today)
            close_books(today, books)
            publish_report(today)
    return today.summary
