"""Whether the account and the market allow an order now: the broker's refusals, in the order they are given.

A twin of a known client order id is refused before anything that depends on the account, so that sending an
accepted order again always says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from desk.exchange.amounts import CENT, money, plain, stop_cap
from desk.exchange.assets import SimAsset
from desk.exchange.drafts import MALFORMED, OrderDraft, rule
from desk.exchange.market import Tick
from desk.exchange.options import ExchangeOptions
from desk.exchange.routing import ApiError
from desk.exchange.simorder import SimOrder

__all__ = ["FORBIDDEN", "Situation", "admit", "refuse_twin", "tradable"]

FORBIDDEN = 40310000


@dataclass(frozen=True, slots=True)
class Situation:
    """What an order of one symbol meets: the account and the market at this moment."""

    shares: Decimal  # of the symbol
    buying_power: Decimal  # USD, open buys already taken off
    open_orders: tuple[SimOrder, ...]  # of the symbol, waiting legs included
    tick: Tick | None

    @property
    def held(self) -> Decimal:
        return sum((order.held_shares for order in self.open_orders), Decimal(0))

    @property
    def available(self) -> Decimal:
        return self.shares - self.held


def refuse_twin(draft: OrderDraft, known: Iterable[str]) -> None:
    """`known` holds every client order id ever accepted."""
    if draft.client_order_id is not None and draft.client_order_id in known:
        raise ApiError(422, MALFORMED, "client_order_id must be unique")


def tradable(symbol: str, asset: SimAsset | None, *, whole: bool) -> SimAsset:
    """The asset, when it may be traded."""
    if asset is None:
        raise rule(f'asset "{symbol}" not found')
    if asset.status != "active":
        raise rule(f'asset "{symbol}" is not active')
    if not asset.tradable:
        raise rule(f'asset "{symbol}" is not tradable')
    if not whole and not asset.fractionable:
        raise ApiError(403, FORBIDDEN, f'asset "{symbol}" is not fractionable')
    return asset


def admit(draft: OrderDraft, now: Situation, options: ExchangeOptions) -> Decimal:
    """USD a share that the order reserves (0 for sells). Raises ApiError with the refusal."""
    _check_context(draft, now)
    _check_exit_prices(draft, now, options)
    reserve = Decimal(0)
    if draft.buy:
        reserve = _worst_price(draft, now)
        _check_buying_power(draft, now, reserve)
    else:
        _check_shares(draft, now)
    _check_wash(draft, now)
    return reserve


def _check_context(draft: OrderDraft, now: Situation) -> None:
    if draft.order_class in ("bracket", "oto") and not draft.buy and now.shares > 0:
        raise rule(f"{draft.order_class} orders must be entry orders")
    if draft.order_class == "oco" and (draft.buy or now.shares <= 0):
        raise rule("oco orders must be exit orders")


def _check_exit_prices(draft: OrderDraft, now: Situation, options: ExchangeOptions) -> None:
    last = None if now.tick is None else money(now.tick.last)
    bases = [draft.limit_price if draft.order_class != "oco" else draft.target_price]
    if draft.order_class == "oco" or draft.limit_price is None or options.bracket_base_includes_market:
        bases.append(last)
    known = [base for base in bases if base is not None]
    if not known or not draft.order_class:
        return
    stop, target = draft.stop_loss_price, draft.target_price
    if stop is not None and stop > min(known) - CENT:
        raise rule("stop_loss.stop_price must be <= base_price - 0.01", base_price=plain(min(known)))
    if draft.order_class != "oco" and target is not None and target < max(known) + CENT:
        raise rule("take_profit.limit_price must be >= base_price + 0.01", base_price=plain(max(known)))


def _worst_price(draft: OrderDraft, now: Situation) -> Decimal:
    """A limit buy reserves its limit, a stop what it may pay at most, a market buy the ask."""
    if draft.limit_price is not None:
        return draft.limit_price
    if draft.stop_price is not None:
        return stop_cap(draft.stop_price)
    if now.tick is None:
        raise rule(f'no market price for "{draft.symbol}"')
    return money(now.tick.ask if now.tick.ask > 0 else now.tick.last)


def _check_buying_power(draft: OrderDraft, now: Situation, price: Decimal) -> None:
    cost = draft.qty * price
    if cost > now.buying_power:
        raise ApiError(
            403,
            FORBIDDEN,
            "insufficient buying power",
            buying_power=plain(now.buying_power),
            cost_basis=plain(cost),
        )


def _check_shares(draft: OrderDraft, now: Situation) -> None:
    if draft.qty <= now.available:
        return
    if now.shares == 0 and any(order.buy for order in now.open_orders):
        raise ApiError(403, FORBIDDEN, "cannot open a short sell while a long buy order is open")
    raise ApiError(
        403,
        FORBIDDEN,
        f"insufficient qty available for order (requested: {plain(draft.qty)}, available: {plain(now.available)})",
        available=plain(now.available),
        existing_qty=plain(now.shares),
        held_for_orders=plain(now.held),
        related_orders=[order.id for order in now.open_orders if order.held_shares],
        symbol=draft.symbol,
    )


def _check_wash(draft: OrderDraft, now: Situation) -> None:
    """A simple order must not be able to trade with our own order on the other side. A bracket's working exit
    counts as such an order; a new bracket, OCO or OTO is exempt."""
    if draft.order_class:
        return
    for other in now.open_orders:
        if other.buy == draft.buy or other.waiting:
            continue
        if draft.type == "limit" and other.type == "limit":
            assert draft.limit_price is not None and other.limit_price is not None  # both are limit orders
            bid, offer = (draft.limit_price, other.limit_price) if draft.buy else (other.limit_price, draft.limit_price)
            if bid < offer:
                continue
            reason = "opposite side limit order exists"
        else:
            reason = "opposite side market/stop order exists"
        raise ApiError(
            403,
            FORBIDDEN,
            "potential wash trade detected. use complex orders",
            existing_order_id=other.id,
            reject_reason=reason,
        )
