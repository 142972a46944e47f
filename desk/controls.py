"""Controls before an order. Entries are judged; exits never are.

Each control answers with its limit, the value found and a sentence, allowed or not, and every answer is a row in
the ledger. Orders not proven terminal count at full size, UNKNOWN ones too.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from desk.market import Asset, Quote, Session
from desk.orders import OrderRequest
from desk.strategy import Strategy

__all__ = ["Exposure", "Verdict", "judge_entry"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One control's answer on one order."""

    control: str
    allowed: bool
    limit: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class Exposure:
    """What is held and under way, in USD, live and unproven orders at full size."""

    equity: Decimal
    buying_power: Decimal  # the broker's figure less our reservations
    gross: Decimal
    symbols: Collection[str]  # held or being bought
    trading_state: str  # ACTIVE, REDUCING or HALTED


def judge_entry(
    request: OrderRequest,
    *,
    strategy: Strategy,
    exposure: Exposure,
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
    limits = strategy.controls
    price = request.limit_price or Decimal(0)
    value = price * request.quantity
    order_value_max = min(limits.order_value_max_fraction * exposure.equity, limits.order_value_max_usd)
    quantity_max = limits.order_quantity_max_volume_fraction * volume_20d
    gross_max = limits.gross_exposure_max_fraction * exposure.equity
    symbol_max = limits.symbol_exposure_max_fraction * exposure.equity
    first = session.opens + timedelta(minutes=limits.entries_not_in_first_minutes)
    last = min(session.closes - timedelta(minutes=limits.entries_not_in_last_minutes), not_after)
    unusable = "no quote" if quote is None else quote.unusable(now, age_s_max=limits.quote_age_max_s)
    tradable = asset is not None and asset.tradable and asset.active
    verdicts = [
        _verdict("trading state", exposure.trading_state == "ACTIVE", "ACTIVE", exposure.trading_state),
        _verdict(
            "session window", first <= now <= last, f"{first:%H:%M:%S} to {last:%H:%M:%S} UTC", f"{now:%H:%M:%S} UTC"
        ),
        _verdict("instrument", tradable, "active and tradable", _standing(asset)),
        _verdict(
            "instrument price",
            price >= strategy.universe.price_min_usd,
            f">= {strategy.universe.price_min_usd} USD",
            f"{price} USD",
        ),
        _verdict("order value", value <= order_value_max, f"<= {_usd(order_value_max)}", _usd(value)),
        _verdict(
            "order quantity",
            request.quantity <= quantity_max,
            f"<= {quantity_max:.0f} shares",
            f"{request.quantity} shares",
        ),
        _verdict(
            "reference price", unusable is None, f"quote at most {limits.quote_age_max_s:g} s old", unusable or "fresh"
        ),
        _verdict(
            "twin",
            request.symbol not in exposure.symbols,
            "no entry or position in the symbol",
            "one exists" if request.symbol in exposure.symbols else "none",
        ),
        _verdict(
            "positions",
            len(exposure.symbols) < strategy.positions_max,
            f"<= {strategy.positions_max}",
            str(len(exposure.symbols) + 1),
        ),
        _verdict("symbol exposure", value <= symbol_max, f"<= {_usd(symbol_max)}", _usd(value)),
        _verdict(
            "gross exposure", exposure.gross + value <= gross_max, f"<= {_usd(gross_max)}", _usd(exposure.gross + value)
        ),
        _verdict("buying power", value <= exposure.buying_power, f"<= {_usd(exposure.buying_power)}", _usd(value)),
    ]
    if quote is not None and unusable is None:
        away = abs(price - quote.mid) / quote.mid * 100
        verdicts.append(
            _verdict(
                "price collar",
                away <= limits.price_collar_pct,
                f"<= {limits.price_collar_pct} % from the mid",
                f"{away:.2f} %",
            )
        )
    return verdicts


def _verdict(control: str, allowed: bool, limit: str, value: str) -> Verdict:
    return Verdict(control, allowed, limit, value, f"{control}: {value}, {limit} {'met' if allowed else 'needed'}")


def _standing(asset: Asset | None) -> str:
    if asset is None:
        return "not listed by the broker"
    return (
        "active and tradable"
        if asset.tradable and asset.active
        else f"active {asset.active}, tradable {asset.tradable}"
    )


def _usd(amount: Decimal) -> str:
    return f"{amount:.2f} USD"
