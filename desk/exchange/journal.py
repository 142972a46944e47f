"""What happened, in order: the log for people, the events for streams, and ids that repeat from run to run."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from desk.exchange.amounts import plain, rfc3339
from desk.exchange.simorder import SimOrder

__all__ = ["Entry", "Journal", "Listener", "Said"]

Listener = Callable[[dict[str, Any]], None]
Said = dict[str, Any] | Callable[[], None]  # an update; or something to be done at its place among the updates

_ENTRIES_KEPT = 200_000
_NAMESPACE = uuid.UUID("6f6e6570-6174-6820-6578-6368616e6765")


class Entry(NamedTuple):
    number: int  # counts from 1 since the last reset
    at: datetime
    event: str  # dotted noun and past verb: "order.filled"
    fields: dict[str, str]


class Journal:
    """Ids are uuid5 of the account and a counter: same calls, same ids."""

    def __init__(self, account_number: str) -> None:
        self._root = uuid.uuid5(_NAMESPACE, account_number)
        self._listeners: list[Listener] = []
        self._undelivered: deque[Said] = deque()
        self._delivery = threading.RLock()
        self.interfere: Callable[[dict[str, Any], str], list[Said]] | None = None  # what faults do to updates
        self.restart()

    def restart(self) -> None:
        """Forget everything that happened; listeners stay."""
        self._ids = 0
        self._count = 0
        self._entries: deque[Entry] = deque(maxlen=_ENTRIES_KEPT)

    def new_id(self) -> str:
        self._ids += 1
        return str(uuid.uuid5(self._root, str(self._ids)))

    def note(self, at: datetime, event: str, **fields: str) -> None:
        self._count += 1
        self._entries.append(Entry(self._count, at, event, fields))

    def entries(self, after: int, limit: int) -> list[Entry]:
        """At most `limit` entries with a number above `after`, oldest first. The oldest may be gone."""
        if not self._entries:
            return []
        skip = max(0, after - self._entries[0].number + 1)
        return [self._entries[i] for i in range(skip, min(len(self._entries), skip + limit))]

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with each trade update from now on. Returns what ends it."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def trade_update(
        self,
        event: str,
        order: SimOrder,
        at: datetime,
        *,
        position_qty: Decimal,
        execution_id: str | None = None,
        price: Decimal | None = None,
        qty: Decimal | None = None,
    ) -> None:
        """Log it, and queue it for the streams."""
        fields = {"id": order.id, "symbol": order.symbol, "side": order.side}
        if price is not None and qty is not None:
            fields |= {"qty": plain(qty), "price": plain(price)}
        self.note(at, f"order.{event}", **fields)
        if not self._listeners:
            return
        update: dict[str, Any] = {
            "event": event,
            "execution_id": execution_id or self._execution_id(order, event),
            "order": order.nested_document(),
            "timestamp": rfc3339(at),
        }
        if price is not None and qty is not None:
            update |= {"price": plain(price), "qty": plain(qty), "position_qty": plain(position_qty)}
        if self.interfere is None:
            self._undelivered.append(update)
        else:
            self._undelivered.extend(self.interfere(update, order.symbol))

    def deliver(self) -> None:
        """Hand queued updates to the listeners, in order. Called with no lock of the exchange held."""
        if not self._undelivered:
            return
        with self._delivery:
            while self._undelivered:
                update = self._undelivered.popleft()
                if not isinstance(update, dict):
                    update()
                    continue
                for listener in tuple(self._listeners):
                    listener(update)

    def _execution_id(self, order: SimOrder, event: str) -> str:
        # Not from the counter: order ids must not depend on whether someone listens.
        return str(uuid.uuid5(self._root, f"{order.id}|{event}|{self._count}"))
