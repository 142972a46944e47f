"""What faults do to orders on the trading floor."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol

from desk.exchange.drafts import OrderDraft
from desk.exchange.simorder import SimOrder

__all__ = ["Mischief"]


class Mischief(Protocol):
    """Asked by the floor only while such a fault is set."""

    def refuse(self, draft: OrderDraft) -> None:
        """Raises ApiError for an order that is refused out of turn."""
        ...

    def keeps(self, order: SimOrder) -> bool:
        """Whether the order does not reach the venue."""
        ...

    def share(self, order: SimOrder, qty: Decimal) -> Decimal:
        """How much of `qty` a fill takes."""
        ...

    def after_part(self, order: SimOrder) -> None:
        """A part was filled."""
        ...

    def fills_twin(self, order: SimOrder, twin: SimOrder) -> bool:
        """Whether the other exit of a pair fills as well."""
        ...

    def surviving(self, legs: list[SimOrder]) -> list[SimOrder]:
        """The legs that are activated."""
        ...

    def activated(self, legs: Sequence[SimOrder]) -> None: ...

    def cancel_fate(self, order: SimOrder, members: list[SimOrder]) -> list[SimOrder] | None:
        """None: the cancel takes its usual way. Otherwise the orders that will be confirmed later."""
        ...

    def races(self, order: SimOrder) -> bool:
        """Whether a fill will win over the replacement."""
        ...

    def before_replacement(self, order: SimOrder) -> None:
        """The venue is about to replace the order."""
        ...
