"""The real, unmodified alpaca-py against the simulated exchange: over HTTP and in process, parsed and raw."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
import requests
import uvicorn
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderClass, OrderSide, OrderStatus, QueryOrderStatus, TimeInForce
from alpaca.trading.models import NonTradeActivity, TradeActivity, TradeUpdate
from alpaca.trading.requests import (
    ClosePositionRequest,
    GetAssetsRequest,
    GetCalendarRequest,
    GetOrderByIdRequest,
    GetOrdersRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    StopLossRequest,
    StopOrderRequest,
    TakeProfitRequest,
)
from scripted_market import KEYS, MONDAY, TUESDAY, at, caller, flat

from desk.exchange.app import create_app
from desk.exchange.exchange import Exchange
from desk.exchange.gateway import RateLimit
from desk.exchange.market import CorporateAction
from desk.exchange.transport import InProcessAdapter

Connect = Callable[..., TradingClient]


@pytest.fixture
def exchange() -> Exchange:
    paid = CorporateAction("BETA", TUESDAY, "dividend", Decimal("0.5"))
    return caller(flat("ACME") | flat("BETA"), actions=[paid]).exchange


def served(exchange: Exchange) -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app(exchange), host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    for _ in range(500):
        if server.started:
            break
        time.sleep(0.01)
    assert server.started
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(params=["in process", pytest.param("http", marks=pytest.mark.integration)])
def connect(request: pytest.FixtureRequest, exchange: Exchange) -> Iterator[Connect]:
    """Makes clients of one exchange; given keys, raw mode."""
    made: list[TradingClient] = []
    server = served(exchange) if request.param == "http" else None
    address = next(server) if server is not None else "http://exchange.invalid"

    def client(*, raw: bool = False, keys: tuple[str, str] = KEYS) -> TradingClient:
        trading = TradingClient(*keys, raw_data=raw, url_override=address)
        trading._session.trust_env = False
        if server is None:
            trading._session.mount(address, InProcessAdapter(exchange))
        made.append(trading)
        return trading

    yield client
    for trading in made:
        trading._session.close()
    if server is not None:
        next(server, None)


def bracket(symbol: str = "ACME", **changes: Any) -> LimitOrderRequest:
    fields: dict[str, Any] = {
        "symbol": symbol,
        "qty": 10,
        "side": OrderSide.BUY,
        "time_in_force": TimeInForce.GTC,
        "order_class": OrderClass.BRACKET,
        "limit_price": 100.5,
        "take_profit": TakeProfitRequest(limit_price=110),
        "stop_loss": StopLossRequest(stop_price=90.25),
        "client_order_id": f"op-{symbol}",
    }
    return LimitOrderRequest(**fields | changes)


def test_every_answer_of_a_day_parses_into_the_sdks_models(connect: Connect, exchange: Exchange) -> None:
    client = connect()

    clock = client.get_clock()
    assert clock.is_open and clock.next_close - clock.timestamp == timedelta(hours=6)
    days = client.get_calendar(GetCalendarRequest(start=date(2024, 3, 1), end=date(2024, 3, 5)))
    assert [day.date for day in days] == [MONDAY, TUESDAY]
    assets = client.get_all_assets(GetAssetsRequest(status="active", asset_class="us_equity"))
    assert [asset.symbol for asset in assets] == ["ACME", "BETA"]
    assert client.get_asset(assets[0].id).symbol == client.get_asset("ACME").symbol

    sent = client.submit_order(bracket())
    assert sent.status is OrderStatus.PENDING_NEW and sent.legs is not None
    assert [leg.status for leg in sent.legs] == [OrderStatus.HELD, OrderStatus.HELD]
    found = client.get_order_by_client_id("op-ACME")
    seen = client.get_order_by_id(found.id, GetOrderByIdRequest(nested=True))
    assert seen.status is OrderStatus.FILLED and seen.filled_avg_price == "100.01"
    assert [leg.status for leg in seen.legs or []] == [OrderStatus.NEW, OrderStatus.HELD]

    (position,) = client.get_all_positions()
    assert (position.qty, position.qty_available) == ("10", "0")
    assert client.get_open_position("ACME").asset_id == position.asset_id
    account = client.get_account()
    assert account.cash == "98999.9" and account.account_number == exchange.account_number

    client.submit_order(StopOrderRequest(symbol="BETA", qty=1, side="buy", time_in_force="day", stop_price=120))
    listed = client.get_orders(GetOrdersRequest(status=QueryOrderStatus.ALL, nested=True, symbols=["ACME", "BETA"]))
    assert [order.symbol for order in listed] == ["BETA", "ACME"]
    assert all(item.status == 200 for item in client.cancel_orders())
    sold = client.close_position("ACME", ClosePositionRequest(qty="4"))
    assert sold.side is OrderSide.SELL
    assert client.get_open_position("ACME").qty == "6"


def test_activities_parse_into_the_sdks_models(connect: Connect, exchange: Exchange) -> None:
    client = connect()
    client.submit_order(MarketOrderRequest(symbol="BETA", qty=4, side="buy", time_in_force="day"))
    exchange.set_clock(at("10:00", TUESDAY))
    account_id = client.get_account().id

    (fill,) = client.get("/account/activities/FILL")
    (paid,) = client.get("/account/activities", {"activity_types": "DIV"})

    assert TradeActivity(account_id=account_id, **fill).price == 100.01
    assert NonTradeActivity(account_id=account_id, **paid).net_amount == 2.0


def test_raw_answers_hold_amounts_as_strings(connect: Connect) -> None:
    client = connect(raw=True)

    sent = client.submit_order(bracket())

    assert (sent["qty"], sent["limit_price"], sent["legs"][1]["stop_price"]) == ("10", "100.5", "90.25")
    assert sent["order_class"] == "bracket" and sent["type"] == sent["order_type"] == "limit"
    account, (position,) = client.get_account(), client.get_all_positions()
    assert isinstance(account["cash"], str) and isinstance(position["qty"], str)
    assert "daytrade_count" not in account and "pattern_day_trader" not in account


def test_refusals_and_cancels_reach_the_client(connect: Connect) -> None:
    client = connect()
    client.submit_order(bracket())

    with pytest.raises(APIError) as twin:
        client.submit_order(bracket())
    with pytest.raises(APIError) as missing:
        client.get_open_position("BETA")
    with pytest.raises(APIError) as stranger:
        connect(keys=("KEY", "guess")).get_account()

    assert (twin.value.status_code, twin.value.code) == (422, 40010001)
    assert (missing.value.status_code, missing.value.code) == (404, 40410000)
    assert stranger.value.status_code == 401 and stranger.value.message == "unauthorized."
    resting = client.submit_order(bracket("BETA", limit_price=95))
    assert client.cancel_order_by_id(resting.id) is None
    assert client.get_order_by_id(resting.id).status is OrderStatus.CANCELED


def test_every_answer_names_the_market(connect: Connect) -> None:
    client = connect()
    named: list[str] = []
    client._session.hooks["response"].append(lambda response, *a, **k: named.append(response.headers["x-market"]))

    client.get_clock()
    with pytest.raises(APIError):
        client.get_asset("NOPE")

    assert named == ["scripted", "scripted"]


def test_trade_updates_parse_into_the_sdks_model(connect: Connect, exchange: Exchange) -> None:
    updates: list[TradeUpdate] = []
    exchange.subscribe(lambda update: updates.append(TradeUpdate(**update)))

    connect().submit_order(bracket())

    assert [update.event for update in updates] == ["pending_new", "new", "fill", "new"]
    assert (updates[2].price, updates[2].qty, updates[2].position_qty) == (100.01, 10.0, 10.0)
    assert len({update.execution_id for update in updates}) == 4


def test_the_same_calls_give_the_same_bytes() -> None:
    def day() -> list[bytes]:
        heard: list[bytes] = []
        desk = caller(flat("ACME"))
        session = requests.Session()
        session.mount("http://x", InProcessAdapter(desk.exchange))
        client = TradingClient(*KEYS, raw_data=True, url_override="http://x")
        client._session = session
        session.hooks["response"].append(lambda response, *a, **k: heard.append(response.content))
        client.submit_order(bracket())
        desk.exchange.advance(60)
        client.get_orders(GetOrdersRequest(status=QueryOrderStatus.ALL, nested=True))
        client.get_account()
        client.get("/account/activities/FILL")
        return heard

    assert day() == day()


def test_in_process_an_unchanged_answer_is_the_same_object_and_a_changed_one_is_not() -> None:
    desk = caller(flat("ACME"))
    client = TradingClient(*KEYS, raw_data=True, url_override="http://x")
    client._session.mount("http://x", InProcessAdapter(desk.exchange))

    first, again = client.get_all_positions(), client.get_all_positions()
    client.submit_order(bracket())

    assert first is again
    assert client.get_all_positions() != first


@pytest.mark.integration
def test_http_alone_knows_the_admin_without_keys_and_says_what_is_not_there(exchange: Exchange) -> None:
    server = served(exchange)
    address = next(server)
    with requests.Session() as session:
        session.trust_env = False

        moved = session.post(f"{address}/admin/clock", json={"advance_s": 60}, timeout=5)
        missing = session.get(f"{address}/v2/nothing", timeout=5)
        paths = session.get(f"{address}/openapi.json", timeout=5).json()["paths"]

        assert moved.json()["now"] == "2024-03-04T15:01:00.000000Z"
        assert (missing.status_code, missing.json()["code"]) == (404, 40410000)
        assert "/v2/orders/{order_id}" in paths
    next(server, None)


def test_beyond_the_rate_limit_requests_are_throttled_until_the_next_minute() -> None:
    wall = [30.0]
    limit = RateLimit(2, wall_s=lambda: wall[0])

    first, second, third = limit.take(), limit.take(), limit.take()
    wall[0] = 61.0
    fourth = limit.take()

    assert [passes for passes, _ in (first, second, third, fourth)] == [True, True, False, True]
    assert third[1] == {"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "60"}
