"""The price of each symbol at the exchange's present moment: the market's, unless someone set another."""

from __future__ import annotations

from typing import Literal, NamedTuple

from desk.exchange.amounts import at_s
from desk.exchange.market import Market, Tick

__all__ = ["Quotes"]


class _Override(NamedTuple):
    tick: Tick
    set_s: float  # when it was set
    stamp_s: float | None  # an explicit time to show; None: it stays fresh like any live quote


class Quotes:
    """Asked many times at one moment, so answers are remembered until the clock moves."""

    def __init__(self, market: Market, *, hold_overrides: bool, extended_from: Literal["last", "set"] = "last") -> None:
        self._market = market
        self._hold = hold_overrides
        self._extended_from = extended_from
        self._now_s = 0.0
        self._opened_s: float | None = None  # when the running session opened; None: closed
        self._ticks: dict[str, Tick | None] = {}
        self._overrides: dict[str, _Override] = {}

    def move(self, now_s: float, *, opened_s: float | None) -> None:
        """It is that time now, and the session that is running opened then (None: none is)."""
        if now_s != self._now_s:
            self._ticks.clear()
        self._now_s = now_s
        self._opened_s = opened_s

    def effective(self, symbol: str) -> Tick | None:
        """The override while it holds, else the market's latest tick, however old."""
        tick = self._tick(symbol)
        override = self._overrides.get(symbol)
        if override is None:
            return tick
        if self._hold or tick is None or tick.at <= override.set_s:
            return override.tick
        del self._overrides[symbol]
        return tick

    def shown(self, symbol: str) -> Tick | None:
        """What the world sees. In session quotes are refreshed all the time, so `at` is the present moment,
        unless an override came with a time of its own, or the symbol has not traded in this session."""
        tick = self.effective(symbol)
        if tick is None:
            return None
        override = self._overrides.get(symbol)
        if override is not None and override.stamp_s is not None:
            return tick._replace(at=override.stamp_s)
        return tick if self.live(symbol) is None else tick._replace(at=self._now_s)

    def live(self, symbol: str) -> Tick | None:
        """What an arriving order can trade with: None with the market closed, or when the symbol has no tick of
        this session."""
        tick = self.effective(symbol)
        if tick is None or self._opened_s is None:
            return None
        return tick if symbol in self._overrides or tick.at >= self._opened_s else None

    def extended(self, symbol: str) -> Tick | None:
        """What an extended-hours order can trade with outside of the session."""
        tick = self.effective(symbol)
        return tick if self._extended_from == "last" or symbol in self._overrides else None

    def override(self, symbol: str, tick: Tick, *, stamp_s: float | None) -> None:
        """From now on the market of that symbol is `tick`."""
        self._overrides[symbol] = _Override(tick, self._now_s, stamp_s)

    def rebase(self, market: Market) -> None:
        """Another market from now on; prices set by hand stay."""
        self._market = market
        self._ticks.clear()

    def holds(self, symbol: str) -> bool:
        """Whether the market's own ticks are to be ignored."""
        return self._hold and symbol in self._overrides

    def last_at(self, symbol: str, moment_s: float) -> float | None:
        """The market's last trade as of another moment."""
        tick = self._market.tick(symbol, at_s(moment_s))
        return None if tick is None else tick.last

    def _tick(self, symbol: str) -> Tick | None:
        try:
            return self._ticks[symbol]
        except KeyError:
            tick = self._ticks[symbol] = self._market.tick(symbol, at_s(self._now_s))
            return tick
