"""A recorded market's splits, dividends and delistings, as they reach positions, orders and the data API."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scripted_market import KEYS, Caller

from desk.exchange.exchange import Exchange
from desk.exchange.options import ExchangeOptions
from desk.exchange.recorded import RecordedMarket
from desk.exchange.sessions import sessions_between
from desk.market import at_new_york

DAYS = [session.day for session in sessions_between(date(2024, 3, 4), date(2024, 3, 15))]
BOUGHT, PAID, SPLIT, GONE = DAYS[1], DAYS[3], DAYS[5], DAYS[7]


def rows() -> list[dict[str, Any]]:
    """XYZ pays a dollar and splits 3 for 2; OLD stops trading two days later; ABC trades throughout."""
    told = []
    for symbol, last in (("ABC", DAYS[-1]), ("OLD", DAYS[6]), ("XYZ", DAYS[-1])):
        for day in DAYS:
            if day > last:
                continue
            price = 60.0 if symbol == "XYZ" and day >= SPLIT else 90.0
            told.append(
                {
                    "symbol": symbol, "date": day, "open": price, "high": price + 1, "low": price - 1, "close": price,
                    "volume": 10_000, "dividend": 1.0 if (symbol, day) == ("XYZ", PAID) else 0.0,
                    "split": 1.5 if (symbol, day) == ("XYZ", SPLIT) else 1.0,
                }
            )  # fmt: skip
    return told


@pytest.fixture
def market(tmp_path: Path) -> RecordedMarket:
    path = tmp_path / "bars.parquet"
    pq.write_table(pa.Table.from_pylist(rows()), path)
    return RecordedMarket(path)


def desk_on(market: RecordedMarket, options: ExchangeOptions | None = None) -> Caller:
    return Caller(Exchange(market, at_new_york(BOUGHT, "10:00"), keys=KEYS, options=options))


def test_a_recorded_split_reaches_the_position_its_exits_and_the_history(market: RecordedMarket) -> None:
    desk = desk_on(market)
    resting = desk.buy("XYZ", 3, type="limit", limit_price=45, time_in_force="gtc")
    order = desk.bracket("XYZ", 11, target=120, stop=75)

    desk.exchange.set_clock(at_new_york(SPLIT, "10:00"))

    assert desk.position("XYZ")["qty"] == "16"  # and half a share in cash
    legs = desk.seen(order)["legs"]
    assert [(leg["qty"], leg["limit_price"], leg["stop_price"]) for leg in legs] == [
        ("16", "80", None),
        ("16", None, "50"),
    ]
    assert (desk.seen(resting)["qty"], desk.seen(resting)["limit_price"]) == ("4", "30")
    rows = desk.get("/v2/account/activities/SPLIT", direction="asc")
    assert [row["qty"] for row in rows] == ["-11", "16"]
    found = desk.get("/v1/corporate-actions", start=BOUGHT.isoformat(), types="forward_split")["corporate_actions"]
    assert [(row["symbol"], row["new_rate"], row["old_rate"]) for row in found["forward_splits"]] == [("XYZ", 3, 2)]


def test_a_recorded_dividend_is_paid_and_told(market: RecordedMarket) -> None:
    desk = desk_on(market)
    desk.buy("XYZ", 11)
    cash = desk.cash()

    desk.exchange.set_clock(at_new_york(PAID, "10:00"))

    assert desk.cash() == cash + 11
    found = desk.get("/v1/corporate-actions", symbols="XYZ")["corporate_actions"]
    assert [(row["rate"], row["ex_date"]) for row in found["cash_dividends"]] == [(1, PAID.isoformat())]


def test_a_recorded_delisting_ends_orders_sells_the_shares_and_closes_the_asset(market: RecordedMarket) -> None:
    desk = desk_on(market)
    order = desk.bracket("OLD", 4, target=120, stop=75)

    desk.exchange.set_clock(at_new_york(GONE, "10:00"))

    assert [leg["status"] for leg in desk.seen(order)["legs"]] == ["canceled", "canceled"]
    assert desk.position("OLD") is None
    sale = desk.get("/v2/account/activities/FILL")[0]
    assert (sale["side"], sale["qty"], sale["price"]) == ("sell", "4", "90")
    assert desk.get("/v2/assets/OLD")["status"] == "inactive"
    status, body = desk.order("OLD", 1)
    assert (status, body["message"]) == (422, 'asset "OLD" is not active')
    found = desk.get("/v1/corporate-actions", symbols="OLD")["corporate_actions"]
    assert [(row["acquiree_symbol"], row["rate"]) for row in found["cash_mergers"]] == [("OLD", 90)]


def test_recorded_actions_reach_a_short_position_too(market: RecordedMarket) -> None:
    desk = desk_on(market, ExchangeOptions(shorting=True))
    desk.sell("XYZ", 10)
    desk.sell("OLD", 4)

    desk.exchange.set_clock(at_new_york(GONE, "10:00"))

    assert [(one["symbol"], one["qty"]) for one in desk.get("/v2/positions")] == [("XYZ", "-15")]
    assert Decimal(desk.get("/v2/account/activities/DIV")[0]["net_amount"]) == -10
