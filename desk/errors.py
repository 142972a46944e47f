"""What can go wrong, named after the next move.

OnepathError
 ├── BadInput        the caller gave something unusable: say what, exit 2
 ├── TradingError
 │    ├── Transient  the world hiccuped: trying again may help
 │    ├── Refused    the broker said no: record why, carry on with the rest
 │    ├── Ambiguous  nobody knows whether the broker acted: resolve by looking the order up
 │    └── Halt       nothing more is sent until a person has looked
 ├── GateFailed      data between two stages broke a critical expectation: the stage stops, trades nothing
 └── Unavailable     a decider cannot decide, for a named reason: the fallback rule decides

Every message gives the object, the value found and what was needed, in one line.
"""

from __future__ import annotations

__all__ = [
    "Ambiguous",
    "BadInput",
    "GateFailed",
    "Halt",
    "OnepathError",
    "Refused",
    "TradingError",
    "Transient",
    "Unavailable",
]


class OnepathError(Exception):
    """Base of every error this product raises on purpose."""


class BadInput(OnepathError):
    """A file, argument, setting or service given by the user cannot be used.

    The message is one line that names the thing and the remedy; the command line exits with 2.
    """


class TradingError(OnepathError):
    """Base of what the broker side can answer."""


class Transient(TradingError):
    """The world hiccuped and nothing was changed by it: repeating is safe."""


class Refused(TradingError):
    """The broker said no, definitively. `status` and `code` are the broker's."""

    def __init__(self, message: str, *, status: int, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Ambiguous(TradingError):
    """A request that changes something got no usable answer: it may or may not have happened."""


class Halt(TradingError):
    """Nothing more is sent until a person has looked (bad keys, wrong account, order mismatch)."""


class GateFailed(OnepathError):
    """Data between two stages broke a critical expectation. The stage stops and trades nothing.

    The message names the frame, each broken expectation, and the symbols and values that broke it.
    """


class Unavailable(OnepathError):
    """A policy cannot decide, for a named reason. The only way into the fallback rule."""
