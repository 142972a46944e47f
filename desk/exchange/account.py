"""Cash, holdings and account activities of the one account at the simulated exchange."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from desk.exchange.amounts import plain, rfc3339
from desk.exchange.configuration import Configuration
from desk.market import NEW_YORK

__all__ = ["AVERAGE_PLACES", "Activity", "Holding", "SimAccount"]

AVERAGE_PLACES = 6  # decimals of an average entry price


@dataclass(slots=True)
class Holding:
    """Shares of one symbol: above 0 long, below 0 short, never 0."""

    symbol: str
    asset_id: str
    qty: Decimal
    avg_price: Decimal  # USD per share


class Activity(NamedTuple):
    id: str  # "20240305143500000::<uuid>", sorts by time
    kind: str  # FILL, SPLIT, DIV
    at: datetime
    day: date  # New York
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Close:
    day: date  # New York
    equity: Decimal


class SimAccount:
    """Nothing is borrowed: what is bought is paid at once, what is sold can be spent at once, and a short sale's
    proceeds wait, with as much again, for the shares to be bought back (see `Exchange.tied`)."""

    def __init__(self, cash: Decimal, opened: datetime) -> None:
        self.opened = opened
        self.started_with = cash
        self.cash = cash
        self._closes = (Close(opened.date(), cash), Close(opened.date(), cash))  # the last two sessions'
        self.configuration = Configuration()
        self.blocked: set[str] = set()  # of trading_blocked, account_blocked, transfers_blocked
        self.holdings: dict[str, Holding] = {}
        self.shorts: set[str] = set()  # symbols held short
        self.activities: list[Activity] = []

    def closed(self, day: date, equity: Decimal) -> None:
        """A session has closed with this equity."""
        self._closes = (self._closes[1], Close(day, equity))

    def last_equity(self, today: date) -> Decimal:
        """Equity at the close of the previous trading day: today's own close counts from tomorrow on."""
        before, latest = self._closes
        return latest.equity if latest.day < today else before.equity

    def shares(self, symbol: str) -> Decimal:
        holding = self.holdings.get(symbol)
        return Decimal(0) if holding is None else holding.qty

    def traded(self, symbol: str, asset_id: str, qty: Decimal, price: Decimal, *, may_cross: bool = False) -> None:
        """Shares changed hands: `qty` above 0 bought, below 0 sold. `may_cross`: the position may become short."""
        self.cash -= qty * price
        held = self.holdings.get(symbol)
        before = Decimal(0) if held is None else held.qty
        after = before + qty
        if after < 0 <= before and not may_cross:
            raise AssertionError(f"sale of {-qty} {symbol}: only {before} are held, the engine must prevent this")
        if after == 0:
            self.holdings.pop(symbol, None)
        elif held is None or before * after < 0:
            self.holdings[symbol] = Holding(symbol, asset_id, after, price)
        else:
            if abs(after) > abs(before):
                held.avg_price = round((before * held.avg_price + qty * price) / after, AVERAGE_PLACES)
            held.qty = after
        if after < 0:
            self.shorts.add(symbol)
        else:
            self.shorts.discard(symbol)

    def record(self, kind: str, at: datetime, uid: str, **fields: Any) -> None:
        """Write an activity. Times never go back, so the list stays sorted."""
        local = at.astimezone(NEW_YORK)
        activity_id = f"{at:%Y%m%d%H%M%S}{at.microsecond // 1000:03d}::{uid}"
        document = {"id": activity_id, "activity_type": kind, **fields}
        self.activities.append(Activity(activity_id, kind, at, local.date(), document))

    def record_fill(
        self,
        at: datetime,
        uid: str,
        *,
        order_id: str,
        symbol: str,
        side: str,
        qty: Decimal,
        price: Decimal,
        cum_qty: Decimal,
        leaves_qty: Decimal,
    ) -> None:
        self.record(
            "FILL",
            at,
            uid,
            transaction_time=rfc3339(at),
            type="partial_fill" if leaves_qty else "fill",
            price=plain(price),
            qty=plain(qty),
            side=side,
            symbol=symbol,
            leaves_qty=plain(leaves_qty),
            order_id=order_id,
            cum_qty=plain(cum_qty),
            order_status="partially_filled" if leaves_qty else "filled",
        )

    def activities_from(self, at: datetime) -> int:
        """Index of the first activity at or after that time."""
        return bisect_left(self.activities, at, key=lambda activity: activity.at)
