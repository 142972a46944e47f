"""`onepath exchange serve` as a process: one line when it answers, one line when it cannot, 0 when it is stopped."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.requests import StockBarsRequest, StockLatestQuoteRequest, StockSnapshotRequest
from alpaca.data.timeframe import TimeFrame
from alpaca.trading.client import TradingClient

pytestmark = pytest.mark.integration

COMMAND = [sys.executable, "-c", "from flows.cli import main; main()", "exchange", "serve"]
ROOT = Path(__file__).resolve().parents[2]
NOW = "2024-03-05T14:35:00Z"
SMALL = ["--synthetic", "--symbols", "10", "--now", NOW]
SP500 = ROOT.parent / "shared" / "data" / "sp500_daily_2016_2020.parquet"
WAIT_S = 60.0


@contextmanager
def served(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The process, its first line, and its address; ended by SIGTERM."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, line, next(word for word in line.split() if word.startswith("http://"))
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT_S)


def test_the_real_sdk_trades_and_reads_data_at_the_printed_address() -> None:
    with served("--port", "0", *SMALL, "--seed", "3", "--keys", "ME:MINE", "--cash", "5000") as (_, line, url):
        trading = TradingClient("ME", "MINE", url_override=url)
        data = StockHistoricalDataClient("ME", "MINE", url_override=url)
        account, clock = trading.get_account(), trading.get_clock()
        quotes = data.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols=["SYNAA", "SYNAB"]))
        bars = data.get_stock_bars(
            StockBarsRequest(
                symbol_or_symbols=["SYNAA", "SYNAB"], timeframe=TimeFrame.Day, start=datetime(2024, 1, 1, tzinfo=UTC)
            )
        )
        snapshots = data.get_stock_snapshot(StockSnapshotRequest(symbol_or_symbols=["SYNAA"]))

    assert "synthetic, seed 3" in line and "2024-03-05T14:35:00+00:00" in line
    assert (account.cash, clock.is_open) == ("5000", True)
    assert quotes["SYNAB"].ask_price >= quotes["SYNAB"].bid_price > 0
    assert (len(bars["SYNAA"]), len(bars["SYNAB"])) == (43, 43)
    assert snapshots["SYNAA"].latest_trade.price == snapshots["SYNAA"].daily_bar.close


def test_choices_of_the_simulation_are_made_by_name() -> None:
    options = ["--option", "shorting=true", "--option", "submitted_status=accepted"]
    with served("--port", "0", *SMALL, *options) as (_, _, url):
        keys = {"APCA-API-KEY-ID": "SIMULATED", "APCA-API-SECRET-KEY": "simulated-secret"}
        order = {"symbol": "SYNAA", "qty": 1, "side": "sell", "type": "market", "time_in_force": "day"}
        answer = requests.post(f"{url}/v2/orders", json=order, headers=keys, timeout=WAIT_S)

    assert (answer.status_code, answer.json()["status"], answer.json()["position_intent"]) == (
        200,
        "accepted",
        "sell_to_open",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_exit_code_zero(number: signal.Signals) -> None:
    with served("--port", "0", *SMALL) as (process, _, url), requests.Session() as session:
        session.get(f"{url}/admin/clock", timeout=WAIT_S)  # a kept connection does not hold it up
        process.send_signal(number)
        out, errors = process.communicate(timeout=WAIT_S)

    assert (process.returncode, out, errors) == (0, "", "")


def test_the_clock_stands_still_unless_it_is_given_a_speed() -> None:
    def passed(*arguments: str) -> float:
        with served("--port", "0", *SMALL, *arguments) as (_, _, url):
            time.sleep(0.5)
            now = requests.get(f"{url}/admin/clock", timeout=WAIT_S).json()["now"]
        return (datetime.fromisoformat(now) - datetime.fromisoformat(NOW)).total_seconds()

    assert passed() == 0
    assert passed("--speed", "600") >= 100


@pytest.mark.skipif(not SP500.is_file(), reason=f"no {SP500.name} beside the repository")
def test_a_recorded_file_is_served_and_named() -> None:
    with served("--port", "0", "--bars", str(SP500), "--now", "2020-08-31T14:00:00Z") as (_, line, url):
        keys = {"APCA-API-KEY-ID": "SIMULATED", "APCA-API-SECRET-KEY": "simulated-secret"}
        quote = requests.get(f"{url}/v2/stocks/quotes/latest?symbols=AAPL", headers=keys, timeout=WAIT_S).json()

    assert "recorded, sp500_daily_2016_2020.parquet" in line
    assert 120 < quote["quotes"]["AAPL"]["bp"] < 135  # after the split of that morning


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "0", "--now", NOW], "neither is given; choose one market"),
        (["--port", "0", *SMALL, "--option", "shortin=true"], "NAME=VALUE with one of auction_and_immediate_orders, "),
        (["--port", "0", *SMALL, "--option", "shorting"], "NAME=VALUE with one of"),
        (["--port", "0", *SMALL, "--option", "shorting=perhaps"], "should be a valid boolean"),
        (["--port", "0", *SMALL, "--option", "cancel_latency_s=-1"], "cancel_latency_s -1.0 is below 0"),
        (["--port", "0", *SMALL, "--bars", "x.parquet"], "both are given; choose one market"),
        (["--port", "0", "--bars", "x.parquet", "--symbols", "5", "--now", NOW], "--symbols: it belongs to"),
        (["--port", "0", "--bars", "x.parquet", "--now", NOW], "x.parquet: does not exist"),
        (["--port", "0", "--synthetic", "--now", "2024-03-05T14:35:00"], "it has no zone; add Z for UTC"),
        (["--port", "0", "--synthetic", "--now", "noon"], "--now noon: not a time"),
        (["--port", "0", "--synthetic", "--now", "2009-03-05T14:35:00Z"], "too little history"),
        (["--port", "0", *SMALL, "--keys", "ME"], "KEY:SECRET"),
        (["--port", "0", *SMALL, "--cash", "much"], "--cash much: not an amount"),
        (["--port", "0", *SMALL, "--speed", "-1"], "--speed -1.0: give 0"),
        (["--port", "70000", *SMALL], "--port 70000: give 0 to 65535"),
        (["--port", "0", *SMALL, "--host", "203.0.113.9"], "cannot listen on 203.0.113.9"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, errors = refused(arguments, monkeypatch, capsys)

    assert code == 2
    assert message in errors
    assert errors.startswith("onepath: ") and errors.count("\n") == 1


def refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[object, str]:
    """The command in this process: it never gets as far as serving."""
    from flows.cli import main

    monkeypatch.setattr(sys, "argv", ["onepath", "exchange", "serve", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code, capsys.readouterr().err


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        code, errors = refused(["--port", str(port), *SMALL], monkeypatch, capsys)

    assert (code, errors) == (
        2,
        f"onepath: port {port} on 127.0.0.1 is in use; stop what holds it or choose another port\n",
    )


@pytest.mark.skipif(not SP500.is_file(), reason=f"no {SP500.name} beside the repository")
def test_a_time_outside_of_the_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, errors = refused(["--port", "0", "--bars", str(SP500), "--now", NOW], monkeypatch, capsys)

    assert code == 2
    assert "has sessions from 2016-03-14 to 2020-12-31" in errors.splitlines()[-1]
