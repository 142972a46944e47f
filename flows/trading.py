"""09:40 New York: decisioning, then execution."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from flows.agenda import agenda
from tasks.decisioning import decide, read_inputs, write_decisions
from tasks.execution import close_sold, one_at_a_time, recover, send_entries, settle_entries
from tasks.shift import LEFT_TO, shift


@agenda("decisioning", description="Watchlist, positions and cash become decisions, written before anything is sent.")
def decisioning(session: date) -> None:
    inputs = read_inputs(session)
    if inputs is not None:
        write_decisions(inputs, decide(inputs))


@agenda("execution", description="Decisions become orders, each exactly once, followed until they end.")
def execution(session: date) -> Mapping[str, object]:
    with one_at_a_time("trading") as is_ours:
        if not is_ours:
            return {LEFT_TO: "another run, which is at work"}
        recover(session)
        sold = close_sold(session)
        sent = send_entries(session)
        return settle_entries(session, sent, sold)


@agenda("trading", description="Decides and executes, once a session.")
def trading(session: date | None = None) -> Mapping[str, object]:
    with shift("trading", session) as today:
        if not today.skipped:
            decisioning(today.day)
            today.note(execution(today.day))
    return today.summary
