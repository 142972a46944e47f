"""What must hold of the watchlist before anyone decides on it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from desk.screening import ScreenedSymbol
from expectations.suite import Kind, Suite, between, unique

__all__ = ["frame", "suite"]

_PROBABILITY = "a probability; a score that escaped its map would pass any threshold"


def suite() -> Suite:
    return Suite(
        frame="watchlist",
        key="symbol",
        columns={
            "symbol": Kind.TEXT,
            "rank_gap": Kind.NUMBER,
            "buy_probability": Kind.NUMBER,
            "sell_probability": Kind.NUMBER,
            "last_close": Kind.NUMBER,
            "volume_20d": Kind.NUMBER,
        },
        rules=(
            unique("one row per symbol", "symbol", reason="a symbol twice could be bought twice"),
            between(
                "ranks are 1, 2, 3, ...",
                "rank_gap",
                0,
                0,
                unit="ranks",
                reason="a gap means that rows were lost between the screener and here",
            ),
            between("buy_probability is one", "buy_probability", 0, 1, unit="probability", reason=_PROBABILITY),
            between("sell_probability is one", "sell_probability", 0, 1, unit="probability", reason=_PROBABILITY),
            between(
                "last close is a price",
                "last_close",
                0.0001,
                1_000_000,
                unit="USD",
                reason="from the smallest tick to above the dearest listed share",
            ),
            between(
                "volume is traded",
                "volume_20d",
                1,
                None,
                unit="shares a session",
                reason="the universe filters on dollar volume, and what is held was once in the universe",
            ),
        ),
    )


def frame(rows: Sequence[ScreenedSymbol]) -> pd.DataFrame:
    """One row per symbol of the watchlist. rank_gap: rank less the place in the order of ranks."""
    ranked = sorted(rows, key=lambda row: (row.rank, row.symbol))
    return pd.DataFrame(
        {
            "symbol": pd.Series([row.symbol for row in ranked], dtype="str"),
            "rank_gap": pd.Series([row.rank - place for place, row in enumerate(ranked, start=1)], dtype="int64"),
            "buy_probability": pd.Series([row.buy_probability for row in ranked], dtype="float64"),
            "sell_probability": pd.Series([row.sell_probability for row in ranked], dtype="float64"),
            "last_close": pd.Series([float(row.last_close) for row in ranked], dtype="float64"),
            "volume_20d": pd.Series([row.volume_20d for row in ranked], dtype="int64"),
        }
    )
