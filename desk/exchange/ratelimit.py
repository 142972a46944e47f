"""So many requests a minute, and the headers that say how many are left."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["MinuteLimit"]


class MinuteLimit:
    """So many requests in each minute of a clock."""

    def __init__(self, per_minute: int, now_s: Callable[[], float]) -> None:
        """now_s: the clock, epoch seconds."""
        self._limit = per_minute
        self._now_s = now_s
        self._minute = -1
        self._used = 0

    def take(self) -> tuple[bool, dict[str, str]]:
        """Whether the request may pass, and the headers that say how many are left."""
        minute = int(self._now_s() // 60)
        if minute != self._minute:
            self._minute, self._used = minute, 0
        self._used += 1
        left = max(0, self._limit - self._used)
        headers = {
            "X-RateLimit-Limit": str(self._limit),
            "X-RateLimit-Remaining": str(left),
            "X-RateLimit-Reset": str((minute + 1) * 60),
        }
        return self._used <= self._limit, headers
