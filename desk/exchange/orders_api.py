"""Orders: send, look up, list, replace, cancel."""

from __future__ import annotations

import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from desk.exchange.drafts import malformed
from desk.exchange.queries import read_choice, read_count, read_flag, read_moment, read_words
from desk.exchange.routing import ApiError, Body, Params, Query, Reply, Route
from desk.exchange.simorder import SimOrder

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange

__all__ = ["ORDER_ROUTES"]

NOT_FOUND = 40410000
_LIMIT, _LIMIT_MAX = 50, 500


def submit(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    return 200, exchange.submit(body)


def one_order(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    order = _by_id(exchange, params["order_id"])
    return 200, order.nested_json() if read_flag(query, "nested") else order.flat_json()


def by_client_order_id(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    """Legs are not given here, whatever is asked: `nested` is documented for the lookup by id only."""
    client_order_id = query.get("client_order_id", "")
    if not client_order_id:
        raise malformed("client_order_id is required")
    order = exchange.floor.register.by_client_id.get(client_order_id)
    if order is None:
        raise ApiError(404, NOT_FOUND, f"order not found for {client_order_id}")
    return 200, order.flat_json()


def orders(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    key = ("orders", *sorted(query.items()))
    return 200, exchange.answer(key, lambda: _orders(exchange, query))


def _orders(exchange: Exchange, query: Query) -> bytes:
    status = read_choice(query, "status", ("open", "closed", "all"), "open")
    limit = read_count(query, "limit", default=_LIMIT, most=_LIMIT_MAX)
    direction = read_choice(query, "direction", ("asc", "desc"), "desc")
    nested = read_flag(query, "nested")
    side = read_choice(query, "side", ("", "buy", "sell"), "")
    symbols = set(read_words(query, "symbols"))
    chosen: list[bytes] = []
    every = exchange.floor.register.open_in_order() if status == "open" else exchange.floor.orders
    for order in _submitted(every, query, newest_first=direction == "desc"):
        if nested and order.parent is not None:
            continue
        if (symbols and order.symbol not in symbols) or (side and order.side != side):
            continue
        if not _has_status(order, status):
            continue
        chosen.append(order.nested_json() if nested else order.flat_json())
        if len(chosen) == limit:
            break
    return b"[" + b",".join(chosen) + b"]"


def _submitted(every: Sequence[SimOrder], query: Query, *, newest_first: bool) -> Iterator[SimOrder]:
    """Of orders as they were submitted, those between `after` and `until`, both excluded."""
    after, until = read_moment(query, "after"), read_moment(query, "until")
    first = 0 if after is None else bisect_right(every, after, key=lambda order: order.created_at)
    end = len(every) if until is None else bisect_left(every, until, key=lambda order: order.created_at)
    indices: Iterable[int] = range(end - 1, first - 1, -1) if newest_first else range(first, end)
    return (every[index] for index in indices)


def _has_status(order: SimOrder, status: str) -> bool:
    """A `held` stop counts neither as open nor as closed."""
    if status == "all":
        return True
    return order.is_open and order.status != "held" if status == "open" else not order.is_open


def cancel_order(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    exchange.cancel(_by_id(exchange, params["order_id"]))
    return 204, None


def replace_order(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    return 200, exchange.replace(_by_id(exchange, params["order_id"]), body)


def cancel_all(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    asked = [order for order in exchange.floor.open_orders() if _has_status(order, "open")]
    for order in asked:
        if order.is_open and order.status != "pending_cancel":  # not yet cancelled together with its group
            exchange.cancel(order)
    return 207, [{"id": order.id, "status": 200} for order in asked]


def _by_id(exchange: Exchange, order_id: str) -> SimOrder:
    try:
        order = exchange.floor.register.by_id.get(str(uuid.UUID(order_id)))
    except ValueError as error:
        raise malformed("order_id is missing") from error
    if order is None:
        raise ApiError(404, NOT_FOUND, f"order not found for {order_id}")
    return order


ORDER_ROUTES: tuple[Route, ...] = (
    Route("POST", "/v2/orders", submit),
    Route("GET", "/v2/orders", orders),
    Route("DELETE", "/v2/orders", cancel_all),
    Route("GET", "/v2/orders:by_client_order_id", by_client_order_id),
    Route("GET", "/v2/orders/{order_id}", one_order),
    Route("PATCH", "/v2/orders/{order_id}", replace_order),
    Route("DELETE", "/v2/orders/{order_id}", cancel_order),
)
