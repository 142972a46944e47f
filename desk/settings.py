"""The one reader of the environment.

Every setting is `ONEPATH_<NAME>`; `.env` is not read. Secrets are SecretStr and never printed.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from desk.errors import BadInput

__all__ = ["BrokerKind", "Settings", "load_settings"]


class BrokerKind(StrEnum):
    SIMULATED = "simulated"
    PAPER = "paper"
    LIVE = "live"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ONEPATH_", frozen=True, extra="forbid")

    home: Path = Field(Path("var"), description="where the product keeps its data: database, bars, reports, logs")
    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL, as postgresql://user:password@host:port/name; unset: the embedded server under home",
    )
    broker: BrokerKind = Field(BrokerKind.SIMULATED, description="simulated, paper or live")
    account: str | None = Field(None, description="account number; live trading refuses to start without it")
    alpaca_key_id: SecretStr | None = None
    alpaca_secret_key: SecretStr | None = None
    exchange_url: str = Field("http://127.0.0.1:8710", description="base address of the simulated exchange")
    exchange_clock_driven: bool = Field(
        False, description="the simulated clock stands still and waiting moves it (demo, tests)"
    )
    alert_urls: SecretStr | None = Field(
        None, description="where alerts go besides the log: Apprise URLs and file:///path.jsonl, first choice first"
    )
    strategy: Path | None = Field(None, description="strategy TOML file; unset: the built-in default strategy")
    prefect_port: int = Field(4200, ge=1, le=65535)
    prefect_url: str | None = Field(None, description="Prefect's server when it runs elsewhere; unset: on this machine")
    deadman_url: SecretStr | None = Field(
        None, description="pinged by the watchdog each time it saw evidence; whoever owns it misses a silent machine"
    )
    watchlist_size: int = Field(50, ge=1, le=500)
    request_connect_timeout_s: float = Field(3.0, gt=0)
    request_read_timeout_s: float = Field(10.0, gt=0)

    @model_validator(mode="after")
    def _keys_for_alpaca(self) -> Self:
        if self.broker is not BrokerKind.SIMULATED and not (self.alpaca_key_id and self.alpaca_secret_key):
            raise ValueError(f"ONEPATH_BROKER={self.broker} needs ONEPATH_ALPACA_KEY_ID and ONEPATH_ALPACA_SECRET_KEY")
        if self.broker is BrokerKind.LIVE and not self.account:
            raise ValueError("ONEPATH_BROKER=live needs ONEPATH_ACCOUNT, the number of the account to trade")
        return self

    @property
    def prefect_address(self) -> str:
        """Where Prefect's server answers, without a slash at the end."""
        return (self.prefect_url or f"http://127.0.0.1:{self.prefect_port}").rstrip("/").removesuffix("/api")

    def environment(self) -> dict[str, str]:
        """The same settings as `ONEPATH_` variables, for a child process. Contains the secrets: never log it."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        plain = {n: v.get_secret_value() if isinstance(v, SecretStr) else v for n, v in given.items() if v is not None}
        return {f"ONEPATH_{name.upper()}": str(value) for name, value in plain.items()}


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, with explicit overrides (command-line options) on top.

    Raises BadInput naming each wrong setting.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic validates the values itself
    except ValidationError as error:
        problems = "; ".join(
            "".join(f"ONEPATH_{str(part).upper()}: " for part in e["loc"][:1]) + e["msg"].removeprefix("Value error, ")
            for e in error.errors(include_input=False)
        )
        raise BadInput(f"settings: {problems}") from error
