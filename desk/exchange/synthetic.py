"""A seeded market that never was: regimes, factors, gaps, earnings-like jumps, splits, dividends, listings.

The world begins in 2010 and unfolds day by day from its seed: a later end or another start shows more or less of
the same world. Returns carry two effects a screener can find, slow drifts (momentum) and a partial reversal of
yesterday's own shock; everything else is noise. Names say "Synthetic" and tickers begin with SYN.
"""

from __future__ import annotations

import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cached_property

import numpy as np
import numpy.typing as npt

from desk.errors import BadInput
from desk.exchange.book import Bars, BookedMarket, DailyBook
from desk.exchange.daypath import rng_for
from desk.exchange.market import CorporateAction, Listing
from desk.exchange.sessions import LATEST, sessions_between
from desk.market import Session

__all__ = ["SyntheticMarket"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

GENESIS = date(2010, 1, 4)
HISTORY = 400  # sessions shown before `start`
EARLIEST_START = date(2011, 8, 4)  # the 401st session of the world
SYMBOLS_MAX = 26**3

_SECTORS = 10
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_EXCHANGES = ("NASDAQ", "NYSE", "NASDAQ", "NYSE", "AMEX")
# Regimes: daily drift and volatility of the market, and the chance to stay.
_REGIMES = ((0.0006, 0.007, 0.990), (0.0, 0.011, 0.980), (-0.0012, 0.021, 0.960))
_HOME_PULL = 0.003  # per day, of the log price towards its home level: prices stay between about 3 and 800 USD
_DRIFT_KEPT, _DRIFT_NEW = 0.97, 0.0005  # momentum: drifts live about a month
_REVERSAL = 0.12  # of yesterday's own shock comes back
_QUARTER = 63  # sessions between earnings, and between dividends
_JUMP, _JUMP_MAX = 0.05, 0.22  # size of an earnings jump, log return
_CAP_USD, _FLOOR_USD = 420.0, 5.5  # a close beyond calls for a split, or a reverse split
_SPLIT_MIN_USD = 50.0  # other splits happen above this only


class SyntheticMarket(BookedMarket):
    """`symbols` names trade throughout; a few more list late or are delisted on the way.

    The first session that can be traded is the first at or after `start`; 400 sessions before it are history.
    Raises BadInput when the span leaves the synthetic world or holds no session.
    """

    def __init__(self, seed: int, start: date, end: date, symbols: int = 500) -> None:
        if not 1 <= symbols <= SYMBOLS_MAX:
            raise BadInput(f"synthetic market: {symbols} symbols asked for; give 1 to {SYMBOLS_MAX}")
        if start > end:
            raise BadInput(f"synthetic market: start {start} is after end {end}; give the earlier day first")
        if start < EARLIEST_START:
            raise BadInput(
                f"synthetic market: start {start} has too little history; the first possible one is {EARLIEST_START}"
            )
        if end > LATEST:
            raise BadInput(f"synthetic market: end {end} is beyond {LATEST}; choose an earlier one")
        world = sessions_between(GENESIS, date(end.year, 12, 31))
        days = [session.day for session in world]
        first, self._stop = bisect_left(days, start), bisect_right(days, end)
        if first >= self._stop:
            raise BadInput(f"synthetic market: no session from {start} to {end}; choose a longer span")
        self.seed = seed
        self._world, self._begin, self._symbols = world, first - HISTORY, symbols

    @property
    def label(self) -> str:
        return f"synthetic, seed {self.seed}"

    @cached_property
    def book(self) -> DailyBook:
        return _Maker(self.seed, self._world, self._begin, self._stop, self._symbols).book()

    def sessions(self) -> Sequence[Session]:
        return self._world[self._begin : self._stop]


@dataclass(frozen=True, slots=True)
class _Traits:
    """What a symbol is like, for life. All (symbols,)."""

    sector: Ints
    beta: Floats
    vol: Floats  # daily, of its own shocks
    home: Floats  # log price it is pulled to
    dollars: Floats  # typical USD traded a day
    earnings: Ints  # phase within the quarter, sessions
    payout: Floats  # dividend per quarter as a fraction of price; 0: pays none
    born: Ints  # first session, counted from genesis
    gone: Ints  # first session no longer traded
    split_at: Ints  # session of a split nobody needed
    split_ratio: Floats


class _Maker:
    """Makes one world from genesis to the end and cuts the window [begin, stop) of sessions out of it."""

    def __init__(self, seed: int, world: Sequence[Session], begin: int, stop: int, symbols: int) -> None:
        self.seed, self.world, self.begin, self.stop = seed, world, begin, stop
        self.permanent = symbols
        self.count = symbols + max(6, symbols // 12)
        self.years = sorted({session.day.year for session in world})
        self.year_of = np.array([session.day.year for session in world])
        self.traits = self._traits()

    def _traits(self) -> _Traits:
        rng, n = rng_for(self.seed, "traits", self.count), self.count
        pays = rng.random(n) < 0.4
        born = rng.integers(0, 26 * 252, n)
        lives = rng.integers(2 * 252, 8 * 252, n)
        transient = np.arange(n) >= self.permanent
        return _Traits(
            sector=rng.integers(0, _SECTORS, n),
            beta=rng.uniform(0.6, 1.5, n),
            vol=rng.uniform(0.009, 0.026, n),
            home=np.log(np.clip(45.0 * np.exp(rng.normal(0.0, 0.8, n)), 12.0, 220.0)),
            dollars=np.clip(4e7 * np.exp(rng.normal(0.0, 1.2, n)), 4e6, 2e9),
            earnings=rng.integers(0, _QUARTER, n),
            payout=np.where(pays, rng.uniform(0.01, 0.04, n) / 4.0, 0.0),
            born=np.where(transient, born, 0),
            gone=np.where(transient, born + lives, np.iinfo(np.int64).max),
            split_at=rng.integers(0, 25 * 252, n),
            split_ratio=rng.choice([1.5, 2.0, 2.0, 3.0, 4.0], n),
        )

    def _noise(self, name: str, year: int, columns: int) -> Floats:
        """Standard normals (sessions of the year, columns): the same whatever span is asked for."""
        rows = int((self.year_of == year).sum())
        rng = rng_for(self.seed, name, year, self.count)
        return rng.standard_normal((rows, columns), dtype=np.float32).astype(np.float64)

    def _whole(self, name: str, columns: int) -> Floats:
        return np.concatenate([self._noise(name, year, columns) for year in self.years])[: self.stop]

    def _window(self, name: str) -> Floats:
        """Noise of the window only, (sessions, symbols)."""
        first, last = self.world[self.begin].day.year, self.world[self.stop - 1].day.year
        blocks = [self._noise(name, year, self.count) for year in range(first, last + 1)]
        skipped = self.begin - int((self.year_of < first).sum())
        return np.concatenate(blocks)[skipped : skipped + self.stop - self.begin]

    def _market(self) -> Floats:
        """Market return of each session since genesis, through its regimes."""
        shocks = self._whole("market", 2)
        turns = np.concatenate(
            [rng_for(self.seed, "regime", year).random((int((self.year_of == year).sum()), 2)) for year in self.years]
        ).tolist()
        returns, regime = np.empty(self.stop), 0
        for session in range(self.stop):
            drift, vol, stays = _REGIMES[regime]
            returns[session] = drift + vol * shocks[session, 0]
            turn, where = turns[session]
            if turn > stays:
                regime = (regime + 1 + int(where * 2)) % len(_REGIMES)
        return returns

    def _levels(self) -> tuple[Floats, Floats]:
        """Log price before any split at each close since genesis, and the part of its change known at the open.

        Both (sessions, symbols).
        """
        traits, count = self.traits, self.count
        market = self._market()
        sectors = 0.005 * self._whole("sectors", _SECTORS)
        shocks = self._whole("shocks", count)
        drifts = _DRIFT_NEW * self._whole("drifts", count)
        surprises = self._whole("surprises", _SECTORS * 3)  # (sessions, 30): thirty report on the same day at most
        log_price, drift, last_shock = traits.home.copy(), np.zeros(count), np.zeros(count)
        levels, overnight = np.empty((self.stop, count)), np.zeros((self.stop, count))
        due = (np.arange(count) * 7) % surprises.shape[1]
        for session in range(self.stop):
            drift *= _DRIFT_KEPT
            drift += drifts[session]
            shock = traits.vol * shocks[session]
            log_price += market[session] * traits.beta + sectors[session, traits.sector]
            log_price += drift + shock - _REVERSAL * last_shock - _HOME_PULL * (log_price - traits.home)
            reports = np.flatnonzero((session + traits.earnings) % _QUARTER == 0)
            if reports.size:
                jump = np.clip(_JUMP * surprises[session, due[reports]], -_JUMP_MAX, _JUMP_MAX)
                overnight[session, reports] = jump
                log_price[reports] += jump
                drift[reports] += 0.02 * jump  # the news is digested over weeks
            ex = np.flatnonzero((session + traits.earnings + 30) % _QUARTER == 0)
            overnight[session, ex] -= traits.payout[ex]
            log_price[ex] -= traits.payout[ex]
            levels[session] = log_price
            last_shock = shock
        return levels, overnight

    def _splits(self, levels: Floats) -> tuple[list[tuple[int, int, float]], Floats]:
        """Splits as (session, symbol, ratio), each on the day after the close that called for it; new shares per
        old since genesis (sessions, symbols) is what prices are divided by."""
        prices = np.exp(levels)
        shares = np.ones_like(prices)
        splits: list[tuple[int, int, float]] = []
        for symbol in range(self.count):
            column, at = prices[:, symbol], int(self.traits.split_at[symbol])
            begin = 0
            while True:
                calls = (column[begin:] > _CAP_USD) | (column[begin:] < _FLOOR_USD)
                if begin <= at < self.stop and column[at] > _SPLIT_MIN_USD:
                    calls[at - begin] = True
                ahead = np.flatnonzero(calls)
                if not ahead.size or (day := begin + int(ahead[0]) + 1) >= self.stop:
                    break
                close = column[day - 1]
                ratio = (
                    4.0 if close > _CAP_USD else 0.1 if close < _FLOOR_USD else float(self.traits.split_ratio[symbol])
                )
                column[day:] /= ratio
                shares[day:, symbol] *= ratio
                splits.append((day, symbol, ratio))
                begin = day
        return splits, shares

    def book(self) -> DailyBook:
        levels, overnight = self._levels()
        splits, shares = self._splits(levels)
        window = slice(self.begin, self.stop)
        vol = self.traits.vol
        before, close = levels[self.begin - 1 : self.stop - 1], levels[window]
        change = close - before
        gap = overnight[window]
        opening = before + gap + 0.3 * (change - gap) + 0.25 * vol * self._window("gaps")
        high = np.maximum(opening, close) + 0.45 * vol * np.abs(self._window("highs"))
        low = np.minimum(opening, close) - 0.45 * vol * np.abs(self._window("lows"))
        divisor = shares[window]
        prices = np.stack([np.round(np.exp(level) / divisor, 2) for level in (opening, high, low, close)])
        busy = 0.3 * self._window("volumes") + 0.25 * np.minimum(np.abs(change) / vol, 6.0)
        volume = np.maximum(np.rint(self.traits.dollars * np.exp(busy) / prices[3]), 100.0).astype(np.int64)

        alive = self._alive()
        shown = np.flatnonzero(alive.any(axis=0))
        cells = np.arange(alive.size, dtype=np.int32).reshape(alive.shape[::-1])  # rows are (symbol, session)
        row_of = np.where(alive.T, cells, np.int32(-1))[shown]
        table = np.ascontiguousarray(prices.transpose(0, 2, 1)).reshape(4, -1)
        shares_traded = np.ascontiguousarray(volume.T).reshape(-1)
        bars = Bars(table[0], table[1], table[2], table[3], shares_traded, row_of)
        return DailyBook(
            sessions=self.world[window],
            listings=[self._listing(symbol) for symbol in shown.tolist()],
            bars=bars,
            actions=self._actions(splits, prices[3], alive),
            seed=self.seed,
        )

    def _alive(self) -> npt.NDArray[np.bool_]:
        """(sessions, symbols) of the window: does it trade?"""
        session = np.arange(self.begin, self.stop)[:, None]
        return (session >= self.traits.born) & (session < self.traits.gone)

    def _ticker(self, symbol: int) -> str:
        width = 2 if self.count <= 26**2 else 3
        letters = [_LETTERS[symbol // 26**power % 26] for power in reversed(range(width))]
        return "SYN" + "".join(letters)

    def _listing(self, symbol: int) -> Listing:
        ticker, gone = self._ticker(symbol), int(self.traits.gone[symbol])
        return Listing(
            symbol=ticker,
            asset_id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"onepath:synthetic:{ticker}")),
            name=f"Synthetic {symbol:04d} Corp.",
            exchange=_EXCHANGES[symbol % len(_EXCHANGES)],
            listed=self.world[int(self.traits.born[symbol])].day,
            delisted=self.world[gone].day if gone < self.stop else None,
        )

    def _actions(
        self, splits: Sequence[tuple[int, int, float]], close: Floats, alive: npt.NDArray[np.bool_]
    ) -> list[CorporateAction]:
        """What takes effect inside the window; nothing for a symbol that does not trade the day before."""
        begin, actions = self.begin, list[CorporateAction]()
        inside = [(day, symbol, ratio) for day, symbol, ratio in splits if day > begin]
        ratios = {(day, symbol): ratio for day, symbol, ratio in inside}
        for session in range(begin + 1, self.stop):
            traded = alive[session - 1 - begin]
            ex = traded & (self.traits.payout > 0) & ((session + self.traits.earnings + 30) % _QUARTER == 0)
            for symbol in np.flatnonzero(ex & alive[session - begin]).tolist():
                price = close[session - 1 - begin, symbol] / ratios.get((session, symbol), 1.0)
                cash = Decimal(str(round(float(price * self.traits.payout[symbol]), 2)))
                if cash > 0:
                    actions.append(CorporateAction(self._ticker(symbol), self.world[session].day, "dividend", cash))
        for session, symbol, ratio in inside:
            if alive[session - 1 - begin, symbol] and alive[session - begin, symbol]:
                day = self.world[session].day
                actions.append(CorporateAction(self._ticker(symbol), day, "split", Decimal(str(ratio))))
        for symbol in np.flatnonzero((self.traits.gone > begin) & (self.traits.gone < self.stop)).tolist():
            gone = int(self.traits.gone[symbol])
            price = Decimal(str(float(close[gone - 1 - begin, symbol])))
            actions.append(CorporateAction(self._ticker(symbol), self.world[gone].day, "delisting", price))
        return sorted(actions, key=lambda action: (action.day, action.symbol, action.kind))
