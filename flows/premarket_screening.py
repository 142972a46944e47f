"""04:00 New York: bars of the whole universe, gate, scores, gate, watchlist."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from flows.agenda import agenda
from tasks.screening import held_symbols, refresh_bars, score, tradable_symbols, write_watchlist
from tasks.shift import shift


@agenda("premarket-screening", description="Screens the universe before the market opens and writes the watchlist.")
def premarket_screening(session: date | None = None) -> Mapping[str, object]:
    with shift("premarket-screening", session) as today:
        if not today.skipped:
            symbols = tradable_symbols(today)
            bars = refresh_bars(today, symbols)
            screening = score(today, bars, held_symbols(today))
            write_watchlist(today, screening)
    return today.summary
