"""Whether the account and the market allow an order now: the broker's refusals, in the order they are given.

A twin of a known client order id is refused before anything that depends on the account, so that sending an
accepted order again always says so.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal

from desk.exchange.amounts import CENT, money, plain, stop_cap
from desk.exchange.assets import SimAsset
from desk.exchange.configuration import Configuration
from desk.exchange.drafts import MALFORMED, RULE, OrderDraft, check_exit_order, rule
from desk.exchange.market import Tick
from desk.exchange.options import ExchangeOptions
from desk.exchange.routing import ApiError
from desk.exchange.simorder import SimOrder

__all__ = [
    "FORBIDDEN", "Situation", "admit", "check_buying_power", "check_shares", "check_wash", "forbidden",
    "priced", "refuse_blocked", "refuse_twin", "reserve_price", "tradable",
]  # fmt: skip

FORBIDDEN = 40310000
_SHARE_STEP = Decimal("0.000000001")
_SHORT_MARGIN = Decimal("1.03")  # a market short is valued at the ask and a little


@dataclass(frozen=True, slots=True)
class Situation:
    """What an order of one symbol meets: the account and the market at this moment."""

    shares: Decimal  # of the symbol, below 0 short
    held: Decimal  # shares that open orders keep
    buying_power: Decimal  # USD, what open orders reserve already taken off
    buys: Iterable[SimOrder]  # open orders of the symbol, waiting legs included
    sells: Iterable[SimOrder]
    tick: Tick | None

    def against(self, *, buy: bool) -> Iterable[SimOrder]:
        """Open orders on the other side."""
        return self.sells if buy else self.buys

    def free(self, *, buy: bool) -> Decimal:
        """Shares that an order of that side could close."""
        return max(-self.shares if buy else self.shares, Decimal(0)) - self.held

    def opens(self, draft: OrderDraft, *, shorting: bool) -> bool:
        """Whether the order opens or adds to a position rather than closing one."""
        if draft.order_class == "oco":
            return False
        return self.shares >= 0 if draft.buy else shorting and self.shares <= 0


def forbidden(message: str, **extra: object) -> ApiError:
    return ApiError(403, FORBIDDEN, message, **extra)


def refuse_twin(draft_id: str | None, known: Container[str]) -> None:
    """`known` holds every client order id ever accepted."""
    if draft_id is not None and draft_id in known:
        raise ApiError(422, MALFORMED, "client_order_id must be unique")


def refuse_blocked(blocked: Iterable[str], configuration: Configuration) -> None:
    """Orders of an account that may not trade."""
    for name in ("account_blocked", "trading_blocked"):
        if name in blocked:
            raise forbidden(f"account is not allowed to trade: {name}")
    if configuration.suspend_trade:
        raise forbidden("new orders are rejected by user request")


def tradable(draft: OrderDraft, asset: SimAsset | None, options: ExchangeOptions, *, fractions: bool) -> SimAsset:
    """The asset, when it may be traded. `fractions`: the account's own setting."""
    symbol = draft.symbol
    if asset is None:
        raise rule(f'asset "{symbol}" not found')
    if asset.status != "active":
        raise rule(f'asset "{symbol}" is not active')
    if not asset.tradable:
        raise rule(f'asset "{symbol}" is not tradable')
    if draft.is_fractional and not asset.fractionable:
        status = options.not_fractionable_status
        raise ApiError(status, FORBIDDEN if status == 403 else RULE, f'asset "{symbol}" is not fractionable')
    if draft.is_fractional and not fractions:
        raise forbidden("fractional trading is not enabled for this account")
    return asset


def priced(draft: OrderDraft, now: Situation, options: ExchangeOptions) -> Decimal:
    """Shares that a notional order comes to now. Raises ApiError for an amount too small or a market without
    price."""
    assert draft.notional is not None
    if draft.notional < 1:
        if options.small_notional == "cost_basis":
            raise forbidden("cost basis must be >= minimal amount of order 1")
        code = MALFORMED if options.small_notional == "malformed" else RULE
        raise ApiError(422, code, "notional must be >= 1.00")
    price = reserve_price(draft, now) if draft.buy else (draft.limit_price or _market_price(draft, now))
    qty = (draft.notional / price).quantize(_SHARE_STEP, ROUND_FLOOR)
    if qty <= 0:
        raise rule(f"notional {plain(draft.notional)} buys no share at {plain(price)}")
    return qty


def admit(draft: OrderDraft, asset: SimAsset, now: Situation, options: ExchangeOptions, *, opens: bool) -> Decimal:
    """USD a share that the order reserves (0 when it closes). Raises ApiError with the refusal."""
    _check_context(draft, now, opens=opens)
    _check_exit_prices(draft, now, options)
    reserve = Decimal(0)
    if opens:
        if not draft.buy:
            _check_short(draft, asset)
        _check_one_direction(draft, now)
        reserve = reserve_price(draft, now)
        check_buying_power(draft.qty * reserve, now.buying_power)
    else:
        check_shares(draft.symbol, draft.qty, now, buy=draft.buy)
    if not draft.order_class and draft.type != "trailing_stop":
        limit = draft.limit_price if draft.type == "limit" else None
        check_wash(draft.buy, limit, now.against(buy=draft.buy), options)
    return reserve


def _check_context(draft: OrderDraft, now: Situation, *, opens: bool) -> None:
    if draft.order_class in ("bracket", "oto") and not opens and now.shares != 0:
        raise rule(f"{draft.order_class} orders must be entry orders")
    closes = now.shares < 0 if draft.buy else now.shares > 0
    if draft.order_class == "oco" and not closes:
        raise rule("oco orders must be exit orders")
    if draft.order_class == "oco":
        check_exit_order(draft)


def _check_exit_prices(draft: OrderDraft, now: Situation, options: ExchangeOptions) -> None:
    """The stop beyond every base price on the losing side, the target on the other."""
    if not draft.order_class:
        return
    last = None if now.tick is None else money(now.tick.last)
    bases = [draft.limit_price if draft.order_class != "oco" else draft.target_price]
    if draft.order_class == "oco" or draft.limit_price is None or options.bracket_base_includes_market:
        bases.append(last)
    known = [base for base in bases if base is not None]
    if not known:
        return
    stop, target = draft.stop_loss_price, draft.target_price
    if draft.order_class == "oco":
        target = None  # it is a base itself
    long = draft.buy != (draft.order_class == "oco")
    low, high = min(known), max(known)
    if long and stop is not None and stop > low - CENT:
        raise rule("stop_loss.stop_price must be <= base_price - 0.01", base_price=plain(low))
    if long and target is not None and target < high + CENT:
        raise rule("take_profit.limit_price must be >= base_price + 0.01", base_price=plain(high))
    if not long and stop is not None and stop < high + CENT:
        raise rule("stop_loss.stop_price must be >= base_price + 0.01", base_price=plain(high))
    if not long and target is not None and target > low - CENT:
        raise rule("take_profit.limit_price must be <= base_price - 0.01", base_price=plain(low))


def _check_short(draft: OrderDraft, asset: SimAsset) -> None:
    if not asset.shortable:
        raise rule(f'asset "{draft.symbol}" cannot be sold short')
    if draft.is_fractional:
        raise rule("fractional orders cannot be sold short")


def _check_one_direction(draft: OrderDraft, now: Situation) -> None:
    """With no position yet, the account opens long or short, not both."""
    if now.shares == 0 and any(order.opens for order in now.against(buy=draft.buy)):
        raise forbidden(
            "cannot open a long buy while a short sell order is open"
            if draft.buy
            else "cannot open a short sell while a long buy order is open"
        )


def reserve_price(draft: OrderDraft, now: Situation) -> Decimal:
    """A limit reserves its limit, a buy stop what it may pay at most, a market buy the ask, a short sale the larger
    of its limit and the ask with 3 %."""
    if not draft.buy:
        ask = _market_price(draft, now) * _SHORT_MARGIN
        return ask if draft.limit_price is None else max(draft.limit_price, ask)
    if draft.limit_price is not None:
        return draft.limit_price
    if draft.stop_price is not None:
        return stop_cap(draft.stop_price)
    price = _market_price(draft, now)
    if draft.trail_price is not None:
        return price + draft.trail_price
    return price if draft.trail_percent is None else price * (1 + draft.trail_percent / 100)


def _market_price(draft: OrderDraft, now: Situation) -> Decimal:
    """The ask, or the last trade where nobody asks."""
    if now.tick is None:
        raise rule(f'no market price for "{draft.symbol}"')
    return money(now.tick.ask if now.tick.ask > 0 else now.tick.last)


def check_buying_power(cost: Decimal, buying_power: Decimal) -> None:
    if cost > buying_power:
        raise forbidden("insufficient buying power", buying_power=plain(buying_power), cost_basis=plain(cost))


def check_shares(symbol: str, qty: Decimal, now: Situation, *, buy: bool) -> None:
    """A closing order takes what is free: it never crosses zero."""
    free = now.free(buy=buy)
    if qty <= free:
        return
    if now.shares == 0 and any(order.opens for order in now.buys):
        raise forbidden("cannot open a short sell while a long buy order is open")
    raise forbidden(
        f"insufficient qty available for order (requested: {plain(qty)}, available: {plain(free)})",
        available=plain(free),
        existing_qty=plain(abs(now.shares)),
        held_for_orders=plain(now.held),
        related_orders=[order.id for order in (now.buys if buy else now.sells) if order.held_shares],
        symbol=symbol,
    )


def check_wash(buy: bool, limit: Decimal | None, against: Iterable[SimOrder], options: ExchangeOptions) -> None:
    """A simple order must not be able to trade with our own order on the other side. A bracket's working exit
    counts as such an order; a new bracket, OCO, OTO or trailing stop is exempt. `limit`: None for market and stop."""
    for other in against:
        if other.waiting or other.shadow:
            continue
        if limit is not None and other.type == "limit" and other.limit_price is not None:
            bid, offer = (limit, other.limit_price) if buy else (other.limit_price, limit)
            if bid < offer:
                continue
            reason = "opposite side limit order exists"
        else:
            reason = "opposite side market/stop order exists"
        status = options.wash_trade_status
        raise ApiError(
            status,
            FORBIDDEN if status == 403 else RULE,
            "potential wash trade detected. use complex orders",
            existing_order_id=other.id,
            reject_reason=reason,
        )
