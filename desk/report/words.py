"""Numbers and times as people read them. Times show New York's wall clock."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from desk.market import NEW_YORK

__all__ = [
    "NOTHING",
    "clock_time",
    "day_minute",
    "day_time",
    "duration",
    "number",
    "percent",
    "price",
    "shares",
    "short",
    "usd",
]

NOTHING = "-"


def usd(amount: Decimal | None, *, signed: bool = False) -> str:
    """1234.5 as "$1,234.50", with a sign on demand; a loss as "-$12.00"."""
    if amount is None:
        return NOTHING
    sign = "-" if amount < 0 else "+" if signed and amount > 0 else ""
    return f"{sign}${abs(amount):,.2f}"


def price(value: Decimal | None) -> str:
    """USD per share: two digits, up to four where there are more."""
    if value is None:
        return NOTHING
    shown = f"{round(value, 4).normalize():,f}"
    return shown if len(shown.partition(".")[2]) > 2 else f"{value:,.2f}"


def shares(quantity: Decimal | None) -> str:
    return NOTHING if quantity is None else f"{quantity.normalize():,f}"


def number(value: object) -> str:
    """A feature or a count, short."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return NOTHING if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{float(value):.4g}"


def percent(fraction: float | None, *, signed: bool = False) -> str:
    """0.0123 as "1.23 %"."""
    return NOTHING if fraction is None else f"{fraction * 100:{'+' if signed else ''}.2f} %"


def clock_time(at: datetime | None) -> str:
    return NOTHING if at is None else f"{at.astimezone(NEW_YORK):%H:%M:%S}"


def day_minute(at: datetime | None) -> str:
    return NOTHING if at is None else f"{at.astimezone(NEW_YORK):%Y-%m-%d %H:%M}"


def day_time(at: datetime | None) -> str:
    return NOTHING if at is None else f"{at.astimezone(NEW_YORK):%Y-%m-%d %H:%M:%S}"


def duration(seconds: float) -> str:
    """An age, rounded to what matters: "45 s", "12 min", "3 h", "5 days"."""
    for size, unit in ((172_800, "days"), (7_200, "h"), (120, "min")):
        if abs(seconds) >= size:
            each = {"days": 86_400, "h": 3_600, "min": 60}[unit]
            return f"{seconds / each:.0f} {unit}"
    return f"{seconds:.0f} s"


def short(digest: str | None) -> str:
    """The first twelve characters of a hash: enough to compare by eye."""
    return NOTHING if not digest else digest[:12]
