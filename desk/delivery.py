"""The delivering loop: one thread a channel, so that a slow one holds up no other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from desk.alerts import AlertChannel, deliver_by
from desk.errors import OnepathError
from desk.ledger.engine import Ledger

__all__ = ["DeliveryLoop"]

log = logging.getLogger(__name__)

PERIOD_S = 1.0
PAUSE_S = 5.0  # while the ledger cannot be reached
STOP_S_MAX = 10.0


class DeliveryLoop:
    """Delivers every second until its block ends. It outlives the ledger: what is in the outbox waits for it.

    connect: opens the ledger; called again when it failed. account: whose alerts; None while nobody knows yet.
    """

    def __init__(
        self,
        connect: Callable[[], Ledger],
        *,
        account: Callable[[], str | None],
        channels: Sequence[AlertChannel],
        period_s: float = PERIOD_S,
    ) -> None:
        self._connect, self._account, self._period_s = connect, account, period_s
        self._channels = list(channels)
        self._chain = [channel.name for channel in channels if channel.pages]
        self._is_over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._seen: dict[str, float] = {}

    def __enter__(self) -> Self:
        for channel in self._channels:
            self._seen[channel.name] = time.monotonic()
            # Daemons: a server that hangs in a read must not keep the process from ending.
            thread = threading.Thread(target=self._serve, args=(channel,), name=channel.name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(STOP_S_MAX)

    def stuck(self, *, for_s: float) -> list[str]:
        """Channels whose thread has not come round for so long: it hangs, or has ended of a defect."""
        now = time.monotonic()
        return [name for name, at in self._seen.items() if now - at > for_s]

    def _serve(self, channel: AlertChannel) -> None:
        ledger: Ledger | None = None
        while not self._is_over.is_set():
            pause_s = self._period_s
            try:
                ledger = ledger or self._connect()
                account = self._account()
                if account is not None:
                    deliver_by(
                        ledger, channel, account=account, chain=self._chain, until=time.monotonic() + self._period_s
                    )
            except OnepathError as error:  # the watchdog's own look says that the ledger is away, and pages
                log.warning("delivery.paused", extra={"channel": channel.name, "error": str(error)})
                pause_s = PAUSE_S
            self._seen[channel.name] = time.monotonic()
            self._is_over.wait(pause_s)
        if ledger is not None:
            ledger.close()
