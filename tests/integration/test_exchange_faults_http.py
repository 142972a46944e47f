"""Faults over real sockets: on the wire, and in both streams as the unmodified alpaca-py meets them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from queue import Empty, Queue
from typing import Any

import pytest
import requests
from alpaca.data.live import StockDataStream
from alpaca.trading.stream import TradingStream
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from desk.exchange.exchange import Exchange
from desk.exchange.options import ExchangeOptions
from desk.exchange.server import ExchangeServer
from desk.exchange.synthetic import SyntheticMarket
from desk.market import at_new_york

pytestmark = pytest.mark.integration

KEY, SECRET = "KEY", "SECRET"
HEADERS = {"APCA-API-KEY-ID": KEY, "APCA-API-SECRET-KEY": SECRET}
DAY = date(2024, 3, 5)
SYMBOL = "SYNAA"
WAIT_S = 20.0
MARKET = SyntheticMarket(7, DAY, date(2024, 3, 28), symbols=5)
ORDER = {"symbol": SYMBOL, "qty": 1, "side": "buy", "type": "market", "time_in_force": "day"}


@contextmanager
def serving(**options: Any) -> Iterator[tuple[Exchange, ExchangeServer]]:
    exchange = Exchange(MARKET, at_new_york(DAY, "09:45"), keys=(KEY, SECRET), options=ExchangeOptions(**options))
    with ExchangeServer(exchange) as server:
        yield exchange, server


@pytest.fixture
def served() -> Iterator[tuple[Exchange, ExchangeServer]]:
    with serving() as both:
        yield both


def trouble(server: ExchangeServer, fault: str, **script: Any) -> None:
    answer = requests.post(f"{server.url}/admin/faults", json={"fault": fault, **script}, timeout=5)
    assert answer.status_code == 200, answer.text


def post(server: ExchangeServer, timeout_s: float = 5.0) -> requests.Response:
    return requests.post(f"{server.url}/v2/orders", json=ORDER, headers=HEADERS, timeout=timeout_s)


# -- the wire ------------------------------------------------------------------------------------


def test_a_lost_request_hangs_until_the_client_gives_up(served: tuple[Exchange, ExchangeServer]) -> None:
    exchange, server = served
    trouble(server, "lost_request", times=1)

    with pytest.raises(requests.ReadTimeout):
        post(server, timeout_s=0.3)

    assert exchange.floor.orders == []
    assert post(server).status_code == 200


def test_a_patient_client_is_cut_off_in_the_end(served: tuple[Exchange, ExchangeServer]) -> None:
    _, server = served
    trouble(server, "lost_request", hang_s=0.2, times=1)

    with pytest.raises(requests.ConnectionError):
        post(server)


@pytest.mark.parametrize(("fault", "orders"), [("lost_response", 1), ("process_kill", 1)])
def test_a_lost_response_is_a_reset_after_the_order_was_taken(
    served: tuple[Exchange, ExchangeServer], fault: str, orders: int
) -> None:
    exchange, server = served
    trouble(server, fault, times=1)

    with pytest.raises(requests.ConnectionError):
        post(server)

    assert len(exchange.floor.orders) == orders
    assert post(server).status_code == 200


def test_latency_is_waited_for_and_holds_up_nobody_else(served: tuple[Exchange, ExchangeServer]) -> None:
    _, server = served
    trouble(server, "latency", seconds=1.0, operation="submit")
    began = time.monotonic()
    late = threading.Thread(target=post, args=(server,))
    late.start()

    assert requests.get(f"{server.url}/v2/clock", headers=HEADERS, timeout=5).status_code == 200
    assert time.monotonic() - began < 0.9
    late.join()

    assert time.monotonic() - began >= 1.0


def test_the_faults_are_the_same_over_http(served: tuple[Exchange, ExchangeServer]) -> None:
    exchange, server = served
    trouble(server, "ambiguous_504", times=1, operation="submit")
    trouble(server, "garbage_body", body="truncated", nth=2, operation="submit")
    trouble(server, "burst_429", length=1, nth=3, operation="submit")

    answers = [post(server) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [504, 200, 429, 200]
    with pytest.raises(requests.JSONDecodeError):
        answers[1].json()
    assert len(exchange.floor.orders) == 3


# -- the streams ---------------------------------------------------------------------------------


def websocket(server: ExchangeServer, path: str) -> ClientConnection:
    return connect(server.url.replace("http", "ws") + path)


def listening(server: ExchangeServer) -> ClientConnection:
    """A client of the trade updates that is told of them from now on."""
    client = websocket(server, "/stream")
    client.send(json.dumps({"action": "authenticate", "data": {"key_id": KEY, "secret_key": SECRET}}))
    client.recv(WAIT_S)
    client.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}))
    client.recv(WAIT_S)
    return client


def subscribed(server: ExchangeServer, path: str = "/v2/sip", **channels: Any) -> ClientConnection:
    client = websocket(server, path)
    client.recv(WAIT_S)
    client.send(json.dumps({"action": "auth", "key": KEY, "secret": SECRET}))
    client.recv(WAIT_S)
    client.send(json.dumps({"action": "subscribe", **(channels or {"quotes": [SYMBOL]})}))
    client.recv(WAIT_S)
    return client


def next_event(client: ClientConnection) -> str:
    return str(json.loads(client.recv(WAIT_S))["data"]["event"])


def test_an_update_may_come_before_the_answer(served: tuple[Exchange, ExchangeServer]) -> None:
    _, server = served
    trouble(server, "update_first", seconds=1.0)
    with listening(server) as client:
        sent = threading.Thread(target=post, args=(server,))
        sent.start()

        assert [next_event(client) for _ in range(3)] == ["pending_new", "new", "fill"]
        assert sent.is_alive()  # the answer is still on its way

        sent.join()


def test_a_cut_connection_has_lost_what_was_said_meanwhile(served: tuple[Exchange, ExchangeServer]) -> None:
    _, server = served
    trouble(server, "disconnect", nth=2)
    with listening(server) as client:
        post(server)
        assert next_event(client) == "pending_new"
        with pytest.raises(ConnectionClosed):
            while True:
                client.recv(WAIT_S)

    with listening(server) as again:
        post(server)
        assert next_event(again) == "pending_new"


def test_a_connection_too_many_is_http_429(served: tuple[Exchange, ExchangeServer]) -> None:
    _, server = served
    trouble(server, "conn_limit", times=1)
    with pytest.raises(InvalidStatus) as refusal:
        websocket(server, "/stream")
    assert refusal.value.response.status_code == 429
    with (
        serving(trade_stream_connections=1) as (_, strict),
        listening(strict),
        pytest.raises(InvalidStatus) as second,
    ):
        websocket(strict, "/stream")
    assert second.value.response.status_code == 429


def test_authentication_may_hang_or_be_refused(served: tuple[Exchange, ExchangeServer]) -> None:
    _, server = served
    said = json.dumps({"action": "authenticate", "data": {"key_id": KEY, "secret_key": SECRET}})
    trouble(server, "auth_hang", times=1)
    trouble(server, "auth_reject", times=1, operation="trade_updates")
    with websocket(server, "/stream") as client:
        client.send(said)
        with pytest.raises(TimeoutError):
            client.recv(0.3)
        client.send(said)
        assert json.loads(client.recv(WAIT_S))["data"]["status"] == "unauthorized"
        client.send(said)
        assert json.loads(client.recv(WAIT_S))["data"]["status"] == "authorized"


def code(server: ExchangeServer, path: str = "/v2/sip", **said: Any) -> int:
    """What the data stream answers to right keys, and then to `said`."""
    with websocket(server, path) as client:
        client.recv(WAIT_S)
        client.send(json.dumps({"action": "auth", "key": KEY, "secret": SECRET}))
        answer = json.loads(client.recv(WAIT_S))[0]
        if said and answer["T"] == "success":
            client.send(json.dumps(said))
            answer = json.loads(client.recv(WAIT_S))[0]
        return int(answer.get("code", 0))


def test_the_data_stream_has_limits_of_symbols_connections_and_subscription() -> None:
    with serving(data_stream_symbols=2, data_stream_connections=1, sip_entitled=False) as (_, server):
        assert code(server, "/v2/iex", action="subscribe", quotes=["A", "B", "C"]) == 405
        assert code(server, "/v2/iex", action="subscribe", quotes=["A", "B"], trades=["A"]) == 0
        assert code(server, "/v2/sip") == 409
        with subscribed(server, "/v2/iex"):
            assert code(server, "/v2/iex") == 406


def test_the_data_stream_meets_the_faults_of_streams(served: tuple[Exchange, ExchangeServer]) -> None:
    exchange, server = served
    trouble(server, "auth_reject", times=1, operation="market_data")
    trouble(server, "conn_limit", times=1, operation="market_data")
    assert [code(server) for _ in range(3)] == [402, 406, 0]
    trouble(server, "slow_client", times=1)
    with subscribed(server) as client:
        exchange.set_market(SYMBOL, bid=9.0, ask=9.5, last=9.2)
        assert json.loads(client.recv(WAIT_S))[0]["code"] == 407
        with pytest.raises(ConnectionClosed):
            client.recv(WAIT_S)


@pytest.mark.parametrize(("fault", "bids"), [("drop", [2.0, 3.0]), ("duplicate", [1.0, 1.0, 2.0, 3.0]),
                                             ("reorder", [2.0, 1.0, 3.0])])  # fmt: skip
def test_quotes_may_be_lost_doubled_or_swapped(
    served: tuple[Exchange, ExchangeServer], fault: str, bids: list[float]
) -> None:
    exchange, server = served
    trouble(server, fault, nth=1, operation="market_data")
    heard: list[float] = []
    with subscribed(server) as client:
        for bid in (1.0, 2.0, 3.0):
            exchange.set_market(SYMBOL, bid=bid, ask=9.5, last=9.2)
            time.sleep(0.15)  # a frame each
        while len(heard) < len(bids):
            heard += [message["bp"] for message in json.loads(client.recv(WAIT_S))]

    assert heard == bids


def test_a_mute_stream_says_nothing_and_stays_open(served: tuple[Exchange, ExchangeServer]) -> None:
    exchange, server = served
    trouble(server, "mute", operation="market_data")
    with subscribed(server) as client:
        exchange.set_market(SYMBOL, bid=9.0, ask=9.5, last=9.2)
        with pytest.raises(TimeoutError):
            client.recv(0.4)
        requests.delete(f"{server.url}/admin/faults", timeout=5)
        exchange.set_market(SYMBOL, bid=8.0, ask=9.5, last=9.2)

        assert json.loads(client.recv(WAIT_S))[0]["bp"] == 8.0


def test_a_halt_and_a_corrected_bar_are_told(served: tuple[Exchange, ExchangeServer]) -> None:
    _, server = served
    asked = {"symbols": SYMBOL, "timeframe": "1Min", "start": "2024-03-05T14:30:00Z"}
    with subscribed(server, statuses=["*"], updatedBars=[SYMBOL]) as client:
        trouble(server, "halt", symbol=SYMBOL)
        (halt,) = json.loads(client.recv(WAIT_S))
        trouble(server, "bar_correction", times=1)
        requests.get(f"{server.url}/v2/stocks/bars", params=asked, headers=HEADERS, timeout=5)
        (bar,) = json.loads(client.recv(WAIT_S))

    assert (halt["T"], halt["S"], halt["sc"]) == ("s", SYMBOL, "H")
    assert (bar["T"], bar["S"]) == ("u", SYMBOL)


@contextmanager
def running(stream: TradingStream | StockDataStream) -> Iterator[None]:
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


def test_the_sdks_trading_stream_comes_back_after_a_cut(served: tuple[Exchange, ExchangeServer]) -> None:
    exchange, server = served
    updates: Queue[Any] = Queue()
    stream = TradingStream(KEY, SECRET, url_override=server.url.replace("http", "ws") + "/stream")
    stream.subscribe_trade_updates(into(updates))

    def heard_of_an_order() -> bool:
        post(server)
        try:
            updates.get(timeout=0.5)
        except Empty:
            return False
        return True

    with running(stream):
        assert any(heard_of_an_order() for _ in range(40))
        exchange.cut_streams()

        time.sleep(0.2)
        while not updates.empty():
            updates.get_nowait()
        assert any(heard_of_an_order() for _ in range(40))


def test_a_halt_reaches_the_sdks_data_stream(served: tuple[Exchange, ExchangeServer]) -> None:
    exchange, server = served
    statuses: Queue[Any] = Queue()
    stream = StockDataStream(KEY, SECRET, url_override=server.url.replace("http", "ws") + "/v2/sip")
    stream.subscribe_trading_statuses(into(statuses), SYMBOL)

    with running(stream):
        for _ in range(40):
            exchange.halt(SYMBOL)
            exchange.resume(SYMBOL)
            try:
                status = statuses.get(timeout=0.5)
            except Empty:
                continue
            break

    assert (status.symbol, status.status_code) == (SYMBOL, "H")
