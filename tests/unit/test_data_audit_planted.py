"""Each kind of defect, planted alone among clean bars, is found where it is; the market's own doings are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
import pytest
from clean_bars import PRICES, Bars, clean_bars

from expectations.audit.finding import EVERY, FINDINGS_PER_KIND_MAX, Finding, Grade, Kind
from expectations.audit.report import audit_panel

DAY, SYMBOL = 70, 6  # a symbol without split or dividend; neither is near an edge


@dataclass(frozen=True)
class Planted:
    kind: Kind
    plant: Callable[[Bars], None]
    symbol: int | None = SYMBOL  # None: the whole file
    session: int = DAY


def value(column: str, to: float, session: int = DAY) -> Callable[[Bars], None]:
    def plant(bars: Bars) -> None:
        bars[column][session, SYMBOL] = to

    return plant


def times(column: str, by: float) -> Callable[[Bars], None]:
    def plant(bars: Bars) -> None:
        bars[column][DAY, SYMBOL] *= by

    return plant


def scaled(rows: slice, by: float) -> Callable[[Bars], None]:
    return lambda bars: bars.scale(rows, SYMBOL, by)


def absent(rows: slice, symbols: slice) -> Callable[[Bars], None]:
    def plant(bars: Bars) -> None:
        bars.kept[rows, symbols] = False

    return plant


def repeated(bars: Bars) -> None:
    bars.extra.append((DAY, SYMBOL, int(bars.days[DAY])))


def on_a_sunday(bars: Bars) -> None:
    monday = next(i for i in range(DAY, DAY + 6) if bars.day(i).weekday() == 0)
    bars.extra.append((monday, SYMBOL, int(bars.days[monday]) - 1))


def mixed_columns(bars: Bars) -> None:
    bars["high"][DAY, SYMBOL], bars["low"][DAY, SYMBOL] = bars["low"][DAY, SYMBOL] / 1.2, bars["high"][DAY, SYMBOL]


def without_volume(bars: Bars) -> None:
    bars["volume"][DAY : DAY + 4, SYMBOL] = 0


def stale_market(bars: Bars) -> None:
    for name in PRICES:
        bars[name][DAY] = bars[name][DAY - 1]


def stale_symbol(bars: Bars) -> None:
    for name in (*PRICES, "volume"):
        bars[name][DAY, SYMBOL] = bars[name][DAY - 1, SYMBOL]


def frozen_feed(bars: Bars) -> None:
    for name in PRICES:
        bars[name][DAY : DAY + 8, SYMBOL] = bars["close"][DAY - 1, SYMBOL]


def copied(bars: Bars) -> None:
    for name in (*PRICES, "volume"):
        bars[name][DAY : DAY + 3, SYMBOL + 1] = bars[name][DAY : DAY + 3, SYMBOL]


def split_unrecorded(bars: Bars) -> None:
    bars.scale(slice(DAY, None), SYMBOL, 0.5)
    bars["volume"][DAY:, SYMBOL] *= 2


def split_a_day_early(bars: Bars) -> None:
    split_unrecorded(bars)
    bars["split"][DAY, SYMBOL] = 2
    bars["factor"][: DAY - 1, SYMBOL] *= 0.5


def split_twice(bars: Bars) -> None:
    """The price is already adjusted, and split and factor adjust it again."""
    bars["split"][DAY, SYMBOL] = 3
    bars["factor"][:DAY, SYMBOL] /= 3


def dividend_not_paid(bars: Bars) -> None:
    bars["dividend"][DAY, SYMBOL] = 0.2 * bars["close"][DAY, SYMBOL]
    bars["factor"][:DAY, SYMBOL] /= 1.2


def spliced(bars: Bars) -> None:
    """Another security under the ticker: a third of the price, thirty times the volume, and a calm day."""
    bars.scale(slice(DAY, None), SYMBOL, 0.3)
    bars["volume"][DAY:, SYMBOL] *= 30
    close = bars["close"][DAY, SYMBOL]
    bars["open"][DAY, SYMBOL], bars["high"][DAY, SYMBOL], bars["low"][DAY, SYMBOL] = close, close * 1.01, close * 0.99


PLANTED = {
    "a price that is not there": Planted(Kind.MISSING_VALUE, value("close", np.nan)),
    "an infinite price": Planted(Kind.MISSING_VALUE, value("high", np.inf)),
    "a price of zero": Planted(Kind.BAD_PRICE, value("open", 0.0)),
    "a negative price": Planted(Kind.BAD_PRICE, value("low", -3.0)),
    "a negative volume": Planted(Kind.BAD_VOLUME, value("volume", -1.0)),
    "high and low mixed up": Planted(Kind.INCONSISTENT_BAR, mixed_columns),
    "four bars without volume": Planted(Kind.ZERO_VOLUME, without_volume),
    "a row twice": Planted(Kind.DUPLICATE, repeated),
    "a session nobody has": Planted(Kind.MISSING_SESSION, absent(slice(DAY, DAY + 1), slice(None)), None),
    "half of the universe missing": Planted(Kind.THIN_DATE, absent(slice(DAY, DAY + 1), slice(0, 20)), None),
    "half of the universe missing today": Planted(
        Kind.THIN_DATE, absent(slice(159, 160), slice(0, 20)), None, session=159
    ),
    "a hole of three weeks": Planted(Kind.GAP, absent(slice(DAY, DAY + 15), slice(SYMBOL, SYMBOL + 1))),
    "the market repeats a day": Planted(Kind.STALE, stale_market, None),
    "a bar again, volume and all": Planted(Kind.STALE, stale_symbol),
    "a feed that stands still": Planted(Kind.STALE, frozen_feed),
    "another symbol's rows": Planted(Kind.COPIED_ROWS, copied, SYMBOL + 1),
    "a split nobody recorded": Planted(Kind.WRONG_ADJUSTMENT, split_unrecorded),
    "a split in the factor a day early": Planted(Kind.WRONG_ADJUSTMENT, split_a_day_early, session=DAY - 1),
    "a split applied twice": Planted(Kind.WRONG_ADJUSTMENT, split_twice),
    "a dividend the price never paid": Planted(Kind.WRONG_ADJUSTMENT, dividend_not_paid),
    "ten times the price for a day": Planted(Kind.SCALE, scaled(slice(DAY, DAY + 1), 10.0)),
    "a tenth of the price for three days": Planted(Kind.SCALE, scaled(slice(DAY, DAY + 3), 0.1)),
    "a level that comes and goes": Planted(Kind.BAD_PRINT, scaled(slice(DAY, DAY + 2), 1.3)),
    "an open from elsewhere": Planted(Kind.EXTREME_WICK, times("high", 1.9)),
    "a low from elsewhere": Planted(Kind.EXTREME_WICK, times("low", 0.4)),
    "two securities, one ticker": Planted(Kind.SPLICE, spliced),
    "a jump nobody traded on": Planted(Kind.DOUBTFUL_MOVE, scaled(slice(DAY, None), 0.72)),
}


@pytest.mark.parametrize("case", PLANTED.values(), ids=PLANTED)
def test_a_planted_defect_is_found_where_it_is(case: Planted) -> None:
    bars = clean_bars()

    case.plant(bars)

    symbol = EVERY if case.symbol is None else bars.names[case.symbol]
    assert (case.kind, symbol, bars.day(case.session)) in {place(each) for each in audit_panel(bars.panel()).flags}


@pytest.mark.parametrize("case", PLANTED.values(), ids=PLANTED)
def test_nothing_else_is_flagged_beside_it(case: Planted) -> None:
    """A defect in one place accuses nobody else. (The second of two rows stands at the file's end, out of order.)"""
    bars = clean_bars()

    case.plant(bars)

    symbols = {EVERY} if case.symbol is None else {bars.names[case.symbol]}
    flags = audit_panel(bars.panel()).flags
    assert {each.symbol for each in flags if each.kind is not Kind.ORDER} == symbols


def test_an_open_from_elsewhere_is_a_bad_print() -> None:
    bars = clean_bars()
    bars["open"][DAY, SYMBOL] *= 1.8
    bars["high"][DAY, SYMBOL] = bars["open"][DAY, SYMBOL]

    flags = audit_panel(bars.panel()).flags

    assert [place(each) for each in flags] == [(Kind.BAD_PRINT, bars.names[SYMBOL], bars.day(DAY))]


def test_a_row_on_a_closed_day_is_found() -> None:
    bars = clean_bars()
    on_a_sunday(bars)

    flags = [each for each in audit_panel(bars.panel()).flags if each.kind is Kind.CLOSED_DAY]

    assert [(each.symbol, each.first.weekday(), each.rows) for each in flags] == [(bars.names[SYMBOL], 6, 1)]


def test_rows_out_of_order_are_told_once() -> None:
    bars = clean_bars()
    order = np.arange(bars.kept.sum())
    order[[300, 301, 900, 901]] = order[[301, 300, 901, 900]]

    flags = audit_panel(bars.panel(order)).flags

    assert [(each.kind, each.symbol, each.rows) for each in flags] == [(Kind.ORDER, EVERY, 2)]


def test_a_symbol_full_of_holes_is_one_finding() -> None:
    bars = clean_bars(sessions=300)
    for first in (40, 120, 220):
        bars.kept[first : first + 14, SYMBOL] = False

    flags = audit_panel(bars.panel()).flags

    assert [place(each) for each in flags] == [(Kind.GAP, bars.names[SYMBOL], bars.day(40))]
    assert "3 gaps" in flags[0].evidence


def crash(bars: Bars) -> None:
    """The whole market opens 12 % lower, and many prints go far below."""
    bars.scale(slice(DAY, None), slice(None), 0.88)  # type: ignore[arg-type]
    bars["low"][DAY, ::3] *= 0.8
    bars["volume"][DAY] *= 3


def bad_news(bars: Bars) -> None:
    bars.scale(slice(DAY, None), SYMBOL, 0.65)
    bars["high"][DAY, SYMBOL] *= 1.06
    bars["volume"][DAY, SYMBOL] *= 15


def takeover(bars: Bars) -> None:
    """Up 45 % and pinned, on forty times the volume."""
    bars.scale(slice(DAY, None), SYMBOL, 1.45)
    close = bars["close"][DAY, SYMBOL]
    for name, by in zip(PRICES, (1.0, 1.002, 0.998, 1.0), strict=True):
        bars[name][DAY:, SYMBOL] = close * by * (1 + 0.0005 * np.arange(160 - DAY) % 0.003)
    bars["volume"][DAY, SYMBOL] *= 40


def rumour(bars: Bars) -> None:
    """A spike that fades within the day, on volume."""
    bars["high"][DAY, SYMBOL] *= 1.3
    bars["volume"][DAY, SYMBOL] *= 16


def listed_late(bars: Bars) -> None:
    bars.kept[:90, SYMBOL] = False


def delisted_early(bars: Bars) -> None:
    bars.kept[90:, SYMBOL] = False


@pytest.mark.parametrize("event", [crash, bad_news, takeover, rumour, listed_late, delisted_early])
def test_what_markets_do_is_no_defect(event: Callable[[Bars], None]) -> None:
    bars = clean_bars()

    event(bars)

    assert audit_panel(bars.panel()).flags == ()


def test_small_looseness_is_noted_and_not_flagged() -> None:
    """Three single bars without volume, one open 2 % above its high, and two missing rows: three notes."""
    bars = clean_bars()
    bars["volume"][[20, 60, 90], [3, 9, 12]] = 0
    bars["open"][50, 7] = bars["high"][50, 7] * 1.02
    bars.kept[[30, 80], [5, 8]] = False

    audit = audit_panel(bars.panel())

    assert audit.flags == ()
    assert {each.kind for each in audit.notes} == {Kind.ZERO_VOLUME, Kind.INCONSISTENT_BAR, Kind.GAP}
    assert "3" in next(each.evidence for each in audit.notes if each.kind is Kind.ZERO_VOLUME)


def test_the_weaker_suspects_of_many_become_notes() -> None:
    """6,400 rows allow no flag by the rate; the three strongest wicks are flagged all the same, and all are told."""
    bars = clean_bars()
    strengths = [1.5, 1.7, 1.9, 2.2, 2.6, 3.0]
    for i, by in enumerate(strengths):
        bars["high"][40 + 9 * i, 11 + i] *= by

    audit = audit_panel(bars.panel())

    wicks = [each for each in audit.findings if each.kind is Kind.EXTREME_WICK]
    weakest_flag = min(each.strength for each in wicks if each.is_flag)
    assert len(wicks) == 6 and len(audit.flags) == 3 and len(audit.weaker) == 3
    assert all(each.strength <= weakest_flag for each in wicks if not each.is_flag)


def place(each: Finding) -> tuple[Kind, str, date]:
    return each.kind, each.symbol, each.first


def test_a_finding_ends_no_earlier_than_it_begins() -> None:
    with pytest.raises(ValueError, match="before"):
        Finding(Kind.GAP, Grade.WARNING, "A", date(2024, 3, 5), date(2024, 3, 4), 0, "backwards")


def test_a_broken_column_is_told_once_for_each_symbol() -> None:
    bars = clean_bars()
    bars["volume"][:] = np.nan

    audit = audit_panel(bars.panel())

    assert [each.kind for each in audit.flags] == [Kind.MISSING_VALUE] * len(bars.names)
    assert sum(each.rows for each in audit.flags) == bars.kept.sum()


def test_more_findings_than_anyone_reads_are_counted() -> None:
    """Every second close of 40 symbols is missing: 3,200 findings, 1,000 of them listed."""
    bars = clean_bars()
    bars["close"][::2] = np.nan

    flags = audit_panel(bars.panel()).flags

    assert len(flags) == FINDINGS_PER_KIND_MAX
    assert sum(each.rows for each in flags) == 3_200
    assert flags[-1].evidence == "and 2,201 more such findings, not listed"
