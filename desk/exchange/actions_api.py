"""GET /v1/corporate-actions: splits, cash dividends, and delistings as cash mergers at the last price.

Only what has taken effect by the exchange's day is told: nothing here looks ahead.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import date
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from desk.exchange.data_query import bad_request
from desk.exchange.market import CorporateAction
from desk.exchange.routing import Body, Params, Query, Reply, Route

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange

__all__ = ["ACTION_ROUTES"]

_TYPES = (
    "reverse_split", "forward_split", "unit_split", "cash_dividend", "stock_dividend", "spin_off", "cash_merger",
    "stock_merger", "stock_and_cash_merger", "redemption", "name_change", "worthless_removal", "rights_distribution",
)  # fmt: skip
_LIMIT, _LIMIT_MAX = 100, 1000
_NAMESPACE = uuid.UUID("6f6e6570-6174-6820-6163-74696f6e7300")


def corporate_actions(exchange: Exchange, params: Params, query: Query, body: Body | None) -> Reply:
    """start and end are days, both included, by default today. `ids` excludes every other filter. A limit counts
    over all types; a page goes on where its token says."""
    kinds = _choices(query)
    symbols, cusips, ids = (set(_words(query, name)) for name in ("symbols", "cusips", "ids"))
    if ids and (symbols or cusips or kinds or query.get("start") or query.get("end")):
        raise bad_request("ids cannot be combined with other filters")
    limit, skip = _limit(query), _skip(query)
    sort = query.get("sort") or "asc"
    if sort not in ("asc", "desc"):
        raise bad_request(f"invalid sort: {sort}")
    first, last = (date.min, exchange.today) if ids else _span(exchange, query)
    found = [
        (kind, row)
        for kind, row in _told(exchange, first, last)
        if (not kinds or kind in kinds)
        and (not ids or row["id"] in ids)
        and (not symbols or symbols & _names(row, "symbol"))
        and (not cusips or cusips & _names(row, "cusip"))
    ]
    if sort == "desc":
        found.reverse()
    grouped: dict[str, list[dict[str, Any]]] = {}
    for kind, row in found[skip : skip + limit]:
        grouped.setdefault(f"{kind}s", []).append(row)
    token = str(skip + limit) if skip + limit < len(found) else None
    return 200, {"corporate_actions": grouped, "next_page_token": token}


def _told(exchange: Exchange, first: date, last: date) -> Iterator[tuple[str, dict[str, Any]]]:
    """Oldest first, of one day by symbol."""
    for session in exchange.timetable.between(first, min(last, exchange.today)):
        for action in exchange.market.corporate_actions(session.day):
            yield _written(exchange, action)


def _written(exchange: Exchange, action: CorporateAction) -> tuple[str, dict[str, Any]]:
    day, symbol = action.day.isoformat(), action.symbol
    asset = exchange.asset(symbol)
    cusip = _cusip(asset.asset_id if asset is not None else symbol)
    row: dict[str, Any] = {
        "id": str(uuid.uuid5(_NAMESPACE, f"{symbol}|{day}|{action.kind}")), "process_date": day, "payable_date": day
    }  # fmt: skip
    if action.kind == "delisting":
        merger = {"acquirer_symbol": None, "acquirer_cusip": None, "acquiree_symbol": symbol, "acquiree_cusip": cusip}
        return "cash_merger", {**row, **merger, "rate": float(action.value), "effective_date": day}
    row |= {"symbol": symbol, "ex_date": day, "record_date": day}
    if action.kind == "dividend":
        plain = {"cusip": cusip, "rate": float(action.value), "special": False, "foreign": False}
        return "cash_dividend", row | plain
    ratio = Fraction(action.value)
    rates = {"new_rate": ratio.numerator, "old_rate": ratio.denominator}
    if ratio < 1:
        return "reverse_split", row | rates | {"old_cusip": cusip, "new_cusip": cusip}
    return "forward_split", row | rates | {"cusip": cusip, "due_bill_redemption_date": None}


def _cusip(asset_id: str) -> str:
    """Nine letters and digits that stay with the asset; nobody assigned it."""
    return uuid.uuid5(_NAMESPACE, asset_id).hex[:9].upper()


def _names(row: dict[str, Any], what: str) -> set[str]:
    return {str(value) for name, value in row.items() if name.endswith(what) and value}


def _words(query: Query, name: str) -> list[str]:
    return [word for word in query.get(name, "").split(",") if word]


def _choices(query: Query) -> set[str]:
    kinds = set(_words(query, "types"))
    for kind in sorted(kinds):
        if kind not in _TYPES:
            raise bad_request(f"invalid type: {kind}")
    return kinds


def _limit(query: Query) -> int:
    text = query.get("limit") or str(_LIMIT)
    if not text.isdecimal() or not 1 <= int(text) <= _LIMIT_MAX:
        raise bad_request(f"invalid limit: {text}: it must be between 1 and {_LIMIT_MAX}")
    return int(text)


def _skip(query: Query) -> int:
    text = query.get("page_token") or "0"
    if not text.isdecimal():
        raise bad_request("invalid page_token")
    return int(text)


def _span(exchange: Exchange, query: Query) -> tuple[date, date]:
    days = []
    for name in ("start", "end"):
        text = query.get(name)
        try:
            days.append(date.fromisoformat(text[:10]) if text else exchange.today)
        except ValueError as error:
            raise bad_request(f"invalid {name}: {text}") from error
    if days[0] > days[1]:
        raise bad_request("end should not be before start")
    return days[0], days[1]


ACTION_ROUTES: tuple[Route, ...] = (Route("GET", "/v1/corporate-actions", corporate_actions),)
