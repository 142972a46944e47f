"""What must hold of the decisions before an order is made of them, whoever decided.

The facts are worked out anew from account and holdings, not taken over from the decider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import accumulate

import pandas as pd

from desk.decision import Action, Decision
from desk.strategy import Controls
from expectations.suite import Kind, Suite, between, one_of, unique

__all__ = ["frame", "suite"]

_ZERO = Decimal(0)


def suite() -> Suite:
    return Suite(
        frame="decisions",
        key="symbol",
        columns={
            "symbol": Kind.TEXT,
            "action": Kind.TEXT,
            "price_faults": Kind.NUMBER,
            "side_faults": Kind.NUMBER,
            "value_over_limit": Kind.NUMBER,
            "spent_over_power": Kind.NUMBER,
        },
        rules=(
            unique("one decision per symbol", "symbol", reason="the client order id knows one per symbol and session"),
            one_of("actions are known", "action", tuple(Action), reason="anything else has no order"),
            between(
                "stop < reference < target, stop < limit < target",
                "price_faults",
                0,
                0,
                unit="broken inequalities",
                reason="the broker refuses such a bracket, and a stop above the entry sells at once",
            ),
            between(
                "buys are of what is not held, sells of what is",
                "side_faults",
                0,
                0,
                unit="faults",
                reason="a second buy doubles a position, a sell beyond the holding is a short",
            ),
            between(
                "no order above the controls' value",
                "value_over_limit",
                None,
                0,
                unit="USD",
                reason="a decision that the controls would deny is a defect of the decider, not a decision",
            ),
            between(
                "buys fit into the buying power",
                "spent_over_power",
                None,
                0,
                unit="USD",
                reason="the broker would refuse the last of them, in an order nobody chose",
            ),
        ),
    )


def frame(
    decisions: Sequence[Decision],
    *,
    holdings: Mapping[str, Decimal],
    equity: Decimal,
    buying_power: Decimal,
    controls: Controls,
) -> pd.DataFrame:
    """One row per decision, in the order given. holdings: symbol → shares; equity and buying_power: USD."""
    value_max = min(controls.order_value_max_usd, controls.order_value_max_fraction * equity)
    costs = [_cost(decision) for decision in decisions]
    spent = [max(_ZERO, total - max(_ZERO, buying_power)) for total in accumulate(costs)]
    return pd.DataFrame(
        {
            "symbol": pd.Series([d.symbol for d in decisions], dtype="str"),
            "action": pd.Series([str(d.action) for d in decisions], dtype="str"),
            "price_faults": pd.Series([_price_faults(d) for d in decisions], dtype="int64"),
            "side_faults": pd.Series(
                [_side_faults(d, holdings.get(d.symbol, _ZERO)) for d in decisions], dtype="int64"
            ),
            "value_over_limit": pd.Series([float(max(_ZERO, cost - value_max)) for cost in costs], dtype="float64"),
            "spent_over_power": pd.Series([float(over) for over in spent], dtype="float64"),
        }
    )


def _cost(decision: Decision) -> Decimal:
    """USD an entry takes at most; 0 for what is not bought."""
    if decision.action is not Action.BUY or decision.limit_price is None:
        return _ZERO
    return decision.quantity * decision.limit_price


def _price_faults(decision: Decision) -> int:
    if decision.action is not Action.BUY:
        return 0
    stop, target = decision.stop_price, decision.target_price
    if stop is None or target is None:
        return 1
    between_them = (decision.reference_price, decision.limit_price)
    return sum(price is None or not 0 < stop < price < target for price in between_them)


def _side_faults(decision: Decision, held: Decimal) -> int:
    match decision.action:
        case Action.BUY:
            return int(held != 0) + int(decision.quantity < 1)
        case Action.SELL:
            return int(decision.quantity > held) + int(decision.quantity < 1)
        case Action.HOLD:
            return int(decision.quantity != 0)
