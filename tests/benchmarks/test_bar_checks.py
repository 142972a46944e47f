"""How long the checks of bars take. The bounds are the design's, on 2 cores; the figures are printed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from clean_bars import clean_bars

from expectations.audit.report import audit_file, audit_panel

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def timed(name: str, work: Callable[[], object]) -> float:
    """Seconds of the second call: the calendar and pandas are warm in a long-lived process."""
    work()
    began = time.perf_counter()
    work()
    took_s = time.perf_counter() - began
    print(f"\n{name}: {took_s:.2f} s")
    return took_s


def test_ten_years_of_500_symbols_take_at_most_five_seconds() -> None:
    panel = clean_bars(symbols=500, start=date(2010, 1, 4), sessions=2_516).panel()

    assert timed(f"{len(panel):,} daily bars, 500 symbols x 10 years", lambda: audit_panel(panel)) <= 5


def test_one_session_of_11_000_symbols_takes_at_most_two_seconds() -> None:
    panel = clean_bars(symbols=11_000, sessions=1).panel()

    assert timed("11,000 symbols x 1 session", lambda: audit_panel(panel)) <= 2


def test_one_session_with_its_history_of_11_000_symbols() -> None:
    """What the daily gate would judge today by: 61 sessions, so that each symbol has a volatility. No bound given."""
    panel = clean_bars(symbols=11_000, sessions=61).panel()

    timed(f"{len(panel):,} daily bars, 11,000 symbols x 61 sessions", lambda: audit_panel(panel))


def test_a_shuffled_file_is_sorted_in_time() -> None:
    bars = clean_bars(symbols=500, start=date(2010, 1, 4), sessions=2_516)
    order = np.random.default_rng(1).permutation(int(bars.kept.sum()))

    assert timed("the same, rows shuffled, from arrays", lambda: audit_panel(bars.panel(order))) <= 10


@pytest.mark.parametrize("name", ["sp500_daily_2001_2016", "us_wide_daily_2026", "inplay_5min_2026"])
def test_recorded_files_from_disk(name: str) -> None:
    path = DATA / f"{name}.parquet"
    if not path.is_file():
        pytest.skip(f"no {path.name} beside the repository")

    timed(f"{name} from disk", lambda: audit_file(path))
