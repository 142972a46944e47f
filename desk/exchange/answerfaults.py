"""What faults do to the content of answers: reads that lag behind, quotes and bars that are not what they were."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from desk.exchange.account import Holding
from desk.exchange.amounts import plain, rfc3339
from desk.exchange.faultlist import FAULTS
from desk.exchange.positions_api import position_document
from desk.exchange.routing import ApiError
from desk.exchange.simorder import TERMINAL
from desk.market import NEW_YORK

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange
    from desk.exchange.faults import Armed
    from desk.exchange.wirefaults import Call

__all__ = ["distorted", "still_there"]

Change = Callable[["Exchange", "Armed", Any], Any]


def distorted(exchange: Exchange, call: Call, content: bytes, symbols: Collection[str]) -> bytes:
    """The content as the faults that fire now make it."""
    for name, change in _CHANGES.items():
        if exchange.faults.has(name):
            fired = exchange.faults.fires(name, call.operation, symbols)
            if fired is not None:
                content = orjson.dumps(change(exchange, fired, orjson.loads(content)))
    return content


# -- reads that lag ------------------------------------------------------------------------------


def _recent(exchange: Exchange, lag_s: float, key: str) -> dict[str, Decimal]:
    """Signed shares of the fills of the last seconds, by symbol or order_id."""
    since = exchange.now - timedelta(seconds=lag_s)
    found: dict[str, Decimal] = {}
    for activity in reversed(exchange.account.activities):
        if activity.at <= since:
            break
        if activity.kind == "FILL":
            row = activity.document
            qty = Decimal(row["qty"]) * (1 if row["side"] == "buy" or key == "order_id" else -1)
            found[row[key]] = found.get(row[key], Decimal(0)) + qty
    return found


def _positions(exchange: Exchange, fired: Armed, answer: Any) -> Any:
    """A position that is new is not there yet, one that changed has its former quantity, one that was closed is still
    there."""
    recent = _recent(exchange, fired["lag_s"], "symbol")
    if isinstance(answer, dict):
        return _former(answer, recent)
    shown = {row["symbol"]: row for row in (_former(row, recent) for row in answer) if Decimal(row["qty"])}
    for symbol in recent.keys() - {row["symbol"] for row in answer}:
        row = _closed(exchange, symbol, recent)
        if row is not None:
            shown[symbol] = row
    return [row for _, row in sorted(shown.items())]


def still_there(exchange: Exchange, operation: str, symbols: Collection[str]) -> bytes | None:
    """What a lagging read of a single position answers where there is none any more."""
    if operation != "one_position" or not exchange.faults.has("position_lag"):
        return None
    fired = exchange.faults.fires("position_lag", operation, symbols)
    if fired is None:
        return None
    recent = _recent(exchange, fired["lag_s"], "symbol")
    rows = (_closed(exchange, symbol, recent) for symbol in symbols)
    return next((orjson.dumps(row) for row in rows if row is not None), None)


def _closed(exchange: Exchange, symbol: str, recent: dict[str, Decimal]) -> dict[str, Any] | None:
    """A position that the recent fills have closed, as it was; its entry price is taken from the present one."""
    asset, qty = exchange.asset(symbol), -recent.get(symbol, Decimal(0))
    if asset is None or not qty:
        return None
    price = exchange.price(symbol) or Decimal(1)
    row = position_document(exchange, Holding(symbol, asset.asset_id, qty, price))
    return row | {"qty_available": plain(qty)}


def _former(row: dict[str, Any], recent: dict[str, Decimal]) -> dict[str, Any]:
    change = recent.get(row["symbol"], Decimal(0))
    qty = Decimal(row["qty"]) - change
    if not change:
        return row
    price, entry = Decimal(row["current_price"]), Decimal(row["avg_entry_price"])
    return row | {
        "qty": plain(qty), "qty_available": plain(min(qty, Decimal(row["qty_available"]))),
        "market_value": plain(qty * price), "cost_basis": plain(qty * entry),
        "unrealized_pl": plain(qty * (price - entry)),
    }  # fmt: skip


def _orders(exchange: Exchange, fired: Armed, answer: Any) -> Any:
    """Orders as they were: a new one is absent (asked for alone: 404), a changed one is open and without its latest
    fills. Raises ApiError."""
    since = exchange.now - timedelta(seconds=fired["lag_s"])
    recent = _recent(exchange, fired["lag_s"], "order_id")
    if isinstance(answer, dict):
        if datetime.fromisoformat(answer["created_at"]) > since:
            raise ApiError(404, 40410000, f"order not found for {answer['id']}")
        return _former_order(answer, since, recent)
    return [_former_order(row, since, recent) for row in answer if datetime.fromisoformat(row["created_at"]) <= since]


def _former_order(row: dict[str, Any], since: datetime, recent: dict[str, Decimal]) -> dict[str, Any]:
    if datetime.fromisoformat(row["updated_at"]) <= since:
        return row
    filled = Decimal(row["filled_qty"]) - recent.get(row["id"], Decimal(0))
    former = {"filled_qty": plain(filled)}
    if row["status"] in TERMINAL or row["status"] == "partially_filled":
        former["status"] = "partially_filled" if filled else "new"
    gone = {name: None for name in ("filled_at", "canceled_at", "expired_at", "replaced_at", "replaced_by")}
    if not filled:
        gone["filled_avg_price"] = None
    return row | former | gone


def _account(exchange: Exchange, fired: Armed, answer: Any) -> Any:
    since = exchange.now - timedelta(seconds=fired["lag_s"])
    spent = Decimal(0)
    for activity in reversed(exchange.account.activities):
        if activity.at <= since:
            break
        if activity.kind == "FILL":
            row = activity.document
            signed = Decimal(row["qty"]) * Decimal(row["price"])
            spent += signed if row["side"] == "buy" else -signed
    reserved = sum(
        (order.reserved_cash for order in exchange.floor.open_orders() if order.created_at > since), Decimal(0)
    )
    power = plain(Decimal(answer["buying_power"]) + spent + reserved)
    names = ("buying_power", "regt_buying_power", "non_marginable_buying_power")
    return answer | {"cash": plain(Decimal(answer["cash"]) + spent)} | dict.fromkeys(names, power)


# -- data ----------------------------------------------------------------------------------------


def _quotes_of(answer: Any) -> list[dict[str, Any]]:
    """The quotes in an answer of latest quotes or snapshots."""
    if isinstance(answer.get("quotes"), dict):
        return list(answer["quotes"].values())
    return [one["latestQuote"] for one in answer.values() if isinstance(one, dict) and one.get("latestQuote")]


def _stale(exchange: Exchange, fired: Armed, answer: Any) -> Any:
    for quote in _quotes_of(answer):
        quote["t"] = rfc3339(datetime.fromisoformat(quote["t"]) - timedelta(seconds=fired["age_s"]))
    return answer


def _zero(exchange: Exchange, fired: Armed, answer: Any) -> Any:
    sides = {"bid": ("bp", "bs"), "ask": ("ap", "as"), "both": ("bp", "bs", "ap", "as")}[fired["side"]]
    for quote in _quotes_of(answer):
        quote.update(dict.fromkeys(sides, 0))
    return answer


def _skewed(exchange: Exchange, fired: Armed, answer: Any) -> Any:
    wrong = exchange.now + timedelta(seconds=fired["skew_s"])
    return answer | {"timestamp": wrong.astimezone(NEW_YORK).isoformat()}


def _without_latest(exchange: Exchange, fired: Armed, answer: Any) -> Any:
    bars = {symbol: sorted(rows, key=lambda bar: bar["t"])[:-1] for symbol, rows in answer["bars"].items()}
    return answer | {"bars": {symbol: rows for symbol, rows in bars.items() if rows}}


def _with_wrong_close(exchange: Exchange, fired: Armed, answer: Any) -> Any:
    """Those who listen for updated bars hear the right one."""
    for symbol, rows in answer["bars"].items():
        bar = max(rows, key=lambda bar: bar["t"], default=None)
        if bar is None:
            continue
        exchange.bulletins.append({"T": "u", "S": symbol, **bar, "t": datetime.fromisoformat(bar["t"])})
        close = round(bar["c"] * (1 + fired["percent"] / 100), 4)
        bar.update(c=close, h=max(bar["h"], close), l=min(bar["l"], close))
    return answer


def _with_gaps(exchange: Exchange, fired: Armed, answer: Any) -> Any:
    bars = {
        symbol: [bar for bar in rows if fired.chance.random() >= fired["fraction"]]
        for symbol, rows in answer["bars"].items()
    }
    return answer | {"bars": {symbol: rows for symbol, rows in bars.items() if rows}}


def _cut(exchange: Exchange, fired: Armed, answer: Any) -> Any:
    return answer | {"next_page_token": None}


_CHANGES: dict[str, Change] = {
    "position_lag": _positions,
    "order_lag": _orders,
    "bp_lag": _account,
    "stale_quote": _stale,
    "zero_quote": _zero,
    "clock_skew": _skewed,
    "late_bar": _without_latest,
    "bar_correction": _with_wrong_close,
    "missing_bars": _with_gaps,
    "page_cut": _cut,
}
assert all(FAULTS[name].place == "answer" for name in _CHANGES)
