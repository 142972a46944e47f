"""The adapter against a server that misbehaves: real sockets, the real alpaca-py, answers written by hand.

Each fault is proven for an order (sent exactly once, never taken for success or for a refusal), for a
read (repeated a bounded number of times, never taken for "none") and for a cancel.
"""

from __future__ import annotations

import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from desk.broker.alpaca import AlpacaBroker
from desk.broker.calls import KeysRefused
from desk.broker.marketdata import AlpacaMarketData
from desk.broker.pacing import NullPacer, Priority, TokenBucket
from desk.broker.transport import Access, TimeoutAdapter
from desk.errors import Ambiguous, Halt, Refused, Transient
from desk.guard import connection_held
from desk.orders import BrokerStatus, OrderClass, OrderRequest, OrderType, Side, TimeInForce

KEY_ID, SECRET = "KEYIDENTIFIER", "verysecretkey"
ORDER_ID = "61e69015-8549-4bfd-b9c3-01e75843f47d"
READ_TIMEOUT_S = 0.3
DAY = date(2024, 3, 4)

ENTRY = OrderRequest(
    client_order_id="op-entry",
    symbol="TSLA",
    side=Side.BUY,
    quantity=Decimal(10),
    order_type=OrderType.LIMIT,
    time_in_force=TimeInForce.GTC,
    order_class=OrderClass.BRACKET,
    limit_price=Decimal("187.53"),
    take_profit_price=Decimal("202.50"),
    stop_loss_price=Decimal("180.01"),
)


def order_json(**changes: object) -> dict[str, object]:
    return {
        "id": ORDER_ID,
        "client_order_id": "op-entry",
        "created_at": "2024-03-05T14:40:00.123456789Z",
        "updated_at": "2024-03-05T14:40:00.123456789Z",
        "submitted_at": "2024-03-05T14:40:00.123456789Z",
        "asset_id": "b0b6dd9d-8b9b-48a9-ba46-b9d54906e415",
        "symbol": "TSLA",
        "asset_class": "us_equity",
        "notional": None,
        "qty": "10",
        "filled_qty": "0",
        "filled_avg_price": None,
        "order_class": "",
        "order_type": "limit",
        "type": "limit",
        "side": "buy",
        "time_in_force": "gtc",
        "limit_price": "187.53",
        "stop_price": None,
        "status": "new",
        "replaced_by": None,
        "replaces": None,
        "legs": None,
        **changes,
    }


ACCOUNT = {
    "id": "e6fe16f3-64a4-4921-8928-cadf02f92f98",
    "account_number": "PA3X",
    "status": "ACTIVE",
    "equity": "100000.5",
    "last_equity": "99000",
    "cash": "50000",
    "buying_power": "100000",
    "long_market_value": "50000.5",
    "trading_blocked": False,
    "account_blocked": False,
}

Answer = Callable[[socket.socket], None]


def http(status: int, body: object = b"", *, headers: str = "", length: int | None = None) -> Answer:
    """A whole answer; `length` states another Content-Length than the body has."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(connection: socket.socket) -> None:
        size = len(raw) if length is None else length
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {size}\r\nConnection: close\r\n{headers}\r\n"
        connection.sendall(head.encode() + raw)

    return answer


def hang(connection: socket.socket) -> None:
    """Say nothing until the other side gives up."""
    connection.settimeout(10)
    connection.recv(1)


def reset(connection: socket.socket) -> None:
    """Cut the connection with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset_in_body(connection: socket.socket) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{"id": "61e6')
    time.sleep(0.05)
    reset(connection)


def trickle(connection: socket.socket) -> None:
    """A byte now and then: never silent for the read timeout, never done."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    try:
        for _ in range(200):
            connection.sendall(b" ")
            time.sleep(0.05)
    except OSError:
        return


@dataclass
class Server:
    """Answers each request with the next answer of the script; the last one is repeated."""

    script: list[Answer] = field(default_factory=list)
    requests: list[tuple[str, str, str, bytes]] = field(default_factory=list)  # method, path, head, body

    def __post_init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept(), which else keeps the port open
        except OSError:  # closed already by the test
            return
        self._socket.close()

    def sent(self, method: str) -> int:
        return sum(1 for request in self.requests if request[0] == method)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = stream.readline()
                if not line:
                    return
                head += line
            method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
            sizes = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            body = stream.read(int(sizes[0].split(b":")[1])) if sizes else b""
            answer = self.script[min(len(self.requests), len(self.script) - 1)]
            self.requests.append((method, path, head.decode(), body))
            try:
                answer(connection)
            except OSError:
                return


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def access(slept: list[float]) -> Access:
    mount = TimeoutAdapter(connect_timeout_s=1.0, read_timeout_s=READ_TIMEOUT_S, body_timeout_s=0.5)
    return Access(key_id=KEY_ID, secret_key=SECRET, pacer=NullPacer(), sleep=slept.append, mount=mount)


@pytest.fixture
def broker(server: Server, access: Access) -> Iterator[AlpacaBroker]:
    broker = AlpacaBroker(server.url, access)
    yield broker
    broker.close()


@pytest.fixture
def data(server: Server, access: Access) -> Iterator[AlpacaMarketData]:
    data = AlpacaMarketData(server.url, access)
    yield data
    data.close()


TWIN = {"code": 40010001, "message": "client_order_id must be unique"}

FAULTS: dict[str, Answer] = {
    "hang": hang,
    "reset": reset,
    "reset in the body": reset_in_body,
    "an answer without an end": trickle,
    "408": http(408, {"message": "request timeout"}),
    "429 with headers": http(
        429, {"code": 42910000, "message": "rate limit exceeded"}, headers="X-RateLimit-Remaining: 0\r\n"
    ),
    "429 without headers": http(429, b"too many requests."),
    "500": http(500, {"code": 50010000, "message": "internal server error occurred"}),
    "503 of a proxy": http(503, b"<html>upstream connect error</html>"),
    "504": http(504, b"<html>Gateway Time-out</html>"),
    "HTML": http(200, b"<!DOCTYPE html><html><body>Maintenance</body></html>"),
    "truncated JSON": http(200, json.dumps(order_json()).encode()[:120]),
    "short body": http(200, json.dumps(order_json()).encode()[:120], length=4000),
    "empty body": http(200),
    "empty redirect": http(302, headers="Location: https://elsewhere.invalid/v2/orders\r\n"),
    "redirect with a body": http(307, order_json(), headers="Location: /v2/other\r\n"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_order_that_met_a_fault_is_ambiguous_and_was_sent_once(server, broker, slept, fault):
    """Whatever happens to the answer: one POST, no repeat, and nobody claims to know."""
    server.script = [FAULTS[fault]]

    with pytest.raises(Ambiguous, match=r"submit buy 10 TSLA \(op-entry\): it may or may not have happened"):
        broker.submit(ENTRY)

    time.sleep(0.02)
    assert [request[:2] for request in server.requests] == [("POST", "/v2/orders")]
    assert slept == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_read_that_met_a_fault_is_repeated_three_times_and_then_transient(server, broker, slept, fault):
    """A failed read is never "no positions": it raises, after a bounded number of tries."""
    server.script = [FAULTS[fault]]

    with pytest.raises(Transient, match="positions: no usable answer"):
        broker.positions()

    assert server.sent("GET") == 3
    assert slept == [0.5, 1.0]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_read_recovers_when_the_fault_passes(server, broker, slept, fault):
    server.script = [FAULTS[fault], http(200, [])]

    assert broker.positions() == []
    assert slept == [0.5]


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "empty body"])
def test_a_cancel_is_repeated_because_cancelling_twice_is_harmless(server, broker, slept, fault):
    server.script = [FAULTS[fault], FAULTS[fault], http(204)]

    broker.cancel(ORDER_ID)

    assert server.sent("DELETE") == 3


def test_a_cancel_that_stays_unanswered_is_ambiguous(server, broker):
    server.script = [http(504, b"")]

    with pytest.raises(Ambiguous, match=f"cancel {ORDER_ID}"):
        broker.cancel(ORDER_ID)

    assert server.sent("DELETE") == 3


def test_a_lookup_that_met_a_fault_is_not_an_absent_order(server, broker):
    """None means: the broker says there is none. Silence, a proxy's 404 or garbage are not that."""
    for answer in (http(404, b"<html>not found</html>"), http(404), http(404, {"message": "Not Found"})):
        server.script = [answer]
        with pytest.raises((Transient, Refused)):
            broker.order("op-entry")

    server.script = [http(404, {"code": 40410000, "message": "order not found for op-entry"})]
    assert broker.order("op-entry") is None


@pytest.mark.parametrize(
    ("call", "limit_s"), [("submit", READ_TIMEOUT_S), ("positions", 3 * READ_TIMEOUT_S)], ids=["order", "read"]
)
def test_a_hanging_broker_is_left_within_the_read_timeout(server, broker, call, limit_s):
    """The library itself would wait for ever."""
    server.script = [hang]
    began = time.monotonic()

    with pytest.raises((Ambiguous, Transient), match="ReadTimeout"):
        broker.submit(ENTRY) if call == "submit" else broker.positions()

    assert time.monotonic() - began < limit_s + 5  # far below the server's 10 s; generous for a busy machine


def test_a_port_nobody_listens_on_is_transient_for_a_read_and_ambiguous_for_an_order(server, broker):
    server.close()

    with pytest.raises(Transient, match="ConnectionError"):
        broker.clock()
    with pytest.raises(Ambiguous, match="ConnectionError"):
        broker.submit(ENTRY)


def test_redirects_are_not_followed(server, broker):
    """Following one could hand the keys to another host."""
    server.script = [http(307, order_json(), headers="Location: /v2/other\r\n")]

    with pytest.raises(Ambiguous, match="redirect 307 refused"):
        broker.submit(ENTRY)

    assert [request[1] for request in server.requests] == ["/v2/orders"]


# -- refusals ------------------------------------------------------------------------------------------------------

REFUSALS = {
    (403, 40310000): "insufficient qty available for order (requested: 10, available: 0)",
    (403, 40310100): "trade denied due to pattern day trading protection",
    (404, 40410000): "asset not found for TSLA",
    (422, 40010001): "qty must be > 0",
    (422, 42210000): "invalid limit_price 187.531. sub-penny increment does not fulfill minimum pricing criteria",
}


@pytest.mark.parametrize(("status", "code"), REFUSALS)
def test_a_definitive_refusal_carries_the_brokers_status_and_code(server, broker, status, code):
    message = REFUSALS[status, code]
    server.script = [http(status, {"code": code, "message": message}), http(200, ACCOUNT)]

    with pytest.raises(Refused) as refusal:
        broker.submit(ENTRY)

    assert (refusal.value.status, refusal.value.code) == (status, code)
    assert message in str(refusal.value)
    assert server.sent("POST") == 1


@pytest.mark.parametrize(
    "message", ["client_order_id must be unique", "duplicate client order id", "Client-Order-ID already used"]
)
def test_a_twin_is_not_a_refusal(server, broker, message):
    """The broker has an order of this id: looking it up decides, so nothing is released."""
    server.script = [http(422, {"code": 40010001, "message": message})]

    with pytest.raises(Ambiguous):
        broker.submit(ENTRY)


@pytest.mark.parametrize(
    "answer",
    [
        http(400, {"code": 40010000, "message": "something new"}),
        http(403, {"code": 40399999, "message": "something new"}),
        http(409, {"code": 40910000, "message": "something new"}),
        http(422, {"code": 42299999, "message": "something new"}),
        http(422, b"<html>422</html>"),
        http(422, {"message": "no code"}),
        http(404, b"<html>not found</html>"),
    ],
)
def test_an_answer_not_on_the_list_of_refusals_leaves_the_order_unknown(server, broker, answer):
    server.script = [answer]

    with pytest.raises(Ambiguous):
        broker.submit(ENTRY)


def test_a_blocked_account_halts(server, broker):
    """One code stands for a dozen refusals, so the account is read again."""
    server.script = [
        http(403, {"code": 40310000, "message": "new orders are rejected by user request"}),
        http(200, {**ACCOUNT, "account_blocked": True}),
    ]

    with pytest.raises(Halt, match="the account may not trade"):
        broker.submit(ENTRY)


def test_a_refusal_stays_one_when_the_account_cannot_be_read_again(server, broker):
    server.script = [http(403, {"code": 40310000, "message": "insufficient buying power"}), hang]

    with pytest.raises(Refused):
        broker.submit(ENTRY)


@pytest.mark.parametrize(
    "answer", [http(401, {"message": "unauthorized."}), http(401, b"<html>401</html>"), http(403, b"forbidden.")]
)
def test_keys_revoked_in_the_middle_of_the_day_halt_every_call(server, broker, slept, answer):
    server.script = [http(200, ACCOUNT), answer]
    broker.account()

    for call in (broker.account, broker.positions, lambda: broker.submit(ENTRY), lambda: broker.cancel(ORDER_ID)):
        with pytest.raises(KeysRefused):
            call()

    assert isinstance(KeysRefused("x"), Halt)
    assert len(server.requests) == 5  # none of them repeated
    assert slept == []


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"code": 40410000, "message": "order not found for id"}),
        (422, {"code": 42210000, "message": 'order is already in "filled" state'}),
    ],
)
def test_cancelling_what_is_over_is_fine(server, broker, status, body):
    server.script = [http(status, body)]

    broker.cancel(ORDER_ID)

    assert server.sent("DELETE") == 1


# -- answers that are JSON, but not what is documented -------------------------------------------------------------


def test_an_unknown_status_does_not_fail_the_list(server, broker):
    server.script = [http(200, [order_json(status="quantum_filled"), order_json(id="2", status="filled")])]

    orders = broker.orders(status="all", after=datetime(2024, 3, 5, tzinfo=UTC))

    assert {order.status for order in orders} == {BrokerStatus.UNRECOGNISED, BrokerStatus.FILLED}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"side": "sideways"}, "side is 'sideways'"),
        ({"type": "iceberg"}, "type is 'iceberg'"),
        ({"order_class": "mleg"}, "order_class is 'mleg'"),
        ({"qty": None}, "qty is None"),
        ({"qty": "NaN"}, "qty is 'NaN'"),
        ({"filled_qty": "ten"}, "filled_qty is 'ten'"),
        ({"submitted_at": None}, "submitted_at is None"),
        ({"updated_at": "yesterday"}, "updated_at is 'yesterday'"),
        ({"updated_at": "2024-03-05T14:40:00"}, "updated_at is '2024-03-05T14:40:00'"),
        ({"symbol": ""}, "symbol is ''"),
    ],
)
def test_an_unreadable_field_is_named_and_never_guessed(server, broker, change, named):
    """For a read nothing changed; for an order just sent, nobody knows."""
    server.script = [http(200, [order_json(**change)])]
    with pytest.raises(Transient, match=f"order {ORDER_ID}: {named}"):
        broker.orders(status="all")

    server.script = [http(200, order_json(**change))]
    with pytest.raises(Ambiguous, match=f"order {ORDER_ID}: {named}"):
        broker.submit(ENTRY)


@pytest.mark.parametrize("body", [{"message": "ok"}, None, "[]", 7])
def test_something_else_than_a_list_is_not_an_empty_list(server, broker, body):
    server.script = [http(200, json.dumps(body).encode())]

    for call in (broker.positions, lambda: broker.orders(status="all"), broker.assets):
        with pytest.raises(Transient):
            call()


def test_an_answer_about_another_order_is_ambiguous(server, broker):
    server.script = [http(200, order_json(client_order_id="somebody-else"))]

    with pytest.raises(Ambiguous, match="answer about order somebody-else"):
        broker.submit(ENTRY)


@pytest.mark.parametrize("body", [{"bars": None, "next_page_token": None}, {}, [], {"quotes": {}}])
def test_bars_without_their_container_are_transient(server, data, body):
    """A null container makes the library itself crash with AttributeError."""
    server.script = [http(200, body)]

    with pytest.raises(Transient, match="daily bars"):
        data.daily_bars(["TSLA"], DAY, DAY)


def test_a_feed_that_is_not_subscribed_is_a_refusal_not_a_halt(server, data):
    server.script = [http(403, {"message": "subscription does not permit querying recent SIP data"})]

    with pytest.raises(Refused, match="does not include this feed"):
        data.quotes(["TSLA"])


# -- what goes over the wire ---------------------------------------------------------------------------------------


def test_an_order_goes_out_as_it_was_asked_for(server, broker):
    """One POST with our id, whole shares and the very prices."""
    server.script = [http(200, order_json(order_class="bracket", legs=[]))]

    broker.submit(ENTRY)

    (request,) = server.requests
    assert json.loads(request[3], parse_float=Decimal) == {
        "symbol": "TSLA",
        "qty": Decimal(10),
        "side": "buy",
        "type": "limit",
        "time_in_force": "gtc",
        "order_class": "bracket",
        "client_order_id": "op-entry",
        "limit_price": Decimal("187.53"),
        "take_profit": {"limit_price": Decimal("202.50")},
        "stop_loss": {"stop_price": Decimal("180.01")},
    }
    assert f"APCA-API-KEY-ID: {KEY_ID}\r\n" in request[2]


def test_environment_proxies_do_not_apply_on_loopback(server, broker, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    server.script = [http(200, ACCOUNT)]

    assert broker.account().number == "PA3X"


def test_the_librarys_own_retries_are_off(broker, data):
    for client in (broker._client, data._client):
        assert client._retry == 0
        assert client._retry_codes == []
        assert isinstance(client._session.get_adapter("https://api.alpaca.markets"), TimeoutAdapter)
        assert client._session.get_adapter("http://x").max_retries.total == 0


def test_no_call_is_made_while_a_database_connection_is_held(server, broker, data):
    """The guard raises before anything is sent."""
    calls = (
        broker.account,
        broker.clock,
        lambda: broker.calendar(DAY, DAY),
        broker.assets,
        lambda: broker.submit(ENTRY),
        lambda: broker.order("op-entry"),
        lambda: broker.orders(status="all"),
        lambda: broker.cancel(ORDER_ID),
        broker.positions,
        lambda: broker.fills(datetime(2024, 3, 5, tzinfo=UTC)),
        lambda: broker.adjustments(DAY),
        lambda: data.daily_bars(["TSLA"], DAY, DAY),
        lambda: data.quotes(["TSLA"]),
    )

    with connection_held():
        for call in calls:
            with pytest.raises(RuntimeError, match="a database connection is checked out"):
                call()

    assert server.requests == []


def test_the_brokers_allowance_slows_us_down(server):
    """After a 429, and when another process spent the allowance, the next call waits."""
    waits: list[float] = []
    pacer = TokenBucket(sleep=waits.append, monotonic=lambda: 1000.0 + sum(waits))
    access = Access(key_id=KEY_ID, secret_key=SECRET, pacer=pacer, sleep=lambda _s: None, mount=TimeoutAdapter())
    broker = AlpacaBroker(server.url, access)
    server.script = [http(200, ACCOUNT, headers="X-RateLimit-Remaining: 0\r\n"), http(204)]

    broker.account()
    assert waits == []
    broker.cancel(ORDER_ID)
    broker.close()

    assert sum(waits) == pytest.approx(0.4, abs=0.01)  # one request at 150 a minute


def test_who_goes_first_is_decided_by_what_a_call_does(server):
    """Cancels and orders that reduce a position, then lookups, then entries, then reads."""
    asked: list[Priority] = []

    class Recorder(NullPacer):
        def admit(self, priority: Priority, call: str) -> None:
            asked.append(priority)

    access = Access(key_id=KEY_ID, secret_key=SECRET, pacer=Recorder(), sleep=lambda _s: None, mount=TimeoutAdapter())
    broker = AlpacaBroker(server.url, access)
    exit_order = OrderRequest(
        "op-entry", "TSLA", Side.SELL, Decimal(10), OrderType.MARKET, TimeInForce.DAY, OrderClass.SIMPLE
    )
    server.script = [http(204), http(200, order_json()), http(200, order_json()), http(200, order_json())]

    broker.cancel(ORDER_ID)
    broker.submit(exit_order)
    broker.order("op-entry")
    broker.submit(ENTRY)
    with pytest.raises(Transient):
        broker.positions()
    broker.close()

    assert asked == [Priority.EXIT, Priority.EXIT, Priority.LOOKUP, Priority.ENTRY, Priority.READ]


# -- secrets -------------------------------------------------------------------------------------------------------


def test_keys_never_appear_in_errors_representations_or_logs(server, broker, data, access, caplog):
    """Not even when a broken proxy echoes the request back."""
    caplog.set_level(logging.DEBUG)
    echo = f"<html>\nAPCA-API-KEY-ID: {KEY_ID}\nAPCA-API-SECRET-KEY: {SECRET}\n</html>".encode()
    seen = [repr(broker), repr(data), repr(access), repr(broker._calls)]

    for status in (200, 302, 400, 401, 403, 404, 422, 500):
        for body in (echo, json.dumps({"code": 42210000, "message": echo.decode()}).encode()):
            server.script = [http(status, body)]
            calls = (broker.positions, lambda: broker.submit(ENTRY), lambda: data.quotes(["TSLA"]))
            for call in calls:
                with pytest.raises((Transient, Ambiguous, Refused, Halt)) as caught:
                    call()
                seen.append(str(caught.value))
                assert "\n" not in str(caught.value)

    everything = "\n".join(seen) + caplog.text
    assert SECRET not in everything
    assert KEY_ID not in everything
