"""What the simulated data API answers: shapes, pages and refusals as Alpaca's, and nothing from the future."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desk.exchange.data_api import DATA_ROUTES
from desk.exchange.exchange import Exchange
from desk.exchange.routing import ApiError, RouteTable
from desk.exchange.synthetic import SyntheticMarket
from desk.market import at_new_york

TABLE = RouteTable(DATA_ROUTES)
MARKET = SyntheticMarket(7, date(2024, 1, 2), date(2024, 12, 31), symbols=12)
SYMBOLS = [listing.symbol for listing in MARKET.listings() if listing.delisted is None][:12]
DAY = date(2024, 3, 5)


def exchange(now: datetime) -> Exchange:
    return Exchange(MARKET, now)


OPEN = exchange(at_new_york(DAY, "11:00"))
CLOSED = exchange(at_new_york(DAY, "18:00"))


def get(on: Exchange, path: str, **query: str) -> Any:
    route, params = TABLE.find("GET", f"/v2/stocks/{path}")
    status, body = route.handler(on, params, query, None)
    assert status == 200
    return orjson.loads(body)


def all_pages(on: Exchange, path: str, name: str, **query: str) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    token: str | None = ""
    while token is not None:
        page = get(on, path, **query, **({"page_token": token} if token else {}))
        assert sum(map(len, page[name].values())) <= int(query.get("limit", 1000))
        for symbol, points in page[name].items():
            rows.setdefault(symbol, []).extend(points)
        token = page["next_page_token"]
    return rows


def test_a_daily_bar_is_stamped_new_york_midnight_with_numbers() -> None:
    page = get(CLOSED, "bars", symbols=SYMBOLS[0], timeframe="1Day", start="2024-03-05", end="2024-03-05")

    (bar,) = page["bars"][SYMBOLS[0]]
    assert set(bar) == {"t", "o", "h", "l", "c", "v", "n", "vw"}
    assert bar["t"] == "2024-03-05T05:00:00Z"
    assert all(isinstance(bar[key], int | float) for key in "ohlcvn")
    assert page["next_page_token"] is None


def test_a_running_session_has_no_daily_bar_and_no_unfinished_minute() -> None:
    days = get(OPEN, "bars", symbols=SYMBOLS[0], timeframe="1Day", start="2024-03-04")
    minutes = get(OPEN, "bars", symbols=SYMBOLS[0], timeframe="15Min", start="2024-03-05")

    assert [bar["t"][:10] for bar in days["bars"][SYMBOLS[0]]] == ["2024-03-04"]
    assert [bar["t"][11:16] for bar in minutes["bars"][SYMBOLS[0]]][-1] == "15:45"  # 10:45 to 11:00 in New York


def test_nothing_to_serve_is_an_empty_object() -> None:
    """The SDK crashes on null."""
    page = get(OPEN, "bars", symbols="NOPE", timeframe="1Day", start="2024-03-04")

    assert page == {"bars": {}, "next_page_token": None}
    assert get(OPEN, "quotes/latest", symbols="NOPE") == {"quotes": {}}
    assert get(OPEN, "trades/latest", symbols="NOPE") == {"trades": {}}
    assert get(OPEN, "bars/latest", symbols="NOPE") == {"bars": {}}
    assert get(OPEN, "snapshots", symbols="NOPE") == {}


@settings(deadline=None, max_examples=25)
@given(st.integers(3, 60), st.sampled_from(["asc", "desc"]), st.sampled_from(["1Day", "1Week", "2Hour"]))
def test_pages_of_any_size_add_up_to_the_whole(limit: int, sort: str, timeframe: str) -> None:
    """By symbol, then time; no point twice, none lost."""
    asked = {"symbols": ",".join(reversed(SYMBOLS[:4])), "timeframe": timeframe, "start": "2024-02-20", "sort": sort}

    whole = get(CLOSED, "bars", **asked, limit="10000")["bars"]
    paged = all_pages(CLOSED, "bars", "bars", **asked, limit=str(limit))

    assert paged == whole
    assert list(paged) == sorted(paged)
    for points in whole.values():
        assert [p["t"] for p in points] == sorted((p["t"] for p in points), reverse=sort == "desc")


@settings(deadline=None, max_examples=15)
@given(st.integers(50, 400), st.sampled_from(["asc", "desc"]), st.sampled_from(["quotes", "trades"]))
def test_pages_of_ticks_add_up_too(limit: int, sort: str, kind: str) -> None:
    asked = {"symbols": ",".join(SYMBOLS[:2]), "start": "2024-03-04T20:00:00Z", "sort": sort}

    whole = get(OPEN, kind, **asked, limit="10000")[kind]
    paged = all_pages(OPEN, kind, kind, **asked, limit=str(limit))

    assert paged == whole
    assert {len(points) for points in whole.values()} == {61 + 91}  # the last hour of one day, 90 minutes of the next


def test_limits_count_points_over_all_symbols() -> None:
    page = get(
        CLOSED, "bars", symbols=",".join(SYMBOLS), timeframe="1Day", start="2024-03-04", end="2024-03-05", limit="5"
    )

    assert [len(points) for points in page["bars"].values()] == [2, 2, 1]


def test_a_week_and_a_month_join_their_days() -> None:
    days = get(CLOSED, "bars", symbols=SYMBOLS[0], timeframe="1Day", start="2024-02-01", end="2024-02-29")["bars"]
    (month,) = get(CLOSED, "bars", symbols=SYMBOLS[0], timeframe="1Month", start="2024-02-01", end="2024-02-29")[
        "bars"
    ][SYMBOLS[0]]
    weeks = get(CLOSED, "bars", symbols=SYMBOLS[0], timeframe="1Week", start="2024-02-05", end="2024-02-29")["bars"]

    points = days[SYMBOLS[0]]
    assert (month["t"], month["o"], month["c"]) == ("2024-02-01T05:00:00Z", points[0]["o"], points[-1]["c"])
    assert (month["h"], month["l"]) == (max(p["h"] for p in points), min(p["l"] for p in points))
    assert month["v"] == sum(p["v"] for p in points)
    assert [week["t"][:10] for week in weeks[SYMBOLS[0]]] == ["2024-02-05", "2024-02-12", "2024-02-19", "2024-02-26"]


def test_latest_quotes_are_stamped_now_and_follow_an_override() -> None:
    on = exchange(at_new_york(DAY, "11:00"))
    on.set_market(SYMBOLS[0], bid=0.0, ask=51.0, last=50.5)

    quotes = get(on, "quotes/latest", symbols=",".join(SYMBOLS))["quotes"]
    trades = get(on, "trades/latest", symbols=SYMBOLS[0])["trades"]

    assert list(quotes) == SYMBOLS
    assert {quote["t"] for quote in quotes.values()} == {"2024-03-05T16:00:00Z"}
    assert (quotes[SYMBOLS[0]]["bp"], quotes[SYMBOLS[0]]["bs"], quotes[SYMBOLS[0]]["ap"]) == (0.0, 0, 51.0)
    assert quotes[SYMBOLS[1]]["bs"] > 0
    assert trades[SYMBOLS[0]]["p"] == 50.5


def test_a_snapshot_shows_the_running_day_and_the_one_before() -> None:
    snapshot = get(OPEN, "snapshots", symbols=SYMBOLS[0])[SYMBOLS[0]]
    after = get(CLOSED, "snapshots", symbols=SYMBOLS[0])[SYMBOLS[0]]
    ticks = MARKET.ticks(SYMBOLS[0], OPEN.now - timedelta(hours=2), OPEN.now)

    assert snapshot["dailyBar"]["t"] == after["dailyBar"]["t"] == "2024-03-05T05:00:00Z"
    assert snapshot["dailyBar"]["c"] == snapshot["latestTrade"]["p"] == snapshot["minuteBar"]["c"]
    assert snapshot["dailyBar"]["v"] == sum(tick.volume for tick in ticks)
    assert after["dailyBar"]["v"] > snapshot["dailyBar"]["v"]
    assert snapshot["prevDailyBar"] == after["prevDailyBar"]
    assert snapshot["prevDailyBar"]["t"] == "2024-03-04T05:00:00Z"


def test_the_latest_bar_at_the_open_is_of_the_day_before() -> None:
    bars = get(exchange(at_new_york(DAY, "09:30")), "bars/latest", symbols=SYMBOLS[0])["bars"]

    assert bars[SYMBOLS[0]]["t"] == "2024-03-04T20:59:00Z"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "symbols is required"),
        ({"symbols": "aapl"}, "invalid symbol: aapl"),
        ({"symbols": "AAPL,B AD"}, "invalid symbol: B AD"),
        ({"symbols": "AAPL"}, "timeframe is required"),
        ({"symbols": "AAPL", "timeframe": "60Min"}, "invalid timeframe: 60Min"),
        ({"symbols": "AAPL", "timeframe": "2Day"}, "invalid timeframe: 2Day"),
        ({"symbols": "AAPL", "timeframe": "4Month"}, "invalid timeframe: 4Month"),
        ({"symbols": "AAPL", "timeframe": "day"}, "invalid timeframe: day"),
        ({"symbols": "AAPL", "start": "yesterday"}, "invalid start: yesterday"),
        ({"symbols": "AAPL", "start": "2024-03-05", "end": "2024-03-01"}, "end should not be before start"),
        ({"symbols": "AAPL", "limit": "0"}, "invalid limit: 0"),
        ({"symbols": "AAPL", "limit": "10001"}, "invalid limit: 10001"),
        ({"symbols": "AAPL", "sort": "up"}, "invalid sort: up"),
        ({"symbols": "AAPL", "adjustment": "none"}, "invalid adjustment: none"),
        ({"symbols": "AAPL", "feed": "nyse"}, "invalid feed: nyse"),
        ({"symbols": "AAPL", "page_token": "garbage!"}, "invalid page_token"),
    ],
)
def test_a_malformed_request_is_a_400_with_a_message(query: dict[str, str], message: str) -> None:
    with pytest.raises(ApiError, match=message) as refusal:
        get(OPEN, "bars", **query)

    assert (refusal.value.status, set(refusal.value.body)) == (400, {"message"})
