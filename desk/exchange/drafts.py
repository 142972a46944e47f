"""What a POST /v2/orders body says, and whether it can be an order at all.

Rules here need nothing but the body. Rules that need the account or the market are in `admission`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from desk.exchange.amounts import plain, price_step
from desk.exchange.routing import ApiError

__all__ = [
    "MALFORMED",
    "RULE",
    "OrderDraft",
    "amount_of",
    "client_order_id_of",
    "malformed",
    "price_of",
    "read_draft",
    "rule",
]

MALFORMED = 40010001
RULE = 42210000

_TYPES = ("market", "limit", "stop", "stop_limit", "trailing_stop")
_TIMES = ("day", "gtc", "opg", "cls", "ioc", "fok")
_CLASSES = ("simple", "bracket", "oco", "oto")
_QTY_STEP = Decimal("0.000000001")
_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class OrderDraft:
    """A well-formed request for an order. Prices in USD, on the tick grid."""

    symbol: str
    buy: bool
    qty: Decimal
    type: str
    time_in_force: str
    order_class: str  # "" for simple
    limit_price: Decimal | None
    stop_price: Decimal | None
    target_price: Decimal | None  # take_profit.limit_price
    stop_loss_price: Decimal | None  # stop_loss.stop_price
    stop_loss_limit: Decimal | None  # stop_loss.limit_price
    client_order_id: str | None
    extended_hours: bool
    notional: Decimal | None = None  # USD; `qty` is then 0 until it is priced
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None

    @property
    def is_fractional(self) -> bool:
        return self.notional is not None or self.qty % 1 != 0


def read_draft(body: Mapping[str, Any] | None) -> OrderDraft:
    """Raises ApiError 422 naming the first field that is wrong."""
    if body is None:
        raise malformed("request body is required")
    symbol = _word(body, "symbol")
    side = _choice(body, "side", ("buy", "sell"))
    kind = _choice(body, "type", _TYPES)
    time_in_force = _choice(body, "time_in_force", _TIMES)
    order_class = _choice(body, "order_class", _CLASSES) if body.get("order_class") else "simple"
    extended = body.get("extended_hours") or False
    if not isinstance(extended, bool):
        raise malformed("extended_hours must be true or false")
    target, stop_loss = _leg(body, "take_profit"), _leg(body, "stop_loss")
    qty, notional = _quantity(body)
    draft = OrderDraft(
        symbol=symbol,
        buy=side == "buy",
        qty=qty,
        type=kind,
        time_in_force=time_in_force,
        order_class="" if order_class == "simple" else order_class,
        limit_price=price_of(body, "limit_price", "limit_price"),
        stop_price=price_of(body, "stop_price", "stop_price"),
        target_price=price_of(target, "limit_price", "take_profit.limit_price"),
        stop_loss_price=price_of(stop_loss, "stop_price", "stop_loss.stop_price"),
        stop_loss_limit=price_of(stop_loss, "limit_price", "stop_loss.limit_price"),
        client_order_id=client_order_id_of(body),
        extended_hours=extended,
        notional=notional,
        trail_price=_trail(body, "trail_price"),
        trail_percent=_trail(body, "trail_percent"),
    )
    _check_type(draft)
    _check_time_in_force(draft)
    _check_class(draft)
    _check_fraction(draft)
    if extended and (kind != "limit" or draft.order_class or time_in_force not in ("day", "gtc")):
        raise rule("extended hours order must be DAY or GTC limit orders")
    return draft


def malformed(message: str) -> ApiError:
    return ApiError(422, MALFORMED, message)


def rule(message: str, **extra: Any) -> ApiError:
    return ApiError(422, RULE, message, **extra)


def amount_of(value: Any, name: str) -> Decimal | None:
    """A JSON number (already Decimal) or a string, as Decimal; None when absent."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        raise malformed(f"{name} must be a number")
    try:
        amount = Decimal(value)
    except InvalidOperation as error:
        raise malformed(f"{name} must be a number, found {value!r}") from error
    if not amount.is_finite() or abs(amount) >= 10**12:
        raise malformed(f"{name} must be a finite number below 10^12, found {value!r}")
    return amount


def price_of(fields: Mapping[str, Any], key: str, name: str) -> Decimal | None:
    """A price on the tick grid, or None when absent."""
    price = amount_of(fields.get(key), name)
    if price is None:
        return None
    if price <= 0:
        raise malformed(f"{name} must be > 0")
    if price % price_step(price):
        raise rule(f"invalid {name} {plain(price)}. sub-penny increment does not fulfill minimum pricing criteria")
    return price


def _word(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise malformed(f"{key} is required")
    return value


def _choice(body: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> str:
    value = _word(body, key)
    if value not in choices:
        raise malformed(f"invalid {key} {value!r}: one of {', '.join(choices)} is needed")
    return value


def _leg(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    leg = body.get(key)
    if leg is None:
        return {}
    if not isinstance(leg, Mapping):
        raise malformed(f"{key} must be an object")
    return leg


def _quantity(body: Mapping[str, Any]) -> tuple[Decimal, Decimal | None]:
    """Shares and None, or 0 and USD."""
    qty, notional = amount_of(body.get("qty"), "qty"), amount_of(body.get("notional"), "notional")
    if qty is not None and notional is not None:
        raise malformed("only one of qty or notional is accepted")
    if notional is not None:
        if notional % _CENT:
            raise malformed("notional must have at most 2 decimal places")
        return Decimal(0), notional
    if qty is None:
        raise malformed("qty or notional is required")
    if qty <= 0:
        raise malformed("qty must be > 0")
    if qty % _QTY_STEP:
        raise malformed("qty must have at most 9 decimal places")
    return qty, None


def _trail(body: Mapping[str, Any], key: str) -> Decimal | None:
    trail = amount_of(body.get(key), key)
    if trail is not None and trail <= 0:
        raise malformed(f"{key} must be > 0")
    return trail


def client_order_id_of(body: Mapping[str, Any]) -> str | None:
    value = body.get("client_order_id")
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise malformed("client_order_id must be a string")
    if len(value) > 128:
        raise malformed("client_order_id must be no more than 128 characters")
    return value


def _check_type(draft: OrderDraft) -> None:
    trails = [trail for trail in (draft.trail_price, draft.trail_percent) if trail is not None]
    if draft.type == "trailing_stop":
        _check_trail(draft, trails)
    elif trails:
        raise malformed(f"{draft.type} orders require no trail_price or trail_percent")
    needs_limit = draft.type in ("limit", "stop_limit") and draft.order_class != "oco"
    if needs_limit and draft.limit_price is None:
        raise malformed(f"{draft.type} orders require a limit price")
    if draft.type in ("stop", "stop_limit") and draft.stop_price is None:
        raise malformed(f"{draft.type} orders require a stop price")
    if draft.type == "market" and (draft.limit_price or draft.stop_price):
        raise malformed("market orders require no limit or stop price")
    if draft.type == "limit" and draft.stop_price:
        raise malformed("limit orders require no stop price")
    if draft.type == "stop" and draft.limit_price:
        raise malformed("stop orders require no limit price")


def _check_trail(draft: OrderDraft, trails: list[Decimal]) -> None:
    if len(trails) != 1:
        raise malformed("trailing_stop orders require exactly one of trail_price and trail_percent")
    if draft.trail_percent is not None and draft.trail_percent >= 100:
        raise malformed("trail_percent must be < 100")
    if draft.limit_price or draft.stop_price:
        raise malformed("trailing_stop orders require no limit or stop price")
    if draft.order_class:
        raise rule("trailing_stop orders must be simple orders")


def _check_time_in_force(draft: OrderDraft) -> None:
    if draft.time_in_force in ("day", "gtc"):
        return
    if draft.type in ("stop", "stop_limit", "trailing_stop"):
        raise rule(f"{draft.type} orders must be DAY or GTC orders")
    if draft.order_class:
        raise rule(f"{draft.order_class} orders must be DAY or GTC orders")


def _check_class(draft: OrderDraft) -> None:
    target, stop = draft.target_price, draft.stop_loss_price
    if draft.order_class == "":
        if target is not None or stop is not None:
            raise malformed("take_profit and stop_loss require order_class bracket, oco or oto")
        return
    if draft.order_class in ("bracket", "oco"):
        if target is None:
            raise malformed(f"{draft.order_class} orders require take_profit.limit_price")
        if stop is None:
            raise malformed(f"{draft.order_class} orders require stop_loss.stop_price")
    elif (target is None) == (stop is None):
        raise malformed("oto orders require exactly one of take_profit and stop_loss")
    if draft.order_class == "oco" and draft.type != "limit":
        raise malformed("oco orders must be limit orders")
    if draft.order_class == "oco" and draft.limit_price not in (None, target):
        raise malformed("oco limit_price must be absent or equal to take_profit.limit_price")
    if draft.order_class in ("bracket", "oto") and draft.type not in ("market", "limit"):
        raise malformed(f"{draft.order_class} orders must be market or limit orders")
    if draft.order_class != "oco":  # of an OCO, whether it may be one at all is asked first
        check_exit_order(draft)


def check_exit_order(draft: OrderDraft) -> None:
    """Exits of a long position: the target above the stop; of a short one, below it. Raises ApiError 422."""
    target, stop = draft.target_price, draft.stop_loss_price
    long = draft.buy != (draft.order_class == "oco")
    if target is not None and stop is not None and (target <= stop if long else target >= stop):
        raise rule(f"take_profit.limit_price must be {'>' if long else '<'} stop_loss.stop_price")
    limit = draft.stop_loss_limit
    if limit is not None and stop is not None and (limit > stop if long else limit < stop):
        raise rule(f"stop_loss.limit_price must be {'<=' if long else '>='} stop_loss.stop_price")


def _check_fraction(draft: OrderDraft) -> None:
    if not draft.is_fractional:
        return
    if draft.order_class:
        raise rule("fractional orders must be simple orders")
    if draft.time_in_force != "day":
        raise rule("fractional orders must be DAY orders")
    if draft.type == "trailing_stop":
        raise rule("fractional orders must be market, limit, stop or stop_limit orders")
