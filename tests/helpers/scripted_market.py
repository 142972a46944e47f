"""A market whose every price is written down in the test, and a caller that speaks to its exchange."""

from __future__ import annotations

import json
import uuid
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from desk.exchange.exchange import Exchange
from desk.exchange.gateway import Gateway
from desk.exchange.market import BarRow, CorporateAction, Listing, Tick
from desk.exchange.options import ExchangeOptions
from desk.market import Session, at_new_york

KEYS = ("KEY", "SECRET")
MONDAY, TUESDAY, WEDNESDAY = date(2024, 3, 4), date(2024, 3, 5), date(2024, 3, 6)
DAYS = (MONDAY, TUESDAY, WEDNESDAY)

Price = float | tuple[float, float, float]  # last alone (then bid and ask are a cent away), or bid, ask, last


def new_york(day: date, hhmm: str) -> datetime:
    return at_new_york(day, hhmm)


def tick_of(at: datetime, price: Price) -> Tick:
    bid, ask, last = price if isinstance(price, tuple) else (price - 0.01, price + 0.01, price)
    return Tick(at.timestamp(), round(bid, 4), round(ask, 4), round(last, 4), 100)


class ScriptedMarket:
    """`script`: symbol -> {time: price}. Each symbol trades at the given moments only."""

    label = "scripted"

    def __init__(
        self,
        script: Mapping[str, Mapping[datetime, Price]],
        *,
        actions: Sequence[CorporateAction] = (),
        days: Sequence[date] = DAYS,
        closes: str = "16:00",
        delisted: Mapping[str, date] | None = None,
    ) -> None:
        self._ticks = {
            symbol: [tick_of(at, price) for at, price in sorted(prices.items())] for symbol, prices in script.items()
        }
        self._actions = actions
        self._sessions = [Session(day, at_new_york(day, "09:30"), at_new_york(day, closes)) for day in days]
        self._delisted = delisted or {}

    def sessions(self) -> Sequence[Session]:
        return self._sessions

    def listings(self) -> Sequence[Listing]:
        return [
            Listing(
                symbol,
                str(uuid.uuid5(uuid.NAMESPACE_DNS, symbol)),
                f"Scripted {symbol}",
                "NASDAQ",
                date(2020, 1, 2),
                self._delisted.get(symbol),
            )
            for symbol in sorted(self._ticks)
        ]

    def corporate_actions(self, day: date) -> Sequence[CorporateAction]:
        return [action for action in self._actions if action.day == day]

    def tick(self, symbol: str, at: datetime) -> Tick | None:
        ticks = self._ticks.get(symbol, [])
        index = bisect_right(ticks, at.timestamp(), key=lambda tick: tick.at)
        return ticks[index - 1] if index else None

    def ticks(self, symbol: str, after: datetime, until: datetime) -> Sequence[Tick]:
        return [tick for tick in self._ticks.get(symbol, []) if after.timestamp() < tick.at <= until.timestamp()]

    def daily_bars(
        self, symbols: Sequence[str], start: date, end: date, *, adjustment: str, known_at: datetime
    ) -> dict[str, list[BarRow]]:
        return {}

    def minute_bars(
        self, symbols: Sequence[str], start: datetime, end: datetime, *, minutes: int, known_at: datetime
    ) -> dict[str, list[BarRow]]:
        return {}


class Caller:
    """Speaks to an exchange as a client does, through the gateway, and reads the answers."""

    def __init__(self, exchange: Exchange, keys: tuple[str, str] = KEYS) -> None:
        self.exchange = exchange
        self.gateway = Gateway(exchange)
        self._headers = {"APCA-API-KEY-ID": keys[0], "APCA-API-SECRET-KEY": keys[1]}

    def call(self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None) -> tuple[int, Any]:
        content = b"" if body is None else json.dumps(body).encode()
        answer = self.gateway.handle(method, path, urlencode(query or {}), self._headers, content)
        return answer.status, json.loads(answer.content) if answer.content else None

    def get(self, path: str, **query: Any) -> Any:
        status, answer = self.call("GET", path, query)
        assert status == 200, (status, answer)
        return answer

    def order(self, symbol: str, qty: float, side: str = "buy", /, **fields: Any) -> tuple[int, Any]:
        body = {"symbol": symbol, "qty": qty, "side": side, "type": "market", "time_in_force": "day"}
        return self.call("POST", "/v2/orders", body=body | fields)

    def buy(self, symbol: str, qty: float, **fields: Any) -> Any:
        return self._accepted(symbol, qty, "buy", fields)

    def sell(self, symbol: str, qty: float, **fields: Any) -> Any:
        return self._accepted(symbol, qty, "sell", fields)

    def bracket(self, symbol: str, qty: float, target: float, stop: float, **fields: Any) -> Any:
        exits = {"take_profit": {"limit_price": target}, "stop_loss": {"stop_price": stop}}
        gtc = {"order_class": "bracket", "time_in_force": "gtc"}
        return self._accepted(symbol, qty, "buy", gtc | exits | fields)

    def _accepted(self, symbol: str, qty: float, side: str, fields: Mapping[str, Any]) -> Any:
        status, answer = self.order(symbol, qty, side, **fields)
        assert status == 200, (status, answer)
        return answer

    def seen(self, order: Mapping[str, Any]) -> Any:
        """The order as it is now, with its legs."""
        return self.get(f"/v2/orders/{order['id']}", nested=True)

    def cancel(self, order: Mapping[str, Any]) -> tuple[int, Any]:
        return self.call("DELETE", f"/v2/orders/{order['id']}")

    def position(self, symbol: str) -> Any:
        status, answer = self.call("GET", f"/v2/positions/{symbol}")
        return answer if status == 200 else None

    def cash(self) -> Decimal:
        return Decimal(self.get("/v2/account")["cash"])


def caller(
    script: Mapping[str, Mapping[datetime, Price]],
    *,
    at: str = "10:00",
    day: date = MONDAY,
    cash: int = 100_000,
    options: ExchangeOptions | None = None,
    **market: Any,
) -> Caller:
    """An exchange on a scripted market, at a New York time of a day, and someone who calls it."""
    exchange = Exchange(
        ScriptedMarket(script, **market),
        at_new_york(day, at),
        keys=KEYS,
        cash=Decimal(cash),
        options=options,
    )
    return Caller(exchange)


def flat(symbol: str = "ACME", price: Price = 100.0, days: Sequence[date] = DAYS) -> dict[str, dict[datetime, Price]]:
    """A price that stays: a tick at each open and each minute after it until the close."""
    moments = {at_new_york(day, "09:30") + timedelta(minutes=minute): price for day in days for minute in range(0, 391)}
    return {symbol: moments}


def at(hhmm: str, day: date = MONDAY) -> datetime:
    return at_new_york(day, hhmm).astimezone(UTC)
