"""The unmodified TradingClient with every kind of order and every account call, in process."""

from __future__ import annotations

from uuid import uuid4

import pytest
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import AssetExchange, OrderClass, OrderSide, OrderStatus, OrderType, PositionSide, TimeInForce
from alpaca.trading.requests import (
    ClosePositionRequest,
    GetAssetsRequest,
    GetPortfolioHistoryRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    ReplaceOrderRequest,
    StopLimitOrderRequest,
    StopLossRequest,
    StopOrderRequest,
    TakeProfitRequest,
    TrailingStopOrderRequest,
)
from scripted_market import KEYS, TUESDAY, Caller, at, caller, flat

from desk.exchange.options import ExchangeOptions
from desk.exchange.transport import InProcessAdapter

BUY, SELL, DAY, GTC = OrderSide.BUY, OrderSide.SELL, TimeInForce.DAY, TimeInForce.GTC


def connected(desk: Caller) -> TradingClient:
    client = TradingClient(*KEYS, url_override="http://exchange.invalid")
    client._session.mount("http://exchange.invalid", InProcessAdapter(desk.exchange))
    return client


@pytest.fixture
def desk() -> Caller:
    return caller(flat("ACME") | flat("BETA"), options=ExchangeOptions(shorting=True))


def test_every_type_and_time_in_force_is_answered_as_the_sdk_reads_it(desk: Caller) -> None:
    client = connected(desk)
    client.submit_order(MarketOrderRequest(symbol="ACME", qty=50, side=BUY, time_in_force=DAY))
    plain = {"symbol": "ACME", "qty": 2}
    sent = [
        LimitOrderRequest(**plain, side=SELL, time_in_force=GTC, limit_price=120, extended_hours=True),
        StopOrderRequest(**plain, side=SELL, time_in_force=GTC, stop_price=90),
        StopLimitOrderRequest(**plain, side=SELL, time_in_force=DAY, stop_price=90, limit_price=89),
        TrailingStopOrderRequest(**plain, side=SELL, time_in_force=GTC, trail_percent=5),
        MarketOrderRequest(**plain, side=SELL, time_in_force=TimeInForce.IOC),
        MarketOrderRequest(**plain, side=SELL, time_in_force=TimeInForce.FOK),
        MarketOrderRequest(**plain, side=SELL, time_in_force=TimeInForce.CLS),
    ]

    answers = [client.submit_order(request) for request in sent]

    assert [answer.type for answer in answers] == [
        OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP, *[OrderType.MARKET] * 3
    ]  # fmt: skip
    assert (answers[3].hwm, answers[3].trail_percent, answers[3].stop_price) == ("100", "5", "95")
    seen = [client.get_order_by_id(answer.id).status for answer in answers]
    assert seen == [OrderStatus.NEW] * 4 + [OrderStatus.FILLED] * 2 + [OrderStatus.NEW]
    money = client.submit_order(MarketOrderRequest(symbol="BETA", notional=50.5, side=BUY, time_in_force=DAY))
    assert (money.notional, money.qty) == ("50.5", None)
    assert client.get_order_by_id(money.id).status is OrderStatus.FILLED


def test_orders_are_replaced_and_positions_closed_through_the_sdk(desk: Caller) -> None:
    client = connected(desk)
    resting = client.submit_order(LimitOrderRequest(symbol="ACME", qty=5, side=BUY, time_in_force=GTC, limit_price=90))

    new = client.replace_order_by_id(resting.id, ReplaceOrderRequest(qty=6, limit_price=91))

    assert (new.replaces, new.qty) == (resting.id, "6")
    assert client.get_order_by_id(resting.id).status is OrderStatus.REPLACED
    with pytest.raises(APIError) as refusal:
        client.replace_order_by_id(resting.id, ReplaceOrderRequest(qty=7))
    assert (refusal.value.status_code, refusal.value.code) == (422, 42210000)
    client.submit_order(MarketOrderRequest(symbol="BETA", qty=4, side=SELL, time_in_force=DAY))
    assert client.get_open_position("BETA").side is PositionSide.SHORT
    client.close_position("BETA", ClosePositionRequest(qty="1"))
    assert client.get_open_position("BETA").qty == "-3"
    closed = client.close_all_positions(cancel_orders=True)
    assert [(one.symbol, one.status, one.body.side) for one in closed] == [("BETA", 200, BUY)]
    assert client.get_all_positions() == [] == client.get_orders()


def test_what_closing_all_cannot_close_is_told_by_the_sdk(desk: Caller) -> None:
    client = connected(desk)
    client.submit_order(
        MarketOrderRequest(
            symbol="ACME", qty=4, side=BUY, time_in_force=GTC, order_class=OrderClass.BRACKET,
            take_profit=TakeProfitRequest(limit_price=110), stop_loss=StopLossRequest(stop_price=90),
        )
    )  # fmt: skip

    answers = client.close_all_positions()

    assert (answers[0].status, answers[0].body.code, answers[0].body.available) == (403, 40310000, 0)


def test_settings_history_and_assets_are_read_by_the_sdk(desk: Caller) -> None:
    client = connected(desk)
    settings = client.get_account_configurations()
    assert settings.suspend_trade is False
    settings.suspend_trade = True
    assert client.set_account_configurations(settings).suspend_trade is True
    with pytest.raises(APIError, match="rejected by user request"):
        client.submit_order(MarketOrderRequest(symbol="ACME", qty=1, side=BUY, time_in_force=DAY))
    desk.exchange.set_clock(at("17:00", TUESDAY))

    history = client.get_portfolio_history(GetPortfolioHistoryRequest(period="1W", timeframe="1D"))

    assert history.equity == [100_000.0, 100_000.0]
    asset = client.get_asset("ACME")
    assert client.get_asset(asset.id) == asset
    assert client.get_all_assets(GetAssetsRequest(exchange=AssetExchange.NYSE)) == []
    assert len(client.get_all_assets(GetAssetsRequest(exchange=AssetExchange.NASDAQ))) == 2
    assert client.get_all_assets(GetAssetsRequest(attributes="ptp_no_exception")) == []
    with pytest.raises(APIError) as missing:
        client.get_asset(uuid4())
    assert (missing.value.status_code, missing.value.code) == (404, 40410000)
