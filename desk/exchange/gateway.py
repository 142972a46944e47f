"""What stands between a request and its handler: keys, rate limit, the body, and the form of every answer."""

from __future__ import annotations

import hmac
import json
import math
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import orjson

from desk.exchange.exchange import Exchange
from desk.exchange.routes import ROUTES
from desk.exchange.routing import ApiError, Body

__all__ = ["Answer", "Gateway", "RateLimit"]

_NO_KEYS = b"<html>\r\n<head><title>401 Authorization Required</title></head>\r\n<body></body>\r\n</html>\r\n"
_JSON = "application/json; charset=UTF-8"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes


class RateLimit:
    """So many requests in each minute of the wall clock."""

    def __init__(self, per_minute: int, *, wall_s: Callable[[], float] = time.time) -> None:
        self._limit = per_minute
        self._wall_s = wall_s
        self._minute = -1
        self._used = 0

    def take(self) -> tuple[bool, dict[str, str]]:
        """Whether the request may pass, and the headers that say how many are left."""
        minute = int(self._wall_s() // 60)
        if minute != self._minute:
            self._minute, self._used = minute, 0
        self._used += 1
        left = max(0, self._limit - self._used)
        headers = {
            "X-RateLimit-Limit": str(self._limit),
            "X-RateLimit-Remaining": str(left),
            "X-RateLimit-Reset": str((minute + 1) * 60),
        }
        return self._used <= self._limit, headers


class Gateway:
    """Answers requests on behalf of an exchange, one at a time. Every answer names the market in X-Market."""

    def __init__(self, exchange: Exchange, *, rate_limit: RateLimit | None = None) -> None:
        self._exchange = exchange
        self._rate_limit = rate_limit

    def handle(self, method: str, path: str, query: str, headers: Mapping[str, str], content: bytes) -> Answer:
        """`query` is the raw query string. `headers` are looked up by the names Alpaca documents; give a mapping
        that ignores case where the client's spelling is not known."""
        shown = {"X-Market": self._exchange.market.label}
        try:
            route, params = ROUTES.find(method, path)
            if route.needs_keys:
                if not self._knows(headers):
                    return self._refuse_keys(headers, shown)
                self._pace(shown)
            asked = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
            body = _body(content)
            with self._exchange:
                status, payload = route.handler(self._exchange, params, asked, body)
        except ApiError as error:
            status, payload = error.status, error.body
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

    def _pace(self, shown: dict[str, str]) -> None:
        if self._rate_limit is None:
            return
        passes, numbers = self._rate_limit.take()
        shown.update(numbers)
        if not passes:
            raise ApiError(429, 42910000, "rate limit exceeded")


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
