"""Controls before an order. Entries are judged; exits never are.

Each control answers with its limit, the value found and a sentence, allowed or not, and every answer is a row in
the ledger. Orders not proven terminal count at full size, UNKNOWN ones too. Some denials say that more is wrong than
this one order: they trip the trading state, which only a named person sets back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from desk.ledger.records import TradingState
from desk.market import Asset, Quote, Session
from desk.orders import OrderRequest
from desk.strategy import Controls, Strategy

__all__ = ["CONTROLS", "Activity", "Exposure", "Verdict", "judge_entry", "judge_losses", "slipped_pct"]

# Every control there is, in the order they are judged. The last two answer on equity alone, between orders too.
CONTROLS = (
    "trading state",
    "session window",
    "data",
    "policy",
    "instrument",
    "instrument price",
    "reference price",
    "price collar",
    "order value",
    "order quantity",
    "twin",
    "self-trade",
    "foreign activity",
    "positions",
    "symbol exposure",
    "gross exposure",
    "buying power",
    "turnover",
    "message rate",
    "message rate of the symbol",
    "entries of the symbol",
    "orders of the day",
    "rejects",
    "loss of the day",
    "drawdown",
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One control's answer on one order. A denial may trip the trading state, or be worth an alert by itself."""

    control: str
    allowed: bool
    limit: str
    value: str
    reason: str
    trips: TradingState | None = None  # what trading becomes if this is a denial
    alerts: bool = False


@dataclass(frozen=True, slots=True)
class Exposure:
    """What is held and under way, in USD, live and unproven orders at full size."""

    equity: Decimal
    buying_power: Decimal  # the broker's figure less our reservations
    gross: Decimal
    symbols: Collection[str]  # held or being bought
    trading_state: str  # ACTIVE, REDUCING or HALTED
    selling: Collection[str] = frozenset()  # symbols with a live sell order
    held: Mapping[str, Decimal] | None = None  # USD of each symbol at the broker, whoever bought it


@dataclass(frozen=True, slots=True)
class Activity:
    """What was done until now, as the ledger tells it, and what the account is measured against."""

    messages_minute: int  # orders sent in the last 60 s
    messages_minute_symbol: int
    entries_symbol_day: int
    orders_day: int
    rejects: int  # within the window of the strategy
    turnover_day: Decimal  # USD bought and sold, and being bought
    fallback_sessions: int  # in a row up to now, although there was a champion
    checked_at: datetime | None  # when the gate passed on the very decisions; None: it never did
    foreign_orders: int  # in the symbol, sent elsewhere, not acknowledged
    opening_equity: Decimal  # of this day
    high_water_equity: Decimal  # the highest a day opened with


def judge_entry(
    request: OrderRequest,
    *,
    strategy: Strategy,
    exposure: Exposure,
    activity: Activity,
    quote: Quote | None,
    asset: Asset | None,
    volume_20d: int,
    session: Session,
    now: datetime,
    not_after: datetime,
) -> list[Verdict]:
    """Every control's verdict on an entry, in a fixed order. It may be sent only when all allow it.

    `volume_20d`: mean shares a session. `not_after`: the decision's cutoff.
    """
    return [
        *_on_the_moment(strategy.controls, exposure, activity, session, now, not_after),
        *_on_the_instrument(request, strategy, quote, asset, now),
        *_on_the_order(request, strategy.controls, exposure, volume_20d),
        *_on_the_portfolio(request, strategy, exposure, activity),
        *_on_conduct(request, strategy.controls, exposure, activity),
        *judge_losses(
            exposure.equity,
            opening=activity.opening_equity,
            high_water=activity.high_water_equity,
            limits=strategy.controls,
        ),
    ]


def judge_losses(
    equity: Decimal, *, opening: Decimal, high_water: Decimal, limits: Controls
) -> tuple[Verdict, Verdict]:
    """What the day and the time since the high-water mark cost, all in USD."""
    lost, down = _below_pct(equity, opening), _below_pct(equity, high_water)
    halts = lost >= limits.loss_day_halted_pct
    return (
        _verdict(
            "loss of the day",
            lost < limits.loss_day_reducing_pct,
            f"< {limits.loss_day_halted_pct if halts else limits.loss_day_reducing_pct} % of {_usd(opening)}",
            f"{lost:.2f} %",
            trips=TradingState.HALTED if halts else TradingState.REDUCING,
        ),
        _verdict(
            "drawdown",
            down < limits.drawdown_halted_pct,
            f"< {limits.drawdown_halted_pct} % from {_usd(high_water)}",
            f"{down:.2f} %",
            trips=TradingState.HALTED,
        ),
    )


def slipped_pct(*, is_buy: bool, price: Decimal, reference: Decimal) -> Decimal:
    """How much worse than the reference an execution was, in percent; 0 when it was not."""
    worse = price - reference if is_buy else reference - price
    return max(Decimal(0), worse / reference * 100)


def _on_the_moment(
    limits: Controls, exposure: Exposure, activity: Activity, session: Session, now: datetime, not_after: datetime
) -> Iterator[Verdict]:
    first = session.opens + timedelta(minutes=limits.entries_not_in_first_minutes)
    last = min(session.closes - timedelta(minutes=limits.entries_not_in_last_minutes), not_after)
    yield _verdict("trading state", exposure.trading_state == "ACTIVE", "ACTIVE", exposure.trading_state)
    yield _verdict(
        "session window", first <= now <= last, f"{first:%H:%M:%S} to {last:%H:%M:%S} UTC", f"{now:%H:%M:%S} UTC"
    )
    age = None if activity.checked_at is None else now - activity.checked_at
    yield _verdict(
        "data",
        age is not None and age <= timedelta(minutes=limits.data_age_max_minutes),
        f"gate passed on these very decisions at most {limits.data_age_max_minutes} min ago",
        "not passed" if age is None else f"{age.total_seconds() / 60:.1f} min ago",
    )
    yield _verdict(
        "policy",
        activity.fallback_sessions <= limits.fallback_sessions_max,
        f"<= {limits.fallback_sessions_max} fallback sessions in a row",
        str(activity.fallback_sessions),
        trips=TradingState.REDUCING,
    )


def _on_the_instrument(
    request: OrderRequest, strategy: Strategy, quote: Quote | None, asset: Asset | None, now: datetime
) -> Iterator[Verdict]:
    """A halted instrument has no fresh quote: the reference price is what finds it out."""
    limits, price = strategy.controls, _price(request)
    unusable = "no quote" if quote is None else quote.unusable(now, age_s_max=limits.quote_age_max_s)
    tradable = asset is not None and asset.tradable and asset.active
    yield _verdict("instrument", tradable, "active and tradable", _standing(asset))
    floor = strategy.universe.price_min_usd
    yield _verdict("instrument price", price >= floor, f">= {floor} USD", f"{price} USD")
    fresh = f"quote at most {limits.quote_age_max_s:g} s old"
    yield _verdict("reference price", unusable is None, fresh, unusable or "fresh")
    if quote is not None and unusable is None:
        away = abs(price - quote.mid) / quote.mid * 100
        collar = f"<= {limits.price_collar_pct} % from the mid"
        yield _verdict("price collar", away <= limits.price_collar_pct, collar, f"{away:.2f} %")


def _on_the_order(request: OrderRequest, limits: Controls, exposure: Exposure, volume_20d: int) -> Iterator[Verdict]:
    value = _price(request) * request.quantity
    value_max = min(limits.order_value_max_fraction * exposure.equity, limits.order_value_max_usd)
    quantity_max = limits.order_quantity_max_volume_fraction * volume_20d
    yield _verdict("order value", value <= value_max, f"<= {_usd(value_max)}", _usd(value))
    yield _verdict(
        "order quantity",
        request.quantity <= quantity_max,
        f"<= {quantity_max:.0f} shares",
        f"{request.quantity} shares",
    )


def _on_the_portfolio(
    request: OrderRequest, strategy: Strategy, exposure: Exposure, activity: Activity
) -> Iterator[Verdict]:
    limits, value = strategy.controls, _price(request) * request.quantity
    has_twin, is_sold = request.symbol in exposure.symbols, request.symbol in exposure.selling
    of_symbol = (exposure.held or {}).get(request.symbol, Decimal(0)) + value
    symbol_max = limits.symbol_exposure_max_fraction * exposure.equity
    gross_max = limits.gross_exposure_max_fraction * exposure.equity
    yield _verdict(
        "twin", not has_twin, "no entry or position in the symbol", "one exists" if has_twin else "none", alerts=True
    )
    yield _verdict("self-trade", not is_sold, "no live sell order in the symbol", "one exists" if is_sold else "none")
    foreign = activity.foreign_orders
    yield _verdict("foreign activity", not foreign, "no order of others in the symbol unacknowledged", str(foreign))
    yield _verdict(
        "positions",
        len(exposure.symbols) < strategy.positions_max,
        f"<= {strategy.positions_max}",
        str(len(exposure.symbols) + 1),
    )
    yield _verdict("symbol exposure", of_symbol <= symbol_max, f"<= {_usd(symbol_max)}", _usd(of_symbol))
    gross = exposure.gross + value
    yield _verdict("gross exposure", gross <= gross_max, f"<= {_usd(gross_max)}", _usd(gross))
    yield _verdict("buying power", value <= exposure.buying_power, f"<= {_usd(exposure.buying_power)}", _usd(value))


def _on_conduct(request: OrderRequest, limits: Controls, exposure: Exposure, activity: Activity) -> Iterator[Verdict]:
    """Signs that something runs away: how much, how fast and how often, this order counted in."""
    turnover = activity.turnover_day + _price(request) * request.quantity
    turnover_max = limits.turnover_day_max_fraction * exposure.equity
    yield _verdict(
        "turnover",
        turnover <= turnover_max,
        f"<= {_usd(turnover_max)} a day",
        _usd(turnover),
        trips=TradingState.REDUCING,
    )
    counted = (
        ("message rate", activity.messages_minute + 1, limits.messages_minute_max, "a minute", TradingState.HALTED),
        (
            "message rate of the symbol",
            activity.messages_minute_symbol + 1,
            limits.messages_minute_symbol_max,
            "a minute",
            TradingState.HALTED,
        ),
        ("entries of the symbol", activity.entries_symbol_day + 1, limits.entries_symbol_day_max, "a day", None),
        ("orders of the day", activity.orders_day + 1, limits.orders_day_max, "a day", None),
    )
    for control, count, most, period, trips in counted:
        yield _verdict(control, count <= most, f"<= {most} {period}", str(count), trips=trips)
    window = f"< {limits.rejects_max} in {limits.rejects_window_minutes} min"
    yield _verdict(
        "rejects", activity.rejects < limits.rejects_max, window, str(activity.rejects), trips=TradingState.REDUCING
    )


def _verdict(
    control: str, allowed: bool, limit: str, value: str, *, trips: TradingState | None = None, alerts: bool = False
) -> Verdict:
    reason = f"{control}: {value}, {limit} {'met' if allowed else 'needed'}"
    return Verdict(control, allowed, limit, value, reason, trips, alerts)


def _standing(asset: Asset | None) -> str:
    if asset is None:
        return "not listed by the broker"
    if asset.tradable and asset.active:
        return "active and tradable"
    return f"active {asset.active}, tradable {asset.tradable}"


def _price(request: OrderRequest) -> Decimal:
    return request.limit_price or Decimal(0)


def _below_pct(equity: Decimal, anchor: Decimal) -> Decimal:
    return (anchor - equity) / anchor * 100 if anchor > 0 else Decimal(100)


def _usd(amount: Decimal) -> str:
    return f"{amount:.2f} USD"
