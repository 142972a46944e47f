"""The screener: most active symbols and largest movers of the running session, or of the last one."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import orjson

from desk.exchange.data_api import so_far
from desk.exchange.data_query import bad_request
from desk.exchange.market import BarRow
from desk.exchange.routing import Body, Params, Query, Reply, Route

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange

__all__ = ["SCREENER_ROUTES"]

_ACTIVES_MAX, _MOVERS_MAX, _DEFAULT = 100, 50, 10


def most_actives(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    """`by`: volume (the default) or trades. Of equals, by symbol."""
    by = query.get("by") or "volume"
    if by not in ("volume", "trades"):
        raise bad_request(f"invalid by: {by}")
    top = _top(query, _ACTIVES_MAX)
    days = _today(exchange)
    ranked = sorted(
        days, key=lambda symbol: (-(days[symbol].volume if by == "volume" else days[symbol].trades), symbol)
    )
    listed = [
        {"symbol": symbol, "volume": days[symbol].volume, "trade_count": days[symbol].trades} for symbol in ranked[:top]
    ]
    return _answer({"most_actives": listed, "last_updated": exchange.now})


def movers(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    """Change of the last trade against the close before, in percent. What has not moved is neither."""
    top = _top(query, _MOVERS_MAX)
    moved = []
    for symbol in _today(exchange):
        price, before = exchange.price(symbol), exchange.close_before(symbol)
        if price is not None and before:
            change = price - before
            moved.append((float(change / before) * 100, symbol, float(change), float(price)))
    gainers = sorted((one for one in moved if one[0] > 0), key=lambda one: (-one[0], one[1]))
    losers = sorted((one for one in moved if one[0] < 0), key=lambda one: (one[0], one[1]))
    return _answer(
        {
            "gainers": [_mover(*one) for one in gainers[:top]],
            "losers": [_mover(*one) for one in losers[:top]],
            "market_type": "stocks",
            "last_updated": exchange.now,
        }
    )


def _mover(percent: float, symbol: str, change: float, price: float) -> dict[str, Any]:
    return {"symbol": symbol, "percent_change": round(percent, 2), "change": round(change, 4), "price": price}


def _today(exchange: Exchange) -> dict[str, BarRow]:
    """Each tradable symbol's bar of the running session up to now, or of the last session."""
    sessions, now = exchange.market.sessions(), exchange.now
    opened = bisect_right(sessions, now, key=lambda session: session.opens) - 1
    symbols = [one.symbol for one in exchange.market.listings() if _is_tradable(exchange, one.symbol)]
    if opened < 0:
        return {}
    session = sessions[opened]
    if now < session.closes:
        running = {symbol: so_far(exchange, symbol, session) for symbol in symbols}
        return {symbol: bar for symbol, bar in running.items() if bar is not None}
    found = exchange.market.daily_bars(symbols, session.day, session.day, adjustment="raw", known_at=now)
    return {symbol: rows[-1] for symbol, rows in found.items()}


def _is_tradable(exchange: Exchange, symbol: str) -> bool:
    asset = exchange.asset(symbol)
    return asset is not None and asset.tradable


def _top(query: Query, most: int) -> int:
    text = query.get("top") or str(_DEFAULT)
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise bad_request(f"invalid top: {text}: it must be between 1 and {most}")
    return int(text)


def _answer(payload: dict[str, Any]) -> Reply:
    return 200, orjson.dumps(payload, option=orjson.OPT_UTC_Z)


SCREENER_ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1beta1/screener/stocks/most-actives", most_actives),
    Route("GET", "/v1beta1/screener/stocks/movers", movers),
)
