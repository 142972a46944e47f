"""Positions: read them, close one, close all."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Any

import orjson

from desk.exchange.account import Holding
from desk.exchange.amounts import plain
from desk.exchange.drafts import malformed
from desk.exchange.queries import read_amount, read_flag
from desk.exchange.routing import ApiError, Body, Params, Query, Reply, Route

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange

__all__ = ["POSITION_ROUTES", "position_document"]

NOT_FOUND = 40410000
_SHARE_STEP = Decimal("0.000000001")


def positions(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    return 200, exchange.answer("positions", lambda: orjson.dumps(_positions(exchange)))


def _positions(exchange: Exchange) -> list[dict[str, Any]]:
    return [position_document(exchange, holding) for _, holding in sorted(exchange.account.holdings.items())]


def one_position(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    return 200, position_document(exchange, _held(exchange, params["symbol_or_id"]))


def close_position(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    """Trades by a market order. Takes no client order id, and shares held by open orders are not free."""
    holding = _held(exchange, params["symbol_or_id"])
    qty, percentage = read_amount(query, "qty"), read_amount(query, "percentage")
    if qty is not None and percentage is not None:
        raise malformed("only one of qty or percentage is accepted")
    if percentage is not None:
        if not 0 < percentage <= 100:
            raise malformed("percentage must be between 0 and 100")
        qty = (abs(holding.qty) * percentage / 100).quantize(_SHARE_STEP, ROUND_FLOOR)
        if holding.qty < 0:
            qty = qty.to_integral_value(ROUND_FLOOR)  # there is no fraction of a short
    return 200, exchange.submit(_closing(holding, abs(holding.qty) if qty is None else qty))


def close_all(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    """An order or a refusal for each position. With `cancel_orders` all open orders are cancelled before; where that
    takes time, shares are still held and the refusal says so."""
    if read_flag(query, "cancel_orders"):
        for order in exchange.floor.register.open_in_order():
            if order.is_open and order.status != "pending_cancel":
                exchange.cancel(order)
    return 207, [_closed(exchange, holding) for _, holding in sorted(exchange.account.holdings.items())]


def _closed(exchange: Exchange, holding: Holding) -> dict[str, Any]:
    symbol = holding.symbol
    try:
        order = orjson.loads(exchange.submit(_closing(holding, abs(holding.qty))))
    except ApiError as refusal:
        return {"symbol": symbol, "status": refusal.status, "body": refusal.body}
    return {"symbol": symbol, "status": 200, "body": order}


def _closing(holding: Holding, qty: Decimal) -> dict[str, Any]:
    return {
        "symbol": holding.symbol,
        "qty": qty,
        "side": "sell" if holding.qty > 0 else "buy",
        "type": "market",
        "time_in_force": "day",
    }


def _held(exchange: Exchange, symbol_or_id: str) -> Holding:
    asset = exchange.asset(symbol_or_id)
    holding = None if asset is None else exchange.account.holdings.get(asset.symbol)
    if holding is None:
        raise ApiError(404, NOT_FOUND, "position does not exist")
    return holding


def position_document(exchange: Exchange, holding: Holding) -> dict[str, Any]:
    """Gains are against the average entry price, intraday gains against the last close (or the entry price, when
    the symbol had no close yet). Amounts of a short position are negative."""
    qty, entry, symbol = holding.qty, holding.avg_price, holding.symbol
    price = exchange.price(symbol) or entry
    last_close = exchange.close_before(symbol) or entry
    value, cost = price * qty, entry * qty
    asset = exchange.asset(symbol)
    free = exchange.floor.available(symbol)
    return {
        "asset_id": holding.asset_id,
        "symbol": symbol,
        "exchange": asset.exchange if asset is not None else "",
        "asset_class": "us_equity",
        "asset_marginable": True,
        "qty": plain(qty),
        "qty_available": plain(free if qty > 0 else -free),
        "avg_entry_price": plain(entry),
        "side": "long" if qty > 0 else "short",
        "market_value": plain(value),
        "cost_basis": plain(cost),
        "unrealized_pl": plain(value - cost),
        "unrealized_plpc": _change(price, entry, qty),
        "unrealized_intraday_pl": plain(value - last_close * qty),
        "unrealized_intraday_plpc": _change(price, last_close, qty),
        "current_price": plain(price),
        "lastday_price": plain(last_close),
        "change_today": _change(price, last_close, Decimal(1)),
        "swap_rate": None,
        "avg_entry_swap_rate": None,
        "usd": None,
    }


def _change(price: Decimal, base: Decimal, qty: Decimal) -> str:
    """As a fraction of `base`, a fall as a gain for a short. Nobody counts money with it, so floats will do."""
    fraction = float(price) / float(base) - 1
    return f"{fraction if qty > 0 else -fraction:.8f}"


POSITION_ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2/positions", positions),
    Route("DELETE", "/v2/positions", close_all),
    Route("GET", "/v2/positions/{symbol_or_id}", one_position),
    Route("DELETE", "/v2/positions/{symbol_or_id}", close_position),
)
