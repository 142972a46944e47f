"""The gate between two stages: Great Expectations judges a frame, and nothing passes by silence.

Great Expectations lets an empty frame, a column of nulls and an infinity pass, and reports a missing column, a
wrong type or a naive time as a failed rule with the error tucked away. So the frame's shape is checked here
first, and afterwards each rule must have an answer. It is not thread-safe: one lock, one context a process.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from pandas.api import types

from desk.errors import GateFailed
from expectations import bars, decisions, watchlist
from expectations.suite import Kind, Rule, Severity, Suite

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite
    from great_expectations.core.batch_definition import BatchDefinition

__all__ = ["SUITES", "GateOutcome", "judge", "validate", "warm_up"]

SUITES = {"bars": bars.suite, "watchlist": watchlist.suite, "decisions": decisions.suite}

_EXAMPLES_MAX = 10
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class GateOutcome:
    """What the gate found. `passed`: no critical expectation failed."""

    frame: str
    passed: bool
    rows: int
    results: tuple[Mapping[str, object], ...]  # expectation, column, bound, observed, passed, severity, examples, ...
    data_hash: str  # sha256 of the frame that was judged
    suspects: tuple[str, ...]  # keys that break a critical rule which passed because enough others keep to it

    def require(self) -> None:
        """Raises GateFailed naming each failed critical expectation, the symbols and the values."""
        if self.passed:
            return
        broken = [r for r in self.results if not r["passed"] and r["severity"] == Severity.CRITICAL]
        raise GateFailed(f"{self.frame}: " + "; ".join(_sentence(result) for result in broken))


def validate(suite_name: str, frame: pd.DataFrame) -> GateOutcome:
    """Judge `frame` by the suite of that name: "bars", "watchlist" or "decisions"."""
    return judge(SUITES[suite_name](), frame)


def judge(suite: Suite, frame: pd.DataFrame) -> GateOutcome:
    """Judge `frame` by `suite`. When its shape is wrong, that alone is the result and no rule is asked."""
    frame = frame.reset_index(drop=True)  # Great Expectations answers with index labels
    results = list(_shape_faults(suite, frame))
    suspects: set[str] = set()
    if not results:
        for rule, answer in _answers(suite, frame):
            results.append(_result(rule, answer, suite.key, frame))
            if isinstance(answer, _Answer) and answer.kept and rule.severity is Severity.CRITICAL:
                suspects |= set(frame[suite.key].iloc[answer.outside].tolist())
    return GateOutcome(
        frame=suite.frame,
        passed=all(r["passed"] or r["severity"] != Severity.CRITICAL for r in results),
        rows=len(frame),
        results=tuple(results),
        data_hash=_data_hash(frame),
        suspects=tuple(sorted(suspects)),
    )


def warm_up() -> None:
    """Import Great Expectations and build its context: seconds, once a process. Safe in a thread at start."""
    with _lock:
        _batches()


def _sentence(result: Mapping[str, object]) -> str:
    examples = result["examples"]
    pairs = [(e["key"], e["value"]) for e in examples] if isinstance(examples, list) else []
    which = f" ({', '.join(key if key == value else f'{key} {value}' for key, value in pairs)})" if pairs else ""
    return f"{result['rule']}: {result['column']} must be {result['bound']}, {result['observed']}{which}"


# the shape of the frame -----------------------------------------------------------------------------------------


def _shape_faults(suite: Suite, frame: pd.DataFrame) -> Iterator[Mapping[str, object]]:
    if frame.empty:
        yield _shape_fault("frame has rows", suite.key, "at least one row", "none")
    for column, kind in suite.columns.items():
        if column not in frame.columns:
            found = ", ".join(map(str, frame.columns))
            yield _shape_fault("column exists", column, "a column of the frame", f"found {found}")
        elif not frame.empty:
            yield from _column_faults(column, kind, frame[column], frame.get(suite.key))


def _column_faults(
    column: str, kind: Kind, values: pd.Series, keys: pd.Series | None
) -> Iterator[Mapping[str, object]]:
    nulls = values.isna()
    if nulls.all():
        yield _shape_fault("column holds values", column, "free of nulls", f"all {len(values)} are null")
        return
    if not _is_of(kind, values):
        yield _shape_fault(f"column is {kind}", column, _NEEDED[kind], f"found {values.dtype}")
        return
    if nulls.any():
        yield _shape_fault("no nulls", column, "free of nulls", *_outside(nulls.to_numpy(), values, keys))
    if kind is Kind.NUMBER:
        infinite = np.isinf(values.to_numpy(dtype=np.float64, na_value=np.nan))
        if infinite.any():
            yield _shape_fault("no infinities", column, "finite", *_outside(infinite, values, keys))


_NEEDED = {Kind.TEXT: "text", Kind.NUMBER: "numbers", Kind.TIME: "aware times"}


def _is_of(kind: Kind, values: pd.Series) -> bool:
    match kind:
        case Kind.TEXT:
            return types.infer_dtype(values, skipna=True) == "string"
        case Kind.NUMBER:
            return types.is_numeric_dtype(values.dtype) and not types.is_bool_dtype(values.dtype)
        case Kind.TIME:
            return isinstance(values.dtype, pd.DatetimeTZDtype)


def _outside(flagged: np.ndarray, values: pd.Series, keys: pd.Series | None) -> tuple[str, list[dict[str, object]]]:
    places = np.flatnonzero(flagged).tolist()
    return f"{len(places)} of {len(values)} rows are not", _examples(places, values, keys)


def _shape_fault(
    rule: str, column: str, bound: str, observed: str, examples: list[dict[str, object]] | None = None
) -> Mapping[str, object]:
    return {
        "rule": rule,
        "expectation": "shape",
        "column": column,
        "bound": bound,
        "observed": observed,
        "passed": False,
        "severity": str(Severity.CRITICAL),
        "examples": examples or [],
        "unit": "",
        "reason": "a rule on a frame of another shape would pass, or fail, without meaning it",
    }


# Great Expectations ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Answer:
    kept: bool
    outside: list[int]  # rows outside the bound, by position


def _answers(suite: Suite, frame: pd.DataFrame) -> list[tuple[Rule, _Answer | str]]:
    """Each rule with its answer, or with the error that took the place of one.

    The first pass counts; only rules with rows outside are asked again for which, which costs more.
    """
    judged = frame[list(suite.columns)]
    with _lock:
        counted = _ask(suite.rules, judged, "BASIC")
        unkept = [rule for rule in suite.rules if _count_outside(counted.get(rule.name)) > 0]
        located = _ask(unkept, judged, "COMPLETE") if unkept else {}
    return [(rule, _answer(located.get(rule.name, counted.get(rule.name)))) for rule in suite.rules]


def _ask(rules: Iterable[Rule], frame: pd.DataFrame, result_format: Literal["BASIC", "COMPLETE"]) -> dict[str, Any]:
    """Great Expectations' results by rule name; it answers in another order than it is asked."""
    batch = _batches().get_batch(batch_parameters={"dataframe": frame})
    answer = batch.validate(_expectations(rules), result_format=result_format)
    configured = [(result.expectation_config, result) for result in answer.results]
    return {config.meta["rule"]: result for config, result in configured if config and config.meta}


def _count_outside(result: Any) -> int:
    return 0 if result is None else int(result.result.get("unexpected_count", 0))


def _answer(result: Any) -> _Answer | str:
    if result is None:
        return "no result"
    error = _error(result.exception_info or {})
    if error is not None or "element_count" not in result.result:
        return error or "a result without a count of rows"
    return _Answer(bool(result.success), list(result.result.get("unexpected_index_list") or []))


def _error(exception_info: Mapping[str, Any]) -> str | None:
    """The message of an error inside a result: it lies flat, or under the name of the metric that failed."""
    parts = [exception_info] if "raised_exception" in exception_info else list(exception_info.values())
    raised = [part for part in parts if isinstance(part, Mapping) and part.get("raised_exception")]
    return str(raised[0].get("exception_message")) if raised else None


def _result(rule: Rule, answer: _Answer | str, key: str, frame: pd.DataFrame) -> Mapping[str, object]:
    """A rule that could not be judged has failed, critically, whatever its severity."""
    unjudged = isinstance(answer, str)
    share = f", for at least {rule.share_min:.0%} of rows" if rule.share_min < 1 else ""
    outside = [] if isinstance(answer, str) else answer.outside
    return {
        "rule": rule.name,
        "expectation": rule.expectation,
        "column": rule.column,
        "bound": rule.bound + share,
        "observed": f"not judged: {answer}" if unjudged else f"{len(outside)} of {len(frame)} rows are not",
        "passed": not isinstance(answer, str) and answer.kept,
        "severity": str(Severity.CRITICAL if unjudged else rule.severity),
        "examples": _examples(outside, frame[rule.column], frame[key]),
        "unit": rule.unit,
        "reason": rule.reason,
    }


def _examples(places: list[int], values: pd.Series, keys: pd.Series | None) -> list[dict[str, object]]:
    """The first rows outside a bound, as JSON types."""
    named = values if keys is None else keys
    return [{"key": str(named.iloc[at]), "value": str(values.iloc[at])} for at in places[:_EXAMPLES_MAX]]


@functools.cache
def _batches() -> BatchDefinition[Any]:
    """The one ephemeral context's way to take a frame. Only under the lock."""
    import great_expectations
    from great_expectations.data_context.types.base import ProgressBarsConfig

    # That module asks for INFO on import, and tells whoever configured logging where its temporary folder was.
    logging.getLogger(ProgressBarsConfig.__module__).setLevel(logging.WARNING)
    context = great_expectations.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("frames").add_dataframe_asset("frame")
    return asset.add_batch_definition_whole_dataframe("whole")


def _expectations(rules: Iterable[Rule]) -> ExpectationSuite:
    import great_expectations
    import great_expectations.expectations as offered

    built = great_expectations.ExpectationSuite(name="rules")
    for rule in rules:
        expectation = getattr(offered, "".join(word.title() for word in rule.expectation.split("_")))
        meta = {"rule": rule.name, "unit": rule.unit, "reason": rule.reason}
        built.add_expectation(
            expectation(
                column=rule.column,
                mostly=rule.share_min,
                severity=str(rule.severity),
                meta=meta,
                **rule.arguments,
            )
        )
    return built


def _data_hash(frame: pd.DataFrame) -> str:
    """sha256 over column names and rows, the same on any machine."""
    digest = hashlib.sha256("\n".join(map(str, frame.columns)).encode())
    digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().astype("<u8").tobytes())
    return digest.hexdigest()
