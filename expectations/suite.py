"""What a suite is: the columns of a frame and a few rules on them, as plain data.

Great Expectations judges them in `expectations.gate`; nothing here imports it, it takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Kind", "Rule", "Severity", "Suite", "between", "one_of", "unique"]


class Severity(StrEnum):
    CRITICAL = "critical"  # the stage stops
    WARNING = "warning"  # noted, and shown in the report


class Kind(StrEnum):
    """What a column must be made of. No column of a suite may hold nulls or infinities."""

    TEXT = "text"
    NUMBER = "number"
    TIME = "time"  # aware; naive times are refused


@dataclass(frozen=True, slots=True)
class Rule:
    """One expectation on one column. `name` identifies it within its suite."""

    name: str
    expectation: str  # Great Expectations' name: "expect_column_values_to_be_between"
    column: str
    arguments: Mapping[str, object]
    severity: Severity
    unit: str  # of the column: "USD", "sessions"
    reason: str  # why this bound and no other
    bound: str  # for people: "0 to 1"
    share_min: float = 1.0  # of the rows that must keep to the bound


@dataclass(frozen=True, slots=True)
class Suite:
    """The rules of one frame. `key` is the column that names a row in messages."""

    frame: str
    key: str
    columns: Mapping[str, Kind]
    rules: tuple[Rule, ...] = field(default=())

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.rules]
        strangers = {self.key, *(rule.column for rule in self.rules)} - self.columns.keys()
        if len(set(names)) < len(names) or not names or strangers:
            raise ValueError(f"suite {self.frame}: rules {names} must be distinct, columns {strangers} declared")


def between(
    name: str,
    column: str,
    low: float | None,
    high: float | None,
    *,
    unit: str,
    reason: str,
    share_min: float = 1.0,
    severity: Severity = Severity.CRITICAL,
) -> Rule:
    """Values from `low` to `high`, both inclusive; None: no bound on that side."""
    if low is None or high is None:
        bound = f"at least {low:g}" if low is not None else f"at most {high:g}"
    else:
        bound = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    arguments = {"min_value": low, "max_value": high}
    expectation = "expect_column_values_to_be_between"
    return Rule(name, expectation, column, arguments, severity, unit, reason, bound, share_min)


def one_of(name: str, column: str, values: tuple[str, ...], *, reason: str) -> Rule:
    arguments = {"value_set": list(values)}
    expectation = "expect_column_values_to_be_in_set"
    return Rule(name, expectation, column, arguments, Severity.CRITICAL, "", reason, ", ".join(values))


def unique(name: str, column: str, *, reason: str) -> Rule:
    return Rule(name, "expect_column_values_to_be_unique", column, {}, Severity.CRITICAL, "", reason, "unique")
