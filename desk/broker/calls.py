"""One call to the broker: ask whether it may be made, pace it, make it, and say what its failure means.

Three kinds of call:

- `read` changes nothing and is repeated a bounded number of times;
- `repeatable` changes something but is harmless twice (a cancel), and is repeated likewise;
- `once` is never repeated here (an order).

A Failure says what was heard. What it means for a given call is decided by the errors below and by
`desk.broker.alpaca`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests
from alpaca.common.exceptions import APIError

from desk.broker.pacing import Priority
from desk.broker.transport import Access
from desk.errors import Halt, Refused, TradingError, Transient
from desk.guard import assert_no_connection_held

__all__ = ["Calls", "Failure", "KeysRefused", "NoAnswer", "answered"]

log = logging.getLogger(__name__)

_PAUSES_S = (0.5, 1.0)  # before the second and the third try
_EXCERPT_CHARS = 160


class KeysRefused(Halt):
    """The broker does not accept the keys: wrong, revoked, or of another endpoint."""


class NoAnswer(Transient):
    """A read was not answered by the broker: the address cannot be reached, or something else lives there."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What was heard instead of an answer. `status` is None when no HTTP status came."""

    status: int | None
    code: int | None  # the broker's own, from its JSON body
    message: str  # one line, without secrets
    from_broker: bool  # the body is the broker's JSON error object
    cause: Exception | None

    @property
    def may_pass(self) -> bool:
        """Whether the same question may be answered a moment later."""
        return self.status is None or self.status in (408, 429) or self.status >= 500

    def __str__(self) -> str:
        code = f"/{self.code}" if self.code is not None else ""
        return f"{self.status}{code}: {self.message}" if self.status is not None else self.message


class Calls:
    """Makes the calls of one client. The keys are cut out of every message."""

    def __init__(self, access: Access) -> None:
        self._pacer = access.pacer
        self._sleep = access.sleep
        self._secrets = (access.key_id, access.secret_key)

    def heard(self, response: requests.Response) -> None:
        """Note what an answer's headers say of the broker's own allowance."""
        left = response.headers.get("X-RateLimit-Remaining")
        if left is not None and left.isdecimal():
            self._pacer.remaining(int(left))
        elif response.status_code == 429:
            self._pacer.remaining(0)

    def once(self, what: str, call: Callable[[], Any], priority: Priority) -> Any | Failure:
        """The answer as parsed JSON, or a Failure. Raises Transient when it was never sent."""
        assert_no_connection_held(what)
        self._pacer.admit(priority, what)
        try:
            return call()
        except APIError as error:
            return self._refusal(error)
        except json.JSONDecodeError as error:
            return Failure(None, None, "the body is not JSON", False, error)
        except requests.RequestException as error:
            return Failure(None, None, self._one_line(f"{type(error).__name__}: {error}"), False, error)

    def repeatable(self, what: str, call: Callable[[], Any], priority: Priority) -> Any | Failure:
        """Like `once`, tried three times while the failure may pass."""
        answer = self.once(what, call, priority)
        for pause_s in _PAUSES_S:
            if not (isinstance(answer, Failure) and answer.may_pass):
                return answer
            log.warning("broker.call_repeated call=%s pause_s=%s after=%s", what, pause_s, answer)
            self._sleep(pause_s)
            answer = self.once(what, call, priority)
        return answer

    def read(self, what: str, call: Callable[[], Any], priority: Priority = Priority.READ) -> Any:
        """The answer of a call that changes nothing. Raises Transient, Refused or Halt."""
        return answered(what, self.read_or_failure(what, call, priority))

    def read_or_failure(self, what: str, call: Callable[[], Any], priority: Priority = Priority.READ) -> Any | Failure:
        """Like `read`, for a caller to whom some failures are answers."""

        def not_empty() -> Any:
            answer = call()
            if answer is None:  # alpaca-py's word for an empty body
                raise requests.exceptions.InvalidJSONError("the body is empty")
            return answer

        return self.repeatable(what, not_empty, priority)

    def _refusal(self, error: APIError) -> Failure:
        """alpaca-py's error without its traps: `code` and `message` raise when the body is not the broker's."""
        text = str(error)
        try:
            body = json.loads(text)
        except json.JSONDecodeError:
            body = None
        if not (isinstance(body, dict) and isinstance(body.get("message"), str)):
            return Failure(error.status_code, None, self._one_line(text) or "empty body", False, error)
        code = body.get("code")
        known = code if isinstance(code, int) else None
        return Failure(error.status_code, known, self._one_line(body["message"]), True, error)

    def _one_line(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        line = " ".join(text.split())
        return line if len(line) <= _EXCERPT_CHARS else line[:_EXCERPT_CHARS] + "…"


def answered(what: str, answer: Any | Failure) -> Any:
    """The answer of a read, or the error its failure means. Raises Transient, Refused or Halt."""
    if isinstance(answer, Failure):
        raise _read_error(what, answer) from answer.cause
    return answer


def _read_error(what: str, failure: Failure) -> TradingError:
    """What a failed read means: it changed nothing, so only keys and definitive refusals are not transient."""
    if failure.status == 401:
        return KeysRefused(f"{what}: the broker refused the keys ({failure})")
    if failure.status == 403 and failure.code is None:
        return KeysRefused(f"{what}: these keys may not do this ({failure})")
    if failure.from_broker and failure.status is not None and not failure.may_pass:
        return Refused(f"{what}: refused ({failure})", status=failure.status, code=failure.code)
    unanswered = failure.status is None or not (failure.from_broker or failure.may_pass)
    return (NoAnswer if unanswered else Transient)(f"{what}: no usable answer ({failure})")
