"""The simulated Alpaca without a socket: a requests session for alpaca-py, or an adapter for any session.

A year of minute-by-minute sessions is some hundred thousand calls. What requests does to prepare each of them for a
network (cookies, proxies, redirects) costs more than the exchange's answer; the session here leaves it out.
"""

from __future__ import annotations

import json as json_text
from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import orjson
import requests
from requests.adapters import BaseAdapter
from requests.cookies import RequestsCookieJar
from requests.structures import CaseInsensitiveDict

from desk.exchange.exchange import Exchange
from desk.exchange.faults import ProcessKilled
from desk.exchange.gateway import Answer, Gateway
from desk.exchange.wirefaults import Fate

__all__ = ["InProcessAdapter", "InProcessSession"]

_REASONS = {status.value: status.phrase for status in HTTPStatus}
_NO_COOKIES = RequestsCookieJar()


class InProcessAdapter(BaseAdapter):
    """Mount it for the base address: `session.mount("http://exchange.invalid", InProcessAdapter(exchange))`.

    While the answer to a GET on a path stays the same to the byte, `json()` hands back the same object: treat
    what it returns as immutable.
    """

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange
        self._gateway = Gateway(exchange)
        self._parsed: dict[str, tuple[bytes, Any]] = {}  # by path: the last GET's content and its object

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        assert request.url is not None and request.method is not None  # it is prepared
        path, query = _path_and_query(request.url)
        content = request.body or b""
        if isinstance(content, str):
            content = content.encode()
        return self.answer(request, path, query, content, timeout)

    def answer(
        self,
        request: requests.PreparedRequest,
        path: str,
        query: str,
        content: bytes,
        timeout: float | tuple[float | None, float | None] | None = None,
    ) -> requests.Response:
        """The exchange's response to a request whose address and body are given apart. Raises what requests raises
        when a fault is set that keeps the answer from its caller."""
        assert request.method is not None
        answer = self._gateway.handle(request.method, path, query, request.headers, content)
        if answer.fate is not None:
            self._meet(answer.fate, request, timeout)
        memory = self._parsed if request.method == "GET" and answer.status == 200 else None
        return _Response(request, answer, path, memory)

    def _meet(
        self, fate: Fate, request: requests.PreparedRequest, timeout: float | tuple[float | None, float | None] | None
    ) -> None:
        """Waiting takes virtual time."""
        patience = timeout[1] if isinstance(timeout, tuple) else timeout
        if fate.kind == "killed":
            raise ProcessKilled(f"{request.method} {request.url}")
        if fate.kind == "reset":
            raise requests.ConnectionError("connection reset by a fault", request=request)
        waited = fate.seconds if patience is None else min(fate.seconds, patience)
        self._exchange.advance(waited)
        if fate.kind == "hang" or waited < fate.seconds:
            raise requests.ReadTimeout(f"no answer within {waited:g} s", request=request)

    def close(self) -> None:
        """Nothing is open."""


class InProcessSession(requests.Session):
    """A session whose plain calls go to the exchange as they are; all others take requests' usual way to it.

    Response hooks are called. Cookies, proxies, redirects and session-wide parameters have no meaning here.
    """

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = InProcessAdapter(exchange)
        self.mount("http://", self._exchange)
        self.mount("https://", self._exchange)

    def request(  # type: ignore[override]  # what is not named here passes through
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        allow_redirects: bool = False,
        **others: Any,
    ) -> requests.Response:
        if others or allow_redirects or not (params is None or isinstance(params, dict)):
            return super().request(
                method, url, params=params, headers=headers, json=json, allow_redirects=allow_redirects, **others
            )
        path, query = _path_and_query(url)
        given = {} if params is None else {name: value for name, value in params.items() if value is not None}
        if given:
            query = "&".join(filter(None, (query, urlencode(given, doseq=True))))
        content = b"" if json is None else json_text.dumps(json, allow_nan=False).encode()
        request = requests.PreparedRequest()
        request.method, request.url = method, f"{url}?{query}" if given else url
        request.headers = CaseInsensitiveDict(headers or {})
        response = self._exchange.answer(request, path, query, content)
        for hook in self.hooks["response"]:
            hook(response)
        return response


class _Response(requests.Response):
    """A response that was read already, and parses itself quickly."""

    def __init__(
        self,
        request: requests.PreparedRequest,
        answer: Answer,
        path: str,
        memory: dict[str, tuple[bytes, Any]] | None,
    ) -> None:
        # In place of requests' own, which makes a cookie jar for each response.
        self.status_code = answer.status
        self.headers = CaseInsensitiveDict(answer.headers)
        self.reason = _REASONS.get(answer.status, "")
        self.request = request
        self.url = request.url or ""
        self.encoding = "utf-8"
        self.raw = None
        self.history = []
        self.cookies = _NO_COOKIES
        self.elapsed = timedelta(0)
        self._content = answer.content
        self._content_consumed = True
        self._next = None
        self._path = path
        self._memory = memory

    def json(self, **kwargs: Any) -> Any:
        if kwargs or self.status_code >= 400:
            return super().json(**kwargs)
        content = self.content
        if self._memory is None:
            return orjson.loads(content)
        known = self._memory.get(self._path)
        if known is not None and known[0] == content:
            return known[1]
        parsed = orjson.loads(content)
        self._memory[self._path] = (content, parsed)
        return parsed


def _path_and_query(url: str) -> tuple[str, str]:
    start = url.find("/", url.index("://") + 3)
    if start < 0:
        return "/", ""
    path, _, query = url[start:].partition("?")
    return path, query.partition("#")[0]
