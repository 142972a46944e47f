"""No database connection is held while anything outside is called.

The ledger says when a connection is checked out in the current context; whoever calls a broker, MLflow
or an alert channel asks first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["assert_no_connection_held", "connection_held"]

_held: ContextVar[int] = ContextVar("database_connections_held", default=0)


@contextmanager
def connection_held() -> Iterator[None]:
    """Mark the current context as holding a database connection."""
    token = _held.set(_held.get() + 1)
    try:
        yield
    finally:
        _held.reset(token)


def assert_no_connection_held(call: str) -> None:
    """Raises RuntimeError (a defect of ours, never retried) naming the call."""
    if _held.get():
        raise RuntimeError(f"{call}: a database connection is checked out during an outside call; commit first")
