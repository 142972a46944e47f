"""Account, clock, calendar, assets, positions and activities, as Alpaca writes them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Any

import orjson

from desk.exchange.account import Activity, Holding
from desk.exchange.amounts import plain, rfc3339
from desk.exchange.drafts import malformed
from desk.exchange.queries import read_amount, read_choice, read_count, read_day, read_moment, read_words
from desk.exchange.routing import ApiError, Body, Params, Query, Reply, Route
from desk.market import NEW_YORK, Session

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange

__all__ = ["ACCOUNT_ROUTES"]

NOT_FOUND = 40410000
_ACTIVITIES_A_PAGE = 100
_NAMESPACE = uuid.UUID("6f6e6570-6174-6820-6163-636f756e7400")


def account(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    return 200, exchange.answer("account", lambda: orjson.dumps(_account(exchange)))


def _account(exchange: Exchange) -> dict[str, Any]:
    held = exchange.account
    long_value = exchange.long_value()
    cash, power, value = plain(held.cash), plain(exchange.floor.buying_power), plain(long_value)
    equity = plain(held.cash + long_value)
    return {
        "id": str(uuid.uuid5(_NAMESPACE, exchange.account_number)),
        "account_number": exchange.account_number,
        "status": "ACTIVE",
        "crypto_status": "INACTIVE",
        "currency": "USD",
        "buying_power": power,
        "regt_buying_power": power,
        "non_marginable_buying_power": power,
        "options_buying_power": "0",
        "options_approved_level": 0,
        "options_trading_level": 0,
        "cash": cash,
        "accrued_fees": "0",
        "pending_transfer_in": "0",
        "pending_transfer_out": "0",
        "portfolio_value": equity,
        "trading_blocked": False,
        "transfers_blocked": False,
        "account_blocked": False,
        "created_at": rfc3339(held.opened),
        "trade_suspended_by_user": False,
        "multiplier": "1",
        "shorting_enabled": False,
        "equity": equity,
        "last_equity": plain(held.last_equity(exchange.today)),
        "long_market_value": value,
        "short_market_value": "0",
        "position_market_value": value,
        "initial_margin": value,
        "maintenance_margin": value,
        "last_maintenance_margin": "0",
        "sma": "0",
    }


def clock(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    return 200, exchange.answer("clock", lambda: orjson.dumps(_clock(exchange)))


def _clock(exchange: Exchange) -> dict[str, Any]:
    now, now_s, timetable = exchange.now, exchange.now_s, exchange.timetable
    return {
        "timestamp": now.astimezone(NEW_YORK).isoformat(),
        "is_open": exchange.is_open,
        "next_open": timetable.next_open(now, now_s).astimezone(NEW_YORK).isoformat(),
        "next_close": timetable.next_close(now, now_s).astimezone(NEW_YORK).isoformat(),
    }


def calendar(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    start, end = read_day(query, "start"), read_day(query, "end")
    if start is not None and end is not None and start > end:
        raise malformed(f"start {start} is after end {end}")
    return 200, [_calendar_day(exchange, session) for session in exchange.timetable.between(start, end)]


def _calendar_day(exchange: Exchange, session: Session) -> dict[str, str]:
    return {
        "date": session.day.isoformat(),
        "open": f"{session.opens.astimezone(NEW_YORK):%H:%M}",
        "close": f"{session.closes.astimezone(NEW_YORK):%H:%M}",
        "session_open": "0400",
        "session_close": "1700" if session.is_half_day else "2000",
        "settlement_date": exchange.timetable.settles(session.day).isoformat(),
    }


def assets(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    status = read_choice(query, "status", ("", "active", "inactive"), "")
    if query.get("asset_class", "us_equity") != "us_equity":
        return 200, []
    listed = exchange.assets.listed_json(exchange.today, status or None)
    venue = query.get("exchange")
    if venue:
        return 200, [asset for asset in orjson.loads(listed) if asset["exchange"] == venue]
    return 200, listed


def one_asset(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    found = exchange.asset(params["symbol_or_id"])
    if found is None:
        raise ApiError(404, NOT_FOUND, f"asset not found for {params['symbol_or_id']}")
    return 200, found.document


# -- positions -----------------------------------------------------------------------------------


def positions(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    return 200, exchange.answer("positions", lambda: orjson.dumps(_positions(exchange)))


def _positions(exchange: Exchange) -> list[dict[str, Any]]:
    return [_position(exchange, holding) for _, holding in sorted(exchange.account.holdings.items())]


def one_position(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    return 200, _position(exchange, _held(exchange, params["symbol_or_id"]))


def close_position(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    """Sells by a market order. Takes no client order id, and shares held by open orders are not free."""
    holding = _held(exchange, params["symbol_or_id"])
    qty, percentage = read_amount(query, "qty"), read_amount(query, "percentage")
    if qty is not None and percentage is not None:
        raise malformed("only one of qty or percentage is accepted")
    if percentage is not None:
        if not 0 < percentage <= 100:
            raise malformed("percentage must be between 0 and 100")
        qty = (holding.qty * percentage / 100).quantize(Decimal("0.000000001"), ROUND_FLOOR)
    sale = {
        "symbol": holding.symbol,
        "qty": holding.qty if qty is None else qty,
        "side": "sell",
        "type": "market",
        "time_in_force": "day",
    }
    return 200, exchange.submit(sale)


def _held(exchange: Exchange, symbol_or_id: str) -> Holding:
    asset = exchange.asset(symbol_or_id)
    holding = None if asset is None else exchange.account.holdings.get(asset.symbol)
    if holding is None:
        raise ApiError(404, NOT_FOUND, "position does not exist")
    return holding


def _position(exchange: Exchange, holding: Holding) -> dict[str, Any]:
    """Gains are against the average entry price, intraday gains against the last close (or the entry price, when
    the symbol had no close yet)."""
    qty, entry, symbol = holding.qty, holding.avg_price, holding.symbol
    price = exchange.price(symbol) or entry
    last_close = exchange.close_before(symbol) or entry
    value, cost = price * qty, entry * qty
    day_change = _change(price, last_close)
    asset = exchange.asset(symbol)
    return {
        "asset_id": holding.asset_id,
        "symbol": symbol,
        "exchange": asset.exchange if asset is not None else "",
        "asset_class": "us_equity",
        "asset_marginable": True,
        "qty": plain(qty),
        "qty_available": plain(exchange.floor.available(symbol)),
        "avg_entry_price": plain(entry),
        "side": "long",
        "market_value": plain(value),
        "cost_basis": plain(cost),
        "unrealized_pl": plain(value - cost),
        "unrealized_plpc": _change(price, entry),
        "unrealized_intraday_pl": plain(value - last_close * qty),
        "unrealized_intraday_plpc": day_change,
        "current_price": plain(price),
        "lastday_price": plain(last_close),
        "change_today": day_change,
        "swap_rate": None,
        "avg_entry_swap_rate": None,
        "usd": None,
    }


def _change(price: Decimal, base: Decimal) -> str:
    """As a fraction of `base`. Nobody counts money with it, so floats will do."""
    return f"{float(price) / float(base) - 1:.8f}"


# -- activities ----------------------------------------------------------------------------------


def activities(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    return 200, _activities(exchange, query, set(read_words(query, "activity_types")))


def activities_of_type(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    return 200, _activities(exchange, query, set(params["activity_type"].split(",")))


def _activities(exchange: Exchange, query: Query, kinds: set[str]) -> list[dict[str, Any]]:
    """`after` and `until` exclude the moment itself. A page begins behind the activity that `page_token` names."""
    after, until, day = read_moment(query, "after"), read_moment(query, "until"), read_day(query, "date")
    direction = read_choice(query, "direction", ("asc", "desc"), "desc")
    size = read_count(query, "page_size", default=_ACTIVITIES_A_PAGE, most=_ACTIVITIES_A_PAGE)
    account = exchange.account
    first = 0 if after is None else account.activities_from(after)
    chosen: Sequence[Activity] = [
        activity
        for activity in account.activities[first:]
        if (not kinds or activity.kind in kinds)
        and (after is None or _later(activity, after, query["after"]))
        and (until is None or activity.at < until)
        and (day is None or activity.day == day)
    ]
    if direction == "desc":
        chosen = chosen[::-1]
    token = query.get("page_token")
    if token:
        chosen = chosen[1 + _index_of(chosen, token) :]
    return [activity.document for activity in chosen[:size]]


def _later(activity: Activity, after: Any, written: str) -> bool:
    """A bare day means: activities of later days."""
    if len(written) == 10:
        return activity.day.isoformat() > written
    return bool(activity.at > after)


def _index_of(activities: Sequence[Activity], activity_id: str) -> int:
    for index, activity in enumerate(activities):
        if activity.id == activity_id:
            return index
    raise malformed(f"page_token {activity_id!r} is not the id of an activity in this list")


ACCOUNT_ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2/account", account),
    Route("GET", "/v2/clock", clock),
    Route("GET", "/v2/calendar", calendar),
    Route("GET", "/v2/assets", assets),
    Route("GET", "/v2/assets/{symbol_or_id}", one_asset),
    Route("GET", "/v2/positions", positions),
    Route("GET", "/v2/positions/{symbol_or_id}", one_position),
    Route("DELETE", "/v2/positions/{symbol_or_id}", close_position),
    Route("GET", "/v2/account/activities", activities),
    Route("GET", "/v2/account/activities/{activity_type}", activities_of_type),
)
