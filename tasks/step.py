"""A step: a Prefect task inside a flow run, a plain call outside of one.

That is how the very same agenda serves Prefect, replay and simulation. A step called by another step is a plain
call too: the outer one is what a person sees and retries.

Prefect never sees a step's arguments or its result. They travel in a closure, so that ledgers, brokers and frames
are neither walked, hashed, serialised nor logged, and nothing is cached: a rerun runs the step again, and the
step itself recognises in the ledger what it already did.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from desk.errors import OnepathError, Transient

if TYPE_CHECKING:
    from prefect import Task

__all__ = ["RunCancelled", "cancel_asked", "is_transient", "step"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class RunCancelled(OnepathError):
    """Someone cancelled the flow run in the UI; it ends here, between two steps."""


# Set by the runner of this process while its one flow run is asked to end. A step, once begun, is never torn apart.
cancel_asked = threading.Event()


def is_transient(error: BaseException) -> bool:
    """The world hiccuped and nothing was changed by it: the step may be tried again."""
    return isinstance(error, Transient)


class _Sealed(Generic[T]):
    """A value Prefect looks at without looking into it."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value


@overload
def step(fn: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def step(
    *,
    name: str | None = None,
    retries: int = 0,
    retry_delay_seconds: float | Sequence[float] = 0,
    retry_if: Callable[[BaseException], bool] = is_transient,
    timeout_seconds: float | None = None,
    tags: Iterable[str] = (),
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def step(
    fn: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    retry_delay_seconds: float | Sequence[float] = 0,
    retry_if: Callable[[BaseException], bool] = is_transient,
    timeout_seconds: float | None = None,
    tags: Iterable[str] = (),
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a step. Retries and the timeout hold inside a flow run only.

    `retry_if` gets the exception; by default only Transient errors are tried again. A list of delays gives the
    wait before each retry. Raises TypeError for coroutine and generator functions: a step is a plain call.
    """

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(fn) or inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(f"step {fn.__qualname__}: needs a plain function")

        @functools.cache
        def task() -> Task[[_Sealed[Callable[[], R]]], _Sealed[R]]:
            return _task(
                fn,
                name=name or fn.__name__,
                retries=retries,
                retry_delay_seconds=list(retry_delay_seconds)
                if isinstance(retry_delay_seconds, Sequence)
                else retry_delay_seconds,
                retry_if=retry_if,
                timeout_seconds=timeout_seconds,
                tags=tuple(tags),
            )

        modules = sys.modules

        @functools.wraps(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            # Without Prefect imported there can be no flow run, and importing it here would cost replay seconds.
            context = modules.get("prefect.context")
            if context is None or context.FlowRunContext.get() is None or context.TaskRunContext.get() is not None:
                return fn(*args, **kwargs)
            if cancel_asked.is_set():
                raise RunCancelled(f"cancelled before step {name or fn.__name__}")
            return task()(_Sealed(functools.partial(fn, *args, **kwargs))).value

        return call

    return decorate if fn is None else decorate(fn)


def _task(
    fn: Callable[..., R],
    *,
    name: str,
    retries: int,
    retry_delay_seconds: float | list[float],
    retry_if: Callable[[BaseException], bool],
    timeout_seconds: float | None,
    tags: tuple[str, ...],
) -> Task[[_Sealed[Callable[[], R]]], _Sealed[R]]:
    from prefect import Task
    from prefect.cache_policies import NO_CACHE

    def run(sealed: _Sealed[Callable[[], R]]) -> _Sealed[R]:
        return _Sealed(sealed.value())

    def retry(_task: object, _run: object, state: Any) -> bool:
        return isinstance(state.data, BaseException) and retry_if(state.data)

    # Named after the function, so that the UI, logs and tracebacks speak of it (functools.wraps would lend its
    # signature too, and Prefect binds arguments by signature).
    run.__name__, run.__qualname__, run.__module__ = fn.__name__, fn.__qualname__, fn.__module__
    return Task(
        run,
        name=name,
        description=inspect.getdoc(fn),
        tags=tags,
        retries=retries,
        retry_delay_seconds=retry_delay_seconds,
        retry_condition_fn=retry,
        timeout_seconds=timeout_seconds,
        cache_policy=NO_CACHE,
        persist_result=False,
        cache_result_in_memory=False,
        log_prints=False,
    )
