"""How many orders the simulated Alpaca takes: over HTTP on one core, in process, and with much else open.

Each figure is the best of some rounds: what others do on the machine only ever slows a round down. Ratios compare
rounds of one run, taken by turns.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.requests import LimitOrderRequest

from desk.exchange.exchange import Exchange
from desk.exchange.synthetic import SyntheticMarket
from desk.exchange.transport import InProcessSession
from desk.market import at_new_york

pytestmark = pytest.mark.timeout(900)

KEYS = ("KEY", "SECRET")
HEADERS = {"APCA-API-KEY-ID": KEYS[0], "APCA-API-SECRET-KEY": KEYS[1], "Content-Type": "application/json"}
DAY = date(2024, 3, 5)
NOW = at_new_york(DAY, "10:00")
ROUNDS, ORDERS = 5, 400
HTTP_A_SECOND, IN_PROCESS_A_SECOND, SLOWDOWN = 500, 1_000, 0.20


def exchange(symbols: int) -> Exchange:
    """On a market that ends soon, so that making it is not what takes the time."""
    market = SyntheticMarket(7, DAY, date(2024, 3, 8), symbols=symbols)
    made = Exchange(market, NOW, keys=KEYS, cash=Decimal(10**9))
    assert len(made.assets.listed_json(made.today, None)) > 100 * symbols
    return made


def body(symbol: str, number: int) -> dict[str, Any]:
    """A limit order far from the market: it rests, and is cancelled after the round."""
    return {
        "symbol": symbol, "qty": 1, "side": "buy", "type": "limit", "time_in_force": "day", "limit_price": 1,
        "client_order_id": f"bench-{number}",
    }  # fmt: skip


class Numbers:
    """Client order ids are used up for ever."""

    last = 0

    @classmethod
    def next(cls) -> int:
        cls.last += 1
        return cls.last


def rate(submit: Callable[[int], object], orders: int = ORDERS) -> float:
    """Orders a second of one round."""
    began = time.perf_counter()
    for _ in range(orders):
        submit(Numbers.next())
    return orders / (time.perf_counter() - began)


def cancel_new(made: Exchange, open_before: int) -> None:
    """Take away what a round left open: the next begins as this one did."""
    for order in made.floor.register.open_in_order()[open_before:]:
        made.cancel(order)


def raw_submitter(made: Exchange, symbol: str) -> Callable[[int], object]:
    """The exchange's own cost: request in, answer out, no client."""
    session = InProcessSession(made)

    def submit(number: int) -> None:
        answer = session.request("POST", "http://x/v2/orders", headers=HEADERS, json=body(symbol, number))
        assert answer.status_code == 200, answer.text

    return submit


def sdk_submitter(made: Exchange, symbol: str) -> Callable[[int], object]:
    """The unmodified alpaca-py with its models."""
    client = TradingClient(*KEYS, url_override="http://x")
    client._session = InProcessSession(made)

    def submit(number: int) -> None:
        client.submit_order(
            LimitOrderRequest(
                symbol=symbol, qty=1, side=OrderSide.BUY, time_in_force=TimeInForce.DAY, limit_price=1,
                client_order_id=f"bench-{number}",
            )
        )  # fmt: skip

    return submit


def fills(made: Exchange, symbol: str) -> Callable[[int], object]:
    """Buys and sells by turns: each order is matched, booked and told."""
    session = InProcessSession(made)

    def submit(number: int) -> None:
        plain = {"symbol": symbol, "qty": 1, "type": "market", "time_in_force": "day"}
        side = {"side": "sell" if number % 2 == fills_begin % 2 else "buy"}
        answer = session.request("POST", "http://x/v2/orders", headers=HEADERS, json=plain | side)
        assert answer.status_code == 200, answer.text

    fills_begin = Numbers.last
    return submit


def best_of(made: Exchange, submit: Callable[[int], object], rounds: int = ROUNDS) -> float:
    open_before = len(made.floor.open_orders())
    rates = []
    for _ in range(rounds):
        rates.append(rate(submit))
        cancel_new(made, open_before)
    return max(rates)


def test_a_thousand_submits_a_second_in_process() -> None:
    made = exchange(500)

    raw = best_of(made, raw_submitter(made, "SYNAA"))
    sdk = best_of(made, sdk_submitter(made, "SYNAA"))
    filled = best_of(made, fills(made, "SYNAB"))

    print(f"\nin process: {raw:,.0f} submits a second, {filled:,.0f} that fill at once, "
          f"{sdk:,.0f} through the unmodified alpaca-py")  # fmt: skip
    assert filled >= IN_PROCESS_A_SECOND
    assert raw >= IN_PROCESS_A_SECOND
    assert sdk >= IN_PROCESS_A_SECOND


def symbols_of(made: Exchange) -> list[str]:
    return [one.symbol for one in made.market.listings() if one.delisted is None and one.listed <= DAY]


def test_eleven_thousand_assets_and_five_hundred_open_orders_slow_nothing_down() -> None:
    """Against 500 assets and no open order, by turns within one run. The open orders are spread over the symbols, or
    all in the one that is being traded."""
    bare, spread = exchange(500), exchange(11_000)
    crowded = Exchange(spread.market, NOW, keys=KEYS, cash=Decimal(10**9))
    names = symbols_of(spread)
    assert len(names) >= 11_000
    for place in range(500):
        spread.submit(body(names[place * 20], Numbers.next()))
        crowded.submit(body(names[7], Numbers.next()))
    opened = {bare: 0, spread: 500, crowded: 500}
    assert all(len(made.floor.open_orders()) == count for made, count in opened.items())
    submits = {made: raw_submitter(made, "SYNAA" if made is bare else names[7]) for made in opened}
    rates: dict[Exchange, list[float]] = {made: [] for made in opened}

    for _ in range(2 * ROUNDS):
        for made, submit in submits.items():
            rates[made].append(rate(submit))
            cancel_new(made, opened[made])

    best = {made: max(found) for made, found in rates.items()}
    print(f"\n500 assets, nothing open: {best[bare]:,.0f}/s; {len(names):,} assets, 500 open: {best[spread]:,.0f}/s, "
          f"ratio {best[spread] / best[bare]:.2f}; all 500 in one symbol: {best[crowded]:,.0f}/s, "
          f"ratio {best[crowded] / best[bare]:.2f}")  # fmt: skip
    assert best[spread] >= (1 - SLOWDOWN) * best[bare]
    assert best[crowded] >= (1 - SLOWDOWN) * best[bare]


def test_letting_time_pass_and_reading_stay_quick_with_five_hundred_open_orders() -> None:
    """Figures only: a minute of the clock, and the list of open orders."""
    made = exchange(11_000)
    names = symbols_of(made)
    for place in range(500):
        made.submit(body(names[place * 20], Numbers.next()))
    session = InProcessSession(made)
    made.advance(60)  # ticks of the day are read once

    began = time.perf_counter()
    for _ in range(10):
        made.advance(60)
    minute_s = (time.perf_counter() - began) / 10
    began = time.perf_counter()
    for _ in range(10):
        made.advance(0.001)
        found = session.request("GET", "http://x/v2/orders", params={"limit": 500}, headers=HEADERS).json()
        assert len(found) == 500
    list_s = (time.perf_counter() - began) / 10

    print(f"\n500 open orders: a minute of the clock {minute_s * 1e3:.1f} ms, the list of them {list_s * 1e3:.1f} ms")
    assert minute_s < 1 and list_s < 1


@contextmanager
def on_one_core(symbols: int) -> Iterator[int]:
    """The exchange as a process of its own, held to one core; gives its port."""
    command = [
        str(Path(sys.executable).with_name("onepath")), "exchange", "serve", "--port", "0", "--synthetic", "--symbols",
        str(symbols), "--now", NOW.isoformat(), "--keys", ":".join(KEYS), "--cash", "1000000000",
    ]  # fmt: skip
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if core is not None:
            os.sched_setaffinity(server.pid, {core})
        assert server.stdout is not None
        line = server.stdout.readline()
        yield int(line.split("127.0.0.1:")[1].split()[0])
    finally:
        server.terminate()
        server.wait(20)
        if server.stdout is not None:
            server.stdout.close()


def test_five_hundred_orders_a_second_over_http_on_one_core() -> None:
    with on_one_core(500) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)

        def submit(number: int) -> None:
            connection.request("POST", "/v2/orders", json.dumps(body("SYNAA", number)).encode(), HEADERS)
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content

        rates = []
        for _ in range(ROUNDS):
            rates.append(rate(submit))
            connection.request("DELETE", "/v2/orders", headers=HEADERS)
            assert connection.getresponse().read()
        connection.close()

    print(f"\nover HTTP, server on one core, one client: {max(rates):,.0f} orders a second")
    assert max(rates) >= HTTP_A_SECOND
