"""Both streams, heard by the unmodified alpaca-py and by plain websocket clients."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from queue import Empty, Queue
from typing import Any

import msgpack
import pytest
from alpaca.data.live import StockDataStream
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.requests import MarketOrderRequest
from alpaca.trading.stream import TradingStream
from websockets.sync.client import ClientConnection, connect

from desk.exchange.exchange import Exchange
from desk.exchange.server import ExchangeServer
from desk.exchange.synthetic import SyntheticMarket
from desk.market import at_new_york

pytestmark = pytest.mark.integration

KEY, SECRET = "KEY", "SECRET"
DAY = date(2024, 3, 5)
WAIT_S = 20.0
SYMBOL = "SYNAA"


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return SyntheticMarket(7, DAY, date(2024, 3, 28), symbols=5)


@pytest.fixture
def simulated(market: SyntheticMarket) -> Exchange:
    return Exchange(market, at_new_york(DAY, "09:45"), keys=(KEY, SECRET))


@pytest.fixture
def server(simulated: Exchange) -> Iterator[ExchangeServer]:
    with ExchangeServer(simulated) as running:
        yield running


def websocket(server: ExchangeServer, path: str, **headers: str) -> ClientConnection:
    return connect(server.url.replace("http", "ws") + path, additional_headers=headers)


@contextmanager
def running(stream: TradingStream | StockDataStream) -> Iterator[None]:
    """The SDK's stream in a thread of its own, as a user runs it."""
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stream.stop()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def into(queue: Queue[Any]) -> Callable[[Any], Any]:
    async def heard(message: Any) -> None:
        queue.put(message)

    return heard


def hello(client: ClientConnection, key: str = KEY, secret: str = SECRET) -> list[dict[str, Any]]:
    """Welcome and authentication of the JSON data stream; returns the last answer."""
    assert json.loads(client.recv(WAIT_S)) == [{"T": "success", "msg": "connected"}]
    client.send(json.dumps({"action": "auth", "key": key, "secret": secret}))
    return json.loads(client.recv(WAIT_S))


def test_a_fill_reaches_the_sdks_trading_stream(server: ExchangeServer, simulated: Exchange) -> None:
    """An order placed over REST is heard as filled, with the execution and the position after it."""
    updates: Queue[Any] = Queue()
    stream = TradingStream(KEY, SECRET, url_override=server.url.replace("http", "ws") + "/stream")
    stream.subscribe_trade_updates(into(updates))
    client = TradingClient(KEY, SECRET, url_override=server.url)
    order = MarketOrderRequest(symbol=SYMBOL, qty=3, side=OrderSide.BUY, time_in_force=TimeInForce.DAY)
    placed, events = {}, []
    with running(stream):
        while not events:  # what happens before the stream listens is lost: there is no replay
            answer = client.submit_order(order)
            placed[answer.id] = answer
            with suppress(Empty):
                events.append(updates.get(timeout=0.5))
        while events[-1].event != "fill":
            events.append(updates.get(timeout=WAIT_S))
        held = float(client.get_open_position(SYMBOL).qty)

    fill = events[-1]
    assert fill.order.id in placed
    assert (fill.qty, fill.order.filled_qty, fill.position_qty) == (3.0, "3", held)
    assert fill.price > 0 and fill.execution_id is not None


def test_quotes_trades_and_bars_reach_the_sdks_data_stream(server: ExchangeServer, simulated: Exchange) -> None:
    """msgpack, fragmented subscribe and timestamps as the SDK wants them; data comes as the clock moves."""
    quotes, trades, bars = Queue[Any](), Queue[Any](), Queue[Any]()
    stream = StockDataStream(KEY, SECRET, url_override=server.url.replace("http", "ws") + "/v2/sip")
    stream.subscribe_quotes(into(quotes), SYMBOL)
    stream.subscribe_trades(into(trades), SYMBOL)
    stream.subscribe_bars(into(bars), SYMBOL)
    stop = threading.Event()

    def let_time_pass() -> None:
        while not stop.wait(0.1):
            simulated.advance(60)

    clock = threading.Thread(target=let_time_pass, daemon=True)
    clock.start()
    try:
        with running(stream):
            quote, trade, bar = (queue.get(timeout=WAIT_S) for queue in (quotes, trades, bars))
    finally:
        stop.set()
        clock.join()

    tick = simulated.market.tick(SYMBOL, quote.timestamp)
    assert tick is not None
    assert (quote.symbol, quote.bid_price, quote.ask_price) == (SYMBOL, tick.bid, tick.ask)
    assert (trade.symbol, trade.timestamp.second) == (SYMBOL, 0)
    expected = simulated.market.minute_bars([SYMBOL], bar.timestamp, bar.timestamp, minutes=1, known_at=simulated.now)[
        SYMBOL
    ][0]
    assert (bar.open, bar.high, bar.low, bar.close, bar.volume) == expected[1:6]


def test_a_json_client_hears_json(server: ExchangeServer, simulated: Exchange) -> None:
    with websocket(server, "/v2/iex") as client:
        assert hello(client) == [{"T": "success", "msg": "authenticated"}]
        client.send(json.dumps({"action": "subscribe", "quotes": [SYMBOL], "bars": ["*"]}))
        (confirmed,) = json.loads(client.recv(WAIT_S))
        simulated.set_market(SYMBOL, bid=9.0, ask=9.5, last=9.2)
        (quote,) = json.loads(client.recv(WAIT_S))

    assert (confirmed["T"], confirmed["quotes"], confirmed["bars"]) == ("subscription", [SYMBOL], ["*"])
    assert (quote["T"], quote["S"], quote["bp"], quote["ap"]) == ("q", SYMBOL, 9.0, 9.5)
    assert quote["t"] == "2024-03-05T14:45:00Z"


def test_a_fragmented_subscribe_is_understood(server: ExchangeServer) -> None:
    """The SDK always sends it in fragments."""
    said = msgpack.packb({"action": "subscribe", "trades": ["AAA", "BBB"]})
    with websocket(server, "/v2/sip", **{"Content-Type": "application/msgpack"}) as client:
        client.recv(WAIT_S)
        client.send(msgpack.packb({"action": "auth", "key": KEY, "secret": SECRET}))
        client.recv(WAIT_S)
        client.send(said[i : i + 5] for i in range(0, len(said), 5))
        (confirmed,) = msgpack.unpackb(client.recv(WAIT_S))

    assert confirmed["trades"] == ["AAA", "BBB"]


def test_unsubscribing_ends_what_was_subscribed(server: ExchangeServer) -> None:
    with websocket(server, "/v2/sip") as client:
        hello(client)
        client.send(json.dumps({"action": "subscribe", "trades": ["AAA", "BBB"], "quotes": ["AAA"]}))
        client.recv(WAIT_S)
        client.send(json.dumps({"action": "unsubscribe", "trades": ["BBB"], "quotes": ["AAA"]}))
        (confirmed,) = json.loads(client.recv(WAIT_S))

    assert (confirmed["trades"], confirmed["quotes"]) == (["AAA"], [])


def test_the_data_stream_names_what_is_wrong(server: ExchangeServer) -> None:
    def code(said: str) -> int:
        with websocket(server, "/v2/sip") as client:
            client.recv(WAIT_S)
            client.send(said)
            return int(json.loads(client.recv(WAIT_S))[0]["code"])

    assert code("nonsense") == 400
    assert code('{"action": "subscribe", "quotes": ["AAA"]}') == 401
    assert code('{"action": "auth", "key": "KEY", "secret": "wrong"}') == 402
    with websocket(server, "/v2/sip") as client:
        hello(client)
        client.send('{"action": "auth", "key": "KEY", "secret": "SECRET"}')
        assert json.loads(client.recv(WAIT_S))[0]["code"] == 403
        client.send('{"action": "subscribe", "quotes": "AAA"}')
        assert json.loads(client.recv(WAIT_S))[0]["code"] == 400


def test_the_trading_stream_lets_only_its_keys_in(server: ExchangeServer) -> None:
    """Frames are binary and hold JSON, as on paper; wrong keys are told so and may try again."""
    with websocket(server, "/stream") as client:
        for secret, status in (("wrong", "unauthorized"), (SECRET, "authorized")):
            client.send(json.dumps({"action": "authenticate", "data": {"key_id": KEY, "secret_key": secret}}))
            frame = client.recv(WAIT_S)
            assert isinstance(frame, bytes)
            assert json.loads(frame) == {
                "stream": "authorization",
                "data": {"status": status, "action": "authenticate"},
            }
        client.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates", "else"]}}))
        assert json.loads(client.recv(WAIT_S)) == {"stream": "listening", "data": {"streams": ["trade_updates"]}}


def test_a_leap_of_the_clock_tells_the_last_day_only(server: ExchangeServer, simulated: Exchange) -> None:
    """A week later, a subscriber hears each session's close within the last day, not a week of ticks."""
    with websocket(server, "/v2/sip") as client:
        hello(client)
        client.send(json.dumps({"action": "subscribe", "dailyBars": [SYMBOL], "trades": [SYMBOL]}))
        client.recv(WAIT_S)
        simulated.advance(timedelta(days=7).total_seconds())
        heard = json.loads(client.recv(WAIT_S))

    assert {message["T"] for message in heard} <= {"t", "d"}
    first = min(message["t"] for message in heard if message["T"] == "t")
    assert first >= "2024-03-11T13:45"


def test_a_running_clock_moves_by_itself(market: SyntheticMarket) -> None:
    simulated = Exchange(market, at_new_york(DAY, "09:45"), keys=(KEY, SECRET))
    with ExchangeServer(simulated, speed=3600.0) as server, websocket(server, "/v2/sip") as client:
        hello(client)
        client.send(json.dumps({"action": "subscribe", "trades": [SYMBOL]}))
        client.recv(WAIT_S)
        assert json.loads(client.recv(WAIT_S))[0]["T"] == "t"
    assert simulated.now > at_new_york(DAY, "09:45")
