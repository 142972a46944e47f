"""The market data port on alpaca-py: daily bars and latest quotes of many symbols a call.

The library's own paging has no bound, no pacing and no repeat, so pages are asked for one by one through
its `get`; each is a paced call like any other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any
from urllib.parse import quote as url_quoted

import numpy as np
import pandas as pd
from alpaca.data.historical.stock import StockHistoricalDataClient

from desk.broker import parse
from desk.broker.calls import Calls, Failure, answered
from desk.broker.pacing import Priority
from desk.broker.transport import Access, prepare
from desk.errors import Refused, Transient
from desk.market import NEW_YORK, Quote, at_new_york

__all__ = ["AlpacaMarketData"]

log = logging.getLogger(__name__)

_SYMBOLS_CHARS_MAX = 7000  # of an address; servers and proxies commonly take 8,000 in all
_BARS_A_PAGE = 10_000  # the most Alpaca gives
_BAR_PAGES_MAX = 2000
_PRICES = {"open": "o", "high": "h", "low": "l", "close": "c"}


class AlpacaMarketData:
    """Implements `desk.ports.MarketData`. `base_url` is where `/v2` begins.

    `bars_feed`: "sip", all exchanges; every subscription has it for what is older than 15 minutes. IEX alone
    sees some 3 % of the volume, useless for liquidity filters. `quotes_feed`: None leaves the choice to the
    broker, which serves the best feed of the subscription.
    """

    def __init__(
        self, base_url: str, access: Access, *, bars_feed: str | None = "sip", quotes_feed: str | None = None
    ) -> None:
        self._calls = Calls(access)
        self._client = StockHistoricalDataClient(
            access.key_id, access.secret_key, raw_data=True, url_override=base_url.rstrip("/")
        )
        prepare(self._client, access, self._calls.heard)
        self._bars_feed = bars_feed
        self._quotes_feed = quotes_feed
        self._days: dict[str, date] = {}

    def __repr__(self) -> str:
        return f"AlpacaMarketData(bars_feed={self._bars_feed!r}, quotes_feed={self._quotes_feed!r})"

    def close(self) -> None:
        """Close the connections."""
        self._client._session.close()

    def daily_bars(self, symbols: Sequence[str], start: date, end: date) -> pd.DataFrame:
        """As the port says. Alpaca also serves the unfinished bar of a running session: ask only up to the
        last one that has closed."""
        asked = {
            "timeframe": "1Day",
            "adjustment": "split",
            "start": at_new_york(start, "00:00").isoformat(),
            "end": at_new_york(end, "00:00").isoformat(),
            "limit": _BARS_A_PAGE,
            "sort": "asc",
            "feed": self._bars_feed,
        }
        bars: dict[str, list[Any]] = {}
        for chunk in _chunks(symbols):
            for page in self._bar_pages({**asked, "symbols": chunk}):
                for symbol, found in page.items():
                    bars.setdefault(symbol, []).extend(found)
        try:
            return self._frame(bars)
        except (KeyError, TypeError, ValueError) as error:
            raise Transient(f"daily bars {start} to {end}: cannot be read ({type(error).__name__}: {error})") from error

    def quotes(self, symbols: Iterable[str]) -> dict[str, Quote]:
        quotes: dict[str, Quote] = {}
        for chunk in _chunks(symbols):
            asked = {"symbols": chunk, "feed": self._quotes_feed}
            for symbol, raw in self._get("latest quotes", "/stocks/quotes/latest", asked, "quotes")[0].items():
                try:
                    quotes[symbol] = parse.quote(symbol, raw)
                except parse.Unreadable as error:
                    # One broken quote must not blind the monitor for all other symbols: it is absent.
                    log.warning("quote.unreadable symbol=%s error=%s", symbol, error)
        return quotes

    def _bar_pages(self, asked: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        token: str | None = None
        for _ in range(_BAR_PAGES_MAX):
            page, token = self._get("daily bars", "/stocks/bars", {**asked, "page_token": token}, "bars")
            yield page
            if token is None:
                return
        raise Transient(f"daily bars: more than {_BAR_PAGES_MAX} pages of {_BARS_A_PAGE}")

    def _get(self, what: str, path: str, asked: dict[str, Any], key: str) -> tuple[dict[str, Any], str | None]:
        """One page: what lies under `key`, by symbol, and the token of the next page."""
        answer = self._calls.read_or_failure(what, lambda: self._client.get(path, asked), Priority.READ)
        if isinstance(answer, Failure) and answer.status == 403:
            raise Refused(f"{what}: the data subscription does not include this feed ({answer})", status=403)
        body = answered(what, answer)
        found = body.get(key) if isinstance(body, dict) else None
        if not isinstance(found, dict):
            raise Transient(f"{what}: the broker's answer has no object under {key!r}")
        return found, body.get("next_page_token")

    def _frame(self, bars: dict[str, list[Any]]) -> pd.DataFrame:
        days: list[date] = []
        symbols: list[str] = []
        rows: list[dict[str, Any]] = []
        for symbol in sorted(bars):
            found = {self._day(row["t"]): row for row in bars[symbol]}
            ordered = sorted(found)
            days += ordered
            symbols += [symbol] * len(ordered)
            rows += [found[day] for day in ordered]
        columns: dict[str, Any] = {
            "symbol": pd.array(symbols, dtype="str"),
            "session": pd.Series(days, dtype="object"),
        }
        for name, letter in _PRICES.items():
            columns[name] = prices = np.array([row[letter] for row in rows], dtype=np.float64)
            if not np.isfinite(prices).all():  # null became NaN
                at = int(np.flatnonzero(~np.isfinite(prices))[0])
                raise ValueError(f"{symbols[at]} {days[at]}: {name} is {rows[at][letter]}, a price is needed")
        columns["volume"] = np.array([row["v"] for row in rows], dtype=np.int64)
        return pd.DataFrame(columns)

    def _day(self, stamp: str) -> date:
        """The New York day of a bar's time."""
        day = self._days.get(stamp)
        if day is None:
            day = self._days[stamp] = parse.instant(stamp).astimezone(NEW_YORK).date()
        return day


def _chunks(symbols: Iterable[str]) -> Iterator[str]:
    """Comma-joined symbols, each once, in lists that fit an address. A comma takes three characters there."""
    chunk: list[str] = []
    chars = 0
    for symbol in dict.fromkeys(symbols):
        size = len(url_quoted(symbol, safe="")) + 3
        if chunk and chars + size > _SYMBOLS_CHARS_MAX:
            yield ",".join(chunk)
            chunk, chars = [], 0
        chunk.append(symbol)
        chars += size
    if chunk:
        yield ",".join(chunk)
