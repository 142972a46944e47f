"""The broker's JSON into the desk's own values. Exact, or not at all.

Amounts arrive as strings and become Decimal without passing through float; times are RFC 3339 with up to
nanoseconds, kept to the microsecond, in UTC. A status we do not know becomes UNRECOGNISED: the order is real and
must be seen. Anything else that is missing or unknown raises Unreadable naming the object and the field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeVar

from desk.market import Asset, MarketClock, Quote, Session, at_new_york
from desk.orders import BrokerOrder, BrokerStatus, OrderClass, OrderType, Side
from desk.portfolio import Account, Adjustment, CashMovement, Fill, Position

__all__ = [
    "Orders",
    "Unreadable",
    "account",
    "adjustments",
    "asset",
    "cash_movement",
    "clock",
    "fill",
    "instant",
    "order",
    "position",
    "quote",
    "rows",
    "session",
]

T = TypeVar("T")


class Unreadable(ValueError):
    """A field of the broker's answer is missing, or is not what is documented."""


class _Record:
    """One JSON object and what it is called in a message."""

    __slots__ = ("_kind", "_name", "raw")

    def __init__(self, kind: str, raw: object, *, name: str) -> None:
        if type(raw) is not dict:
            raise Unreadable(f"{kind}: {_shown(raw)}, a JSON object is needed")
        self.raw: dict[str, Any] = raw
        self._kind = kind
        self._name = name

    def wrong(self, field: str, needed: str) -> Unreadable:
        found = _shown(self.raw[field]) if field in self.raw else "nothing"
        return Unreadable(f"{self._kind} {self.raw.get(self._name, '?')}: {field} is {found}, {needed} is needed")

    def text(self, field: str) -> str:
        value = self.raw.get(field)
        if type(value) is not str or not value:
            raise self.wrong(field, "a text")
        return value

    def text_or_none(self, field: str) -> str | None:
        return None if self.raw.get(field) is None else self.text(field)

    def flag(self, field: str) -> bool:
        value = self.raw.get(field)
        if type(value) is not bool:
            raise self.wrong(field, "true or false")
        return value

    def amount(self, field: str) -> Decimal:
        value = self.raw.get(field)
        try:
            if type(value) is str:
                amount = Decimal(value)
            elif type(value) is int or type(value) is float:
                amount = Decimal(repr(value))
            else:
                raise self.wrong(field, "an amount")
        except InvalidOperation as error:
            raise self.wrong(field, "an amount") from error
        if not amount.is_finite():
            raise self.wrong(field, "a finite amount")
        return amount

    def amount_or_none(self, field: str) -> Decimal | None:
        return None if self.raw.get(field) is None else self.amount(field)

    def at(self, field: str) -> datetime:
        value = self.raw.get(field)
        try:
            return instant(value)  # type: ignore[arg-type]  # what is no text raises TypeError
        except (TypeError, ValueError) as error:
            raise self.wrong(field, "a time with a zone") from error

    def day(self, field: str) -> date:
        value = self.raw.get(field)
        try:
            return date.fromisoformat(value)  # type: ignore[arg-type]  # as above
        except (TypeError, ValueError) as error:
            raise self.wrong(field, "a date") from error

    def choice(self, field: str, choices: Mapping[str, T]) -> T:
        try:
            return choices[self.raw[field]]
        except (KeyError, TypeError) as error:
            raise self.wrong(field, f"one of {', '.join(name or '(empty)' for name in choices)}") from error


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


def rows(what: str, raw: object) -> list[Any]:
    """`raw` if it is a JSON array. An error object, or null, is never read as "none"."""
    if type(raw) is not list:
        raise Unreadable(f"{what}: {_shown(raw)}, a JSON array is needed")
    return raw


def instant(text: str) -> datetime:
    """An RFC 3339 time as aware UTC, cut to the microsecond. Raises ValueError or TypeError."""
    at = datetime.fromisoformat(text)  # cuts nanoseconds
    if at.tzinfo is UTC:
        return at
    if at.tzinfo is None:
        raise ValueError(f"time {text} has no zone")
    return at.astimezone(UTC)


def account(raw: object) -> Account:
    record = _Record("account", raw, name="account_number")
    blocked = (record.raw.get(name) for name in ("trading_blocked", "account_blocked", "trade_suspended_by_user"))
    record.flag("trading_blocked")
    return Account(
        number=record.text("account_number"),
        status=record.text("status"),
        equity=record.amount("equity"),
        last_equity=record.amount("last_equity"),
        cash=record.amount("cash"),
        buying_power=record.amount("buying_power"),
        long_market_value=record.amount("long_market_value"),
        trading_blocked=any(blocked),
    )


def clock(raw: object) -> MarketClock:
    record = _Record("clock", raw, name="timestamp")
    return MarketClock(
        now=record.at("timestamp"),
        is_open=record.flag("is_open"),
        next_open=record.at("next_open"),
        next_close=record.at("next_close"),
    )


def session(raw: object) -> Session:
    record = _Record("session", raw, name="date")
    return _session(record.text("date"), record.text("open"), record.text("close"))


@lru_cache(maxsize=8192)
def _session(day: str, opens: str, closes: str) -> Session:
    try:
        on = date.fromisoformat(day)
        return Session(day=on, opens=at_new_york(on, opens), closes=at_new_york(on, closes))
    except ValueError as error:
        raise Unreadable(f"session {day}: open {opens}, close {closes} ({error})") from error


def asset(raw: object) -> Asset:
    record = _Record("asset", raw, name="symbol")
    return Asset(
        symbol=record.text("symbol"),
        asset_id=record.text("id"),
        name=record.raw.get("name") or "",
        exchange=record.text("exchange"),
        tradable=record.flag("tradable"),
        active=record.text("status") == "active",
        fractionable=record.flag("fractionable"),
        shortable=record.flag("shortable"),
    )


def position(raw: object) -> Position:
    """The sign follows `side`: a short is negative, whichever way the quantity was written."""
    record = _Record("position", raw, name="symbol")
    short = record.choice("side", _POSITION_IS_SHORT)
    quantity = record.amount("qty")
    if quantity < 0 and not short:
        raise record.wrong("qty", "a long position's quantity above 0")
    return Position(
        symbol=record.text("symbol"),
        asset_id=record.text("asset_id"),
        quantity=-abs(quantity) if short else quantity,
        available=record.amount("qty_available"),
        avg_entry_price=record.amount("avg_entry_price"),
        current_price=record.amount_or_none("current_price"),
        market_value=record.amount_or_none("market_value"),
    )


def fill(raw: object) -> Fill:
    record = _Record("fill", raw, name="id")
    try:
        return Fill(
            activity_id=record.text("id"),
            broker_order_id=record.text("order_id"),
            symbol=record.text("symbol"),
            side=record.choice("side", _FILL_SIDES),
            quantity=record.amount("qty"),
            price=record.amount("price"),
            at=record.at("transaction_time"),
        )
    except Unreadable:
        raise
    except ValueError as error:
        raise Unreadable(str(error)) from error


def adjustments(raw: Iterable[object]) -> list[Adjustment]:
    """Splits, one for each symbol and day, oldest first.

    A split is booked as shares taken out and shares put in: two rows whose quantities have opposite signs,
    and perhaps a third that pays cash for a fraction. The ratio is what went in over what went out.
    A single row must state its ratio itself (`split_ratio`).
    """
    groups: dict[tuple[date, str], list[_Record]] = {}
    for entry in raw:
        record = _Record("adjustment", entry, name="id")
        groups.setdefault((record.day("date"), record.text("symbol")), []).append(record)
    return [_adjustment(day, symbol, group) for (day, symbol), group in sorted(groups.items(), key=lambda g: g[0])]


def _adjustment(day: date, symbol: str, group: list[_Record]) -> Adjustment:
    changes = [record.amount_or_none("qty") or Decimal(0) for record in group]
    added = sum((change for change in changes if change > 0), Decimal(0))
    removed = -sum((change for change in changes if change < 0), Decimal(0))
    stated = [record.amount("split_ratio") for record in group if record.raw.get("split_ratio") is not None]
    if stated:
        ratio = stated[0]
    elif added > 0 and removed > 0:
        ratio = added / removed
    else:
        raise group[0].wrong("qty", "a pair of rows (shares out, shares in) or a split_ratio")
    return Adjustment(
        activity_id=min(record.text("id") for record in group),
        symbol=symbol,
        kind="split",
        day=day,
        quantity_change=added - removed,
        ratio=ratio,
        cash=sum((record.amount_or_none("net_amount") or Decimal(0) for record in group), Decimal(0)),
    )


def cash_movement(raw: object) -> CashMovement:
    record = _Record("cash movement", raw, name="id")
    return CashMovement(
        activity_id=record.text("id"),
        kind=record.text("activity_type"),
        day=record.day("date"),
        amount=record.amount("net_amount"),
    )


def quote(symbol: str, raw: object) -> Quote:
    """Numbers here are JSON floats; their shortest decimal form is the price that was sent."""
    record = _Record(f"quote of {symbol}", raw, name="t")
    return Quote(
        symbol=symbol,
        bid=record.amount("bp"),
        ask=record.amount("ap"),
        bid_size=record.amount("bs"),
        ask_size=record.amount("as"),
        at=record.at("t"),
    )


def order(raw: object) -> BrokerOrder:
    record = _Record("order", raw, name="id")
    legs = record.raw.get("legs")
    return _order(record, () if legs is None else tuple(order(leg) for leg in rows("legs", legs)))


def _order(record: _Record, legs: tuple[BrokerOrder, ...]) -> BrokerOrder:
    raw = record.raw
    filled = record.amount("filled_qty")
    # An order placed in dollars (by hand: ours are in shares) has no quantity, only what was filled of it.
    in_dollars = raw.get("qty") is None and raw.get("notional") is not None
    return BrokerOrder(
        broker_order_id=record.text("id"),
        client_order_id=record.text("client_order_id"),
        symbol=record.text("symbol"),
        side=record.choice("side", _SIDES),
        quantity=filled if in_dollars else record.amount("qty"),
        filled_quantity=filled,
        filled_avg_price=record.amount_or_none("filled_avg_price"),
        order_type=record.choice("type", _TYPES),
        order_class=record.choice("order_class", _CLASSES),
        time_in_force=record.text("time_in_force"),
        limit_price=record.amount_or_none("limit_price"),
        stop_price=record.amount_or_none("stop_price"),
        status=_STATUSES.get(record.text("status"), BrokerStatus.UNRECOGNISED),
        submitted_at=record.at("submitted_at"),
        updated_at=record.at("updated_at"),
        replaced_by=record.text_or_none("replaced_by"),
        replaces=record.text_or_none("replaces"),
        legs=legs,
    )


class Orders:
    """Parses lists of orders and remembers them: most orders of a list did not change since the last one.

    An order is the same when all that can change of it is the same; a whole list is the same when the
    transport hands the identical object back (the in-process one does while its body does not change).
    """

    _REMEMBERED_MAX = 8192

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[Any, ...], BrokerOrder]] = {}
        self._last: tuple[list[Any], list[BrokerOrder]] | None = None

    def parse(self, raw: object) -> list[BrokerOrder]:
        last = self._last  # read once: another thread may replace it
        if last is not None and raw is last[0]:
            return list(last[1])
        listed = rows("orders", raw)
        parsed = [self._parse(entry) for entry in listed]
        self._last = (listed, parsed)
        return list(parsed)

    def _parse(self, raw: object) -> BrokerOrder:
        record = _Record("order", raw, name="id")
        children = record.raw.get("legs")
        legs = tuple(self._parse(leg) for leg in rows("legs", children)) if children else ()
        key = (*map(record.raw.get, _CHANGING), legs)
        order_id = record.text("id")
        known = self._known.get(order_id)
        if known is not None and known[0] == key:
            return known[1]
        parsed = _order(record, legs)
        if len(self._known) >= self._REMEMBERED_MAX:
            self._known.clear()
        self._known[order_id] = (key, parsed)
        return parsed


_CHANGING = (
    "updated_at",
    "submitted_at",
    "status",
    "filled_qty",
    "filled_avg_price",
    "qty",
    "limit_price",
    "stop_price",
    "replaced_by",
)


def _by_value(members: type[StrEnum], of: Callable[[str], T]) -> dict[str, T]:
    return {member.value: of(member.value) for member in members}


_SIDES = _by_value(Side, Side)
_FILL_SIDES = {"buy": Side.BUY, "sell": Side.SELL, "sell_short": Side.SELL}
_TYPES = _by_value(OrderType, OrderType)
_CLASSES = {"": OrderClass.SIMPLE, **_by_value(OrderClass, OrderClass)}
_STATUSES = _by_value(BrokerStatus, BrokerStatus)
_POSITION_IS_SHORT = {"long": False, "short": True}
