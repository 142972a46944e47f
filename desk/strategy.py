"""A strategy is a container of numbers: versioned, checked, never edited in place."""

from __future__ import annotations

import hashlib
import json
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from desk.errors import BadInput

__all__ = ["Controls", "Strategy", "Universe", "load_strategy"]


class _Numbers(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Universe(_Numbers):
    """Which symbols may become candidates."""

    price_min_usd: Decimal = Field(Decimal("5"), ge=0)
    dollar_volume_20d_min_usd: Decimal = Field(Decimal("1000000"), ge=0)
    history_sessions_min: int = Field(60, ge=21, le=504)


class Controls(_Numbers):
    """Limits before an order (orders-and-liveness, section 3). Fractions are of the account's equity."""

    order_value_max_fraction: Decimal = Field(Decimal("0.05"), gt=0, le=1)
    order_value_max_usd: Decimal = Field(Decimal("5000"), gt=0)
    order_quantity_max_volume_fraction: Decimal = Field(Decimal("0.01"), gt=0, le=1)
    price_collar_pct: Decimal = Field(Decimal("2"), gt=0, le=20)
    quote_age_max_s: float = Field(5.0, gt=0, le=60)
    gross_exposure_max_fraction: Decimal = Field(Decimal("1.0"), gt=0, le=2)
    symbol_exposure_max_fraction: Decimal = Field(Decimal("0.10"), gt=0, le=1)
    entries_not_in_first_minutes: int = Field(5, ge=0, le=120)
    entries_not_in_last_minutes: int = Field(10, ge=0, le=120)
    turnover_day_max_fraction: Decimal = Field(Decimal("1.5"), gt=0, le=20)  # bought and sold, entries under way too
    messages_minute_max: int = Field(60, ge=1, le=199)  # orders sent, repeats included; the broker allows 200
    messages_minute_symbol_max: int = Field(5, ge=1, le=199)
    entries_symbol_day_max: int = Field(3, ge=1, le=100)
    orders_day_max: int = Field(40, ge=1, le=10_000)
    rejects_max: int = Field(5, ge=1, le=1000)  # this many within the window reduce
    rejects_window_minutes: int = Field(10, ge=1, le=390)
    data_age_max_minutes: int = Field(15, ge=1, le=60)  # since the gate passed on the very decisions
    fallback_sessions_max: int = Field(2, ge=0, le=252)  # in a row, while there is a champion that should decide
    loss_day_reducing_pct: Decimal = Field(Decimal("2"), gt=0, le=100)  # of the equity the day opened with
    loss_day_halted_pct: Decimal = Field(Decimal("4"), gt=0, le=100)
    drawdown_halted_pct: Decimal = Field(Decimal("10"), gt=0, le=100)  # from the highest equity a day opened with
    slippage_alert_pct: Decimal = Field(Decimal("1"), gt=0, le=100)  # of a fill, against what its order was sent at
    slippage_reducing_pct: Decimal = Field(Decimal("3"), gt=0, le=100)

    @model_validator(mode="after")
    def _limits_agree(self) -> Self:
        """A limit that another one keeps from ever being reached is a mistake of whoever wrote it."""
        pairs = (
            ("order_value_max_fraction", "symbol_exposure_max_fraction"),
            ("symbol_exposure_max_fraction", "gross_exposure_max_fraction"),
            ("order_value_max_fraction", "turnover_day_max_fraction"),
            ("messages_minute_symbol_max", "messages_minute_max"),
            ("entries_symbol_day_max", "orders_day_max"),
        )
        for lower, upper in pairs:
            if getattr(self, lower) > getattr(self, upper):
                raise ValueError(f"{lower} {getattr(self, lower)} is above {upper} {getattr(self, upper)}")
        for first, then in (
            ("loss_day_reducing_pct", "loss_day_halted_pct"),
            ("slippage_alert_pct", "slippage_reducing_pct"),
        ):
            if getattr(self, first) >= getattr(self, then):
                raise ValueError(f"{first} {getattr(self, first)} is not below {then} {getattr(self, then)}")
        return self


class Strategy(_Numbers):
    """Everything that shapes a trade. Percentages are of the entry price."""

    name: str = Field("default", pattern=r"^[a-z][a-z0-9-]{0,30}$")
    stop_loss_pct: Decimal = Field(Decimal("4"), gt=0, lt=50)
    take_profit_pct: Decimal = Field(Decimal("8"), gt=0, lt=500)
    trailing_stop_pct: Decimal | None = Field(Decimal("6"), gt=0, lt=50)
    holding_sessions_max: int = Field(5, ge=1, le=252)
    positions_max: int = Field(20, ge=1, le=200)
    position_fraction: Decimal = Field(Decimal("0.05"), gt=0, le=1)  # of equity
    buy_probability_min: float = Field(0.7, ge=0, le=1)
    sell_probability_max: float = Field(0.3, ge=0, le=1)
    entry_limit_pct: Decimal = Field(Decimal("0.5"), ge=0, le=2)  # limit above the ask
    universe: Universe = Universe()
    controls: Controls = Controls()

    @model_validator(mode="after")
    def _numbers_agree(self) -> Self:
        if self.entry_limit_pct >= self.take_profit_pct:
            raise ValueError(
                f"entry_limit_pct {self.entry_limit_pct} is not below take_profit_pct {self.take_profit_pct}"
            )
        if self.entry_limit_pct > self.controls.price_collar_pct:
            raise ValueError(
                f"entry_limit_pct {self.entry_limit_pct} is above controls.price_collar_pct "
                f"{self.controls.price_collar_pct}: every entry would be denied"
            )
        if self.position_fraction > self.controls.symbol_exposure_max_fraction:
            raise ValueError(
                f"position_fraction {self.position_fraction} is above controls.symbol_exposure_max_fraction "
                f"{self.controls.symbol_exposure_max_fraction}: every entry would be denied"
            )
        if self.entry_limit_pct >= self.controls.slippage_reducing_pct:
            raise ValueError(
                f"entry_limit_pct {self.entry_limit_pct} is not below controls.slippage_reducing_pct "
                f"{self.controls.slippage_reducing_pct}: an entry filled within its limit would reduce trading"
            )
        return self

    @property
    def document(self) -> dict[str, object]:
        """The numbers as JSON types; decimals become strings."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """sha256 of the canonical document: same numbers, same digest."""
        canonical = json.dumps(self.document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def load_strategy(path: Path) -> Strategy:
    """Read and check a strategy TOML file. Raises BadInput naming the file, the key and the value."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"strategy {path}: cannot be read ({error.strerror}); give an existing TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"strategy {path}: not valid TOML ({error})") from error
    try:
        return Strategy.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "strategy"
        found = f", found {first['input']!r}" if first["loc"] else ""
        raise BadInput(f"strategy {path}: {where}: {first['msg'].removeprefix('Value error, ')}{found}") from error
