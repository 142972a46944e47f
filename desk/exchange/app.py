"""The simulated Alpaca as an ASGI application: REST and both streams on one base address."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from desk.exchange.exchange import Exchange
from desk.exchange.gateway import Answer, Gateway, RateLimit
from desk.exchange.routes import ROUTES
from desk.exchange.streams import add_streams

__all__ = ["create_app"]

_DOCS = ("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")


class _Simulated(FastAPI):
    """FastAPI documents the routes and serves the streams. Requests go straight to the gateway, which has a route
    table of its own: a second one would cost more than most answers."""

    gateway: Gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _DOCS:
            await super().__call__(scope, receive, send)
            return
        content = await _content(receive)
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        answer = self.gateway.handle(scope["method"], path, query, Headers(scope=scope), content)
        if answer.fate is not None and await _meets_its_fate(answer, receive, send):
            return
        await _send(answer, send)


def create_app(exchange: Exchange, *, rate_limit_per_minute: int | None = None) -> FastAPI:
    """Serve `exchange`. `rate_limit_per_minute` counts in wall-clock minutes (Alpaca: 200); None: the exchange's
    options decide.

    Handlers run on the event loop: they take well under a millisecond and the exchange serves one at a time.
    """
    limit = None if rate_limit_per_minute is None else RateLimit(rate_limit_per_minute)
    app = _Simulated(title="Simulated Alpaca", description=f"Not a broker. Market: {exchange.market.label}.")
    app.gateway = Gateway(exchange, rate_limit=limit)
    for route in ROUTES.routes:
        name = route.handler.__name__
        app.add_api_route(route.path, _documented, methods=[route.method], name=name, summary=name.replace("_", " "))
    add_streams(app, exchange)
    return app


async def _documented(request: Request) -> Response:
    raise AssertionError(f"{request.url.path}: requests go to the gateway, this route is documentation")


async def _content(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _send(answer: Answer, send: Send) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
    if answer.status != 204:
        headers.append((b"content-length", str(len(answer.content)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.content})


async def _meets_its_fate(answer: Answer, receive: Receive, send: Send) -> bool:
    """Let a fault have its way. Returns whether there is nothing more to send."""
    assert answer.fate is not None
    kind, seconds = answer.fate
    if kind == "late":
        await asyncio.sleep(seconds)
        return False
    if kind == "hang":
        with suppress(TimeoutError):  # of a patient client the connection is cut
            await asyncio.wait_for(_gone(receive), seconds)
    _cut(send)
    return True


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _cut(send: Any) -> None:
    """Reset the connection. The server hands its sending side out as a method of the request it belongs to."""
    transport = send.__self__.transport
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
