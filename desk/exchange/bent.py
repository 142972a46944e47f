"""A market whose prices someone bends from some moment on, and whose corporate actions someone adds to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

from desk.exchange.daypath import on_grid
from desk.exchange.market import BarRow, CorporateAction, Listing, Market, Tick
from desk.market import Session

__all__ = ["BentMarket"]


class _Bend(NamedTuple):
    from_s: float  # epoch seconds
    factor: float
    ratio: float  # of a split: shares are multiplied by it; 1 for none


class BentMarket:
    """`market` until a symbol's first bend, and afterwards `market` times a factor. An added split divides prices
    from its day's midnight on and adjusts the bars before it, as a recorded one does."""

    def __init__(self, market: Market) -> None:
        self.straight = market
        self._bends: dict[str, list[_Bend]] = {}
        self._actions: list[CorporateAction] = []

    @property
    def label(self) -> str:
        return self.straight.label

    def bend(self, symbol: str, from_s: float, factor: float) -> None:
        self._bends.setdefault(symbol, []).append(_Bend(from_s, factor, 1.0))

    def add(self, action: CorporateAction, midnight_s: float) -> None:
        """It takes effect before the open of its day."""
        self._actions.append(action)
        if action.kind == "split":
            ratio = float(action.value)
            self._bends.setdefault(action.symbol, []).append(_Bend(midnight_s, 1 / ratio, ratio))

    def sessions(self) -> Sequence[Session]:
        return self.straight.sessions()

    def listings(self) -> Sequence[Listing]:
        return self.straight.listings()

    def corporate_actions(self, day: date) -> Sequence[CorporateAction]:
        return [*self.straight.corporate_actions(day), *(action for action in self._actions if action.day == day)]

    def tick(self, symbol: str, at: datetime) -> Tick | None:
        tick = self.straight.tick(symbol, at)
        return tick if tick is None or symbol not in self._bends else self._bent(symbol, tick)

    def ticks(self, symbol: str, after: datetime, until: datetime) -> Sequence[Tick]:
        ticks = self.straight.ticks(symbol, after, until)
        return ticks if symbol not in self._bends else [self._bent(symbol, tick) for tick in ticks]

    def daily_bars(
        self, symbols: Sequence[str], start: date, end: date, *, adjustment: str, known_at: datetime
    ) -> dict[str, list[BarRow]]:
        found = self.straight.daily_bars(symbols, start, end, adjustment=adjustment, known_at=known_at)
        for symbol in self._bends.keys() & found.keys():
            found[symbol] = [
                self._bent_bar(symbol, bar, timedelta(days=1), self._known_splits(symbol, adjustment, known_at))
                for bar in found[symbol]
            ]
        return found

    def minute_bars(
        self, symbols: Sequence[str], start: datetime, end: datetime, *, minutes: int, known_at: datetime
    ) -> dict[str, list[BarRow]]:
        found = self.straight.minute_bars(symbols, start, end, minutes=minutes, known_at=known_at)
        for symbol in self._bends.keys() & found.keys():
            found[symbol] = [self._bent_bar(symbol, bar, timedelta(minutes=minutes), ()) for bar in found[symbol]]
        return found

    def _factor(self, symbol: str, at_s: float) -> float:
        factor = 1.0
        for bend in self._bends[symbol]:
            if bend.from_s <= at_s:
                factor *= bend.factor
        return factor

    def _bent(self, symbol: str, tick: Tick) -> Tick:
        factor = self._factor(symbol, tick.at)
        if factor == 1.0:
            return tick
        bid, ask, last = (float(price) if price > 0 else 0.0 for price in on_grid([
            tick.bid * factor, tick.ask * factor, tick.last * factor
        ]))  # fmt: skip
        return Tick(tick.at, bid if tick.bid > 0 else 0.0, ask if tick.ask > 0 else 0.0, last, tick.volume)

    def _known_splits(self, symbol: str, adjustment: str, known_at: datetime) -> Sequence[_Bend]:
        if adjustment not in ("split", "all"):
            return ()
        return [bend for bend in self._bends[symbol] if bend.ratio != 1.0 and bend.from_s <= known_at.timestamp()]

    def _bent_bar(self, symbol: str, bar: BarRow, length: timedelta, splits: Sequence[_Bend]) -> BarRow:
        """A bar in which a bend begins is made anew from the bent ticks. Splits to adjust for: the known ones after
        the bar."""
        begin, end = bar.at.timestamp(), (bar.at + length).timestamp()
        if any(begin < bend.from_s < end for bend in self._bends[symbol]):
            bar = self._rebuilt(symbol, bar, length)
        else:
            bar = _scaled(bar, self._factor(symbol, begin), 1.0)
        for bend in splits:
            if bend.from_s > begin:
                bar = _scaled(bar, 1 / bend.ratio, bend.ratio)
        return bar

    def _rebuilt(self, symbol: str, bar: BarRow, length: timedelta) -> BarRow:
        ticks = self.ticks(symbol, bar.at - timedelta(microseconds=1), bar.at + length)
        prices = [tick.last for tick in ticks]
        if not prices:
            return bar
        vwap = round(sum(prices) / len(prices), 4)
        return bar._replace(open=prices[0], high=max(prices), low=min(prices), close=prices[-1], vwap=vwap)


def _scaled(bar: BarRow, factor: float, shares: float) -> BarRow:
    if factor == 1.0:
        return bar
    prices = [round(price * factor, 4) for price in (bar.open, bar.high, bar.low, bar.close, bar.vwap)]
    opened, high, low, close, vwap = prices
    return bar._replace(open=opened, high=high, low=low, close=close, vwap=vwap, volume=round(bar.volume * shares))
