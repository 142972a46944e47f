"""A seeded path through one daily bar: what the minutes of a day could have looked like.

The bar is kept to the cent: the first trade is the open, the last the close, high and low are each touched, and
the volume adds up. In between runs a Brownian bridge, reflected at high and low. Same arguments, same path.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

from desk.market import Session

__all__ = ["ASK", "AT", "BID", "LAST", "VOLUME", "Path", "day_path", "minutes_of_path", "on_grid", "quotes", "rng_for"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Path = Floats  # (5, ticks): the rows below, ticks ascending in time

AT, BID, ASK, LAST, VOLUME = range(5)  # epoch seconds UTC, USD, USD, USD, shares since the tick before

_UNITS = 10_000  # prices are counted in ten-thousandths of a dollar while a path is made
_CENT = 100
_OPENING_SHARE = 0.02  # of the day's volume crosses in the opening auction
_CLOSING_SHARE = 0.08


def rng_for(seed: int, *names: object) -> np.random.Generator:
    """A generator that depends on seed and names alone, on every machine (never on Python's salted hash)."""
    text = "|".join(map(str, (seed, *names)))
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")))


def on_grid(prices: npt.ArrayLike) -> Floats:
    """Prices on Alpaca's tick grid: cents from one dollar up, ten-thousandths below."""
    return _units(np.asarray(prices, dtype=np.float64)) / _UNITS


def _units(prices: Floats) -> Floats:
    return np.where(prices >= 1.0, np.rint(prices * 100.0) * _CENT, np.maximum(np.rint(prices * _UNITS), 1.0))


def day_path(symbol: str, session: Session, bar: tuple[float, float, float, float], volume: int, seed: int = 0) -> Path:
    """Ticks of one day: at the open and then each minute up to and including the close, (5, minutes + 1).

    bar: open, high, low, close in USD on the tick grid, low <= open, close <= high. volume: shares of the day.
    """
    opens = int(session.opens.timestamp())
    minutes = (int(session.closes.timestamp()) - opens) // 60
    rng = rng_for(seed, symbol, session.day)
    uniform = rng.random((2, minutes + 1))
    clock = np.arange(minutes + 1, dtype=np.float64)

    path = np.empty((5, minutes + 1))
    path[AT] = opens + 60.0 * clock
    path[LAST] = _trades(bar, clock, rng)
    path[BID], path[ASK] = quotes(path[LAST], bar, bar[3] * volume, uniform[0])
    path[VOLUME] = _volumes(volume, clock, uniform[1])
    return path


def _trades(bar: tuple[float, float, float, float], clock: Floats, rng: np.random.Generator) -> Floats:
    """Last prices at each minute: anchored at open, both extremes and close."""
    minutes = len(clock) - 1
    first, high, low, last = (float(u) for u in _units(np.asarray(bar)))
    span = high - low
    if span == 0.0:
        return np.full(minutes + 1, first / _UNITS)
    at_high, at_low = _extremes((first, high, low, last), minutes, rng)
    anchors = sorted({0: first, minutes: last, at_high: high, at_low: low}.items())
    times = np.array([t for t, _ in anchors])
    prices = np.array([p for _, p in anchors])
    # A Brownian path's expected range is 1.6 sigma sqrt(T): this noise alone would span about the bar's own range.
    walk = np.cumsum(rng.standard_normal(minutes + 1)) * (span / (1.6 * minutes**0.5))
    walk += np.interp(clock, times, prices - walk[times])
    reflected = np.abs(np.mod(walk - low + span, 2.0 * span) - span) + low
    units = np.minimum(np.maximum(_units(reflected / _UNITS), low), high)
    units[times] = prices
    return np.asarray(units / _UNITS)


def _extremes(bar: tuple[float, float, float, float], minutes: int, rng: np.random.Generator) -> tuple[int, int]:
    """Minutes at which high and low are touched: at an end when open or close is the extreme, else inside."""
    first, high, low, last = bar
    u = rng.random(3).tolist()
    ends = [0 if first == edge else minutes if last == edge else None for edge in (high, low)]
    if ends[0] is None and ends[1] is None:
        early = 1 + int(u[0] * (minutes - 2))
        late = early + 1 + int(u[1] * (minutes - 1 - early))
        low_first = u[2] < (0.65 if last > first else 0.35)  # rising days tend to make their low first
        return (late, early) if low_first else (early, late)
    inside = 1 + int(u[0] * (minutes - 1))
    return (inside if ends[0] is None else ends[0], inside if ends[1] is None else ends[1])


def quotes(last: Floats, bar: tuple[float, float, float, float], dollars: float, side: Floats) -> tuple[Floats, Floats]:
    """Bid and ask around each last price, (ticks,) each: low <= bid <= last <= ask <= high, on the grid.

    The spread is a tick or 1 to 4 basis points, wider for thinly traded days (dollars: USD traded that day), and
    narrower only where the whole bar is. side: uniform in [0, 1), how far the last trade stands from the ask.
    """
    _, high, low, _ = (float(u) for u in _units(np.asarray(bar)))
    trades = np.rint(last * _UNITS)
    tick = np.where(trades >= _UNITS, float(_CENT), 1.0)
    points = min(max(10.0 - math.log10(max(dollars, 1.0)), 1.0), 4.0)
    width = np.maximum(np.rint(trades * (points / 1e4) / tick), 1.0)  # in ticks
    ask = np.minimum(trades + np.floor(side * (width + 1.0)) * tick, high)
    bid = np.maximum(ask - width * tick, low)
    ask = np.minimum(bid + width * tick, high)
    ask = np.where(ask > _UNITS, np.ceil(ask / _CENT) * _CENT, ask)  # a quote across one dollar lands on a cent
    return bid / _UNITS, ask / _UNITS


def _volumes(volume: int, clock: Floats, uniform: Floats) -> Floats:
    """Whole shares per tick that add up to the day's: a U over the day, the auctions at its ends."""
    curve = 1.0 + 2.0 * (2.0 * clock / clock[-1] - 1.0) ** 2
    curve *= 0.3 - np.log1p(-uniform)
    curve[0] = _OPENING_SHARE * curve.sum()
    curve[-1] = _CLOSING_SHARE * curve.sum()
    traded = np.cumsum(curve)
    traded = np.floor(traded * (volume / traded[-1]) + 0.5)
    traded[-1] = volume
    shares: Floats = np.diff(traded, prepend=0.0)
    return shares


def minutes_of_path(path: Path) -> tuple[Ints, Floats]:
    """One-minute bars of a `day_path`: starts (minutes,) in epoch seconds and (5, minutes) open, high, low, close,
    volume. A tick on a minute mark closes the minute that ends there; the opening auction counts to the first."""
    before, after = path[LAST, :-1], path[LAST, 1:]
    volume = path[VOLUME, 1:].copy()
    volume[0] += path[VOLUME, 0]
    bars = np.stack([before, np.maximum(before, after), np.minimum(before, after), after, volume])
    return path[AT, :-1].astype(np.int64), bars
