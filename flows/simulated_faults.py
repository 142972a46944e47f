"""What goes wrong in a simulated week, drawn from its seed: one list of things per family of faults.

Most are faults of the simulated exchange. Some are nothing a broker does: a run that comes late, a person's order,
hours in which this machine slept. Those are deeds of the simulation's own scheduler, by name.

Left out of every family, with the reason:
- `leg_double_fill`: the account is short by the broker's doing, and no step of ours could have kept it from that;
- faults of the two streams: nothing here listens to them yet;
- `process_kill`: real kills belong to subprocesses.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from desk.errors import BadInput
from desk.market import Session, at_new_york

__all__ = ["DEFAULT_FAMILIES", "FAMILIES", "Mishap", "draw", "read_families"]

When = Literal["screening", "entries", "session", "close"]

_READS = ["orders", "by_client_order_id", "positions", "account", "clock", "activities_of_type", "latest_quotes"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault and where in the day it strikes; each value of `choices` is one of several, drawn."""

    name: str
    when: tuple[When, ...]
    choices: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    symbols: int = 0  # how many it names; 0: all
    is_deed: bool = False  # done by the scheduler


@dataclass(frozen=True, slots=True)
class Mishap:
    """One thing that will go wrong: a script for the exchange, or a deed of the scheduler."""

    family: str
    name: str
    at: datetime
    script: Mapping[str, Any] | None
    choices: Mapping[str, Any]
    until: datetime  # nothing that is due later is disturbed


_BROKER = (
    Kind("lost_response", ("entries", "session"), {"operation": ["submit"], "probability": [0.3, 1.0]}),
    Kind("ambiguous_504", ("entries", "session"), {"operation": ["submit"], "probability": [0.3, 1.0]}),
    Kind("lost_response", ("entries",), {"operation": ["submit"], "probability": [0.3, 1.0]}),
    Kind("order_lag", ("entries", "session"), {"lag_s": [5, 20, 120], "probability": [0.5, 1.0]}),
    Kind("position_lag", ("entries", "session"), {"lag_s": [5, 20, 120], "probability": [0.5, 1.0]}),
    Kind("bp_lag", ("entries",), {"lag_s": [5, 20, 120]}),
    Kind("async_reject", ("entries", "session"), {"times": [1, 2], "probability": [0.5, 1.0]}),
    Kind("stuck_pending", ("entries", "session"), {"for_s": [5, 45, 600], "times": [1, 2]}),
    Kind("partial_stall", ("entries", "session"), {"for_s": [5, 45, 600], "times": [1, 2]}),
    Kind("entry_partial_cancel", ("entries",), {"times": [1, 2]}),
    Kind("cancel_fill_race", ("entries", "session"), {"times": [1, 2]}),
    Kind("cancel_stuck", ("entries", "session"), {"for_s": [5, 45, 120], "times": [1, 2]}),
    Kind("leg_loss", ("entries",), {"leg": ["stop", "target", "both"], "times": [1, 2]}),
    Kind("leg_silent_cancel", ("entries",), {"after_s": [5, 60, 900], "times": [1, 2]}),
    Kind("untradable", ("entries",), {"times": [1, 2, 6]}),
    Kind("pdt_legacy", ("entries",), {"times": [1, 2]}),
    Kind("halt", ("entries", "session"), {"for_s": [60, 300, 1800]}, symbols=4),
)
_NETWORK = (
    Kind("lost_request", ("screening", "entries", "session"), {"hang_s": [15, 30], "probability": [0.2, 0.6]}),
    Kind("lost_request", ("entries",), {"operation": ["submit"], "hang_s": [15], "probability": [0.5, 1.0]}),
    Kind("lost_request", ("session",), {"operation": ["submit"], "hang_s": [15], "times": [1, 2, 5]}),
    Kind("lost_response", ("entries", "session", "close"), {"probability": [0.1, 0.5]}),
    Kind("latency", ("entries", "session"), {"seconds": [0.5, 4, 15], "probability": [0.2, 1.0]}),
    Kind("burst_5xx", ("screening", "entries", "session", "close"), {"length": [2, 6, 20], "times": [1, 3]}),
    Kind("burst_429", ("entries", "session", "close"), {"length": [2, 6], "times": [1, 3]}),
    Kind("garbage_body", ("entries", "session"), {"body": ["html", "truncated", "empty"], "probability": [0.1, 0.5]}),
    Kind("garbage_body", ("entries",), {"operation": ["submit"], "body": ["html", "truncated"], "times": [1, 3]}),
    Kind("schema_drift", ("entries", "session"), {"change": ["enum", "null"], "probability": [0.1, 0.3]}),
    Kind("auth_revoked", ("session",), {"times": [1, 4], "operation": _READS}),
)
_DATA = (
    Kind("stale_quote", ("entries", "session"), {"age_s": [20, 60, 3600], "probability": [0.3, 1.0]}),
    Kind("zero_quote", ("entries", "session"), {"side": ["bid", "ask", "both"], "probability": [0.3, 1.0]}),
    Kind("late_bar", ("screening",), {"times": [1, 3]}),
    Kind("bar_correction", ("screening",), {"percent": [-40, 5, 300]}),
    Kind("missing_bars", ("screening",), {"fraction": [0.02, 0.05, 0.5]}),
    Kind("page_cut", ("screening",), {"operation": ["bars"], "times": [1]}),
    Kind("stale_quote", ("entries", "session"), {"age_s": [20, 60], "times": [1, 5]}),
    Kind("zero_quote", ("entries", "session"), {"times": [1, 5]}),
    Kind("gap", ("session",), {"percent": [-15, -4, 4, 15]}, symbols=8),
    Kind("gap", ("entries", "session"), {"percent": [-15, -4, 4, 15]}, symbols=3),
    Kind("split", ("session",), {"ratio": [2, 3, 0.5]}, symbols=3),
    Kind("dividend", ("session",), {"usd": [0.25, 1]}, symbols=3),
)
_CLOCK = (
    Kind("clock_skew", ("entries", "session"), {"skew_s": [-90, -5, 5, 90], "probability": [0.3, 1.0]}),
    Kind("early_close", ("session",), {"in_s": [1, 600]}),
    Kind("sleep", ("entries", "session"), {"hours": [0.5, 4]}, is_deed=True),
)
_ORCHESTRATION = (
    Kind("late", ("entries", "session"), {"stage": ["trading", "position-monitor", "close-of-day"],
         "minutes": [2, 20, 45]}, is_deed=True),
    Kind("doubled", ("entries", "session"), {"stage": ["trading", "position-monitor", "premarket-screening"],
         "seconds": [0, 5, 40]}, is_deed=True),
    Kind("skipped", ("entries", "session"), {"stage": ["premarket-screening", "trading", "position-monitor",
         "close-of-day"], "minutes": [5, 60]}, is_deed=True),
    Kind("rerun", ("entries", "session", "close"), {"stage": ["premarket-screening", "trading", "position-monitor",
         "close-of-day"]}, is_deed=True),
)  # fmt: skip
_PERSON = (
    Kind("manual_buy", ("entries", "session"), {"qty": [1, 10]}, is_deed=True),  # sold again an hour later
    Kind("manual_sale", ("entries", "session"), {"share": [0.5, 1.0]}, is_deed=True),
    Kind("manual_sale", ("session",), {"share": [0.5, 1.0]}, is_deed=True),
    Kind("manual_cancel", ("entries", "session"), is_deed=True),
    Kind("manual_cancel", ("session",), is_deed=True),
)

FAMILIES: Mapping[str, tuple[Kind, ...]] = {
    "broker": _BROKER,
    "network": _NETWORK,
    "data": _DATA,
    "clock": _CLOCK,
    "orchestration": _ORCHESTRATION,
    "person": _PERSON,
}
DEFAULT_FAMILIES: tuple[str, ...] = tuple(FAMILIES)

_A_DAY = (0, 1, 1, 2)  # mishaps of each family in a session, drawn
_WINDOW_MINUTES: Mapping[When, tuple[int, ...]] = {
    "screening": (2, 5),
    "entries": (2, 5, 15),
    "session": (2, 15, 60),  # exits are few: a short window meets none
    "close": (2, 5),
}


def read_families(text: str | None) -> tuple[str, ...]:
    """Names separated by commas, in the order of the families; nothing given means the default ones.

    Raises BadInput.
    """
    if text is None:
        return DEFAULT_FAMILIES
    asked = [name.strip() for name in text.split(",")]
    for name in asked:
        if name not in FAMILIES:
            raise BadInput(f"--faults {text}: unknown family {name!r}; known are {', '.join(FAMILIES)}")
    return tuple(name for name in FAMILIES if name in asked)


def draw(
    rng: random.Random, families: Collection[str], session: Session, symbols: Sequence[str], *, until: datetime
) -> list[Mishap]:
    """What goes wrong in this session, nothing later than `until`."""
    found = []
    for family in families:
        for _ in range(rng.choice(_A_DAY)):
            kind = rng.choice(FAMILIES[family])
            when = rng.choice(kind.when)
            at = _moment(rng, when, session)
            chosen = {name: rng.choice(values) for name, values in kind.choices.items()}
            named = sorted(rng.sample(list(symbols), min(kind.symbols, len(symbols))))
            length = timedelta(minutes=rng.choice(_WINDOW_MINUTES[when]))
            if at >= until:
                continue
            script = None if kind.is_deed else _script(kind, chosen, named, at, min(at + length, until))
            found.append(Mishap(family, kind.name, at, script, chosen, until))
    return sorted(found, key=lambda each: (each.at, each.family, each.name))


_WORLD = ("halt", "gap", "early_close", "split", "dividend")


def _script(
    kind: Kind, chosen: Mapping[str, Any], symbols: Sequence[str], at: datetime, until: datetime
) -> Mapping[str, Any]:
    script: dict[str, Any] = {"fault": kind.name, **chosen, "after": at.isoformat()}
    if kind.name not in _WORLD:  # those happen once, at their time
        script["until"] = until.isoformat()
    if symbols:
        script["symbol"] = list(symbols)
    return script


def _moment(rng: random.Random, when: When, session: Session) -> datetime:
    if when == "screening":
        return at_new_york(session.day, "03:59")
    if when == "entries":  # around the trading stage, ten minutes in
        return session.opens + timedelta(seconds=rng.randrange(510, 610))
    if when == "close":
        return session.closes + timedelta(minutes=14)
    minutes = int((session.closes - session.opens).total_seconds() // 60)
    return session.opens + timedelta(seconds=rng.randrange(60, minutes * 60))
