"""The admin API: the hands that move the simulated world. No keys; serve it on loopback only."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from desk.errors import BadInput
from desk.exchange.amounts import plain, rfc3339
from desk.exchange.routing import ApiError, Body, Params, Query, Reply, Route

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange

__all__ = ["ADMIN_ROUTES"]

_LOG_LIMIT, _LOG_LIMIT_MAX = 1000, 10_000


def unusable(message: str) -> ApiError:
    return ApiError(422, None, message)


def clock(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    return 200, {"now": rfc3339(exchange.now), "is_open": exchange.is_open, "market": exchange.market.label}


def move_clock(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    fields = _fields(body, "now", "advance_s")
    if len(fields) != 1:
        raise unusable("give either now or advance_s")
    try:
        if "now" in fields:
            exchange.set_clock(_moment(fields, "now"))
        else:
            exchange.advance(_number(fields, "advance_s"))
    except (BadInput, OverflowError) as error:
        raise unusable(str(error)) from error
    return clock(exchange, params, query, None)


def move_market(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    fields = _fields(body, "bid", "ask", "last", "at", "age_s")
    prices = {name: _number(fields, name) for name in ("bid", "ask", "last") if name in fields}
    if not prices:
        raise unusable("give at least one of bid, ask and last")
    if "at" in fields and "age_s" in fields:
        raise unusable("give either at or age_s")
    at = _moment(fields, "at") if "at" in fields else None
    if "age_s" in fields:
        at = exchange.now - timedelta(seconds=_number(fields, "age_s"))
    try:
        exchange.set_market(params["symbol"], **prices, at=at)
    except BadInput as error:
        raise unusable(str(error)) from error
    shown = exchange.quote(params["symbol"])
    assert shown is not None  # it was just set
    stamped = datetime.fromtimestamp(shown.at, exchange.now.tzinfo)
    return 200, {
        "symbol": params["symbol"], "bid": shown.bid, "ask": shown.ask, "last": shown.last, "at": rfc3339(stamped)
    }  # fmt: skip


def change_asset(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    fields = _fields(body, "symbol", "name", "exchange", "status", "tradable", "fractionable", "shortable")
    symbol = fields.pop("symbol", None)
    if not isinstance(symbol, str) or not symbol:
        raise unusable("symbol is needed")
    if fields.get("status", "active") not in ("active", "inactive"):
        raise unusable(f"status {fields['status']!r}: active or inactive is needed")
    for name in ("tradable", "fractionable", "shortable"):
        if not isinstance(fields.get(name, True), bool):
            raise unusable(f"{name} {fields[name]!r}: true or false is needed")
    if fields.get("exchange", "NYSE") not in ("NASDAQ", "NYSE", "ARCA", "AMEX", "BATS", "OTC"):
        raise unusable(f"exchange {fields['exchange']!r}: NASDAQ, NYSE, ARCA, AMEX, BATS or OTC is needed")
    if not isinstance(fields.get("name", ""), str):
        raise unusable("name must be text")
    asset = exchange.assets.change(symbol, exchange.today, **fields)
    exchange.floor.changes += 1  # answers made before are no longer true
    exchange.journal.note(exchange.now, "asset.changed", symbol=symbol, **{k: str(v) for k, v in fields.items()})
    return 200, asset.document


def block_account(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    """Block or unblock the account, as the broker would."""
    known = ("trading_blocked", "account_blocked", "transfers_blocked")
    for name, value in _fields(body, *known).items():
        if not isinstance(value, bool):
            raise unusable(f"{name} {value!r}: true or false is needed")
        (exchange.account.blocked.add if value else exchange.account.blocked.discard)(name)
        exchange.journal.note(exchange.now, "account.blocked" if value else "account.unblocked", what=name)
    exchange.floor.changes += 1
    return 200, {name: name in exchange.account.blocked for name in known}


def faults(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    """All that are set, with how often each was called and has fired."""
    return 200, [armed.document for armed in exchange.faults.armed]


def set_faults(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    """One script, or several as {"faults": [...]}: all are set or, when one cannot be followed, none."""
    scripts = (body or {}).get("faults", [body or {}])
    if not isinstance(scripts, list) or not all(isinstance(script, dict) for script in scripts) or not scripts:
        raise unusable("faults: a list of scripts is needed, each an object that names a fault")
    if body is not None and "faults" in body and len(body) > 1:
        raise unusable("faults: give a list of scripts alone, or one script without it")
    try:
        armed = exchange.arm(*scripts)
    except BadInput as error:
        raise unusable(str(error)) from error
    return 200, [one.document for one in armed]


def clear_faults(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    """All, or the one with that `number`."""
    number = query.get("number")
    if number is not None and not number.isdecimal():
        raise unusable(f"number {number!r}: a whole number is needed")
    gone = exchange.disarm(None if number is None else int(number))
    if number is not None and not gone:
        raise ApiError(404, None, f"no fault has number {number}")
    return 200, {"cleared": gone}


def reset(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    fields = _fields(body, "now", "cash")
    now = _moment(fields, "now") if "now" in fields else None
    cash = None
    if "cash" in fields:
        _number(fields, "cash")
        cash = Decimal(str(fields["cash"]))
        if cash < 0:
            raise unusable(f"cash {cash}: 0 or more is needed")
    exchange.reset(now=now, cash=cash)
    return 200, {"now": rfc3339(exchange.now), "cash": plain(exchange.account.cash)}


def log(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    """`after`: the number of the last entry known; `limit`: at most so many."""
    counts: dict[str, int] = {}
    for name, default in (("after", 0), ("limit", _LOG_LIMIT)):
        value = query.get(name) or str(default)
        if not value.isdecimal():
            raise unusable(f"{name} {value!r}: a whole number from 0 is needed")
        counts[name] = int(value)
    return 200, exchange.log(counts["after"], min(counts["limit"], _LOG_LIMIT_MAX))


def _fields(body: Body | None, *known: str) -> dict[str, Any]:
    """The body's fields that are not null. Unknown names are refused, so that a typing error is seen."""
    fields = {name: value for name, value in (body or {}).items() if value is not None}
    for name in fields:
        if name not in known:
            raise unusable(f"unknown field {name!r}: {', '.join(known)} are known")
    return fields


def _number(fields: dict[str, Any], name: str) -> float:
    value = fields[name]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise unusable(f"{name} {value!r}: a number is needed")
    return number


def _moment(fields: dict[str, Any], name: str) -> datetime:
    value = fields[name]
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        at = None
    if at is None or at.tzinfo is None:
        raise unusable(f"{name} {value!r}: a time with its zone is needed, as 2024-03-05T14:35:00Z")
    return at


ADMIN_ROUTES: tuple[Route, ...] = (
    Route("GET", "/admin/clock", clock, needs_keys=False),
    Route("POST", "/admin/clock", move_clock, needs_keys=False),
    Route("POST", "/admin/market/{symbol}", move_market, needs_keys=False),
    Route("POST", "/admin/assets", change_asset, needs_keys=False),
    Route("POST", "/admin/account", block_account, needs_keys=False),
    Route("GET", "/admin/faults", faults, needs_keys=False),
    Route("POST", "/admin/faults", set_faults, needs_keys=False),
    Route("DELETE", "/admin/faults", clear_faults, needs_keys=False),
    Route("POST", "/admin/reset", reset, needs_keys=False),
    Route("GET", "/admin/log", log, needs_keys=False),
)
