"""Parameters of the trading API's query strings."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation

from desk.exchange.drafts import malformed
from desk.exchange.routing import Query
from desk.market import NEW_YORK

__all__ = ["read_amount", "read_choice", "read_count", "read_day", "read_flag", "read_moment", "read_words"]


def read_flag(query: Query, name: str) -> bool:
    """The SDK writes True and False, people write true and false."""
    value = query.get(name, "false").lower()
    if value not in ("true", "false"):
        raise malformed(f"{name} must be true or false, found {value!r}")
    return value == "true"


def read_choice(query: Query, name: str, choices: tuple[str, ...], default: str) -> str:
    value = query.get(name) or default
    if value not in choices:
        raise malformed(f"invalid {name} {value!r}: one of {', '.join(choices)} is needed")
    return value


def read_count(query: Query, name: str, *, default: int, most: int) -> int:
    value = query.get(name)
    if not value:
        return default
    if not value.isdecimal() or not 1 <= int(value) <= most:
        raise malformed(f"{name} must be between 1 and {most}, found {value!r}")
    return int(value)


def read_words(query: Query, name: str) -> list[str]:
    """A comma-joined list; empty when absent."""
    return [word for word in query.get(name, "").split(",") if word]


def read_moment(query: Query, name: str) -> datetime | None:
    """An ISO time; without a zone it is UTC; a bare day is its New York midnight."""
    value = query.get(name)
    if not value:
        return None
    try:
        if len(value) == 10:
            return datetime.fromisoformat(value).replace(tzinfo=NEW_YORK).astimezone(UTC)
        # A "+" of an offset that was not escaped arrives as a space.
        at = datetime.fromisoformat(value.replace(" ", "+") if "T" in value else value)
    except ValueError as error:
        raise malformed(f"{name} must be a time like 2024-03-05T14:35:00Z, found {value!r}") from error
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def read_day(query: Query, name: str) -> date | None:
    """A calendar day; of a full time, the day as written."""
    value = query.get(name)
    if not value:
        return None
    try:
        return date.fromisoformat(value[:10])
    except ValueError as error:
        raise malformed(f"{name} must be a day like 2024-03-05, found {value!r}") from error


def read_amount(query: Query, name: str) -> Decimal | None:
    value = query.get(name)
    if not value:
        return None
    try:
        amount = Decimal(value)
    except InvalidOperation as error:
        raise malformed(f"{name} must be a number, found {value!r}") from error
    if not amount.is_finite():
        raise malformed(f"{name} must be a finite number, found {value!r}")
    return amount
