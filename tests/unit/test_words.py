"""Numbers as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from desk.report import words


@pytest.mark.parametrize(
    ("amount", "shown"), [("1234.5", "+$1,234.50"), ("-12", "-$12.00"), ("0", "$0.00"), (None, "-")]
)
def test_dollars_carry_their_sign_before_the_symbol(amount: str | None, shown: str) -> None:
    assert words.usd(None if amount is None else Decimal(amount), signed=True) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [("101.250000", "101.25"), ("100", "100.00"), ("0.123456", "0.1235"), ("1250.5", "1,250.50"), ("1E+2", "100.00")],
)
def test_prices_have_two_digits_or_up_to_four(value: str, shown: str) -> None:
    assert words.price(Decimal(value)) == shown


def test_whole_shares_are_whole() -> None:
    assert words.shares(Decimal("100.000000000")) == "100"
    assert words.shares(Decimal("1.500000000")) == "1.5"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(45, "45 s"), (150, "2 min"), (7_300, "2 h"), (200_000, "2 days"), (-30, "-30 s")]
)
def test_ages_are_rounded_to_what_matters(seconds: float, shown: str) -> None:
    assert words.duration(seconds) == shown


def test_times_are_new_yorks_on_either_side_of_daylight_saving() -> None:
    assert words.day_time(datetime(2024, 3, 8, 14, 30, tzinfo=UTC)) == "2024-03-08 09:30:00"
    assert words.day_time(datetime(2024, 3, 11, 13, 30, tzinfo=UTC)) == "2024-03-11 09:30:00"


def test_a_feature_is_short_and_a_word_stays_a_word() -> None:
    assert [words.number(value) for value in (0.123456, 3_000_000, "AAPL", None, True)] == [
        "0.1235",
        "3,000,000",
        "AAPL",
        "-",
        "True",
    ]
