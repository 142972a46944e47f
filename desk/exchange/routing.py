"""How a request finds its handler: one table form for HTTP and for the in-process transport.

A handler is a pure function of (exchange, path parameters, query, body). It returns (status, payload), where the
payload is JSON-able, or bytes that already are JSON, or None for an empty body; or it raises ApiError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange

__all__ = ["ApiError", "Body", "Handler", "Params", "Query", "Reply", "Route", "RouteTable"]

Params = Mapping[str, str]
Query = Mapping[str, str]
Body = Mapping[str, Any]
Reply = tuple[int, Any]
Handler = Callable[["Exchange", Params, Query, "Body | None"], Reply]


class ApiError(Exception):
    """An answer other than success. `extra` fields are added to the error body beside code and message."""

    def __init__(self, status: int, code: int | None, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.extra = extra

    @property
    def body(self) -> dict[str, Any]:
        named = {} if self.code is None else {"code": self.code}
        return {**named, "message": self.message, **self.extra}


class Route(NamedTuple):
    """`path` holds parameters as whole segments in braces: "/v2/orders/{order_id}"."""

    method: str
    path: str
    handler: Handler
    needs_keys: bool = True  # admin routes do not ask for API keys


class RouteTable:
    """Looks routes up; literal paths win over paths with parameters."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._literal: dict[tuple[str, str], Route] = {}
        self._by_shape: dict[tuple[str, int], list[tuple[tuple[str, ...], Route]]] = {}
        for route in self.routes:
            if "{" in route.path:
                parts = tuple(route.path.split("/"))
                self._by_shape.setdefault((route.method, len(parts)), []).append((parts, route))
            else:
                self._literal[route.method, route.path] = route

    def find(self, method: str, path: str) -> tuple[Route, Params]:
        """The route and its unquoted path parameters. Raises ApiError 404 or 405."""
        literal = self._literal.get((method, path))
        if literal is not None:
            return literal, {}
        match = self._match(method, path)
        if match is not None:
            return match
        others = {route.method for route in self.routes} - {method}
        if any((other, path) in self._literal or self._match(other, path) for other in others):
            raise ApiError(405, 40510000, f"method {method} is not allowed on {path}")
        raise ApiError(404, 40410000, f"endpoint not found: {method} {path}")

    def _match(self, method: str, path: str) -> tuple[Route, Params] | None:
        found = path.split("/")
        for parts, route in self._by_shape.get((method, len(found)), ()):
            params: dict[str, str] = {}
            for want, have in zip(parts, found, strict=True):
                if want.startswith("{"):
                    if not have:
                        break
                    params[want[1:-1]] = unquote(have)
                elif want != have:
                    break
            else:
                return route, params
        return None
