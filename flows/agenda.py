"""An agenda: the order of steps of one stage, as a Prefect flow.

`@agenda("trading")` makes a real `prefect.Flow`, so deployments, the UI, reruns and child flows work as anywhere.
It differs in one thing, the same as a step does: called outside any flow run it is a plain call, without Prefect's
engine or server. A top-level flow run is started by a runner, from a deployment; replay just calls.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar, cast
from zoneinfo import ZoneInfo

from prefect import Flow
from prefect.context import FlowRunContext
from prefect.runtime import flow_run as this_run
from prefect.states import Completed

from tasks.alerting import alert_failed_run

__all__ = ["Agenda", "agenda"]

P = ParamSpec("P")
R = TypeVar("R")

NEW_YORK = ZoneInfo("America/New_York")


class Agenda(Flow[P, R]):
    """A flow that is a child flow run inside a flow run and a plain call outside of one."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # type: ignore[override]  # no state, no futures
        if FlowRunContext.get() is None:
            return self.fn(*args, **kwargs)
        return super().__call__(*args, **kwargs)


def agenda(
    name: str, *, timeout_seconds: float | None = None, description: str | None = None
) -> Callable[[Callable[P, R]], Agenda[P, R]]:
    """Make a function the agenda of the stage `name`.

    A run that fails, crashes or is cancelled raises an alert. There are no flow-level retries: retries are
    declared at steps, where what is repeated is known to be harmless.
    """

    def decorate(fn: Callable[P, R]) -> Agenda[P, R]:
        @functools.wraps(fn)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            return _shown(fn(*args, **kwargs))

        # Prefect makes a form of the parameters: it would look for their types where `run` was written.
        del run.__wrapped__
        run.__signature__ = inspect.signature(fn, eval_str=True)  # type: ignore[attr-defined]
        return Agenda(
            run,
            name=name,
            description=description,
            flow_run_name=_named(name),
            timeout_seconds=timeout_seconds,
            persist_result=False,
            on_failure=[alert_failed_run],
            on_crashed=[alert_failed_run],
            on_cancellation=[alert_failed_run],
        )

    return decorate


def _shown(result: R) -> R:
    """A stage that skipped ends in a flow run as "Skipped", with its reason: the list of runs shows it."""
    if FlowRunContext.get() is None or not isinstance(result, Mapping) or "skipped" not in result:
        return result
    return cast(R, Completed(name="Skipped", message=str(result["skipped"])))


def _named(name: str) -> Callable[[], str]:
    """Runs are called after their stage and session: "trading 2024-03-05"."""

    def run_name() -> str:
        session = this_run.get_parameters().get("session")
        due = this_run.get_scheduled_start_time().astimezone(NEW_YORK)
        return f"{name} {session or f'{due:%Y-%m-%d %H:%M}'}"

    return run_name
