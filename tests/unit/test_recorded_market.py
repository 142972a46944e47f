"""A recorded market shows prices as a live account saw them, and only what had happened."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from desk.errors import BadInput
from desk.exchange.recorded import RecordedMarket
from desk.exchange.sessions import sessions_between
from desk.market import at_new_york

DAYS = [session.day for session in sessions_between(date(2024, 3, 4), date(2024, 3, 15))]
SPLIT_DAY = DAYS[5]
LATER = datetime(2025, 1, 1, tzinfo=UTC)
SPAN = DAYS[0], DAYS[-1]


def daily(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path / "bars.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def row(symbol: str, day: date, price: float, **more: float) -> dict[str, Any]:
    bar = {"open": price, "high": price * 1.02, "low": price * 0.98, "close": price * 1.01}
    return {"symbol": symbol, "date": day, **bar, "volume": 1_000, "dividend": 0.0, "split": 1.0, **more}


def split_rows(*, adjusted: bool) -> list[dict[str, Any]]:
    """XYZ trades around 400 and splits 4 for 1, with a dividend of a dollar the session before."""
    rows = []
    for day in DAYS:
        before = day < SPLIT_DAY
        price = 100.0 if adjusted or not before else 400.0
        volume = 1_000 if before and not adjusted else 4_000
        paid = {DAYS[4]: 0.25 if adjusted else 1.0}.get(day, 0.0)
        rows.append(row("XYZ", day, price, volume=volume, split=4.0 if day == SPLIT_DAY else 1.0, dividend=paid))
    return rows


@pytest.mark.parametrize("adjusted", [True, False])
def test_either_kind_of_file_gives_the_prices_that_were_traded(tmp_path: Path, adjusted: bool) -> None:
    """Split-adjusted or raw, the same market comes out: 400 until the split, 100 from then on."""
    market = RecordedMarket(daily(tmp_path, split_rows(adjusted=adjusted)))

    bars = market.daily_bars(["XYZ"], *SPAN, adjustment="raw", known_at=LATER)["XYZ"]

    assert market.notes.prices == ("split-adjusted" if adjusted else "as traded")
    assert [bar.open for bar in bars] == [400.0] * 5 + [100.0] * 5
    assert [bar.volume for bar in bars] == [1_000] * 5 + [4_000] * 5
    (split,) = market.corporate_actions(SPLIT_DAY)
    assert (split.kind, split.value) == ("split", Decimal(4))
    (dividend,) = market.corporate_actions(DAYS[4])
    assert (dividend.kind, dividend.value) == ("dividend", Decimal(1))


def test_a_split_adjusts_earlier_bars_from_its_day_on(tmp_path: Path) -> None:
    """At the close before, nobody can know the adjusted price; on the morning of the ex-date everyone does."""
    market = RecordedMarket(daily(tmp_path, split_rows(adjusted=True)))
    eve, morning = at_new_york(DAYS[4], "16:30"), at_new_york(SPLIT_DAY, "04:00")

    def opens(known_at: datetime) -> set[float]:
        bars = market.daily_bars(["XYZ"], DAYS[0], DAYS[4], adjustment="split", known_at=known_at)
        return {bar.open for bar in bars["XYZ"]}

    assert opens(eve) == {400.0}
    assert opens(morning) == {100.0}


def test_dividends_adjust_only_when_asked(tmp_path: Path) -> None:
    """A dollar on a close of 404 takes 1/404 off what came before."""
    market = RecordedMarket(daily(tmp_path, split_rows(adjusted=False)))

    def first_open(adjustment: str) -> float:
        return market.daily_bars(["XYZ"], *SPAN, adjustment=adjustment, known_at=LATER)["XYZ"][0].open

    assert first_open("raw") == 400.0
    assert first_open("split") == 100.0
    assert first_open("dividend") == pytest.approx(400 * (1 - 1 / 404), abs=1e-3)
    assert first_open("all") == pytest.approx(100 * (1 - 1 / 404), abs=1e-3)


def test_rows_on_closed_days_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [row("XYZ", day, 10.0) for day in (DAYS[0], date(2024, 3, 9), DAYS[-1])]

    market = RecordedMarket(daily(tmp_path, rows))

    assert [session.day for session in market.sessions()] == [DAYS[0], DAYS[-1]]
    assert market.notes.rows_out_of_session == 1


def test_a_symbol_that_ends_early_is_delisted_at_its_last_price(tmp_path: Path) -> None:
    rows = [row("AAA", day, 10.0) for day in DAYS[:4]] + [row("BBB", day, 20.0) for day in DAYS[2:]]

    market = RecordedMarket(daily(tmp_path, rows))

    (gone,) = market.corporate_actions(DAYS[4])
    assert (gone.symbol, gone.kind, gone.value) == ("AAA", "delisting", Decimal("10.1"))
    aaa, bbb = market.listings()
    assert (aaa.delisted, bbb.delisted, bbb.listed) == (DAYS[4], None, DAYS[2])
    assert market.ticks("AAA", at_new_york(DAYS[4], "09:00"), at_new_york(DAYS[4], "16:00")) == []


def test_a_missing_day_leaves_the_last_price_standing(tmp_path: Path) -> None:
    """On a thin date a symbol without a row has no ticks: its latest is that of the session before."""
    rows = [row("AAA", day, 10.0) for day in DAYS if day != DAYS[3]] + [row("BBB", day, 20.0) for day in DAYS]
    market = RecordedMarket(daily(tmp_path, rows))

    tick = market.tick("AAA", at_new_york(DAYS[3], "12:00"))

    assert tick is not None and tick.at == at_new_york(DAYS[2], "16:00").timestamp()


def test_a_file_without_any_session_is_refused(tmp_path: Path) -> None:
    path = daily(tmp_path, [row("XYZ", day, 10.0) for day in (date(2024, 3, 9), date(2024, 3, 10))])

    with pytest.raises(BadInput, match=r"no row on a day the exchange was open, 2024-03-09\.\.2024-03-10"):
        RecordedMarket(path)


def intraday(tmp_path: Path, minutes: int, *, symbols: tuple[str, ...] = ("XYZ",)) -> Path:
    """One full day from 04:00 to 20:00; prices rise a cent a bar around 50."""
    rows = []
    for symbol in symbols:
        for number in range(16 * 60 // minutes):
            price = 50.0 + number / 100
            at = at_new_york(DAYS[0], "04:00") + timedelta(minutes=minutes * number)
            bar = {"open": price, "high": price + 0.5, "low": price - 0.5, "close": price + 0.01}
            rows.append({"symbol": symbol, "ts": at, **bar, "volume": 997})
    path = tmp_path / "bars.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("minutes", [1, 5, 60])
def test_intraday_bars_are_walked_as_they_are(tmp_path: Path, minutes: int) -> None:
    """Every bar's open, extremes, close and volume are found again in the ticks within it, at least one a minute."""
    market = RecordedMarket(intraday(tmp_path, minutes))
    (session,) = market.sessions()
    bars = market.minute_bars(
        ["XYZ"], session.opens - timedelta(hours=1), session.closes, minutes=minutes, known_at=session.closes
    )["XYZ"]

    for bar in bars:
        start = max(bar.at, session.opens)
        end = bar.at + timedelta(minutes=minutes)
        ticks = market.ticks("XYZ", start - timedelta(microseconds=1), end - timedelta(microseconds=1))
        prices = [tick.last for tick in ticks]
        assert (prices[0], max(prices), min(prices), prices[-1]) == (bar.open, bar.high, bar.low, bar.close)
        assert sum(tick.volume for tick in ticks) == bar.volume == 997
        assert ticks[0].at == start.timestamp()
        assert max(b.at - a.at for a, b in itertools.pairwise(ticks)) <= 60
        assert all(tick.bid <= tick.last <= tick.ask for tick in ticks)


def test_only_regular_hours_are_traded(tmp_path: Path) -> None:
    """Pre- and post-market bars are left out and counted; an hour labelled 09:00 is kept from 09:30 on."""
    by_minute = RecordedMarket(intraday(tmp_path, 1))
    (session,) = by_minute.sessions()
    ticks = by_minute.ticks("XYZ", session.opens - timedelta(hours=8), session.closes + timedelta(hours=8))

    assert ticks[0].at == session.opens.timestamp()
    assert ticks[-1].at < session.closes.timestamp()
    assert by_minute.notes.rows_out_of_session == 960 - 390

    by_hour = RecordedMarket(intraday(tmp_path, 60))
    first = by_hour.ticks("XYZ", session.opens - timedelta(hours=8), session.closes)[0]
    assert (first.at, first.last) == (session.opens.timestamp(), 50.05)


def test_the_day_of_an_intraday_file_adds_up(tmp_path: Path) -> None:
    market = RecordedMarket(intraday(tmp_path, 5))
    (day,) = market.daily_bars(["XYZ"], DAYS[0], DAYS[0], adjustment="raw", known_at=LATER)["XYZ"]

    assert (day.open, day.close, day.volume) == (50.66, 51.44, 78 * 997)
    assert (day.high, day.low) == (51.93, 50.16)


def test_bars_of_odd_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="bars are 420 s apart; give bars of 1 to 60 minutes"):
        RecordedMarket(intraday(tmp_path, 7))


def test_the_label_names_the_file(tmp_path: Path) -> None:
    assert RecordedMarket(intraday(tmp_path, 5)).label == "recorded, bars.parquet"
