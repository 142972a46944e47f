"""Faults that were set, and when each fires.

A script names a fault and, where wanted, narrows it: by `nth` call (1 is the first), `symbol`, time (`after`, `until`
of the exchange's clock), `probability`, `operation`, and `times` it may fire at most. Calls are counted after symbol,
operation and time have narrowed them. Each firing is a line of the log.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from desk.errors import BadInput
from desk.exchange.amounts import rfc3339
from desk.exchange.faultlist import FAULTS, FaultKind, Setting

__all__ = ["Armed", "Faults", "ProcessKilled", "read_script"]

_GENERAL = ("fault", "nth", "symbol", "operation", "after", "until", "probability", "times", "seed")


class ProcessKilled(BaseException):
    """The fault `process_kill`: whoever called is meant to be dead. Not to be caught by what it kills."""


@dataclass(slots=True)
class Armed:
    """A fault that is set. `settings` are the kind's own, by name."""

    number: int
    kind: FaultKind
    settings: Mapping[str, Any]
    nth: frozenset[int] | None
    symbols: frozenset[str] | None
    operations: frozenset[str]  # empty: all
    after: datetime | None
    until: datetime | None
    probability: float | None
    times: int | None
    seed: int
    chance: random.Random = field(init=False, repr=False)
    calls: int = 0
    fired: int = 0
    bursting: int = 0  # calls that still fail because of the last firing

    def __post_init__(self) -> None:
        self.chance = random.Random(f"{self.seed}|{self.number}|{self.kind.name}")

    def __getitem__(self, name: str) -> Any:
        return self.settings[name]

    @property
    def on_its_own(self) -> bool:
        """A fault of the world that waits for no call: it happens at its time."""
        return self.kind.place == "world" and self.nth is None and self.probability is None and not self.operations

    def strikes(self, now: datetime, operation: str | None, symbols: Collection[str]) -> bool:
        """Count this call, if it is one of its calls, and say whether the fault fires."""
        if self.operations and operation not in self.operations:
            return False
        if self.symbols is not None and self.kind.place != "world" and self.symbols.isdisjoint(symbols):
            return False
        if (self.after is not None and now < self.after) or (self.until is not None and now >= self.until):
            return False
        if self.bursting:
            self.bursting -= 1
            return True
        self.calls += 1
        if (self.nth is not None and self.calls not in self.nth) or (
            self.times is not None and self.fired >= self.times
        ):
            return False
        if self.probability is not None and self.chance.random() >= self.probability:
            return False
        self.bursting = int(self.settings.get("length", 1)) - 1
        return True

    @property
    def document(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "fault": self.kind.name,
            "says": self.kind.says,
            **self.settings,
            "nth": None if self.nth is None else sorted(self.nth),
            "symbol": None if self.symbols is None else sorted(self.symbols),
            "operation": sorted(self.operations),
            "after": None if self.after is None else rfc3339(self.after),
            "until": None if self.until is None else rfc3339(self.until),
            "probability": self.probability,
            "times": self.times,
            "seed": self.seed,
            "calls": self.calls,
            "fired": self.fired,
        }


class Faults:
    """All that are set. While none is, whoever asks looks at one flag of its own place and goes on."""

    def __init__(self, now: Callable[[], datetime], note: Callable[..., None], *, seed: int) -> None:
        self._now, self._note, self._seed = now, note, seed
        self._armed: dict[str, list[Armed]] = {}
        self._count = 0
        self.at_gateway = self.on_floor = self.at_updates = self.at_streams = False

    def arm(self, scripts: Sequence[Mapping[str, Any]], operations: Collection[str]) -> list[Armed]:
        """Set faults, all or none. `operations`: names a script may use. Raises BadInput when a script cannot be
        followed."""
        read = [
            read_script(script, self._count + place, seed=self._seed, operations=operations)
            for place, script in enumerate(scripts, start=1)
        ]
        self._count += len(read)
        for armed in read:
            self._armed.setdefault(armed.kind.name, []).append(armed)
            self._note("fault.set", armed)
        self._look()
        return read

    def clear(self, number: int | None = None) -> int:
        """Take one away, or all. Returns how many. What has happened stays happened."""
        gone = {one.number for one in self.armed if number is None or one.number == number}
        kept = [one for one in self.armed if one.number not in gone]
        self._armed = {}
        for one in kept:
            self._armed.setdefault(one.kind.name, []).append(one)
        self._look()
        return len(gone)

    @property
    def armed(self) -> list[Armed]:
        return sorted((one for ones in self._armed.values() for one in ones), key=lambda one: one.number)

    def fires(
        self, name: str, operation: str | None = None, symbols: Collection[str] = (), **wanted: Any
    ) -> Armed | None:
        """The fault of that name that fires at this call, or None. It is logged. `wanted`: settings it must have for
        the call to be one of its calls."""
        fired = None
        for one in self._armed.get(name, ()):
            if any(one[key] != value for key, value in wanted.items()):
                continue
            if one.strikes(self._now(), operation, symbols) and fired is None:
                fired = one
        if fired is not None:
            self.log(fired, operation, symbols)
        return fired

    def log(self, fired: Armed, operation: str | None = None, symbols: Collection[str] = ()) -> None:
        """Count and write down a firing."""
        fired.fired += 1
        fields = {"operation": operation or "", "symbol": ",".join(sorted(symbols)[:5])}
        self._note("fault.fired", fired, **{name: value for name, value in fields.items() if value})

    def has(self, *names: str) -> bool:
        return any(name in self._armed for name in names)

    def _look(self) -> None:
        places = {one.kind.place for one in self.armed}
        self.at_gateway = not places.isdisjoint({"wire", "answer", "world"})
        self.on_floor = "floor" in places
        self.at_updates = "update" in places
        self.at_streams = not places.isdisjoint({"stream", "update"})


def read_script(script: Mapping[str, Any], number: int, *, seed: int, operations: Collection[str]) -> Armed:
    """Raises BadInput naming what is wrong and what would be right."""
    name = script.get("fault")
    if not isinstance(name, str) or name not in FAULTS:
        raise BadInput(f"fault {name!r}: unknown; known are {', '.join(sorted(FAULTS))}")
    kind = FAULTS[name]
    given = {key: value for key, value in script.items() if value is not None}
    for key in given:
        if key not in _GENERAL and key not in kind.settings:
            own = (*_GENERAL[1:], *kind.settings)
            raise BadInput(f"fault {name}: unknown field {key!r}; known are {', '.join(own)}")
    after, until = _time(name, given, "after"), _time(name, given, "until")
    if after is not None and until is not None and until <= after:
        raise BadInput(f"fault {name}: until {rfc3339(until)} is not later than after {rfc3339(after)}")
    symbols = _names(name, given, "symbol")
    if kind.place == "world" and name != "early_close" and not symbols:
        raise BadInput(f"fault {name}: symbol is needed, it says where it happens")
    chosen = _names(name, given, "operation") or frozenset(kind.operations)
    stages = {"trade_updates", "market_data", *kind.operations} if kind.place not in ("wire", "answer", "world") else ()
    for operation in sorted(chosen):
        if operation not in (*operations, *stages):
            raise BadInput(f"fault {name}: unknown operation {operation!r}; known are "
                           f"{', '.join(sorted({*operations, *stages}))}")  # fmt: skip
    probability = given.get("probability")
    if probability is not None and not (_is_number(probability) and 0 < probability <= 1):
        raise BadInput(f"fault {name}: probability {probability!r}; a number above 0, at most 1, is needed")
    nth = _counts(name, given.get("nth"))
    return Armed(
        number=number,
        kind=kind,
        settings={key: _setting(name, key, one, given.get(key)) for key, one in kind.settings.items()},
        nth=nth,
        symbols=symbols,
        operations=chosen,
        after=after,
        until=until,
        probability=None if probability is None else float(probability),
        times=_count(name, "times", given.get("times", 1 if kind.place == "world" else None)),
        seed=_seed(name, given.get("seed", seed)),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool) and math.isfinite(value)


def _counts(name: str, nth: Any) -> frozenset[int] | None:
    if nth is None:
        return None
    several = nth if isinstance(nth, list) else [nth]
    if not several:
        raise BadInput(f"fault {name}: nth is an empty list; name at least one call")
    return frozenset(count for one in several if (count := _count(name, "nth", one)) is not None)


def _count(name: str, key: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(f"fault {name}: {key} {value!r}; a whole number from 1 is needed")
    return value


def _seed(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadInput(f"fault {name}: seed {value!r}; a whole number is needed")
    return value


def _names(name: str, given: Mapping[str, Any], key: str) -> frozenset[str] | None:
    value = given.get(key)
    if value is None:
        return None
    several = value if isinstance(value, list) else [value]
    if not several or not all(isinstance(one, str) and one for one in several):
        raise BadInput(f"fault {name}: {key} {value!r}; a name or a list of names is needed")
    return frozenset(several)


def _time(name: str, given: Mapping[str, Any], key: str) -> datetime | None:
    value = given.get(key)
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        at = None
    if at is None or at.tzinfo is None:
        raise BadInput(f"fault {name}: {key} {value!r}; a time with its zone is needed, as 2024-03-05T14:35:00Z")
    return at


def _setting(name: str, key: str, setting: Setting, value: Any) -> Any:
    if value is None:
        return setting.default
    if setting.choices:
        if value not in setting.choices or isinstance(value, bool) != isinstance(setting.choices[0], bool):
            raise BadInput(f"fault {name}: {key} {value!r}; one of {', '.join(map(str, setting.choices))} is needed")
        return value
    if not _is_number(value) or not setting.least <= value <= setting.most:
        raise BadInput(f"fault {name}: {key} {value!r}; a number from {setting.least:g} to {setting.most:g} is needed")
    return float(value)
