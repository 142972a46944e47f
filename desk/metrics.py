"""How a span of sessions went: small pure functions over equity and profits.

Equity is USD at each close, oldest first, the first value being the start. Results are plain fractions:
0.05 is 5 %. None where the formula has no value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal

__all__ = [
    "drawdowns",
    "exposure",
    "max_drawdown",
    "mean_profit",
    "monthly_returns",
    "profit_factor",
    "total_return",
    "win_rate",
]

Amounts = Sequence[Decimal]


def total_return(equity: Amounts) -> float | None:
    """E[-1] / E[0] - 1. None with fewer than two values. Raises ValueError for equity not above 0."""
    _require_positive(equity)
    return float(equity[-1] / equity[0] - 1) if len(equity) > 1 else None


def drawdowns(equity: Amounts) -> list[float]:
    """D[t] = E[t] / max(E[0..t]) - 1, each at most 0. Raises ValueError for equity not above 0."""
    _require_positive(equity)
    found, peak = [], Decimal(0)
    for value in equity:
        peak = max(peak, value)
        found.append(float(value / peak - 1))
    return found


def max_drawdown(equity: Amounts) -> float:
    """The deepest fall from a peak, as a loss above 0: -min(D). 0 for equity that never fell, and for none."""
    return -min(drawdowns(equity), default=0.0) or 0.0


def win_rate(profits: Sequence[Decimal]) -> float | None:
    """Closed trades with a profit above 0, as a share of all. None without a trade."""
    return sum(profit > 0 for profit in profits) / len(profits) if profits else None


def profit_factor(profits: Iterable[Decimal]) -> float | None:
    """Sum of gains / sum of losses. None without a loss."""
    taken = list(profits)
    lost = -sum((profit for profit in taken if profit < 0), Decimal(0))
    return float(sum((profit for profit in taken if profit > 0), Decimal(0)) / lost) if lost else None


def mean_profit(profits: Sequence[Decimal]) -> Decimal | None:
    """USD a trade. None without a trade."""
    return sum(profits, Decimal(0)) / len(profits) if profits else None


def exposure(invested: Amounts, equity: Amounts) -> float | None:
    """Mean over the closes of invested / equity. None without a close. Raises ValueError unless they pair up."""
    _require_positive(equity)
    shares = [float(held / value) for held, value in zip(invested, equity, strict=True)]
    return sum(shares) / len(shares) if shares else None


def monthly_returns(start: Decimal, equity: Sequence[tuple[date, Decimal]]) -> list[tuple[int, int, float]]:
    """(year, month, return): each month's last equity over that of the month before, the first over `start`.

    Their growth factors multiply to the whole: Π(1 + r) = E[-1] / start.
    """
    last_of_month = {(session.year, session.month): value for session, value in equity}
    _require_positive([start, *last_of_month.values()])
    found, before = [], start
    for (year, month), value in last_of_month.items():
        found.append((year, month, float(value / before - 1)))
        before = value
    return found


def _require_positive(equity: Amounts) -> None:
    for value in equity:
        if not value > 0:
            raise ValueError(f"equity {value}: an amount above 0 is needed")
