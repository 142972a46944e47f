"""The market-data half of the simulated Alpaca: historical bars, quotes and trades, and the latest of each.

Numbers are JSON numbers, times RFC 3339 with Z, containers never null; a symbol without data is absent. Only what
is complete at the exchange's clock is served: a bar once it has ended, a day once it has closed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from desk.exchange.data_query import HistoryQuery, Timeframe, check_source, read_symbols, read_timeframe
from desk.exchange.market import BarRow, Tick
from desk.exchange.routing import ApiError, Body, Params, Query, Reply, Route
from desk.market import NEW_YORK, Session, at_new_york

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange

__all__ = ["DATA_ROUTES", "bar_json", "quote_json", "so_far", "trade_json"]

Point = tuple[datetime, dict[str, Any]]

_BATCH_MAX = 1000  # symbols asked of the market at once
_RECENT_SIP = timedelta(minutes=15)  # what a subscription is needed for
_RECENT = timedelta(minutes=30)  # where the latest minute bar is looked for first


# -- one symbol's data as JSON -------------------------------------------------------------------------------------


def bar_json(bar: BarRow) -> dict[str, Any]:
    return {
        "t": bar.at,
        "o": bar.open,
        "h": bar.high,
        "l": bar.low,
        "c": bar.close,
        "v": bar.volume,
        "n": bar.trades,
        "vw": bar.vwap,
    }


def quote_json(tick: Tick) -> dict[str, Any]:
    """A side without a price (0) has no size either. Sizes are shares, made up from the tick."""
    lots = int(tick.at) // 60 + int(tick.last * 100)
    return {
        "t": datetime.fromtimestamp(tick.at, UTC),
        "ax": "V",
        "ap": tick.ask,
        "as": 100 * (1 + lots * 7 % 12) if tick.ask > 0 else 0,
        "bx": "V",
        "bp": tick.bid,
        "bs": 100 * (1 + lots * 5 % 12) if tick.bid > 0 else 0,
        "c": ["R"],
        "z": "C",
    }


def trade_json(tick: Tick) -> dict[str, Any]:
    return {
        "t": datetime.fromtimestamp(tick.at, UTC),
        "x": "V",
        "p": tick.last,
        "s": tick.volume,
        "c": ["@"],
        "i": int(tick.at * 1000),
        "z": "C",
    }


def _reply(payload: dict[str, Any]) -> Reply:
    return 200, orjson.dumps(payload, option=orjson.OPT_UTC_Z)


def read_history(exchange: Exchange, query: Query) -> HistoryQuery:
    asked = HistoryQuery.read(query, exchange.now)
    if not exchange.options.sip_entitled and query.get("feed") == "sip" and asked.end > exchange.now - _RECENT_SIP:
        raise ApiError(403, None, "subscription does not permit querying recent SIP data")
    return asked


def _symbols_now(exchange: Exchange, query: Query) -> tuple[str, ...]:
    """Of a request for the latest of something."""
    if not exchange.options.sip_entitled and query.get("feed") == "sip":
        raise ApiError(403, None, "subscription does not permit querying recent SIP data")
    check_source(query)
    return read_symbols(query)


# -- history, page by page -----------------------------------------------------------------------------------------


def _page(
    asked: HistoryQuery, name: str, fetch: Callable[[Sequence[str]], dict[str, list[Point]]], *, batch: int
) -> Reply:
    """One page over all symbols, by symbol and then time; `fetch` answers for a batch of symbols, oldest first."""
    rows: dict[str, list[dict[str, Any]]] = {}
    room, last = asked.limit, None
    for symbol, points in _by_symbol(asked.remaining(), fetch, batch):
        left = _not_served(asked, symbol, points)
        if left and not room:
            assert last is not None  # a limit is at least 1, so something was served
            return _reply({name: rows, "next_page_token": asked.token(*last)})
        if left:
            rows[symbol] = [point for _, point in left[:room]]
            last = symbol, left[min(room, len(left)) - 1][0]
            if len(left) > room:
                return _reply({name: rows, "next_page_token": asked.token(*last)})
            room -= len(left)
    return _reply({name: rows, "next_page_token": None})


def _by_symbol(
    symbols: Sequence[str], fetch: Callable[[Sequence[str]], dict[str, list[Point]]], batch: int
) -> Iterator[tuple[str, list[Point]]]:
    for begin in range(0, len(symbols), batch):
        found = fetch(symbols[begin : begin + batch])
        for symbol in symbols[begin : begin + batch]:
            if symbol in found:
                yield symbol, found[symbol]


def _not_served(asked: HistoryQuery, symbol: str, points: list[Point]) -> list[Point]:
    """Points in the order asked for, without those of earlier pages."""
    if asked.resume is not None and symbol == asked.resume[0]:
        served = asked.resume[1]
        points = [p for p in points if (p[0] < served if asked.newest_first else p[0] > served)]
    return points[::-1] if asked.newest_first else points


def _batch(asked: HistoryQuery, points_per_symbol: int) -> int:
    """Symbols that about fill a page, so that a page does not cost the whole universe."""
    return min(max(asked.limit // max(points_per_symbol, 1), 1) + 1, _BATCH_MAX)


def bars(exchange: Exchange, _params: Params, query: Query, _body: Body | None) -> Reply:
    asked, timeframe = read_history(exchange, query), read_timeframe(query)
    now, market = exchange.now, exchange.market
    sessions = _sessions_between(market.sessions(), asked.start, min(asked.end, now))
    minutes = timeframe.minutes

    def intraday(symbols: Sequence[str]) -> dict[str, list[Point]]:
        assert minutes is not None
        found = market.minute_bars(symbols, asked.start, asked.end, minutes=minutes, known_at=now)
        return {symbol: [(bar.at, bar_json(bar)) for bar in rows] for symbol, rows in found.items()}

    def daily(symbols: Sequence[str]) -> dict[str, list[Point]]:
        found = _days_or_longer(exchange, symbols, asked, timeframe)
        return {symbol: [(bar.at, bar_json(bar)) for bar in rows] for symbol, rows in found.items()}

    if minutes is None:
        return _page(asked, "bars", daily, batch=_batch(asked, sessions))
    return _page(asked, "bars", intraday, batch=_batch(asked, sessions * (390 // minutes + 1)))


def _days_or_longer(
    exchange: Exchange, symbols: Sequence[str], asked: HistoryQuery, timeframe: Timeframe
) -> dict[str, list[BarRow]]:
    start = asked.start.astimezone(NEW_YORK)
    first = start.date() if start == start.replace(hour=0, minute=0, second=0, microsecond=0) else None
    # Bars are stamped New York midnight: a later start on that day leaves its bar out.
    begin = first if first is not None else start.date() + timedelta(days=1)
    end = timeframe.last_day(asked.end.astimezone(NEW_YORK).date())
    if end < begin:
        return {}
    days = exchange.market.daily_bars(symbols, begin, end, adjustment=asked.adjustment, known_at=exchange.now)
    if timeframe.unit == "Day":
        return days
    longer = {symbol: _joined(rows, timeframe) for symbol, rows in days.items()}
    return {
        symbol: kept
        for symbol, rows in longer.items()
        if (kept := [bar for bar in rows if asked.start <= bar.at <= asked.end])
    }


def _joined(days: Iterable[BarRow], timeframe: Timeframe) -> list[BarRow]:
    """Daily bars joined into weeks or months, stamped with the period's first calendar day."""
    joined: list[BarRow] = []
    for day in days:
        at = at_new_york(timeframe.first_day(day.at.astimezone(NEW_YORK).date()), "00:00")
        if not joined or joined[-1].at != at:
            joined.append(day._replace(at=at))
            continue
        bar = joined[-1]
        shares = bar.volume + day.volume
        vwap = (bar.vwap * bar.volume + day.vwap * day.volume) / shares if shares else day.vwap
        joined[-1] = BarRow(
            at=at,
            open=bar.open,
            high=max(bar.high, day.high),
            low=min(bar.low, day.low),
            close=day.close,
            volume=shares,
            trades=bar.trades + day.trades,
            vwap=round(vwap, 4),
        )
    return joined


def quotes(exchange: Exchange, _params: Params, query: Query, _body: Body | None) -> Reply:
    return _ticks(exchange, query, "quotes", quote_json)


def trades(exchange: Exchange, _params: Params, query: Query, _body: Body | None) -> Reply:
    return _ticks(exchange, query, "trades", trade_json)


def _ticks(exchange: Exchange, query: Query, name: str, as_json: Callable[[Tick], dict[str, Any]]) -> Reply:
    asked = read_history(exchange, query)
    until = min(asked.end, exchange.now)

    def fetch(symbols: Sequence[str]) -> dict[str, list[Point]]:
        found = {symbol: _some_ticks(exchange, symbol, asked, until) for symbol in symbols}
        return {
            symbol: [(point["t"], point) for point in map(as_json, ticks)] for symbol, ticks in found.items() if ticks
        }

    return _page(asked, name, fetch, batch=1)


def _some_ticks(exchange: Exchange, symbol: str, asked: HistoryQuery, until: datetime) -> list[Tick]:
    """Ticks of one symbol, oldest first: session by session until a page is full, not years at once."""
    after = asked.start - timedelta(microseconds=1)
    if asked.resume is not None and symbol == asked.resume[0]:
        after, until = (after, min(until, asked.resume[1])) if asked.newest_first else (asked.resume[1], until)
    sessions = exchange.market.sessions()
    first = bisect_left(sessions, after, key=_closes)
    last = bisect_right(sessions, until, key=_opens)
    found: list[Tick] = []
    for session in reversed(sessions[first:last]) if asked.newest_first else sessions[first:last]:
        # A session's ticks lie from its open to its close, both included.
        begin = max(after, session.opens - timedelta(microseconds=1))
        ticks = exchange.market.ticks(symbol, begin, min(until, session.closes))
        found = [*ticks, *found] if asked.newest_first else [*found, *ticks]
        if len(found) > asked.limit + 1:
            break
    return found


# -- the latest ----------------------------------------------------------------------------------------------------


def latest_quotes(exchange: Exchange, _params: Params, query: Query, _body: Body | None) -> Reply:
    quote = exchange.quote
    ticks = ((symbol, quote(symbol)) for symbol in _symbols_now(exchange, query))
    return _reply({"quotes": {symbol: quote_json(tick) for symbol, tick in ticks if tick is not None}})


def latest_trades(exchange: Exchange, _params: Params, query: Query, _body: Body | None) -> Reply:
    ticks = ((symbol, exchange.quote(symbol)) for symbol in _symbols_now(exchange, query))
    return _reply({"trades": {symbol: trade_json(tick) for symbol, tick in ticks if tick is not None}})


def latest_bars(exchange: Exchange, _params: Params, query: Query, _body: Body | None) -> Reply:
    found = _latest_minutes(exchange, _symbols_now(exchange, query))
    return _reply({"bars": {symbol: bar_json(bar) for symbol, bar in found.items()}})


def snapshots(exchange: Exchange, _params: Params, query: Query, _body: Body | None) -> Reply:
    """Keyed by symbol without a wrapper. `dailyBar` is the running session's so far, else the last one's; all raw."""
    symbols = _symbols_now(exchange, query)
    sessions = exchange.market.sessions()
    opened = bisect_right(sessions, exchange.now, key=_opens) - 1
    minute, recent = _latest_minutes(exchange, symbols), _recent_days(exchange, symbols, sessions, opened)
    running = opened >= 0 and exchange.now < sessions[opened].closes
    payload: dict[str, Any] = {}
    for symbol in symbols:
        tick = exchange.quote(symbol)
        if tick is None:
            continue
        days = recent.get(symbol, [])
        today = so_far(exchange, symbol, sessions[opened]) if running else None
        if today is not None:
            days = [*days, today]
        payload[symbol] = {
            "latestTrade": trade_json(tick),
            "latestQuote": quote_json(tick),
            "minuteBar": bar_json(minute[symbol]) if symbol in minute else None,
            "dailyBar": bar_json(days[-1]) if days else None,
            "prevDailyBar": bar_json(days[-2]) if len(days) > 1 else None,
        }
    return _reply(payload)


def _latest_minutes(exchange: Exchange, symbols: Sequence[str]) -> dict[str, BarRow]:
    """The latest complete minute bar of each symbol in the latest session that has opened."""
    sessions, now = exchange.market.sessions(), exchange.now
    opened = bisect_right(sessions, now, key=_opens) - 1
    if opened < 0:
        return {}
    found: dict[str, BarRow] = {}
    # At the open itself no bar is complete yet: the session before has the latest.
    for session in reversed(sessions[max(opened - 1, 0) : opened + 1]):
        for since in (min(now, session.closes) - _RECENT, session.opens - timedelta(hours=1)):
            missing = [symbol for symbol in symbols if symbol not in found]
            if missing:
                rows = exchange.market.minute_bars(missing, since, session.closes, minutes=1, known_at=now)
                found.update((symbol, bars[-1]) for symbol, bars in rows.items())
    return found


def _recent_days(
    exchange: Exchange, symbols: Sequence[str], sessions: Sequence[Session], opened: int
) -> dict[str, list[BarRow]]:
    """The last two completed daily bars of each symbol, raw."""
    if opened < 0:
        return {}
    first, last = sessions[max(opened - 2, 0)].day, sessions[opened].day
    found = exchange.market.daily_bars(symbols, first, last, adjustment="raw", known_at=exchange.now)
    return {symbol: rows[-2:] for symbol, rows in found.items()}


def so_far(exchange: Exchange, symbol: str, session: Session) -> BarRow | None:
    """The running session's bar up to now; None before the symbol's first trade of the day."""
    ticks = exchange.market.ticks(symbol, session.opens - timedelta(microseconds=1), exchange.now)
    if not ticks:
        return None
    prices = [tick.last for tick in ticks]
    volume = sum(tick.volume for tick in ticks)
    vwap = sum(tick.last * tick.volume for tick in ticks) / volume if volume else prices[-1]
    return BarRow(
        at=at_new_york(session.day, "00:00"),
        open=prices[0],
        high=max(prices),
        low=min(prices),
        close=prices[-1],
        volume=volume,
        trades=len(ticks),
        vwap=round(vwap, 4),
    )


def _sessions_between(sessions: Sequence[Session], start: datetime, end: datetime) -> int:
    return max(bisect_right(sessions, end, key=_opens) - bisect_left(sessions, start, key=_closes), 1)


def _opens(session: Session) -> datetime:
    return session.opens


def _closes(session: Session) -> datetime:
    return session.closes


DATA_ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2/stocks/bars", bars),
    Route("GET", "/v2/stocks/quotes", quotes),
    Route("GET", "/v2/stocks/trades", trades),
    Route("GET", "/v2/stocks/bars/latest", latest_bars),
    Route("GET", "/v2/stocks/quotes/latest", latest_quotes),
    Route("GET", "/v2/stocks/trades/latest", latest_trades),
    Route("GET", "/v2/stocks/snapshots", snapshots),
)
