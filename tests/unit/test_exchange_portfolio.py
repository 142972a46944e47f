"""The account's worth over time."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from scripted_market import MONDAY, TUESDAY, WEDNESDAY, at, caller, flat

from desk.exchange.market import CorporateAction

PATH = "/v2/account/portfolio/history"
SCRIPT = {
    "ACME": {
        at("09:30"): 100.0,
        at("12:00"): 110.0,
        at("09:30", TUESDAY): 104.0,
        at("15:59", TUESDAY): 120.0,
        at("09:30", WEDNESDAY): 90.0,
    }
}


def test_each_day_ends_with_cash_and_holdings_at_its_close() -> None:
    desk = caller(SCRIPT)
    desk.buy("ACME", 10)
    desk.exchange.set_clock(at("17:00", WEDNESDAY))

    history = desk.get(PATH, period="1W", timeframe="1D")

    assert history["timestamp"] == [int(at("00:00", day).timestamp()) for day in (MONDAY, TUESDAY, WEDNESDAY)]
    assert history["equity"] == [100_099.9, 100_199.9, 99_899.9]
    assert history["profit_loss"] == pytest.approx([99.9, 199.9, -100.1])
    assert history["profit_loss_pct"] == pytest.approx([0.000999, 0.001999, -0.001001])
    assert (history["base_value"], history["timeframe"]) == (100_000, "1D")


def test_the_last_point_is_the_accounts_equity_now() -> None:
    desk = caller(SCRIPT)
    desk.buy("ACME", 10)
    desk.exchange.set_clock(at("12:30", TUESDAY))
    desk.exchange.set_market("ACME", bid=199, ask=201, last=200)

    history = desk.get(PATH, period="1D", timeframe="15Min")

    assert history["equity"][-1] == float(desk.get("/v2/account")["equity"])


def test_intraday_gains_begin_anew_each_day_unless_asked_otherwise() -> None:
    desk = caller(SCRIPT)
    desk.buy("ACME", 10)
    desk.exchange.set_clock(at("17:00", TUESDAY))
    asked = {"start": at("00:00").isoformat(), "timeframe": "1H"}

    anew, through = desk.get(PATH, **asked), desk.get(PATH, **asked, pnl_reset="no_reset")

    assert anew["timestamp"] == through["timestamp"]
    assert len(anew["timestamp"]) == 14  # seven hours each, from the one in which the account was opened
    assert anew["profit_loss"][-1] == pytest.approx(100.0)  # from 110 to 120
    assert through["profit_loss"][-1] == pytest.approx(199.9)
    longer = desk.get(PATH, **asked, extended_hours=True)
    assert len(longer["timestamp"]) > len(anew["timestamp"])


def test_what_happens_as_a_window_ends_belongs_to_it() -> None:
    desk = caller(flat())
    desk.exchange.set_clock(at("10:30"))
    desk.buy("ACME", 10)  # a cent above the last trade
    desk.exchange.set_clock(at("12:00"))

    history = desk.get(PATH, start=at("00:00").isoformat(), timeframe="1H")

    assert history["timestamp"][0] == int(at("09:30").timestamp())
    assert history["profit_loss"] == pytest.approx([-0.1, -0.1, -0.1])


def test_splits_and_dividends_leave_no_jump_that_is_none() -> None:
    actions = [
        CorporateAction("ACME", TUESDAY, "split", Decimal(2)),
        CorporateAction("ACME", TUESDAY, "dividend", Decimal("0.5")),
    ]
    desk = caller({"ACME": {at("09:30"): 100.0, at("09:30", TUESDAY): 50.0}}, actions=actions)
    desk.buy("ACME", 10)
    desk.exchange.set_clock(at("17:00", TUESDAY))

    history = desk.get(PATH, timeframe="1D", cashflow_types="ALL")

    assert history["equity"] == [99_999.9, 100_009.9]
    assert history["cashflow"] == {"DIV": [0, 10], "SPLIT": [0, 0]}


@pytest.mark.parametrize(
    "query",
    [
        {"period": "soon"},
        {"period": "0D"},
        {"timeframe": "2H"},
        {"period": "1A", "timeframe": "1Min"},
        {"intraday_reporting": "always"},
        {"start": "2024-03-04T15:00:00Z", "end": "2024-03-04T15:00:01Z", "period": "1D"},
        {"start": "2024-03-05T15:00:00Z"},
    ],
)
def test_a_history_that_cannot_be_is_refused(query: dict[str, Any]) -> None:
    status, body = caller(flat()).call("GET", PATH, query)

    assert (status, body["code"]) == (422, 40010001)
