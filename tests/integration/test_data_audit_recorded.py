"""The audit of real files finds what is known to be wrong with them, and seldom accuses; the command tells it."""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest
from typer.testing import CliRunner

from desk.errors import BadInput
from expectations.audit.finding import Finding, Kind
from expectations.audit.known import compare, load_known
from expectations.audit.report import FLAGS_PER_100K_MAX, SUSPECTS_MIN, Audit, audit_file
from flows.cli import app

pytestmark = pytest.mark.integration

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
LISTED = (
    "sp500_daily_2016_2020",
    "us_wide_daily_2026",
    "liquid_5min_2026",
    "inplay_5min_2026",
    "smallmid_daily_2011_2015",
    "benchmarks_daily",
)
UNLISTED = ("sp500_daily_2001_2016", "ext_hours_5min", "minute_bars", "hourly_bars")


def data(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"no {name} beside the repository")
    return path


@lru_cache(maxsize=12)
def audit(name: str) -> Audit:
    return audit_file(data(f"{name}.parquet"))


@pytest.mark.parametrize("name", LISTED)
def test_nine_in_ten_listed_defects_are_found(name: str) -> None:
    """Those with a date within the file; the list also speaks of days after a file's end."""
    found = compare(audit(name), load_known(data("known_defects.csv")), f"{name}.parquet")

    assert found.recall is not None and found.recall >= 0.9, found.missed


@pytest.mark.parametrize("name", [*LISTED, *UNLISTED])
def test_at_most_five_flags_in_100_000_rows(name: str) -> None:
    """A file of less than 100,000 rows may have SUSPECTS_MIN flags beyond the rate: one flag alone can exceed it."""
    found = audit(name)

    beyond = SUSPECTS_MIN if found.rows < 100_000 else 0
    assert len(found.flags) <= FLAGS_PER_100K_MAX * found.rows / 100_000 + beyond


def test_all_listed_files_together_keep_to_five_flags_in_100_000_rows() -> None:
    audits = [audit(name) for name in LISTED]

    assert 100_000 * sum(len(each.flags) for each in audits) / sum(each.rows for each in audits) <= FLAGS_PER_100K_MAX


def test_what_exceeds_the_rate_in_the_benchmarks_is_really_wrong() -> None:
    """Every suspect wick of raw SPY and QQQ is absent from the same fund's other series in the file, the suspect splits
    are those of 20 March 2000 and 9 June 2005, and the rest is the listed gap."""
    found = audit("benchmarks_daily")
    table = pd.read_parquet(data("benchmarks_daily.parquet"))
    other = table[table["adjustment"] == "total_return"].set_index(["symbol", "date"])

    wicks = [each for each in found.findings if each.kind is Kind.EXTREME_WICK and each.symbol in ("SPY", "QQQ")]
    spread = [np.log(other.loc[key, "high"] / other.loc[key, "low"]) for each in wicks if (key := place(each))]
    splits = {place(each) for each in found.flags if each.kind is Kind.WRONG_ADJUSTMENT}

    assert len(wicks) >= 5 and max(spread) < 0.06
    assert splits == {("QQQ", date(2000, 3, 20)), ("IWM", date(2005, 6, 9))}


@pytest.mark.parametrize(
    ("symbol", "day", "kind"),
    [
        ("ANTM", date(2001, 10, 30), Kind.SPLICE),  # the Anthem of the flotation follows another company
        ("SO", date(2001, 4, 3), Kind.WRONG_ADJUSTMENT),  # Mirant's spin-off as a dividend and as a split of 1.5
        ("ANTM", date(2005, 6, 2), Kind.WRONG_ADJUSTMENT),  # 2 for 1
        ("WST", date(2004, 9, 30), Kind.WRONG_ADJUSTMENT),  # 2 for 1
        ("TRMB", date(2007, 2, 23), Kind.WRONG_ADJUSTMENT),  # 2 for 1, a day early in the factor
        ("GNRC", date(2010, 2, 12), Kind.WRONG_ADJUSTMENT),  # a split on the day of the flotation
        ("MSI", date(2011, 1, 4), Kind.DOUBTFUL_MOVE),  # Motorola Mobility's spin-off is missing
        ("IRM", date(2006, 2, 2), Kind.SCALE),
        ("CB", date(2007, 11, 21), Kind.BAD_PRINT),
        ("VTR", date(2007, 3, 7), Kind.BAD_PRINT),
        ("ETR", date(2005, 10, 25), Kind.EXTREME_WICK),
        ("AIZ", date(2007, 4, 16), Kind.EXTREME_WICK),
        ("*", date(2003, 1, 29), Kind.STALE),  # 339 symbols repeat the day before
    ],
)
def test_defects_nobody_listed_are_found_too(symbol: str, day: date, kind: Kind) -> None:
    found = {(each.kind, *place(each)) for each in audit("sp500_daily_2001_2016").flags}

    assert (kind, symbol, day) in found


@pytest.mark.parametrize(
    ("symbol", "day"),
    [
        ("AIG", date(2008, 9, 15)),  # -61 % in the crisis
        ("VRTX", date(2013, 4, 19)),  # +62 % on a trial
        ("NFLX", date(2004, 10, 15)),  # -41 % on competition
        ("UAL", date(2008, 9, 8)),  # fell to 3 from 12 and came back, on an old article
        ("MS", date(2008, 10, 13)),
        ("AAPL", date(2014, 6, 9)),  # 7 for 1, recorded
        ("PG", date(2010, 5, 6)),  # the flash crash
        ("KMI", date(2015, 8, 24)),
    ],
)
def test_days_that_were_really_so_are_not_flagged(symbol: str, day: date) -> None:
    assert (symbol, day) not in {place(each) for each in audit("sp500_daily_2001_2016").flags}


def test_the_command_shows_a_report_and_compares_it() -> None:
    done = run(data("sp500_daily_2016_2020.parquet"), "--known", str(data("known_defects.csv")))

    assert done.exit_code == 0
    assert "582,338 daily bars" in done.output and "per 100,000 rows" in done.output
    assert "DHR" in done.output and "wrong_adjustment" in done.output
    assert "known defects: 100 % found: wrong_adjustment 1 of 1, zero_volume 1 of 1" in done.output


def test_the_command_gives_a_document() -> None:
    done = run(data("smallmid_daily_2011_2015.parquet"), "--json", "--known", str(data("known_defects.csv")))

    document = orjson.loads(done.output)
    assert done.exit_code == 0
    assert (document["rows"], document["symbols"], document["first"]) == (326_465, 281, "2011-01-03")
    assert document["flags"] == len(document["findings"]) == 16
    assert (document["flags_per_100k_rows_max"], document["weaker_suspects_among_the_notes"]) == (5.0, 10)
    assert document["known"]["by_kind"]["thin_date"] == {"found": 11, "listed": 11}
    assert {"kind", "severity", "symbol", "date", "last", "rows", "strength", "evidence"} == set(document["notes"][0])


@pytest.mark.parametrize("name", ["corporate_actions", "coarse_universe_2014", "minute_quotes"])
def test_tables_that_hold_no_bars_are_bad_input(name: str) -> None:
    done = run(data(f"{name}.parquet"))

    assert isinstance(done.exception, BadInput)
    assert "no column" in str(done.exception)


def place(each: Finding) -> tuple[str, date]:
    return each.symbol, each.first


def run(*arguments: object):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(app, ["data", "audit", *map(str, arguments)])
