"""What an audit must not depend on: the order of rows and symbols, the unit of prices, the scale of volume."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from clean_bars import PRICES, Bars, clean_bars
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations.audit.finding import Kind
from expectations.audit.report import Audit, audit_panel

SMALL = settings(max_examples=15, deadline=None)


def defective() -> Bars:
    """Clean bars with a wick, a slipped decimal point, an unrecorded split, a hole and a missing value."""
    bars = clean_bars()
    bars["low"][50, 3] *= 0.4
    bars.scale(60, 7, 10.0)
    bars.scale(slice(90, None), 11, 0.5)
    bars.kept[30:45, 13] = False
    bars["close"][100, 17] = np.nan
    return bars


@cache
def reference() -> frozenset[tuple[object, ...]]:
    return places(audit_panel(defective().panel()))


def places(audit: Audit) -> frozenset[tuple[object, ...]]:
    return frozenset((each.kind, each.symbol, each.first, each.last, each.rows) for each in audit.flags)


@pytest.mark.parametrize("seed", range(12))
def test_clean_bars_have_no_flags(seed: int) -> None:
    audit = audit_panel(clean_bars(seed=seed).panel())

    assert audit.findings == ()


def test_the_reference_holds_all_five() -> None:
    assert {kind for kind, *_ in reference()} == {
        Kind.EXTREME_WICK,
        Kind.SCALE,
        Kind.WRONG_ADJUSTMENT,
        Kind.GAP,
        Kind.MISSING_VALUE,
    }


@SMALL
@given(seed=st.integers(0, 2**31))
def test_the_order_of_rows_changes_only_the_remark_on_order(seed: int) -> None:
    bars = defective()
    order = np.random.default_rng(seed).permutation(int(bars.kept.sum()))

    audit = audit_panel(bars.panel(order))

    assert {each for each in places(audit) if each[0] is not Kind.ORDER} == reference()


@SMALL
@given(seed=st.integers(0, 2**31))
def test_the_order_of_symbols_changes_nothing(seed: int) -> None:
    """Symbols change places, and names with them."""
    bars = defective()
    order = np.random.default_rng(seed).permutation(len(bars.names))
    moved = Bars(
        bars.days,
        [bars.names[i] for i in order],
        {name: values[:, order] for name, values in bars.columns.items()},
        bars.kept[:, order],
    )

    assert places(audit_panel(moved.panel())) == reference()


@SMALL
@given(scale=st.floats(1e-3, 1e3))
def test_the_unit_of_prices_changes_nothing(scale: float) -> None:
    bars = defective()
    for name in (*PRICES, "dividend"):
        bars[name][:] *= scale

    assert places(audit_panel(bars.panel())) == reference()


@SMALL
@given(scale=st.integers(2, 50), symbol=st.integers(0, 39))
def test_a_busier_symbol_is_no_worse(scale: int, symbol: int) -> None:
    bars = defective()
    bars["volume"][:, symbol] *= scale

    assert places(audit_panel(bars.panel())) == reference()


@SMALL
@given(session=st.integers(12, 145), symbol=st.integers(0, 39), by=st.sampled_from([0.3, 0.4, 2.2, 3.3]))
def test_a_wick_is_found_wherever_it_is(session: int, symbol: int, by: float) -> None:
    bars = clean_bars()
    bars["low" if by < 1 else "high"][session, symbol] *= by

    flags = audit_panel(bars.panel()).flags

    assert [(each.kind, each.symbol, each.first) for each in flags] == [
        (Kind.EXTREME_WICK, bars.names[symbol], bars.day(session))
    ]
