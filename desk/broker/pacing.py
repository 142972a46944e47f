"""Staying below the broker's 200 requests a minute, with cancels and exits first.

A token bucket per account and process. In any 60 s at most `per_minute` requests are let through: the
burst plus what is refilled meanwhile, so the refill is (per_minute - burst) a minute. What is less urgent
also leaves a reserve in the bucket: after a long listing a cancel still goes at once.

Other processes spend the same allowance at the broker. What its answers say of the remainder
(`X-RateLimit-Remaining`) is taken over by `remaining`.
"""

from __future__ import annotations

import itertools
import threading
import time
from bisect import insort
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from desk.errors import Transient

__all__ = ["NullPacer", "Pacer", "Priority", "TokenBucket"]


class Priority(IntEnum):
    """Who goes first. The value is the order of service."""

    EXIT = 0  # cancels, and orders that reduce a position
    LOOKUP = 1  # has an order of ours arrived?
    ENTRY = 2
    READ = 3


# Requests left in the bucket for whoever is more urgent.
_RESERVE = {Priority.EXIT: 0, Priority.LOOKUP: 2, Priority.ENTRY: 4, Priority.READ: 8}

# A wait shorter than this would not move a clock of float seconds reliably.
_SLEEP_S_MIN = 0.001


class Pacer(Protocol):
    def admit(self, priority: Priority, call: str) -> None:
        """Return when `call` may be sent. Raises Transient when that takes too long; nothing was sent then."""
        ...

    def remaining(self, requests: int) -> None:
        """The broker says it will take `requests` more for now."""
        ...


class NullPacer:
    """No pacing: a simulated exchange whose minutes pass faster than ours has no limit per real minute."""

    def admit(self, priority: Priority, call: str) -> None:
        pass

    def remaining(self, requests: int) -> None:
        pass


class TokenBucket:
    """At most `per_minute` requests in any 60 s, `burst` of them at once. Safe to share between threads.

    `wait_s_max` bounds a wait; `monotonic` gives seconds, `sleep` takes seconds.
    """

    def __init__(
        self,
        *,
        per_minute: int = 180,
        burst: int = 30,
        wait_s_max: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        smallest = max(_RESERVE.values()) + 1
        if not smallest <= burst < per_minute:
            raise ValueError(f"token bucket: burst {burst}, {smallest} to {per_minute - 1} is needed")
        self._burst = burst
        self._refill_per_s = (per_minute - burst) / 60
        self._per_minute = per_minute
        self._wait_s_max = wait_s_max
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._tokens = float(burst)
        self._refilled_at = monotonic()
        self._numbers = itertools.count()
        self._waiting: list[tuple[Priority, int]] = []  # most urgent first, then oldest first

    def admit(self, priority: Priority, call: str) -> None:
        with self._lock:
            started = self._monotonic()
            ticket = (priority, next(self._numbers))
            insort(self._waiting, ticket)
        try:
            while True:
                with self._lock:
                    wait_s = self._take_or_wait_s(ticket)
                    left_s = self._wait_s_max - (self._monotonic() - started)
                if wait_s == 0:
                    return
                if left_s <= 0:
                    raise Transient(
                        f"{call}: not sent, waited {self._wait_s_max:g} s for one of {self._per_minute} "
                        f"requests a minute as {priority.name}"
                    )
                self._sleep(max(min(wait_s, left_s), _SLEEP_S_MIN))
        finally:
            with self._lock:
                self._waiting.remove(ticket)

    def remaining(self, requests: int) -> None:
        with self._lock:
            self._refill()
            self._tokens = min(self._tokens, float(max(requests, 0)))

    def _take_or_wait_s(self, ticket: tuple[Priority, int]) -> float:
        """Take a token for `ticket` and return 0, or the seconds until trying again makes sense."""
        self._refill()
        ahead = self._waiting.index(ticket)
        needed = 1 + _RESERVE[ticket[0]] + ahead
        if self._tokens >= needed:
            self._tokens -= 1
            return 0.0
        return (needed - self._tokens) / self._refill_per_s

    def _refill(self) -> None:
        now = self._monotonic()
        self._tokens = min(float(self._burst), self._tokens + (now - self._refilled_at) * self._refill_per_s)
        self._refilled_at = now
