"""Account, its configurations, clock, calendar, assets and activities, as Alpaca writes them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from desk.exchange.account import Activity
from desk.exchange.amounts import plain, rfc3339
from desk.exchange.drafts import malformed
from desk.exchange.queries import read_choice, read_count, read_day, read_moment, read_words
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
    long_value, short_value = exchange.values()
    cash, power = plain(held.cash), plain(exchange.floor.buying_power)
    equity, exposed = plain(held.cash + long_value + short_value), plain(long_value - short_value)
    settings = held.configuration
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
        "trading_blocked": "trading_blocked" in held.blocked,
        "transfers_blocked": "transfers_blocked" in held.blocked,
        "account_blocked": "account_blocked" in held.blocked,
        "created_at": rfc3339(held.opened),
        "trade_suspended_by_user": settings.suspend_trade,
        "multiplier": "1",
        "shorting_enabled": exchange.options.shorting and not settings.no_shorting,
        "equity": equity,
        "last_equity": plain(held.last_equity(exchange.today)),
        "long_market_value": plain(long_value),
        "short_market_value": plain(short_value),
        "position_market_value": exposed,
        "initial_margin": exposed,
        "maintenance_margin": exposed,
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


def configurations(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    return 200, exchange.account.configuration.document


def configure(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    account = exchange.account
    account.configuration = account.configuration.patched(body or {}, exchange.options.configuration_nulls)
    exchange.floor.changes += 1
    settings = {name: str(value) for name, value in account.configuration.document.items()}
    exchange.journal.note(exchange.now, "account.configured", **settings)
    return 200, account.configuration.document


def assets(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    """`attributes`: any of those given, comma-joined."""
    status = read_choice(query, "status", ("", "active", "inactive"), "")
    kind = read_choice(query, "asset_class", ("us_equity", "us_option", "crypto", "crypto_perp"), "us_equity")
    if kind != "us_equity":
        return 200, []
    listed = exchange.assets.listed_json(exchange.today, status or None)
    venue, attributes = query.get("exchange"), set(read_words(query, "attributes"))
    if not venue and not attributes:
        return 200, listed
    return 200, [
        asset
        for asset in orjson.loads(listed)
        if (not venue or asset["exchange"] == venue) and (not attributes or attributes & set(asset["attributes"]))
    ]


def one_asset(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    found = exchange.asset(params["symbol_or_id"])
    if found is None:
        raise ApiError(404, NOT_FOUND, f"asset not found for {params['symbol_or_id']}")
    return 200, found.document


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
    Route("GET", "/v2/account/configurations", configurations),
    Route("PATCH", "/v2/account/configurations", configure),
    Route("GET", "/v2/clock", clock),
    Route("GET", "/v2/calendar", calendar),
    Route("GET", "/v2/assets", assets),
    Route("GET", "/v2/assets/{symbol_or_id}", one_asset),
    Route("GET", "/v2/account/activities", activities),
    Route("GET", "/v2/account/activities/{activity_type}", activities_of_type),
)
