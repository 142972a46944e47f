"""What Alpaca leaves open, or does differently from day to day, as choices of the simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ExchangeOptions"]


@dataclass(frozen=True, slots=True)
class ExchangeOptions:
    """The defaults are the plainest behaviour seen: at once, whole, and the same every time."""

    submitted_status: Literal["pending_new", "accepted"] = "pending_new"
    """What POST answers in session. With the market closed it is always "accepted"."""

    fill_on_submit_latency_s: float = 0.0
    """Virtual seconds from POST to `new` and the first match. 0: right after the answer was built, so a later
    GET shows the fill although the clock stands still."""

    cancel_latency_s: float = 0.0
    """Virtual seconds an order stays `pending_cancel`; a fill may win meanwhile. 0: cancelled at once."""

    partial_fill_probability: float = 0.0
    """Chance that a fill of two or more shares takes only a part; the rest waits for the next tick."""

    seed: int = 0
    """Seeds the partial fills."""

    override_holds: Literal["until_next_tick", "until_replaced"] = "until_next_tick"
    """How long a price set through /admin/market is the market. `until_replaced`: the market's own ticks of that
    symbol count for nothing until the exchange is reset."""

    split_open_orders: Literal["adjust", "cancel"] = "adjust"
    """On a split, open orders of the symbol get quantities multiplied (rounded down to whole shares) and prices
    divided by the ratio (rounded to the tick), or are cancelled."""

    bracket_base_includes_market: bool = False
    """Whether a bracket's exit prices are also checked against the current price when its entry is a limit."""

    def __post_init__(self) -> None:
        if not 0 <= self.partial_fill_probability <= 1:
            raise ValueError(f"partial_fill_probability {self.partial_fill_probability} is not between 0 and 1")
        for name in ("fill_on_submit_latency_s", "cancel_latency_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} is below 0")
