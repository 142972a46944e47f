"""Outside of a flow run, steps and agendas are plain calls: replay pays nothing for Prefect."""

from __future__ import annotations

import inspect
import subprocess
import sys
from datetime import date

import pytest
from prefect import Flow
from prefect.flows import load_flow_from_entrypoint

from desk.errors import Refused, Transient
from flows.agenda import agenda
from tasks.step import is_transient, step


@step(retries=3, retry_delay_seconds=[1, 4, 15], timeout_seconds=30)
def halve(amount: int, *, by: int = 2) -> float:
    """Half of it."""
    return amount / by


@agenda("test-day")
def day(session: date | None = None) -> float:
    """One step."""
    return halve(10)


@agenda("test-week")
def week(session: date | None = None) -> float:
    """Two days."""
    return day(session) + day(session)


def test_a_step_outside_a_flow_run_is_the_function_itself_with_its_signature() -> None:
    assert halve(10, by=5) == 2.0
    assert (halve.__name__, halve.__doc__) == ("halve", "Half of it.")
    assert list(inspect.signature(halve).parameters) == ["amount", "by"]


def test_a_step_outside_a_flow_run_is_not_retried() -> None:
    calls = []

    @step(retries=3)
    def hiccup() -> None:
        calls.append(1)
        raise Transient("502")

    with pytest.raises(Transient):
        hiccup()
    assert len(calls) == 1


def test_only_transient_errors_are_tried_again_by_default() -> None:
    assert is_transient(Transient("502"))
    assert not is_transient(Refused("no", status=403))
    assert not is_transient(ValueError("a bug"))


def test_a_coroutine_cannot_be_a_step() -> None:
    with pytest.raises(TypeError, match="needs a plain function"):

        @step
        async def later() -> None: ...


def test_importing_and_calling_a_step_does_not_import_prefect() -> None:
    code = "import sys, tasks.step as s; s.step(lambda: 1)(); sys.exit('prefect' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_agenda_is_a_prefect_flow_and_outside_a_flow_run_a_plain_call() -> None:
    """No server is running here: a flow run could not even begin."""
    assert isinstance(week, Flow)
    assert week.name == "test-week"
    assert week(date(2024, 3, 5)) == 10.0


def test_an_agenda_shows_its_parameters_to_the_ui() -> None:
    assert list(day.parameters.properties) == ["session"]
    assert day.parameters.required == []


def test_an_agenda_can_be_loaded_by_module_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "days_of_test", sys.modules[__name__])

    assert load_flow_from_entrypoint("days_of_test.week", use_placeholder_flow=False) is week
