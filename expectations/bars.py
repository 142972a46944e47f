"""What must hold of the daily bars before anything is computed from them.

Long frames are reduced to one row of facts per symbol first; the rules judge the facts. Real data always has a
few bad symbols, so most rules ask it of a share of them: below the share the vendor is broken and the stage
stops; above it, the symbols outside the bound are the outcome's suspects, to be left out today.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from expectations.suite import Kind, Severity, Suite, between, unique

__all__ = ["facts", "suite"]

_PRICES = ("open", "high", "low", "close")
_DISORDER_TOLERANCE = (
    0.005  # of the price: one free source is off by 0.1 % here and there, mixed-up columns by far more
)


def suite() -> Suite:
    return Suite(
        frame="bars",
        key="symbol",
        columns={
            "symbol": Kind.TEXT,
            "last_bar_age": Kind.NUMBER,
            "unusable": Kind.NUMBER,
            "disordered": Kind.NUMBER,
            "jump_max": Kind.NUMBER,
            "zero_volume_share": Kind.NUMBER,
        },
        rules=(
            unique("one row per symbol", "symbol", reason="facts of a symbol twice are bars of a symbol twice"),
            between(
                "bars are fresh",
                "last_bar_age",
                0,
                0,
                unit="sessions",
                share_min=0.9,
                reason="halts and delistings leave a symbol or two behind, an outage of the vendor half of them",
            ),
            between(
                "prices and volumes exist",
                "unusable",
                0,
                0,
                unit="bars",
                share_min=0.98,
                reason="a price that is missing, zero, negative or infinite, or a volume below 0, is never real",
            ),
            between(
                "high and low enclose open and close",
                "disordered",
                0,
                0,
                unit="bars",
                share_min=0.75,
                reason="mixed-up columns break it everywhere; in the worst source we know, a fifth of the symbols do",
            ),
            between(
                "no jump like a missed split",
                "jump_max",
                None,
                0.65,
                unit="absolute log return between closes",
                share_min=0.95,
                reason="an unadjusted 2:1 split is 0.69; few genuine days reach it, and none is worth betting on",
            ),
            between(
                "shares are traded",
                "zero_volume_share",
                None,
                0.1,
                unit="share of bars",
                share_min=0.95,
                severity=Severity.WARNING,
                reason="liquid stocks trade every day; the universe's dollar volume filter drops the others anyway",
            ),
        ),
    )


def facts(frame: pd.DataFrame, sessions: Sequence[date]) -> pd.DataFrame:
    """One row per symbol of `frame` (columns symbol, session, open, high, low, close, volume; rows in any order).

    sessions: the calendar the bars should follow, oldest first; the age of a last bar counts the sessions after
    it. No fact is ever null: what cannot be computed is counted as unusable.
    """
    codes, symbols = pd.factorize(frame["symbol"], sort=True)
    days = frame["session"].to_numpy().astype("datetime64[D]")
    order = np.lexsort((days, codes))
    codes, days = codes[order], days[order]
    prices = {name: frame[name].to_numpy(dtype=np.float64, na_value=np.nan)[order] for name in _PRICES}
    volume = frame["volume"].to_numpy(dtype=np.float64, na_value=np.nan)[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1)) if codes.size else np.empty(0, np.intp)
    ends = np.append(starts[1:], codes.size) - 1 if codes.size else starts

    priced = np.all([np.isfinite(value) & (value > 0) for value in prices.values()], axis=0)
    usable = priced & np.isfinite(volume) & (volume >= 0)
    calendar = np.array(sessions, dtype="datetime64[D]")
    age = calendar.size - np.searchsorted(calendar, days[ends], side="right")
    return pd.DataFrame(
        {
            "symbol": symbols.astype(str),
            "bars": np.diff(np.append(starts, codes.size)),
            "last_bar_age": age,
            "unusable": _per_symbol(~usable, starts),
            "disordered": _per_symbol(priced & _disordered(prices), starts),
            "jump_max": _jump_max(np.where(priced, prices["close"], np.nan), starts),
            "zero_volume_share": _per_symbol(volume == 0, starts)
            / np.maximum(1, np.diff(np.append(starts, codes.size))),
        }
    )


def _per_symbol(flags: NDArray[np.bool_], starts: NDArray[np.intp]) -> NDArray[np.int64]:
    """How many rows of each symbol are flagged."""
    counts: NDArray[np.int64] = (
        np.add.reduceat(flags.astype(np.int64), starts) if starts.size else np.empty(0, np.int64)
    )
    return counts


def _disordered(prices: dict[str, NDArray[np.float64]]) -> NDArray[np.bool_]:
    open_, high, low, close = (prices[name] for name in _PRICES)
    slack = _DISORDER_TOLERANCE * close
    above = np.maximum(open_, close) > high + slack
    below = np.minimum(open_, close) < low - slack
    return above | below | (low > high)


def _jump_max(close: NDArray[np.float64], starts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Largest absolute log return between neighbouring closes of each symbol; 0 where there is none."""
    jumps = np.zeros_like(close)
    jumps[1:] = np.abs(np.diff(np.log(close)))
    jumps[starts] = 0.0
    largest: NDArray[np.float64] = (
        np.maximum.reduceat(np.nan_to_num(jumps, nan=0.0), starts) if starts.size else np.empty(0)
    )
    return largest
