"""What a decider answers: buy, sell or hold, one decision per symbol and session, with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

__all__ = ["Action", "Approval", "Decision"]


class Action(StrEnum):
    BUY = "buy"
    SELL = "sell"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Approval:
    """A row of `policy_approvals`: which version of a model may decide, and the file it must be."""

    model: str  # "onepath-policy"
    version: int
    digest: str  # sha256 of the ONNX file

    @property
    def name(self) -> str:
        return f"{self.model}/{self.version}"


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision on one symbol. Prices are USD per share, `quantity` is whole shares (0 for hold).

    A buy carries a limit, a stop and a target around its reference price (the mid it was sized with); a
    sell carries the reference alone. Probabilities are None when a held symbol was not scored.
    """

    symbol: str
    action: Action
    reason: str
    quantity: Decimal
    reference_price: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    target_price: Decimal | None = None
    buy_probability: float | None = None
    sell_probability: float | None = None

    def __post_init__(self) -> None:
        name = f"decision to {self.action} {self.symbol}"
        if self.quantity != self.quantity.to_integral_value() or self.quantity < 0:
            raise ValueError(f"{name}: quantity {self.quantity}, a whole number of shares is needed")
        if (self.action is Action.HOLD) != (self.quantity == 0):
            raise ValueError(f"{name}: quantity {self.quantity}, 0 for a hold and at least 1 otherwise is needed")
        if self.action is not Action.BUY:
            return
        prices = (self.stop_price, self.reference_price, self.limit_price, self.target_price)
        stop, reference, limit, target = prices
        if stop is None or reference is None or limit is None or target is None:
            raise ValueError(f"{name}: stop, reference, limit and target {prices}, all four are needed")
        if not (0 < stop < reference < target and stop < limit < target):
            raise ValueError(
                f"{name}: stop {stop}, reference {reference}, limit {limit}, target {target}: "
                "the stop must lie below, the target above both of the others"
            )
