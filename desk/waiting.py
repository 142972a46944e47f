"""How time passes while we wait for the broker: by itself, or because waiting moves the simulated clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import requests

from desk.errors import BadInput

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange

__all__ = ["DrivenClock", "InProcessClock", "WallClock"]


class WallClock:
    """Real time: wait, and it has passed."""

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


class DrivenClock:
    """The clock of a simulated exchange that stands still unless someone moves it: waiting moves it."""

    def __init__(self, exchange_url: str) -> None:
        self._url = exchange_url.rstrip("/") + "/admin/clock"

    def wait(self, seconds: float) -> None:
        self._post({"advance_s": seconds})

    def set(self, now: str) -> None:
        """Move the clock to an ISO time with a zone. Raises BadInput for a time in the past."""
        self._post({"now": now})

    def _post(self, body: dict[str, object]) -> None:
        answer = requests.post(self._url, json=body, timeout=(3.0, 60.0))
        if answer.status_code != 200:
            raise BadInput(f"simulated exchange {self._url}: clock not moved by {body} ({answer.text[:200]})")


class InProcessClock:
    """The same for an exchange in this process."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def wait(self, seconds: float) -> None:
        self._exchange.advance(seconds)
