"""The fallback rule: what decides when no policy can. One pure function, no state, no randomness.

    buy what is not held when buy_probability > min and sell_probability < max
    sell what is held, all of it, when sell_probability > min and buy_probability < max
    otherwise hold, and say why

min and max are the strategy's buy_probability_min and sell_probability_max.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal
from typing import Protocol

from desk.decision import Action, Decision
from desk.market import Quote
from desk.portfolio import Position
from desk.strategy import Strategy

__all__ = ["Prices", "Scored", "decide", "entry_prices", "rounded_to_tick"]

_ZERO = Decimal(0)
_PENNY = Decimal("0.01")


class Scored(Protocol):
    """A candidate: a row of the watchlist."""

    @property
    def symbol(self) -> str: ...

    @property
    def buy_probability(self) -> float: ...

    @property
    def sell_probability(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices of an entry, USD per share, on the tick grid but for the reference."""

    reference: Decimal  # mid of the quote
    limit: Decimal
    stop: Decimal
    target: Decimal


def decide(
    candidates: Iterable[Scored],
    holdings: Iterable[Position],
    *,
    equity: Decimal,
    buying_power: Decimal,
    quotes: Mapping[str, Quote],
    now: datetime,
    strategy: Strategy,
    open_trades: Collection[str] = (),
    pending: Collection[str] = (),
) -> list[Decision]:
    """One decision for each candidate and each holding: sells, then buys in the order served, then holds.

    equity and buying_power in USD. open_trades: symbols of the strategy's open trades; pending: symbols with a
    live entry or exit order (the stop and target that protect a position are no such order). Neither is bought,
    and both take up a position, as every holding does; what has a live order is not sold either.

    Buys are served by buy_probability, ties by symbol, until positions or buying power run out; what the sells
    will free is not spent before it is there. A quote that is missing, zero, crossed or older than
    controls.quote_age_max_s decides nothing. The order of the inputs does not matter.
    """
    by_symbol = {candidate.symbol: candidate for candidate in candidates}
    held = {position.symbol: position for position in holdings if position.quantity != 0}
    desk = _Desk(strategy, quotes, now, equity, buying_power, {*held, *open_trades, *pending}, frozenset(pending))
    exits = [desk.on_held(position, by_symbol.get(symbol)) for symbol, position in sorted(held.items())]
    entries = sorted(
        (candidate for symbol, candidate in by_symbol.items() if symbol not in held),
        key=lambda candidate: (-candidate.buy_probability, candidate.symbol),
    )
    served = [desk.on_candidate(candidate) for candidate in entries]
    holds = sorted((d for d in (*exits, *served) if d.action is Action.HOLD), key=lambda d: d.symbol)
    return [*(d for d in exits if d.action is Action.SELL), *(d for d in served if d.action is Action.BUY), *holds]


def entry_prices(quote: Quote, strategy: Strategy) -> Prices | str:
    """Limit above the ask, stop and target around the mid; or why a bracket cannot be made of this quote.

    The limit is rounded down, the stop down and the target up. The broker wants both at least a cent away from
    the limit; ours are more than that, or there is no entry.
    """
    reference = quote.mid
    limit = rounded_to_tick(quote.ask * (1 + strategy.entry_limit_pct / 100), ROUND_DOWN)
    stop = rounded_to_tick(reference * (1 - strategy.stop_loss_pct / 100), ROUND_FLOOR)
    target = rounded_to_tick(reference * (1 + strategy.take_profit_pct / 100), ROUND_CEILING)
    if stop <= 0 or not (stop < limit - _PENNY and stop < reference):
        return f"stop {stop} is not below the limit {limit} by more than {_PENNY}"
    if not (target > limit + _PENNY and target > reference):
        return f"target {target} is not above the limit {limit} by more than {_PENNY}: the spread is too wide"
    return Prices(reference, limit, stop, target)


def rounded_to_tick(price: Decimal, rounding: str) -> Decimal:
    """To the cent from 1 USD up, to a hundredth of a cent below."""
    return price.quantize(_PENNY if price >= 1 else Decimal("0.0001"), rounding=rounding)


class _Desk:
    """What is left to give while decisions are made: buying power and positions."""

    def __init__(
        self,
        strategy: Strategy,
        quotes: Mapping[str, Quote],
        now: datetime,
        equity: Decimal,
        buying_power: Decimal,
        taken: set[str],
        pending: frozenset[str],
    ) -> None:
        self._strategy = strategy
        self._quotes = quotes
        self._now = now
        self._equity = equity
        self._remaining = max(_ZERO, buying_power)
        self._taken = taken  # symbols that take up a position
        self._pending = pending

    def on_held(self, position: Position, scores: Scored | None) -> Decision:
        symbol = position.symbol
        if scores is None:
            return _hold(symbol, "held, no score today", None)
        buys, sells = self._rules(scores)
        if not sells:
            return _hold(symbol, "held, " + ("already bought" if buys else self._unmoved(scores)), scores)
        if buys:
            return _hold(symbol, "the buy and the sell rule contradict each other", scores)
        if symbol in self._pending:
            return _hold(symbol, "sell rule met, an order is live", scores)
        quantity = position.quantity.to_integral_value(rounding=ROUND_FLOOR)
        if quantity < 1:
            return _hold(symbol, f"sell rule met, no whole share is held: {position.quantity}", scores)
        quote = self._usable(symbol)
        if isinstance(quote, str):
            return _hold(symbol, quote, scores)
        return Decision(
            symbol=symbol,
            action=Action.SELL,
            reason=self._met("sell", scores.sell_probability, "buy", scores.buy_probability),
            quantity=quantity,
            reference_price=quote.mid,
            buy_probability=scores.buy_probability,
            sell_probability=scores.sell_probability,
        )

    def on_candidate(self, scores: Scored) -> Decision:
        symbol = scores.symbol
        buys, sells = self._rules(scores)
        if not buys:
            return _hold(symbol, "not held" if sells else self._unmoved(scores), scores)
        if sells:
            return _hold(symbol, "the buy and the sell rule contradict each other", scores)
        if symbol in self._taken:
            why = "an order is live" if symbol in self._pending else "a trade is open"
            return _hold(symbol, f"buy rule met, {why}", scores)
        if len(self._taken) >= self._strategy.positions_max:
            return _hold(symbol, f"buy rule met, all {self._strategy.positions_max} positions are taken", scores)
        quote = self._usable(symbol)
        if isinstance(quote, str):
            return _hold(symbol, quote, scores)
        prices = entry_prices(quote, self._strategy)
        if isinstance(prices, str):
            return _hold(symbol, f"buy rule met, {prices}", scores)
        return self._sized(scores, prices)

    def _sized(self, scores: Scored, prices: Prices) -> Decision:
        controls = self._strategy.controls
        budget, bound = min(
            (self._strategy.position_fraction * self._equity, "position_fraction"),
            (controls.order_value_max_usd, "order_value_max_usd"),
            (controls.order_value_max_fraction * self._equity, "order_value_max_fraction"),
            (self._remaining, "buying power"),
        )
        quantity = (budget / prices.limit).to_integral_value(rounding=ROUND_FLOOR)
        if quantity < 1:
            short = f"buy rule met, one share at {prices.limit} is above {budget:.2f} USD, the bound of {bound}"
            return _hold(scores.symbol, short, scores)
        self._remaining -= quantity * prices.limit
        self._taken.add(scores.symbol)
        return Decision(
            symbol=scores.symbol,
            action=Action.BUY,
            reason=self._met("buy", scores.buy_probability, "sell", scores.sell_probability),
            quantity=quantity,
            reference_price=prices.reference,
            limit_price=prices.limit,
            stop_price=prices.stop,
            target_price=prices.target,
            buy_probability=scores.buy_probability,
            sell_probability=scores.sell_probability,
        )

    def _rules(self, scores: Scored) -> tuple[bool, bool]:
        high, low = self._strategy.buy_probability_min, self._strategy.sell_probability_max
        buy, sell = scores.buy_probability, scores.sell_probability
        return buy > high and sell < low, sell > high and buy < low

    def _usable(self, symbol: str) -> Quote | str:
        quote = self._quotes.get(symbol)
        if quote is None:
            return "no quote"
        return quote.unusable(self._now, age_s_max=self._strategy.controls.quote_age_max_s) or quote

    def _met(self, side: str, high: float, other: str, low: float) -> str:
        strategy = self._strategy
        return (
            f"{side}_probability {high:.2f} > {strategy.buy_probability_min:g}, "
            f"{other}_probability {low:.2f} < {strategy.sell_probability_max:g}"
        )

    def _unmoved(self, scores: Scored) -> str:
        return (
            f"neither rule met: buy_probability {scores.buy_probability:.2f}, "
            f"sell_probability {scores.sell_probability:.2f}"
        )


def _hold(symbol: str, reason: str, scores: Scored | None) -> Decision:
    return Decision(
        symbol=symbol,
        action=Action.HOLD,
        reason=reason,
        quantity=_ZERO,
        buy_probability=None if scores is None else scores.buy_probability,
        sell_probability=None if scores is None else scores.sell_probability,
    )
