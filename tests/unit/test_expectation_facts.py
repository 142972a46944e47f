"""The facts that the gate judges: what counts as unusable, disordered, stale or a jump."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desk.decision import Action, Decision
from desk.screening import ScreenedSymbol
from desk.strategy import Controls
from expectations import bars, decisions, watchlist
from expectations.suite import Kind, Suite, between

SESSIONS = [date(2019, 1, 1) + timedelta(days=n) for n in range(10)]


def frame(symbols: tuple[str, ...] = ("AAA", "BBB"), sessions: int = 10) -> pd.DataFrame:
    rows = [(s, day, 10.0, 11.0, 9.0, 10.5, 100) for s in symbols for day in SESSIONS[:sessions]]
    return pd.DataFrame(rows, columns=["symbol", "session", "open", "high", "low", "close", "volume"])


def facts_of(spoiled: pd.DataFrame, symbol: str = "AAA") -> dict[str, float]:
    return bars.facts(spoiled, SESSIONS).set_index("symbol").loc[symbol].to_dict()


def test_good_bars_have_nothing_to_report() -> None:
    assert facts_of(frame()) == {
        "bars": 10,
        "last_bar_age": 0,
        "unusable": 0,
        "disordered": 0,
        "jump_max": 0,
        "zero_volume_share": 0,
    }


@pytest.mark.parametrize("column", ["open", "high", "low", "close"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
def test_a_price_that_cannot_be_is_counted_and_nothing_else_is_derived_from_it(column: str, value: float) -> None:
    spoiled = frame()
    spoiled.loc[3, column] = value

    found = facts_of(spoiled)

    assert (found["unusable"], found["disordered"], found["jump_max"]) == (1, 0, 0)
    assert facts_of(spoiled, "BBB")["unusable"] == 0


def test_open_and_close_lie_between_low_and_high_but_for_rounding() -> None:
    spoiled = frame()
    spoiled.loc[[2, 5], "high"] = [10.4, 10.49]

    assert facts_of(spoiled)["disordered"] == 1


def test_a_missed_split_is_the_largest_jump() -> None:
    spoiled = frame()
    spoiled.loc[6:9, ["open", "high", "low", "close"]] /= 2

    assert facts_of(spoiled)["jump_max"] == pytest.approx(np.log(2))
    assert facts_of(spoiled, "BBB")["jump_max"] == 0


def test_the_step_from_one_symbol_to_the_next_is_no_jump() -> None:
    spoiled = frame()
    spoiled.loc[10:, ["open", "high", "low", "close"]] *= 50

    assert facts_of(spoiled, "BBB")["jump_max"] == 0


def test_age_counts_the_sessions_after_the_last_bar() -> None:
    assert facts_of(frame(sessions=7))["last_bar_age"] == 3


def test_volume_below_zero_is_unusable_and_volume_of_zero_a_share() -> None:
    spoiled = frame()
    spoiled.loc[[1, 2, 3], "volume"] = [-1, 0, 0]

    found = facts_of(spoiled)

    assert (found["unusable"], found["zero_volume_share"]) == (1, 0.2)


@given(st.permutations(range(20)))
@settings(max_examples=10, deadline=None)
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    spoiled = frame()
    spoiled.loc[7, "close"] = 10.9

    pd.testing.assert_frame_equal(bars.facts(spoiled.iloc[order], SESSIONS), bars.facts(spoiled, SESSIONS))


def test_dates_and_timestamps_are_the_same_sessions() -> None:
    stamped = frame().assign(session=pd.to_datetime(frame()["session"]))

    pd.testing.assert_frame_equal(bars.facts(stamped, SESSIONS), bars.facts(frame(), SESSIONS))


def test_no_bars_are_no_facts() -> None:
    assert bars.facts(frame().iloc[:0], SESSIONS).empty


def test_a_gap_in_the_ranks_shows() -> None:
    rows = [ScreenedSymbol(f"S{rank}", rank, 0.5, 0.5, Decimal(10), 100, {}) for rank in (4, 1, 2)]

    assert watchlist.frame(rows)["rank_gap"].tolist() == [0, 0, 1]


def bought(symbol: str, quantity: int, limit: str = "100") -> Decision:
    return Decision(
        symbol, Action.BUY, "", Decimal(quantity), Decimal(limit), Decimal(limit), Decimal(90), Decimal(110)
    )


def test_each_fault_of_a_decision_has_its_column() -> None:
    made = [
        bought("AAA", 40),  # 4,000 USD of 5,000 allowed
        bought("BBB", 60),  # 1,000 above the order value, 2,000 above the buying power
        bought("HELD", 1),
        Decision("SHORT", Action.SELL, "", Decimal(5)),
        Decision("CCC", Action.HOLD, "", Decimal(0)),
    ]

    found = decisions.frame(
        made,
        holdings={"HELD": Decimal(3), "SHORT": Decimal(4)},
        equity=Decimal(100_000),
        buying_power=Decimal(8000),
        controls=Controls(),
    )

    assert found["side_faults"].tolist() == [0, 0, 1, 1, 0]
    assert found["value_over_limit"].tolist() == [0, 1000, 0, 0, 0]
    assert found["spent_over_power"].tolist() == [0, 2000, 2100, 2100, 2100]
    assert found["price_faults"].tolist() == [0, 0, 0, 0, 0]


def test_prices_out_of_order_are_counted_even_when_a_constructor_let_them_pass() -> None:
    wrong = bought("AAA", 1)
    object.__setattr__(wrong, "stop_price", Decimal(105))

    found = decisions.frame([wrong], holdings={}, equity=Decimal(1), buying_power=Decimal(1), controls=Controls())

    assert found["price_faults"].tolist() == [2]


def test_a_suite_declares_the_columns_of_its_rules() -> None:
    rule = between("some rule", "price", 0, 1, unit="USD", reason="none")

    with pytest.raises(ValueError, match="price"):
        Suite("frame", "symbol", {"symbol": Kind.TEXT}, (rule,))


@pytest.mark.parametrize("suite", [bars.suite(), watchlist.suite(), decisions.suite()], ids=lambda s: s.frame)
def test_each_bound_has_its_reason(suite: Suite) -> None:
    assert all(rule.reason and rule.bound for rule in suite.rules)
