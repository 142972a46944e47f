"""Splits, dividends and delistings, as they reach the account before the open of the ex-date."""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal

from desk.exchange.account import AVERAGE_PLACES
from desk.exchange.amounts import CENT, money, plain, to_step
from desk.exchange.assets import AssetBook
from desk.exchange.floor import Floor
from desk.exchange.journal import Journal
from desk.exchange.market import CorporateAction
from desk.exchange.options import ExchangeOptions
from desk.exchange.quotes import Quotes
from desk.exchange.simorder import SimOrder

__all__ = ["Registrar"]

_ORDER = {"split": 0, "dividend": 1, "delisting": 2}  # a dividend is per share after the split of the same day


class Registrar:
    """Applies corporate actions to holdings and open orders."""

    def __init__(
        self, floor: Floor, quotes: Quotes, assets: AssetBook, journal: Journal, options: ExchangeOptions
    ) -> None:
        self._floor = floor
        self._quotes = quotes
        self._assets = assets
        self._journal = journal
        self._options = options

    def apply(self, actions: list[CorporateAction]) -> None:
        for action in sorted(actions, key=lambda action: (action.symbol, _ORDER[action.kind])):
            if action.kind == "split":
                self._split(action)
            elif action.kind == "dividend":
                self._dividend(action)
            else:
                self._delist(action)

    def _split(self, action: CorporateAction) -> None:
        """Whole shares stay; a fraction is paid in cash at the last price. Written as Alpaca does, shares out and
        shares in; both rows also state the ratio, because the fraction hides it."""
        symbol, ratio = action.symbol, action.value
        for order in self._floor.open_orders(symbol):
            if order.is_open:
                self._split_order(order, ratio)
        holding = self._floor.account.holdings.get(symbol)
        if holding is None:
            return
        before, whole = holding.qty, _whole(holding.qty * ratio)
        fraction = holding.qty * ratio - whole
        cash = self._in_lieu(symbol, fraction, ratio) if fraction else Decimal(0)
        self._floor.account.cash += cash
        holding.qty, holding.avg_price = whole, round(holding.avg_price / ratio, AVERAGE_PLACES)
        if whole == 0:
            del self._floor.account.holdings[symbol]
            self._floor.account.shorts.discard(symbol)
        self._row("SPLIT", action, -before, Decimal(0), split_ratio=plain(ratio))
        self._row("SPLIT", action, whole, cash, split_ratio=plain(ratio))
        self._floor.changes += 1

    def _split_order(self, order: SimOrder, ratio: Decimal) -> None:
        if self._options.split_open_orders == "cancel":
            self._floor.ask_cancel(order)
            return
        order.reserve_price = round(order.reserve_price / ratio, AVERAGE_PLACES)
        if order.type == "trailing_stop" and order.hwm is not None:
            order.hwm = to_step(order.hwm / ratio)
            order.trail_price = None if order.trail_price is None else to_step(order.trail_price / ratio)
        self._floor.resize(
            order,
            order.filled_qty + _whole(order.remaining * ratio),
            None if order.limit_price is None else to_step(order.limit_price / ratio),
            None if order.stop_price is None else to_step(order.stop_price / ratio),
        )

    def _in_lieu(self, symbol: str, fraction: Decimal, ratio: Decimal) -> Decimal:
        last = self._quotes.last_at(symbol, self._floor.now.timestamp() - 1)
        return _cents(fraction * money(last) / ratio) if last is not None else Decimal(0)

    def _dividend(self, action: CorporateAction) -> None:
        holding = self._floor.account.holdings.get(action.symbol)
        if holding is None:
            return
        paid = _cents(holding.qty * action.value)
        self._floor.account.cash += paid
        self._row("DIV", action, holding.qty, paid, per_share_amount=plain(action.value))
        self._floor.changes += 1

    def _delist(self, action: CorporateAction) -> None:
        """Orders end, and the broker sells the shares (or buys back short ones) at the last price by an order of its
        own: a fill nobody here asked for, as a forced liquidation is."""
        self._floor.cancel_symbol(action.symbol)
        asset = self._assets.find(action.symbol, action.day)
        if asset is not None and self._floor.account.shares(action.symbol) != 0:
            self._floor.force_close(action.symbol, asset, action.value)

    def _row(self, kind: str, action: CorporateAction, qty: Decimal, net: Decimal, **more: str) -> None:
        at = self._floor.now
        self._floor.account.record(
            kind,
            at,
            self._journal.new_id(),
            date=action.day.isoformat(),
            net_amount=plain(net),
            description=f"{action.kind} of {action.symbol}, {plain(action.value)}",
            status="executed",
            symbol=action.symbol,
            qty=plain(qty),
            **more,
        )
        self._journal.note(at, f"account.{action.kind}", symbol=action.symbol, qty=plain(qty), cash=plain(net))


def _whole(qty: Decimal) -> Decimal:
    return qty.to_integral_value(ROUND_DOWN)


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(CENT, ROUND_HALF_UP)
