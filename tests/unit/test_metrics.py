"""Returns, drawdowns and win rates, against numbers worked out by hand and laws that always hold."""

from __future__ import annotations

import math
from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from desk import metrics

amounts = st.decimals("0.01", "10000000", places=2)
profits = st.lists(st.decimals("-100000", "100000", places=2), max_size=40)


def decimals(*values: object) -> list[Decimal]:
    return [Decimal(str(value)) for value in values]


def test_a_return_is_the_last_equity_over_the_first() -> None:
    assert metrics.total_return(decimals(100_000, 90_000, 105_000)) == pytest.approx(0.05)
    assert metrics.total_return(decimals(100_000)) is None


def test_a_drawdown_is_measured_from_the_highest_point_so_far() -> None:
    equity = decimals(100, 120, 90, 130, 117)

    assert metrics.drawdowns(equity) == pytest.approx([0, 0, -0.25, 0, -0.1])
    assert metrics.max_drawdown(equity) == pytest.approx(0.25)


def test_equity_that_only_rose_has_no_drawdown() -> None:
    assert metrics.max_drawdown(decimals(1, 2, 3)) == 0
    assert math.copysign(1, metrics.max_drawdown([])) == 1


@given(st.lists(amounts, min_size=1, max_size=40), st.decimals("0.5", "20", places=1))
def test_the_size_of_the_account_changes_no_drawdown(equity: list[Decimal], factor: Decimal) -> None:
    scaled = [value * factor for value in equity]

    assert metrics.drawdowns(scaled) == pytest.approx(metrics.drawdowns(equity))


@given(st.lists(amounts, min_size=2, max_size=40))
def test_no_loss_from_start_to_end_is_deeper_than_the_deepest_drawdown(equity: list[Decimal]) -> None:
    gain = metrics.total_return(equity)

    assert gain is not None and -gain <= metrics.max_drawdown(equity) + 1e-12
    assert 0 <= metrics.max_drawdown(equity) < 1


def test_equity_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="equity 0: an amount above 0 is needed"):
        metrics.total_return(decimals(100, 0))


def test_win_rate_counts_gains_only() -> None:
    assert metrics.win_rate(decimals(10, -5, 0, 3)) == 0.5
    assert metrics.win_rate([]) is None


def test_profit_factor_is_gains_over_losses() -> None:
    assert metrics.profit_factor(decimals(30, -10, -5, 0)) == 2.0
    assert metrics.profit_factor(decimals(30, 0)) is None
    assert metrics.profit_factor([]) is None


@given(profits)
def test_a_profit_factor_above_one_is_a_gain_in_all(taken: list[Decimal]) -> None:
    factor = metrics.profit_factor(taken)

    if factor is not None and abs(factor - 1) > 1e-9:
        assert (factor > 1) == (sum(taken) > 0)


def test_mean_profit_is_in_dollars_a_trade() -> None:
    assert metrics.mean_profit(decimals(30, -10)) == 10
    assert metrics.mean_profit([]) is None


def test_exposure_is_the_mean_share_invested() -> None:
    assert metrics.exposure(decimals(50, 0), decimals(100, 100)) == 0.25
    assert metrics.exposure([], []) is None
    with pytest.raises(ValueError):
        metrics.exposure(decimals(1), decimals(1, 2))


def test_a_month_is_measured_from_the_end_of_the_one_before() -> None:
    equity = [
        (date(2019, 1, 30), Decimal(105)),
        (date(2019, 1, 31), Decimal(110)),
        (date(2019, 2, 1), Decimal(99)),
    ]

    assert metrics.monthly_returns(Decimal(100), equity) == [
        (2019, 1, pytest.approx(0.1)),
        (2019, 2, pytest.approx(-0.1)),
    ]


@given(st.lists(amounts, min_size=1, max_size=60), amounts)
def test_months_multiply_to_the_whole(values: list[Decimal], start: Decimal) -> None:
    equity = [(date(2019, 1, 1) + timedelta(days=7 * week), value) for week, value in enumerate(values)]

    growth = math.prod(1 + gain for _, _, gain in metrics.monthly_returns(start, equity))

    assert growth == pytest.approx(float(values[-1] / start), rel=1e-6)
