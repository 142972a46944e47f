"""How amounts and times are written on the wire."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

__all__ = ["CENT", "at_s", "money", "plain", "price_step", "rfc3339", "stop_cap", "to_step"]

CENT = Decimal("0.01")
_FINE = Decimal("0.0001")


def plain(amount: Decimal) -> str:
    """Without exponent and without trailing zeros: "187.5", "100", "0.3333"."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def money(price: float) -> Decimal:
    """A market price as Decimal. Prices are on the tick grid, so four decimals are exact."""
    return Decimal(f"{price:.4f}")


def rfc3339(at: datetime) -> str:
    """UTC, microseconds, as Alpaca writes it: 2024-03-05T14:35:00.000000Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def at_s(seconds: float) -> datetime:
    """Epoch seconds as an aware UTC time."""
    return datetime.fromtimestamp(seconds, UTC)


def price_step(price: Decimal) -> Decimal:
    """The smallest price increment: a cent from 1 USD, a hundredth of a cent below."""
    return CENT if price >= 1 else _FINE


def to_step(price: Decimal) -> Decimal:
    """Rounded to the price increment."""
    return price.quantize(price_step(price), rounding=ROUND_HALF_UP)


def stop_cap(stop: Decimal) -> Decimal:
    """The most a triggered buy stop pays: 4 % above its stop below 50 USD, else 2.5 %."""
    return stop * (Decimal("1.04") if stop < 50 else Decimal("1.025"))
