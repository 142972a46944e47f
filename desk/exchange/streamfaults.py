"""What faults do to messages of the streams."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from desk.exchange.journal import Said

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange

__all__ = ["Disconnected", "Interference", "interfering"]

Message = TypeVar("Message")
Update = dict[str, Any]


class Disconnected(Exception):
    """The connection is to be closed."""


class Interference(Generic[Message]):
    """One line of messages, and what is done to it: lost, doubled, swapped with the next, silenced, cut off."""

    def __init__(self, exchange: Exchange, stream: str) -> None:
        self._exchange, self._stream = exchange, stream
        self._kept: list[Message] = []
        self._muted_until_s: float | None = None
        self._mute_number: int | None = None

    def passed(self, message: Message, symbols: Collection[str]) -> list[Message]:
        """What is said instead of the message. Raises Disconnected. Called while the exchange is held."""

        def fires(name: str) -> bool:
            return self._exchange.faults.fires(name, self._stream, symbols) is not None

        if self._is_mute(symbols):
            return []
        if fires("disconnect"):
            self._kept.clear()
            raise Disconnected
        if fires("drop"):
            return []
        if not self._kept and fires("reorder"):
            self._kept.append(message)
            return []
        said = [message, *self._kept]
        self._kept.clear()
        return [message, *said] if fires("duplicate") else said

    def _is_mute(self, symbols: Collection[str]) -> bool:
        """Once silenced, silent until its time is over or the fault is cleared."""
        if self._muted_until_s is not None:
            still_set = any(one.number == self._mute_number for one in self._exchange.faults.armed)
            if still_set and self._exchange.now_s < self._muted_until_s:
                return True
            self._muted_until_s = None
        fired = self._exchange.faults.fires("mute", self._stream, symbols)
        if fired is None:
            return False
        self._mute_number = fired.number
        self._muted_until_s = float("inf") if fired["for_s"] is None else self._exchange.now_s + fired["for_s"]
        return True


def interfering(exchange: Exchange, cut: Callable[[], None]) -> Callable[[Update, str], list[Said]]:
    """For the journal: what becomes of each trade update. `cut` closes the connections that hear them."""
    line = Interference[Update](exchange, "trade_updates")

    def interfere(update: Update, symbol: str) -> list[Said]:
        try:
            return [*line.passed(update, (symbol,))]
        except Disconnected:
            return [cut]

    return interfere
