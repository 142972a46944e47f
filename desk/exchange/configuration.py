"""The account's own settings, as GET and PATCH /v2/account/configurations know them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from desk.exchange.drafts import malformed

__all__ = ["Configuration"]

_CHOICES: dict[str, tuple[Any, ...]] = {
    "max_margin_multiplier": ("1", "2", "4"),
    "trade_confirm_email": ("all", "none"),
    "max_options_trading_level": (0, 1, 2, 3),
}


@dataclass(frozen=True, slots=True)
class Configuration:
    fractional_trading: bool = True
    max_margin_multiplier: str = "1"
    max_options_trading_level: int = 0
    no_shorting: bool = False
    ptp_no_exception_entry: bool = False
    suspend_trade: bool = False
    trade_confirm_email: str = "all"

    @property
    def document(self) -> dict[str, Any]:
        return asdict(self)

    def patched(self, asked: Mapping[str, Any], nulls: Literal["unchanged", "default"]) -> Configuration:
        """With what was asked for; the SDK sends every field, null where it has nothing to say. Fields that are not
        known are passed over. Raises ApiError 422 for a value that cannot be."""
        changes: dict[str, Any] = {}
        for known in fields(self):
            if known.name not in asked:
                continue
            value = asked[known.name]
            if value is None:
                if nulls == "default":
                    changes[known.name] = known.default
                continue
            choices = _CHOICES.get(known.name, (True, False))
            if value not in choices or isinstance(value, bool) != isinstance(choices[0], bool):
                raise malformed(f"invalid {known.name} {value!r}: one of {', '.join(map(str, choices))} is needed")
            changes[known.name] = value
        return replace(self, **changes)
