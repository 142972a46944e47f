"""What stands between a request and its handler: keys, rate limit, the body, and the form of every answer."""

from __future__ import annotations

import hmac
import json
import math
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import orjson

from desk.exchange.exchange import Exchange
from desk.exchange.ratelimit import MinuteLimit
from desk.exchange.routes import ROUTES
from desk.exchange.routing import ApiError, Body, Params, Route
from desk.exchange.wirefaults import Answer, Call, troubled

__all__ = ["Answer", "Gateway", "RateLimit"]

_NO_KEYS = b"<html>\r\n<head><title>401 Authorization Required</title></head>\r\n<body></body>\r\n</html>\r\n"
_TRADING = ("/v2/account", "/v2/orders", "/v2/positions", "/v2/assets", "/v2/clock", "/v2/calendar")
_JSON = "application/json; charset=UTF-8"


class RateLimit(MinuteLimit):
    """So many requests in each minute of the wall clock."""

    def __init__(self, per_minute: int, *, wall_s: Callable[[], float] = time.time) -> None:
        super().__init__(per_minute, wall_s)


class Gateway:
    """Answers requests on behalf of an exchange, one at a time. Every answer names the market in X-Market."""

    def __init__(self, exchange: Exchange, *, rate_limit: RateLimit | None = None) -> None:
        self._exchange = exchange
        self._rate_limit = rate_limit  # None: the exchange's own, where its options set one

    def handle(self, method: str, path: str, query: str, headers: Mapping[str, str], content: bytes) -> Answer:
        """`query` is the raw query string. `headers` are looked up by the names Alpaca documents; give a mapping
        that ignores case where the client's spelling is not known."""
        exchange = self._exchange
        shown = {"X-Market": exchange.market.label}
        try:
            route, params = ROUTES.find(method, path)
            if route.needs_keys:
                if not self._knows(headers):
                    return self._refuse_keys(headers, shown)
                self._pace(shown, path)
            body = _body(content)
        except ApiError as error:
            return _refused(error, shown)
        if exchange.faults.at_gateway and route.needs_keys:
            call = Call(route.handler.__name__, method, params, query, body)
            return troubled(exchange, call, shown, lambda: self._process(route, params, query, body, dict(shown)))
        return self._process(route, params, query, body, shown)

    def _process(self, route: Route, params: Params, query: str, body: Body | None, shown: dict[str, str]) -> Answer:
        asked = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
        try:
            with self._exchange:
                status, payload = route.handler(self._exchange, params, asked, body)
        except ApiError as error:
            return _refused(error, shown)
        if payload is None:
            return Answer(status, shown, b"")
        shown["Content-Type"] = _JSON
        return Answer(status, shown, payload if isinstance(payload, bytes) else _dump(payload))

    def _knows(self, headers: Mapping[str, str]) -> bool:
        key, secret = headers.get("APCA-API-KEY-ID") or "", headers.get("APCA-API-SECRET-KEY") or ""
        known_key, known_secret = self._exchange.keys
        same_key = hmac.compare_digest(key.encode(), known_key.encode())
        return hmac.compare_digest(secret.encode(), known_secret.encode()) and same_key

    def _refuse_keys(self, headers: Mapping[str, str], shown: dict[str, str]) -> Answer:
        if not headers.get("APCA-API-KEY-ID"):
            return Answer(401, {**shown, "Content-Type": "text/html"}, _NO_KEYS)
        return Answer(401, {**shown, "Content-Type": _JSON}, b'{"message":"unauthorized."}')

    def _pace(self, shown: dict[str, str], path: str) -> None:
        limit = self._rate_limit or self._exchange.rate_limits.get("trading" if path.startswith(_TRADING) else "data")
        if limit is None:
            return
        passes, numbers = limit.take()
        shown.update(numbers)
        if not passes:
            raise ApiError(429, 42910000, "rate limit exceeded")


def _refused(error: ApiError, shown: dict[str, str]) -> Answer:
    return Answer(error.status, {**shown, "Content-Type": _JSON}, _dump(error.body))


def _body(content: bytes) -> Body | None:
    if not content:
        return None
    try:
        body = json.loads(content, parse_float=Decimal, parse_constant=_no_constant)
    except ValueError as error:
        raise ApiError(400, 40010000, f"request body format is invalid: {error}") from error
    if not isinstance(body, dict):
        raise ApiError(400, 40010000, "request body format is invalid: an object is needed")
    return body


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _dump(payload: Any) -> bytes:
    return orjson.dumps(payload, default=_plain_number, option=orjson.OPT_UTC_Z)


def _plain_number(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and abs(value) < math.inf else float(value)
    raise TypeError(f"cannot be written as JSON: {type(value).__name__}")
