"""Defects planted at random into real bars: how many of each kind are found, told apart from what really happened.

The bounds were chosen while looking at these files' own defects; random ones measure them without that favour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from expectations.audit.finding import as_date
from expectations.audit.load import load
from expectations.audit.panel import Panel
from expectations.audit.report import audit_panel

pytestmark = pytest.mark.integration

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
MARGIN = 40  # bars to each side of a planted defect
Plant = Callable[[Panel, int, np.random.Generator], None]


@lru_cache(maxsize=2)
def recorded(name: str) -> Panel:
    path = DATA / f"{name}.parquet"
    if not path.is_file():
        pytest.skip(f"no {path.name} beside the repository")
    return load(path).panel


def fresh(panel: Panel) -> Panel:
    """A panel that may be changed in place."""
    names = ("open", "high", "low", "close", "volume", "split", "dividend", "factor")
    return replace(panel, **{name: getattr(panel, name).copy() for name in names})


def after(panel: Panel, row: int) -> slice:
    return slice(row, int(panel.heads[panel.code[row] + 1]))


def before(panel: Panel, row: int) -> slice:
    return slice(int(panel.heads[panel.code[row]]), row)


def scale(panel: Panel, rows: slice, by: float) -> None:
    for values in (panel.open, panel.high, panel.low, panel.close):
        values[rows] *= by


def either(random: np.random.Generator, low: float, high: float) -> float:
    """A factor away from 1 by `low` to `high` in logarithm, up or down."""
    return float(np.exp(random.choice((-1, 1)) * random.uniform(low, high)))


def ten_times(panel: Panel, row: int, random: np.random.Generator) -> None:
    scale(panel, slice(row, row + int(random.integers(1, 4))), float(random.choice((10.0, 0.1))))


def split_unrecorded(panel: Panel, row: int, random: np.random.Generator) -> None:
    ratio = float(random.choice((1.5, 2.0, 3.0, 4.0, 10.0)))
    scale(panel, after(panel, row), 1 / ratio)
    panel.volume[after(panel, row)] *= ratio


def split_twice(panel: Panel, row: int, random: np.random.Generator) -> None:
    ratio = float(random.choice((1.5, 2.0, 3.0, 4.0)))
    assert panel.factor is not None and panel.split is not None
    panel.factor[before(panel, row)] /= ratio
    panel.split[row] = ratio


def dividend_unpaid(panel: Panel, row: int, random: np.random.Generator) -> None:
    share = float(random.uniform(0.1, 0.4))
    assert panel.factor is not None and panel.dividend is not None
    panel.factor[before(panel, row)] /= 1 + share
    panel.dividend[row] = share * panel.close[row]


def bad_close(panel: Panel, row: int, random: np.random.Generator) -> None:
    panel.close[row] *= either(random, 0.2, 0.5)
    panel.high[row] = max(panel.high[row], panel.close[row])
    panel.low[row] = min(panel.low[row], panel.close[row])


def bad_open(panel: Panel, row: int, random: np.random.Generator) -> None:
    panel.open[row] *= either(random, 0.3, 0.7)
    panel.high[row] = max(panel.high[row], panel.open[row])
    panel.low[row] = min(panel.low[row], panel.open[row])


def wick(panel: Panel, row: int, random: np.random.Generator) -> None:
    by = either(random, 0.3, 0.9)
    (panel.high if by > 1 else panel.low)[row] *= by


def others_rows(panel: Panel, row: int, random: np.random.Generator) -> None:
    """One to four days of another symbol's prices, at least a third away, under this name."""
    length = int(random.integers(1, 5))
    by = either(random, np.log(1.5), np.log(8))
    scale(panel, slice(row, row + length), by)


def repeated_bar(panel: Panel, row: int, random: np.random.Generator) -> None:
    for values in (panel.open, panel.high, panel.low, panel.close, panel.volume):
        values[row] = values[row - 1]


PLANTS: dict[str, Plant] = {
    "ten times or a tenth of the price": ten_times,
    "an unrecorded split": split_unrecorded,
    "a split applied twice": split_twice,
    "a dividend of 10 to 40 % not in the price": dividend_unpaid,
    "a close 20 to 50 % off": bad_close,
    "an open 30 to 70 % off": bad_open,
    "a wick of 30 to 90 %": wick,
    "another symbol's prices for days": others_rows,
    "a bar with volume again": repeated_bar,
}


@pytest.mark.parametrize("name", ["sp500_daily_2016_2020", "smallmid_daily_2011_2015"])
@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_planted_defects_are_found(name: str, plant: Plant) -> None:
    """One defect in each of 100 symbols on a random day; a suspect counts whether flagged or, beyond the rate, noted.

    What hides is a close 20 % off in a stock that moves 4 % a day, or one on a day of news.
    """
    random = np.random.default_rng(20240305)
    panel = fresh(recorded(name))
    long = np.flatnonzero(np.diff(panel.heads) > 3 * MARGIN)
    symbols = random.choice(long, 100, replace=False)
    rows = [int(random.integers(panel.heads[i] + MARGIN, panel.heads[i + 1] - MARGIN)) for i in symbols]
    for row in rows:
        plant(panel, row, random)

    found = {(each.symbol, each.first) for each in audit_panel(panel).findings}

    missed = [(panel.name(row), as_date(panel.day[row])) for row in rows]
    missed = [place for place in missed if place not in found]
    print(f"\n{name}, {100 - len(missed)} of 100 found; missed {missed[:5]}")
    assert len(missed) <= 15
