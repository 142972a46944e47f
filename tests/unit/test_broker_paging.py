"""Lists are read to their end, each entry once, whatever the broker counts as a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st
from requests.adapters import BaseAdapter

from desk.broker.alpaca import AlpacaBroker
from desk.broker.marketdata import AlpacaMarketData
from desk.broker.pacing import NullPacer
from desk.broker.transport import Access
from desk.errors import Transient

START = datetime(2024, 3, 5, 14, 30, tzinfo=UTC)

Query = dict[str, str]


class Scripted(BaseAdapter):
    """A transport that answers with `handler(path, query)` as JSON, and notes what was asked."""

    def __init__(self, handler: Callable[[str, Query], Any]) -> None:
        super().__init__()
        self.handler = handler
        self.asked: list[tuple[str, Query]] = []

    def send(self, request: requests.PreparedRequest, **_options: Any) -> requests.Response:
        parts = urlsplit(request.url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.asked.append((parts.path, query))
        response = requests.Response()
        response.status_code, response.request, response.url = 200, request, request.url
        response.headers["Content-Type"] = "application/json"
        response._content = json.dumps(self.handler(parts.path, query)).encode()
        return response

    def close(self) -> None:
        pass


def access(mount: BaseAdapter) -> Access:
    return Access(key_id="K", secret_key="S", pacer=NullPacer(), sleep=lambda _s: None, mount=mount)


def broker_on(handler: Callable[[str, Query], Any]) -> tuple[AlpacaBroker, Scripted]:
    mount = Scripted(handler)
    return AlpacaBroker("http://exchange.invalid", access(mount)), mount


def data_on(handler: Callable[[str, Query], Any]) -> tuple[AlpacaMarketData, Scripted]:
    mount = Scripted(handler)
    return AlpacaMarketData("http://exchange.invalid", access(mount)), mount


def stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def order(
    number: int, at: datetime, *, legs: int = 0, status: str = "filled", leg_status: str = "held"
) -> dict[str, Any]:
    fields = {
        "client_order_id": f"op-{number}",
        "updated_at": stamp(at),
        "submitted_at": stamp(at),
        "symbol": "TSLA",
        "qty": "10",
        "filled_qty": "0",
        "order_class": "bracket" if legs else "",
        "type": "limit",
        "side": "buy",
        "time_in_force": "gtc",
        "status": status,
    }
    children = [{**fields, "id": f"{number}.{n}", "status": leg_status} for n in range(legs)]
    return {**fields, "id": str(number), "legs": children or None}


def order_list(everything: list[dict[str, Any]], *, limit_counts_legs: bool) -> Callable[[str, Query], Any]:
    """GET /orders: exclusive `after`, ascending, limited, under either reading of what the limit counts."""

    def handler(path: str, query: Query) -> Any:
        assert (path, query["direction"], query["nested"], query["limit"]) == ("/v2/orders", "asc", "True", "500")
        after = datetime.fromisoformat(query["after"]) if "after" in query else None
        page, count = [], 0
        for entry in everything:
            if after is not None and datetime.fromisoformat(entry["submitted_at"]) <= after:
                continue
            count += 1 + (len(entry["legs"] or ()) if limit_counts_legs else 0)
            if count > 500:
                break
            page.append(entry)
        return page

    return handler


@settings(max_examples=25)
@given(
    groups=st.lists(st.tuples(st.integers(1, 90), st.integers(0, 2)), min_size=1, max_size=20),
    limit_counts_legs=st.booleans(),
)
@example(groups=[(1, 2), (76, 2), (90, 2)], limit_counts_legs=True)  # the 167th bracket does not fit into 500
def test_every_order_is_listed_once(groups, limit_counts_legs):
    """Groups that share their submission time, brackets or not, over any number of pages."""
    everything, number = [], 0
    for minute, (size, legs) in enumerate(groups):
        for _ in range(size):
            number += 1
            everything.append(order(number, START + timedelta(minutes=minute), legs=legs))
    broker, mount = broker_on(order_list(everything, limit_counts_legs=limit_counts_legs))

    listed = broker.orders(status="all", after=START)

    assert [entry.broker_order_id for entry in listed] == [entry["id"] for entry in everything]
    assert len(mount.asked) <= 2 + 3 * len(everything) // 400


def test_orders_submitted_at_the_very_moment_asked_for_are_included():
    """The broker's own `after` leaves them out."""
    everything = [order(1, START - timedelta(microseconds=500)), order(2, START), order(3, START + timedelta(hours=1))]
    broker, _ = broker_on(order_list(everything, limit_counts_legs=False))

    assert [entry.broker_order_id for entry in broker.orders(status="all", after=START)] == ["2", "3"]


def test_a_list_that_cannot_be_walked_is_an_error_not_a_short_list():
    """More orders share one moment than a page holds."""
    everything = [order(number, START) for number in range(501)]
    broker, mount = broker_on(order_list(everything, limit_counts_legs=False))

    with pytest.raises(Transient, match="more than 500 share one moment"):
        broker.orders(status="all", after=START)

    assert len(mount.asked) == 2


def test_a_bracket_whose_parent_filled_is_open_while_a_leg_lives():
    """The broker's own list of open orders leaves it out, or shows it without its held stop."""
    everything = [
        order(1, START, legs=2, status="filled", leg_status="held"),
        order(2, START, legs=2, status="filled", leg_status="canceled"),
        order(3, START, status="accepted"),
        order(4, START, status="canceled"),
        order(5, START, status="a new word"),
    ]
    broker, mount = broker_on(order_list(everything, limit_counts_legs=False))

    live = broker.orders(status="open", after=START)

    assert [entry.broker_order_id for entry in live] == ["1", "3", "5"]
    assert len(live[0].legs) == 2
    assert mount.asked[0][1]["status"] == "all"


def test_open_orders_without_a_start_reach_back_further_than_an_order_lives():
    def handler(path: str, query: Query) -> Any:
        if path == "/v2/clock":
            return {"timestamp": stamp(START), "is_open": True, "next_open": stamp(START), "next_close": stamp(START)}
        return []

    broker, mount = broker_on(handler)

    broker.orders(status="open", symbols=["TSLA", "BRK.B"])

    (_, query) = mount.asked[1]
    assert START - datetime.fromisoformat(query["after"]) > timedelta(days=91)
    assert query["symbols"] == "TSLA,BRK.B"


def test_legs_are_fetched_by_id_when_the_lookup_by_name_has_none():
    bare, whole = order(1, START), order(1, START, legs=2)
    bare["order_class"] = "bracket"
    broker, mount = broker_on(lambda path, _query: bare if "by_client" in path else whole)

    found = broker.order("op-1")

    assert found is not None
    assert len(found.legs) == 2
    assert mount.asked == [
        ("/v2/orders:by_client_order_id", {"client_order_id": "op-1", "nested": "True"}),
        ("/v2/orders/1", {"nested": "True"}),
    ]


# -- activities ----------------------------------------------------------------------------------------------------


def fill(number: int, at: datetime) -> dict[str, Any]:
    return {
        "id": f"{number:06d}",
        "activity_type": "FILL",
        "order_id": "o",
        "symbol": "TSLA",
        "side": "buy",
        "qty": "1",
        "price": "187.5",
        "transaction_time": stamp(at),
    }


@given(counts=st.lists(st.integers(1, 120), max_size=8))
def test_every_fill_is_read_once(counts):
    """Pages of 100 by token, many fills in one moment."""
    everything: list[dict[str, Any]] = []
    for minute, count in enumerate(counts):
        everything += [fill(len(everything) + n, START + timedelta(minutes=minute)) for n in range(count)]

    def handler(path: str, query: Query) -> Any:
        assert (path, query["direction"], query["page_size"]) == ("/v2/account/activities/FILL", "asc", "100")
        after = datetime.fromisoformat(query["after"])
        left = [f for f in everything if datetime.fromisoformat(f["transaction_time"]) > after]
        return [f for f in left if f["id"] > query.get("page_token", "")][:100]

    broker, _ = broker_on(handler)

    assert [f.activity_id for f in broker.fills(START)] == [f["id"] for f in everything]


def test_an_endless_list_of_activities_is_an_error():
    broker, mount = broker_on(lambda _path, _query: [fill(n, START) for n in range(100)])

    with pytest.raises(Transient, match="more than 1000 pages"):
        broker.fills(START)

    assert len(mount.asked) == 1000


def test_splits_are_asked_for_from_the_day_itself():
    split = {"date": "2024-03-05", "symbol": "TSLA", "net_amount": "0", "activity_type": "SPLIT"}
    rows = [{**split, "id": "1", "qty": "-10"}, {**split, "id": "2", "qty": "30"}]
    early = [
        {**split, "id": "0", "qty": "-1", "date": "2024-03-04"},
        {**split, "id": "00", "qty": "2", "date": "2024-03-04"},
    ]
    broker, _ = broker_on(lambda _path, _query: early + rows)

    (adjustment,) = broker.adjustments(date(2024, 3, 5))

    assert (adjustment.symbol, adjustment.ratio) == ("TSLA", 3)


# -- market data ---------------------------------------------------------------------------------------------------


def bar(day: date, close: float) -> dict[str, Any]:
    return {"t": f"{day}T05:00:00Z", "o": close, "h": close, "l": close, "c": close, "v": 100, "n": 1, "vw": close}


def pages_of(bars: dict[str, list[dict[str, Any]]], size: int) -> Callable[[str, Query], Any]:
    """GET /stocks/bars with a small page: sorted by symbol, then time, cut anywhere."""

    def handler(path: str, query: Query) -> Any:
        assert (path, query["adjustment"], query["timeframe"]) == ("/v2/stocks/bars", "split", "1Day")
        wanted = [(s, b) for s in sorted(query["symbols"].split(",")) for b in bars.get(s, [])]
        begin = int(query.get("page_token", "0"))
        page: dict[str, list[Any]] = {}
        for symbol, entry in wanted[begin : begin + size]:
            page.setdefault(symbol, []).append(entry)
        token = str(begin + size) if begin + size < len(wanted) else None
        return {"bars": page, "next_page_token": token}

    return handler


@given(
    lengths=st.dictionaries(st.sampled_from(["A", "BRK.B", "C", "ZZZZ"]), st.integers(0, 9)), size=st.integers(1, 12)
)
def test_bars_are_complete_however_pages_are_cut(lengths, size):
    days = [date(2024, 1, 2) + timedelta(days=n) for n in range(9)]
    bars = {symbol: [bar(day, 10.0 + n) for n, day in enumerate(days[:length])] for symbol, length in lengths.items()}
    data, _ = data_on(pages_of(bars, size))

    frame = data.daily_bars(["ZZZZ", "A", "BRK.B", "C", "UNKNOWN"], days[0], days[-1])

    expected = [(symbol, day) for symbol in sorted(lengths) for day in days[: lengths[symbol]]]
    assert list(zip(frame["symbol"], frame["session"], strict=True)) == expected


def test_bars_have_the_columns_of_the_port():
    data, _ = data_on(pages_of({"A": [bar(date(2024, 1, 2), 10.5)]}, 10))

    frame = data.daily_bars(["A"], date(2024, 1, 2), date(2024, 1, 2))
    empty = data.daily_bars(["B"], date(2024, 1, 2), date(2024, 1, 2))

    assert list(frame.columns) == ["symbol", "session", "open", "high", "low", "close", "volume"]
    assert frame["close"].dtype == "float64"
    assert frame["volume"].dtype == "int64"
    assert frame["session"].iloc[0] == date(2024, 1, 2)
    assert (len(empty), list(empty.dtypes)) == (0, list(frame.dtypes))


@pytest.mark.parametrize(
    ("stamp", "day"), [("2024-01-02T05:00:00Z", 2), ("2024-07-02T04:00:00Z", 2), ("2024-01-02T00:00:00-05:00", 2)]
)
def test_a_bars_session_is_its_day_in_new_york(stamp, day):
    raw = {**bar(date(2024, 1, 2), 10.0), "t": stamp}
    data, _ = data_on(lambda _path, _query: {"bars": {"A": [raw]}, "next_page_token": None})

    assert data.daily_bars(["A"], date(2024, 1, 1), date(2024, 8, 1))["session"].iloc[0].day == day


@pytest.mark.parametrize("spoilt", [{"o": None}, {"c": "x"}, {"t": None}, {"t": "2024-01-02T05:00:00"}, {"v": None}])
def test_a_bar_without_a_number_is_an_error(spoilt):
    raw = {**bar(date(2024, 1, 2), 10.0), **spoilt}
    data, _ = data_on(lambda _path, _query: {"bars": {"A": [raw]}, "next_page_token": None})

    with pytest.raises(Transient, match="cannot be read"):
        data.daily_bars(["A"], date(2024, 1, 2), date(2024, 1, 2))


def test_bars_that_never_end_are_an_error():
    data, mount = data_on(lambda _path, _query: {"bars": {}, "next_page_token": "again"})

    with pytest.raises(Transient, match="more than 2000 pages"):
        data.daily_bars(["A"], date(2024, 1, 2), date(2024, 1, 2))

    assert len(mount.asked) == 2000


def symbols(count: int) -> Iterator[str]:
    return (f"S{number:05d}" for number in range(count))


def quote(bid: object = 10.0) -> dict[str, Any]:
    return {"t": "2024-03-05T14:40:00Z", "bp": bid, "ap": 10.1, "bs": 3, "as": 4, "c": ["R"]}


@pytest.mark.parametrize(("count", "calls"), [(0, 0), (1, 1), (20, 1), (700, 1), (3000, 4)])
def test_quotes_come_in_one_call_as_long_as_the_address_is_short_enough(count, calls):
    data, mount = data_on(lambda _path, query: {"quotes": {s: quote() for s in query["symbols"].split(",")}})

    quotes = data.quotes([*symbols(count), *symbols(count)])

    assert set(quotes) == set(symbols(count))
    assert len(mount.asked) == calls


def test_addresses_stay_short():
    urls: list[int] = []

    class Measuring(Scripted):
        def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            urls.append(len(request.url or ""))
            return super().send(request, **options)

    mount = Measuring(lambda _path, _query: {"quotes": {}})
    AlpacaMarketData("http://exchange.invalid", access(mount)).quotes(f"BRK/{number}" for number in range(3000))

    assert max(urls) < 7200


def test_a_symbol_with_a_broken_quote_is_absent_and_the_others_are_there(caplog):
    quotes = {"A": quote(), "B": quote(bid=None), "C": None, "D": quote(bid=0)}
    data, _ = data_on(lambda _path, _query: {"quotes": quotes})

    found = data.quotes(["A", "B", "C", "D", "E"])

    assert set(found) == {"A", "D"}
    assert "quote.unreadable symbol=B" in caplog.text
