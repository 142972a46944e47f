"""What a market-data subscriber is told when the exchange's clock or market moves. No socket here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from desk.exchange.data_api import bar_json, quote_json, trade_json
from desk.exchange.market import BarRow, Tick

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange

__all__ = ["CHANNELS", "MarketFeed", "Message"]

Message = dict[str, Any]

CHANNELS = ("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "corrections", "cancelErrors")
_REPLAYED = timedelta(days=1)  # of a longer leap of the clock only the last day is told
_BAR_MAX = timedelta(hours=1)  # the longest bar a market may hold


class MarketFeed:
    """One subscriber's view. Each `move` tells what happened since the one before, in order of time."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._now = exchange.now
        self._channels: dict[str, set[str]] = {channel: set() for channel in CHANNELS}
        self._bulletins = len(exchange.bulletins)  # so many are known
        self._seen: dict[str, tuple[float, float, float]] = {}  # bid, ask, last most recently told or known

    def subscribe(self, wanted: Mapping[str, Iterable[str]]) -> None:
        """Add symbols to channels; "*" stands for every symbol. What is known already is not told."""
        for channel, symbols in wanted.items():
            self._channels[channel].update(symbols)
        with self._exchange:
            for symbol in self._wanted("trades") | self._wanted("quotes"):
                if symbol not in self._seen:
                    self._seen[symbol] = _prices(self._exchange.quote(symbol))

    def unsubscribe(self, unwanted: Mapping[str, Iterable[str]]) -> None:
        for channel, symbols in unwanted.items():
            self._channels[channel].difference_update(symbols)

    def subscriptions(self) -> dict[str, list[str]]:
        """The full set, as the stream confirms it. Corrections and cancels come with trades."""
        shown = {channel: sorted(symbols) for channel, symbols in self._channels.items()}
        return {**shown, "corrections": shown["trades"], "cancelErrors": shown["trades"]}

    def move(self) -> list[Message]:
        """Quotes, trades and bars since the last call. Empty while nothing moves, and after the clock was set back."""
        with self._exchange:
            told = self._told()
        return sorted(told, key=lambda message: message["t"])

    def _told(self) -> list[Message]:
        now = self._exchange.now
        since, self._now = max(self._now, now - _REPLAYED), now
        told: list[Message] = []
        trades, quotes = self._wanted("trades"), self._wanted("quotes")
        for symbol in sorted(trades | quotes):
            for tick in self._news(symbol, since, now):
                if symbol in trades:
                    told.append({"T": "t", "S": symbol, **trade_json(tick)})
                if symbol in quotes:
                    told.append({"T": "q", "S": symbol, **quote_json(tick)})
        if now > since:
            told += self._bars(since, now)
        return told + self._news_of_bulletins()

    def _news_of_bulletins(self) -> list[Message]:
        """Halts and corrected bars."""
        all_of_them = self._exchange.bulletins
        fresh = all_of_them[min(self._bulletins, len(all_of_them)) :]
        self._bulletins = len(all_of_them)
        wanted = {"s": self._channels["statuses"], "u": self._channels["updatedBars"]} if fresh else {}
        return [one for one in fresh if "*" in wanted[one["T"]] or one["S"] in wanted[one["T"]]]

    def _news(self, symbol: str, since: datetime, now: datetime) -> Sequence[Tick]:
        """The market's ticks since then, or the one price that someone set instead."""
        shown = self._exchange.quote(symbol)
        before, self._seen[symbol] = self._seen.get(symbol), _prices(shown)
        if shown is None:
            return ()
        ticks = self._exchange.market.ticks(symbol, since, now) if now > since else ()
        if ticks and _prices(ticks[-1]) == _prices(shown):
            return ticks
        return () if _prices(shown) == before else (shown,)

    def _bars(self, since: datetime, now: datetime) -> list[Message]:
        market = self._exchange.market
        told: list[Message] = []
        if bars := sorted(self._wanted("bars")):
            span = since - _BAR_MAX, now
            known = market.minute_bars(bars, *span, minutes=1, known_at=since)
            for symbol, rows in market.minute_bars(bars, *span, minutes=1, known_at=now).items():
                told += _messages("b", symbol, rows[len(known.get(symbol, ())) :])
        if days := sorted(self._wanted("dailyBars")):
            closed = [session.day for session in market.sessions() if since < session.closes <= now]
            if closed:
                found = market.daily_bars(days, closed[0], closed[-1], adjustment="raw", known_at=now)
                for symbol, rows in found.items():
                    told += _messages("d", symbol, rows)
        return told

    def _wanted(self, channel: str) -> set[str]:
        symbols = self._channels[channel]
        return {listing.symbol for listing in self._exchange.market.listings()} if "*" in symbols else symbols


def _prices(tick: Tick | None) -> tuple[float, float, float]:
    return (0.0, 0.0, 0.0) if tick is None else (tick.bid, tick.ask, tick.last)


def _messages(kind: str, symbol: str, rows: Sequence[BarRow]) -> list[Message]:
    return [{"T": kind, "S": symbol, **bar_json(bar)} for bar in rows]
