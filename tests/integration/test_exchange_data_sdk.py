"""The unmodified data clients of alpaca-py: screener, corporate actions and history, in process."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import TypeVar

import pytest
from alpaca.common.exceptions import APIError
from alpaca.common.rest import RESTClient
from alpaca.data.enums import CorporateActionsType, DataFeed, MostActivesBy
from alpaca.data.historical.corporate_actions import CorporateActionsClient
from alpaca.data.historical.screener import ScreenerClient
from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.data.requests import (
    CorporateActionsRequest,
    MarketMoversRequest,
    MostActivesRequest,
    StockBarsRequest,
    StockLatestQuoteRequest,
    StockQuotesRequest,
    StockSnapshotRequest,
    StockTradesRequest,
)
from alpaca.data.timeframe import TimeFrame
from scripted_market import KEYS, TUESDAY, WEDNESDAY, caller, flat

from desk.exchange.exchange import Exchange
from desk.exchange.market import CorporateAction
from desk.exchange.options import ExchangeOptions
from desk.exchange.synthetic import SyntheticMarket
from desk.exchange.transport import InProcessAdapter
from desk.market import at_new_york

Client = TypeVar("Client", bound=RESTClient)

DAY = date(2024, 3, 5)
MARKET = SyntheticMarket(7, date(2024, 1, 2), date(2024, 6, 28), symbols=12)
SYMBOLS = [listing.symbol for listing in MARKET.listings()][:3]
OPEN, NOON = at_new_york(DAY, "09:30"), at_new_york(DAY, "12:00")


def joined(exchange: Exchange, kind: type[Client]) -> Client:
    client = kind(*KEYS, url_override="http://exchange.invalid")
    client._session.mount("http://exchange.invalid", InProcessAdapter(exchange))
    return client


@pytest.fixture
def noon() -> Exchange:
    return Exchange(MARKET, NOON, keys=KEYS)


def test_the_screeners_are_read_by_the_sdk(noon: Exchange) -> None:
    client = joined(noon, ScreenerClient)

    actives = client.get_most_actives(MostActivesRequest(by=MostActivesBy.TRADES, top=3))
    movers = client.get_market_movers(MarketMoversRequest(top=2))

    assert [one.trade_count for one in actives.most_actives] == sorted(
        (one.trade_count for one in actives.most_actives), reverse=True
    )
    assert actives.last_updated == movers.last_updated == NOON
    assert all(one.percent_change > 0 for one in movers.gainers)
    assert all(one.percent_change < 0 for one in movers.losers)


def test_corporate_actions_are_read_by_the_sdk_page_by_page() -> None:
    actions = [
        CorporateAction("ACME", TUESDAY, "split", Decimal(3)),
        CorporateAction("ACME", TUESDAY, "dividend", Decimal("0.2")),
        CorporateAction("BETA", WEDNESDAY, "split", Decimal("0.5")),
        CorporateAction("GAMA", WEDNESDAY, "delisting", Decimal(10)),
    ]
    market = flat("ACME") | flat("BETA") | flat("GAMA")
    desk = caller(market, at="11:00", day=WEDNESDAY, actions=actions, delisted={"GAMA": WEDNESDAY})
    client = joined(desk.exchange, CorporateActionsClient)
    span = {"start": date(2024, 3, 4), "end": date(2024, 3, 6)}

    whole = client.get_corporate_actions(CorporateActionsRequest(**span, limit=None)).data
    splits = client.get_corporate_actions(
        CorporateActionsRequest(**span, types=[CorporateActionsType.FORWARD_SPLIT], limit=None)
    ).data
    cut = client.get_corporate_actions(CorporateActionsRequest(**span, limit=2)).data

    assert {kind: len(rows) for kind, rows in whole.items()} == {
        "forward_splits": 1, "reverse_splits": 1, "cash_dividends": 1, "cash_mergers": 1
    }  # fmt: skip
    assert (splits["forward_splits"][0].new_rate, splits["forward_splits"][0].ex_date) == (3.0, TUESDAY)
    assert sum(map(len, cut.values())) == 2  # the SDK's limit is a total: it cuts silently


def test_history_comes_whole_whatever_the_size_of_a_page(noon: Exchange) -> None:
    client = joined(noon, StockHistoricalDataClient)
    span = {"symbol_or_symbols": SYMBOLS, "start": OPEN, "end": NOON}

    bars = client.get_stock_bars(StockBarsRequest(**span, timeframe=TimeFrame.Minute)).data
    trades = client.get_stock_trades(StockTradesRequest(**span)).data
    quotes = client.get_stock_quotes(StockQuotesRequest(**span)).data

    assert {symbol: len(rows) for symbol, rows in bars.items()} == dict.fromkeys(SYMBOLS, 150)
    assert {symbol: len(rows) for symbol, rows in trades.items()} == dict.fromkeys(SYMBOLS, 151)
    assert [quote.timestamp for quote in quotes[SYMBOLS[0]]] == [trade.timestamp for trade in trades[SYMBOLS[0]]]
    snapshot = client.get_stock_snapshot(StockSnapshotRequest(symbol_or_symbols=SYMBOLS))[SYMBOLS[0]]
    assert snapshot.minute_bar == bars[SYMBOLS[0]][-1]


def test_an_unknown_symbol_is_absent_and_recent_sip_data_needs_a_subscription() -> None:
    exchange = Exchange(MARKET, NOON, keys=KEYS, options=ExchangeOptions(sip_entitled=False))
    client = joined(exchange, StockHistoricalDataClient)

    found = client.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols=[SYMBOLS[0], "NOPE"]))
    with pytest.raises(APIError) as refusal:
        client.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols=SYMBOLS, feed=DataFeed.SIP))

    assert set(found) == {SYMBOLS[0]}
    assert refusal.value.status_code == 403
