"""Defects to plant: what a hurried change could make of the product. The simulation must find each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

import desk.protocol
import desk.reconcile
import tasks.decisioning
import tasks.execution
import tasks.monitoring
from desk.ledger.orders import LedgerOrder
from desk.orders import OrderState
from desk.protocol import OrderDesk

__all__ = ["DEFECTS"]

Plant = Callable[[pytest.MonkeyPatch], None]


def _new_id_on_retry(patch: pytest.MonkeyPatch) -> None:
    """A repeated order goes out under another client order id."""
    honest = LedgerOrder.request.fget  # type: ignore[attr-defined]

    def request(order: LedgerOrder) -> Any:
        asked = honest(order)
        return asked if order.attempt < 2 else replace(asked, client_order_id=asked.client_order_id[:-1] + "2")

    patch.setattr(LedgerOrder, "request", property(request))


def _unknown_is_rejected(patch: pytest.MonkeyPatch) -> None:
    """What got no usable answer is written down as refused."""
    honest = OrderDesk._note

    def note(self: OrderDesk, order: LedgerOrder, state: OrderState, why: str) -> None:
        honest(self, order, OrderState.REJECTED if state is OrderState.UNKNOWN else state, why)

    patch.setattr(OrderDesk, "_note", note)


def _fill_twice(patch: pytest.MonkeyPatch) -> None:
    """Whether a fill is new is not asked: each reading applies it again."""
    honest = desk.reconcile.record_fill

    def record(*given: Any, **named: Any) -> bool:
        honest(*given, **named)
        return True

    patch.setattr(desk.reconcile, "record_fill", record)


def _sent_before_written(patch: pytest.MonkeyPatch) -> None:
    """SENDING is committed after the POST."""
    begin, post = OrderDesk._begin_sending, OrderDesk._post

    def send(self: OrderDesk, order_id: str) -> None:
        with self._ledger.transaction() as connection:
            order = desk.protocol.order_of(connection, account=self._account, client_order_id=order_id)
        assert order is not None
        if order.state is not OrderState.RESERVED:
            post(self, order_id)
            return
        try:
            self._broker.submit(order.request)
        finally:
            begin(self, order_id, only_from=(OrderState.RESERVED,))

    patch.setattr(OrderDesk, "_begin_sending", lambda self, order_id, only_from: True)
    patch.setattr(OrderDesk, "_post", send)


def _coverage_assumed(patch: pytest.MonkeyPatch) -> None:
    """That each position has its stop is taken for granted."""
    patch.setattr(tasks.monitoring, "bare_trades", lambda _books: [])
    patch.setattr(tasks.execution, "bare_trades", lambda _books: [])


def _connection_held(patch: pytest.MonkeyPatch) -> None:
    """The account is locked in the ledger while its orders are cancelled at the broker."""
    honest = OrderDesk.cancel

    def cancel(self: OrderDesk, orders: Any) -> Any:
        with self._ledger.transaction():
            return honest(self, orders)

    patch.setattr(OrderDesk, "cancel", cancel)


def _fallback_untold(patch: pytest.MonkeyPatch) -> None:
    """Nobody hears that the fallback decided."""
    patch.setattr(tasks.decisioning, "raise_alert", lambda *_given, **_named: None)


DEFECTS: Mapping[str, Plant] = {
    "new id on retry": _new_id_on_retry,
    "UNKNOWN is rejected": _unknown_is_rejected,
    "fill applied twice": _fill_twice,
    "sent before written down": _sent_before_written,
    "stop coverage assumed": _coverage_assumed,
    "connection held during a call": _connection_held,
    "fallback untold": _fallback_untold,
}
