"""What the screener hands to decisioning: a watchlist of scored symbols and the evidence behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

__all__ = ["ScreenedSymbol", "Screening"]


@dataclass(frozen=True, slots=True)
class ScreenedSymbol:
    """One row of the watchlist."""

    symbol: str
    rank: int  # 1 is best
    buy_probability: float
    sell_probability: float
    last_close: Decimal  # USD
    volume_20d: int  # mean shares a session over the last 20
    features: Mapping[str, float]  # what the scores were made of

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"watchlist row {self.symbol}: rank {self.rank}, 1 or more is needed")
        for name, value in (("buy_probability", self.buy_probability), ("sell_probability", self.sell_probability)):
            if not (math.isfinite(value) and 0.0 <= value <= 1.0):
                raise ValueError(f"watchlist row {self.symbol}: {name} {value}, a number from 0 to 1 is needed")


@dataclass(frozen=True, slots=True)
class Screening:
    """The result of one screening: `rows` are the watchlist, by rank."""

    screener: str  # "momentum-reversion/1"
    rows: tuple[ScreenedSymbol, ...]
    universe: int  # symbols with bars
    eligible: int  # symbols that passed the universe filters
    data_hash: str  # sha256 of the panel that was scored
    last_bar: date  # newest session of the panel
