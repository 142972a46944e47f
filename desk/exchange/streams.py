"""Both websocket streams of the simulated Alpaca: trade updates at /stream, market data at /v2/{feed}.

Delivery is bounded: a client that falls behind is told so (407) or dropped, as Alpaca does. There is no replay:
what happens while a client is away is lost to it. How many clients may connect, and what they may hear, is a matter
of the exchange's options.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgpack
import orjson
from fastapi import FastAPI, Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from desk.exchange.feed import CHANNELS, MarketFeed, Message
from desk.exchange.streamfaults import Disconnected, Interference

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange

__all__ = ["add_streams"]

FEEDS = ("sip", "iex", "delayed_sip", "test")
AUTH_TIMEOUT_S = 10.0
POLL_S = 0.03  # how often a subscriber's feed looks whether the virtual clock or market has moved
QUEUE_MAX = 10_000  # undelivered trade updates per client
FRAME_MESSAGES = 500  # about 60 KB; clients refuse frames above 1 MiB
SEND_TIMEOUT_S = 10.0  # a client that takes no frame for that long is gone
_TRY_LATER = 1013  # websocket close code
_TRADES, _DATA = "trade_updates", "market_data"


def add_streams(app: FastAPI, exchange: Exchange) -> None:
    """Serve both streams of `exchange` from `app`, to clients that show the exchange's API keys."""

    connected = {"trade_updates": 0, "market_data": 0}

    async def trade_updates(socket: WebSocket) -> None:
        most = exchange.options.trade_stream_connections
        if (most is not None and connected["trade_updates"] >= most) or _strikes(exchange, "conn_limit", _TRADES):
            await socket.send_denial_response(Response("too many connections", status_code=429))
            return
        await socket.accept()
        with _counted(connected, "trade_updates"):
            await _until_gone(_TradeUpdates(socket, exchange).run())

    async def market_data(socket: WebSocket) -> None:
        if socket.path_params["feed"] not in FEEDS:
            await socket.close()
            return
        most = exchange.options.data_stream_connections
        crowded = most is not None and connected["market_data"] >= most
        await socket.accept()
        with _counted(connected, "market_data"):
            await _until_gone(_MarketData(socket, exchange, crowded=crowded).run())

    app.add_api_websocket_route("/stream", trade_updates)
    app.add_api_websocket_route("/v2/{feed}", market_data)


@contextmanager
def _counted(connected: dict[str, int], stream: str) -> Iterator[None]:
    connected[stream] += 1
    try:
        yield
    finally:
        connected[stream] -= 1


def _strikes(exchange: Exchange, fault: str, stream: str) -> bool:
    """Whether a fault of the streams hits this connection now."""
    if not exchange.faults.at_streams:
        return False
    with exchange:
        return exchange.faults.fires(fault, stream) is not None


async def _until_gone(conversation: Coroutine[Any, Any, None]) -> None:
    try:
        await conversation
    except (WebSocketDisconnect, TimeoutError):
        return  # the client left, or takes nothing any more: there is nobody to tell


async def _both(listening: Coroutine[Any, Any, None], telling: Coroutine[Any, Any, None]) -> None:
    """Run until either ends, then stop the other; the first one's failure is raised."""
    tasks = [asyncio.create_task(listening), asyncio.create_task(telling)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _authentic(exchange: Exchange, key: object, secret: object) -> bool:
    if not isinstance(key, str) or not isinstance(secret, str):
        return False
    shown, wanted = f"{key}\n{secret}", "\n".join(exchange.keys)
    return hmac.compare_digest(shown.encode(), wanted.encode())


async def _receive(socket: WebSocket) -> bytes:
    """The next frame's content, text or binary. Raises WebSocketDisconnect."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    text = message.get("text")
    content: bytes = text.encode() if text is not None else message["bytes"]
    return content


def _as_object(content: Any) -> dict[str, Any]:
    return content if isinstance(content, dict) else {}


class _TradeUpdates:
    """Paper style: binary frames that hold JSON."""

    def __init__(self, socket: WebSocket, exchange: Exchange) -> None:
        self._socket, self._exchange = socket, exchange
        self._authorized = self._listening = False
        self._updates: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()

        def heard(update: dict[str, Any]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._enqueue, update)

        def cut() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._updates.put_nowait, None)

        unsubscribe = self._exchange.subscribe(heard)
        unwatch = self._exchange.on_cut(cut)
        try:
            await _both(self._listen(), self._tell())
        finally:
            unsubscribe()
            unwatch()

    def _enqueue(self, update: dict[str, Any]) -> None:
        if self._listening:
            # None: the client is too far behind; let it reconnect and read the state over REST
            self._updates.put_nowait(update if self._updates.qsize() < QUEUE_MAX else None)

    async def _listen(self) -> None:
        while True:
            try:
                said = _as_object(orjson.loads(await _receive(self._socket)))
            except orjson.JSONDecodeError:
                await self._send("error", {"error": "invalid syntax"})
                continue
            data = _as_object(said.get("data"))
            match said.get("action"):
                case "authenticate" | "auth" as action:
                    given = (
                        (data.get("key_id"), data.get("secret_key")) if data else (said.get("key"), said.get("secret"))
                    )
                    if _strikes(self._exchange, "auth_hang", _TRADES):
                        continue
                    self._authorized = _authentic(self._exchange, *given)
                    self._authorized &= not _strikes(self._exchange, "auth_reject", _TRADES)
                    await self._authorization(action)
                case action if not self._authorized:
                    await self._authorization(str(action))
                case "listen":
                    streams = [name for name in data.get("streams", ()) if name == "trade_updates"]
                    self._listening = bool(streams)
                    await self._send("listening", {"streams": streams})
                case action:
                    await self._send("error", {"error": f"unknown action {action}"})

    async def _tell(self) -> None:
        while (update := await self._updates.get()) is not None:
            await self._send("trade_updates", update)
        await self._socket.close(_TRY_LATER)

    async def _authorization(self, action: str) -> None:
        status = "authorized" if self._authorized else "unauthorized"
        await self._send("authorization", {"status": status, "action": action})

    async def _send(self, stream: str, data: dict[str, Any]) -> None:
        frame = orjson.dumps({"stream": stream, "data": data}, option=orjson.OPT_UTC_Z)
        await asyncio.wait_for(self._socket.send_bytes(frame), SEND_TIMEOUT_S)


class _MarketData:
    """Arrays of messages: msgpack in binary frames when the handshake's Content-Type says so, else JSON text."""

    def __init__(self, socket: WebSocket, exchange: Exchange, *, crowded: bool) -> None:
        self._socket, self._exchange, self._crowded = socket, exchange, crowded
        self._line = Interference[list[Message]](exchange, _DATA)
        self._packed = socket.headers.get("content-type") == "application/msgpack"
        self._feed = MarketFeed(exchange)
        self._turn = asyncio.Lock()  # the feed is asked from threads, one at a time

    async def run(self) -> None:
        await self._send([{"T": "success", "msg": "connected"}])
        if not await self._authenticated():
            await self._socket.close()
            return
        await self._send([{"T": "success", "msg": "authenticated"}])
        await _both(self._listen(), self._tell())

    async def _authenticated(self) -> bool:
        try:
            said = await asyncio.wait_for(self._hear(), AUTH_TIMEOUT_S)
        except TimeoutError:
            await self._refuse(404, "auth timeout")
            return False
        if said is None:
            await self._refuse(400, "invalid syntax")
        elif said.get("action") != "auth":
            await self._refuse(401, "not authenticated")
        elif _strikes(self._exchange, "auth_hang", _DATA):
            await _receive(self._socket)  # until the client gives up
        else:
            refusal = self._refusal(said)
            if refusal is None:
                return True
            await self._refuse(*refusal)
        return False

    def _refusal(self, said: Mapping[str, Any]) -> tuple[int, str] | None:
        """Why a client that shows these keys may not listen."""
        exchange = self._exchange
        authentic = _authentic(exchange, said.get("key"), said.get("secret"))
        if not authentic or _strikes(exchange, "auth_reject", _DATA):
            return 402, "auth failed"
        if self._crowded or _strikes(exchange, "conn_limit", _DATA):
            return 406, "connection limit exceeded"
        if self._socket.path_params["feed"] == "sip" and not exchange.options.sip_entitled:
            return 409, "insufficient subscription"
        return None

    async def _listen(self) -> None:
        while True:
            said = await self._hear()
            wanted = None if said is None else _channels(said)
            if said is None or wanted is None:
                await self._refuse(400, "invalid syntax")
            elif said.get("action") == "auth":
                await self._refuse(403, "already authenticated")
            elif said.get("action") in ("subscribe", "unsubscribe"):
                if said["action"] == "subscribe" and self._asks_too_much(wanted):
                    await self._refuse(405, "symbol limit exceeded")
                    continue
                change = self._feed.subscribe if said["action"] == "subscribe" else self._feed.unsubscribe
                async with self._turn:
                    await asyncio.to_thread(change, wanted)
                    await self._send([{"T": "subscription", **self._feed.subscriptions()}])
            else:
                await self._refuse(400, "invalid syntax")

    def _asks_too_much(self, wanted: Mapping[str, list[str]]) -> bool:
        most = self._exchange.options.data_stream_symbols
        if most is None:
            return False
        told = self._feed.subscriptions()
        return len({symbol for asked in (told, wanted) for symbols in asked.values() for symbol in symbols}) > most

    def _passed(self, frame: list[Message]) -> list[list[Message]]:
        """The frames that faults let through. Raises Disconnected."""
        if not self._exchange.faults.at_streams:
            return [frame]
        symbols = {message["S"] for message in frame}
        with self._exchange:
            return self._line.passed(frame, symbols)

    async def _tell(self) -> None:
        while True:
            async with self._turn:
                # In a thread: while the exchange moves its clock it keeps others waiting.
                messages = await asyncio.to_thread(self._feed.move)
            if messages and not await self._delivered(messages):
                return
            await asyncio.sleep(POLL_S)

    async def _delivered(self, messages: list[Message]) -> bool:
        """Send them. Returns whether the connection goes on."""
        try:
            if _strikes(self._exchange, "slow_client", _DATA):
                raise TimeoutError
            for begin in range(0, len(messages), FRAME_MESSAGES):
                for frame in self._passed(messages[begin : begin + FRAME_MESSAGES]):
                    await asyncio.wait_for(self._send(frame), SEND_TIMEOUT_S)
        except TimeoutError:
            await self._refuse(407, "slow client")
            return False
        except Disconnected:
            await self._socket.close(_TRY_LATER)
            return False
        return True

    async def _hear(self) -> dict[str, Any] | None:
        """What the client said; None when it is not an object in the agreed encoding."""
        content = await _receive(self._socket)
        try:
            said = msgpack.unpackb(content) if self._packed else orjson.loads(content)
        except (ValueError, msgpack.UnpackException):
            return None
        return said if isinstance(said, dict) else None

    async def _refuse(self, code: int, text: str) -> None:
        await asyncio.wait_for(self._send([{"T": "error", "code": code, "msg": text}]), SEND_TIMEOUT_S)

    async def _send(self, messages: list[Message]) -> None:
        if self._packed:
            await self._socket.send_bytes(msgpack.packb(messages, datetime=True))
        else:
            await self._socket.send_text(orjson.dumps(messages, option=orjson.OPT_UTC_Z).decode())


def _channels(said: Mapping[str, Any]) -> dict[str, list[str]] | None:
    """Symbols by channel; unknown channels are passed over, None when a known one holds no list of strings."""
    wanted = {channel: said[channel] for channel in CHANNELS if channel in said}
    for symbols in wanted.values():
        if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
            return None
    return wanted
