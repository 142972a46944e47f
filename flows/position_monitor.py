"""Each minute of the session: is every position what we think it is, protected, and within its limits?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from flows.agenda import agenda
from tasks.monitoring import watch_positions
from tasks.shift import shift


@agenda("position-monitor", description="Reconciles, checks each position against fresh quotes, closes what breached.")
def position_monitor(session: date | None = None) -> Mapping[str, object]:
    with shift("position-monitor", session) as now:
        if not now.skipped:
            now.note(watch_positions(now))
    return now.summary
