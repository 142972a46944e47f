"""What faults do between a request and its answer."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

import orjson

from desk.exchange.answerfaults import distorted, still_there
from desk.exchange.routing import ApiError, Body, Params
from desk.exchange.worldfaults import happen

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange
    from desk.exchange.faults import Armed

__all__ = ["Answer", "Call", "Fate", "troubled"]

Fires = Callable[..., "Armed | None"]

_HTML = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body></body>\r\n</html>\r\n"
_JSON = "application/json; charset=UTF-8"
_UNKNOWN = "unheard_of"


class Fate(NamedTuple):
    """What becomes of an answer on its way: `hang`: it never comes, the connection is cut after `seconds`; `reset`:
    the connection is cut at once; `late`: it comes after `seconds`; `killed`: the caller is dead."""

    kind: str
    seconds: float = 0.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes
    fate: Fate | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A request that found its handler."""

    operation: str
    method: str
    params: Params
    query: str
    body: Body | None

    def symbols(self, exchange: Exchange) -> Collection[str]:
        """What it is about."""
        named = self.params.get("symbol_or_id")
        if named is not None:
            asset = exchange.asset(named)
            return {named if asset is None else asset.symbol}
        order = exchange.floor.register.by_id.get(self.params.get("order_id", ""))
        if order is not None:
            return {order.symbol}
        if self.body is not None and "symbol" in self.body:
            return {str(self.body["symbol"])}
        asked = dict(parse_qsl(self.query))
        known = exchange.floor.register.by_client_id.get(asked.get("client_order_id", ""))
        return {known.symbol} if known is not None else set(asked.get("symbols", "").split(",")) - {""}


def troubled(exchange: Exchange, call: Call, shown: dict[str, str], process: Callable[[], Answer]) -> Answer:
    """The answer to a request while faults of the wire, of answers or of the world are set."""
    symbols = call.symbols(exchange)

    def fires(name: str, **wanted: Any) -> Armed | None:
        if not exchange.faults.has(name):
            return None
        with exchange:
            return exchange.faults.fires(name, call.operation, symbols, **wanted)

    with exchange:
        happen(exchange, call.operation)
    stopped = _before(fires, shown)
    if stopped is not None:
        return stopped
    answer = process()
    if answer.status == 200 and answer.content:
        try:
            with exchange:
                answer = answer._replace(content=distorted(exchange, call, answer.content, symbols))
        except ApiError as hidden:
            answer = _json(hidden.status, shown, hidden.body)
    if answer.status == 404:
        with exchange:
            lagging = still_there(exchange, call.operation, symbols)
        if lagging is not None:
            answer = Answer(200, {**shown, "Content-Type": _JSON}, lagging)
    answer = _garbled(fires, shown, answer)
    return _after(fires, shown, answer)


def _before(fires: Fires, shown: dict[str, str]) -> Answer | None:
    killed = _killed(fires, "before")
    if killed is not None:
        return killed
    lost = fires("lost_request")
    if lost is not None:
        return Answer(0, shown, b"", Fate("hang", lost["hang_s"]))
    if fires("auth_revoked") is not None:
        return _json(401, shown, {"message": "unauthorized."})
    failed = fires("burst_5xx")
    if failed is not None:
        return Answer(int(failed["status"]), {**shown, "Content-Type": "text/html"}, _HTML)
    throttled = fires("burst_429")
    if throttled is not None:
        numbers = {"X-RateLimit-Limit": "200", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "0"}
        headers = {**shown, **numbers} if throttled["headers"] else shown
        body = {"code": 42910000, "message": "rate limit exceeded"} if throttled["headers"] else {
            "message": "too many requests."
        }  # fmt: skip
        return _json(429, headers, body)
    return None


def _killed(fires: Fires, moment: str) -> Answer | None:
    """A kill has one moment only: a call counts once, when that moment comes."""
    killed = fires("process_kill", moment=moment)
    return None if killed is None else Answer(0, {}, b"", Fate("killed"))


def _garbled(fires: Fires, shown: dict[str, str], answer: Answer) -> Answer:
    garbage = fires("garbage_body")
    if garbage is not None:
        kind = garbage["body"]
        if kind == "html":
            return Answer(200, {**shown, "Content-Type": "text/html"}, _HTML)
        if kind == "redirect":
            return Answer(302, {**shown, "Location": "/elsewhere"}, b"")
        return answer._replace(content=b"" if kind == "empty" else answer.content[: len(answer.content) // 2])
    drift = fires("schema_drift")
    if drift is not None and answer.content:
        return answer._replace(content=_drifted(answer.content, drift["change"]))
    return answer


def _after(fires: Fires, shown: dict[str, str], answer: Answer) -> Answer:
    killed = _killed(fires, "after")
    if killed is not None:
        return killed
    if fires("lost_response") is not None:
        return Answer(0, shown, b"", Fate("reset"))
    if fires("ambiguous_504") is not None:
        return Answer(504, {**shown, "Content-Type": "text/html"}, _HTML.replace(b"502 Bad Gateway", b"504 Timeout"))
    for name in ("latency", "update_first"):
        late = fires(name)
        if late is not None:
            return answer._replace(fate=Fate("late", late["seconds"]))
    return answer


def _json(status: int, shown: dict[str, str], body: Any) -> Answer:
    return Answer(status, {**shown, "Content-Type": _JSON}, orjson.dumps(body))


def _drifted(content: bytes, change: str) -> bytes:
    """The first record with an enumeration that nobody knows, or with a null where none may be."""
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        return content
    record = _first_record(document)
    names = ("status", "order_class", "side") if change == "enum" else ("id", "symbol", "qty", "t", "timestamp")
    for name in names:
        if record is not None and record.get(name) is not None:
            record[name] = _UNKNOWN if change == "enum" else None
            break
    return orjson.dumps(document)


def _first_record(document: Any) -> dict[str, Any] | None:
    """The first object whose values are plain, depth first."""
    if isinstance(document, list):
        return next((found for one in document if (found := _first_record(one)) is not None), None)
    if not isinstance(document, dict):
        return None
    inner = [value for value in document.values() if isinstance(value, (dict, list)) and value]
    if any(name in document for name in ("id", "symbol", "t", "timestamp", "status")):
        return document
    return next((found for one in inner if (found := _first_record(one)) is not None), None)
