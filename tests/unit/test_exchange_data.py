"""Screener, corporate actions, entitlements, rate limits, feed defects, and a market that was bent."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from scripted_market import KEYS, TUESDAY, WEDNESDAY, Caller, at, caller, flat

from desk.exchange.exchange import Exchange
from desk.exchange.market import CorporateAction
from desk.exchange.options import ExchangeOptions
from desk.exchange.synthetic import SyntheticMarket
from desk.market import at_new_york

DAY = date(2024, 3, 5)
MARKET = SyntheticMarket(7, date(2024, 1, 2), date(2024, 6, 28), symbols=12)
ACTIVES, MOVERS, ACTIONS = (
    "/v1beta1/screener/stocks/most-actives",
    "/v1beta1/screener/stocks/movers",
    "/v1/corporate-actions",
)


def on(hhmm: str, day: date = DAY, options: ExchangeOptions | None = None) -> Caller:
    return Caller(Exchange(MARKET, at_new_york(day, hhmm), keys=KEYS, options=options))


def trouble(desk: Caller, fault: str, **script: Any) -> None:
    assert desk.call("POST", "/admin/faults", body={"fault": fault, **script})[0] == 200


# -- screener ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hhmm", ["11:00", "18:00"])
@pytest.mark.parametrize(("by", "name"), [("volume", "volume"), ("trades", "trade_count")])
def test_the_most_active_come_first_with_what_traded_so_far(hhmm: str, by: str, name: str) -> None:
    desk = on(hhmm)

    listed = desk.get(ACTIVES, by=by, top=5)["most_actives"]

    assert len(listed) == 5
    assert [one[name] for one in listed] == sorted((one[name] for one in listed), reverse=True)
    shown = desk.get("/v2/stocks/snapshots", symbols=listed[0]["symbol"])[listed[0]["symbol"]]["dailyBar"]
    assert (listed[0]["volume"], listed[0]["trade_count"]) == (shown["v"], shown["n"])
    everyone = desk.get(ACTIVES, by=by, top=100)["most_actives"]
    assert max(one[name] for one in everyone) == listed[0][name]


def test_movers_are_measured_against_the_close_before() -> None:
    script = {
        "UP": {at("09:30"): 100.0, at("09:30", TUESDAY): 103.0},
        "BEST": {at("09:30"): 50.0, at("09:30", TUESDAY): 55.0},
        "DOWN": {at("09:30"): 10.0, at("09:30", TUESDAY): 8.0},
        "SAME": {at("09:30"): 10.0, at("09:30", TUESDAY): 10.0},
    }
    desk = caller(script, at="11:00", day=TUESDAY)

    found = desk.get(MOVERS)

    assert [(one["symbol"], one["percent_change"], one["change"], one["price"]) for one in found["gainers"]] == [
        ("BEST", 10.0, 5.0, 55.0),
        ("UP", 3.0, 3.0, 103.0),
    ]
    assert [one["symbol"] for one in found["losers"]] == ["DOWN"]
    assert (found["market_type"], found["last_updated"]) == ("stocks", "2024-03-05T16:00:00Z")
    assert [one["symbol"] for one in desk.get(MOVERS, top=1)["gainers"]] == ["BEST"]


@pytest.mark.parametrize(
    ("path", "query"),
    [(ACTIVES, {"top": 0}), (ACTIVES, {"top": 101}), (ACTIVES, {"by": "luck"}), (MOVERS, {"top": 51})],
)
def test_a_screener_request_that_cannot_be_is_400(path: str, query: dict[str, Any]) -> None:
    status, body = on("11:00").call("GET", path, query)

    assert (status, set(body)) == (400, {"message"})


# -- corporate actions ---------------------------------------------------------------------------

THREE = [
    CorporateAction("ACME", TUESDAY, "split", Decimal("1.5")),
    CorporateAction("BETA", TUESDAY, "split", Decimal("0.1")),
    CorporateAction("BETA", TUESDAY, "dividend", Decimal("0.25")),
    CorporateAction("GAMA", WEDNESDAY, "delisting", Decimal(80)),
]


def actions_desk(day: date = WEDNESDAY) -> Caller:
    return caller(
        flat("ACME") | flat("BETA") | flat("GAMA"), at="11:00", day=day, actions=THREE, delisted={"GAMA": WEDNESDAY}
    )


def test_corporate_actions_are_grouped_by_type_with_their_rates() -> None:
    answer = actions_desk().get(ACTIONS, start="2024-03-04", end="2024-03-06")

    found = answer["corporate_actions"]
    assert {kind: [row.get("symbol") or row["acquiree_symbol"] for row in rows] for kind, rows in found.items()} == {
        "forward_splits": ["ACME"],
        "reverse_splits": ["BETA"],
        "cash_dividends": ["BETA"],
        "cash_mergers": ["GAMA"],
    }
    assert (found["forward_splits"][0]["new_rate"], found["forward_splits"][0]["old_rate"]) == (3, 2)
    assert (found["reverse_splits"][0]["new_rate"], found["reverse_splits"][0]["old_rate"]) == (1, 10)
    assert (found["cash_dividends"][0]["rate"], found["cash_dividends"][0]["ex_date"]) == (0.25, "2024-03-05")
    assert (found["cash_mergers"][0]["rate"], found["cash_mergers"][0]["effective_date"]) == (80, "2024-03-06")
    assert answer["next_page_token"] is None


def test_nothing_is_told_before_its_day() -> None:
    answer = actions_desk(TUESDAY).get(ACTIONS, start="2024-03-04", end="2024-03-08")

    assert "cash_mergers" not in answer["corporate_actions"]


def test_corporate_actions_are_cut_by_symbol_type_cusip_and_id() -> None:
    desk = actions_desk()
    span = {"start": "2024-03-04", "end": "2024-03-06"}

    def symbols(**query: Any) -> list[str]:
        groups = desk.get(ACTIONS, **query)["corporate_actions"].values()
        return [row.get("symbol") or row["acquiree_symbol"] for rows in groups for row in rows]

    assert symbols(**span, symbols="ACME,GAMA") == ["ACME", "GAMA"]
    assert symbols(**span, types="cash_dividend") == ["BETA"]
    (split,) = desk.get(ACTIONS, **span, symbols="ACME")["corporate_actions"]["forward_splits"]
    assert symbols(**span, cusips=split["cusip"]) == ["ACME"]
    assert symbols(ids=split["id"]) == ["ACME"]
    assert symbols() == ["GAMA"]  # without a span, of today


def test_corporate_actions_come_in_pages_over_all_types() -> None:
    desk = actions_desk()
    span = {"start": "2024-03-04", "end": "2024-03-06", "limit": 3}

    first = desk.get(ACTIONS, **span)
    second = desk.get(ACTIONS, **span, page_token=first["next_page_token"])

    counted = [sum(map(len, page["corporate_actions"].values())) for page in (first, second)]
    assert (counted, second["next_page_token"]) == ([3, 1], None)
    assert next(iter(desk.get(ACTIONS, **span, sort="desc")["corporate_actions"])) == "cash_mergers"


@pytest.mark.parametrize(
    "query",
    [
        {"types": "windfall"},
        {"limit": 0},
        {"limit": 1001},
        {"sort": "up"},
        {"start": "soon"},
        {"start": "2024-03-06", "end": "2024-03-04"},
        {"page_token": "x"},
        {"ids": "a", "symbols": "ACME"},
    ],
)
def test_a_request_for_corporate_actions_that_cannot_be_is_400(query: dict[str, Any]) -> None:
    assert actions_desk().call("GET", ACTIONS, query)[0] == 400


# -- entitlements and limits ---------------------------------------------------------------------


def test_without_a_subscription_recent_sip_data_is_forbidden() -> None:
    desk = on("11:00", options=ExchangeOptions(sip_entitled=False))
    symbol = MARKET.listings()[0].symbol
    bars = {"symbols": symbol, "timeframe": "1Min", "start": "2024-03-05T14:30:00Z", "feed": "sip"}

    for path in ("quotes/latest", "trades/latest", "bars/latest", "snapshots"):
        assert desk.call("GET", f"/v2/stocks/{path}", {"symbols": symbol, "feed": "sip"})[0] == 403
        assert desk.call("GET", f"/v2/stocks/{path}", {"symbols": symbol})[0] == 200
    assert desk.call("GET", "/v2/stocks/bars", bars)[0] == 403
    assert desk.call("GET", "/v2/stocks/bars", bars | {"end": "2024-03-05T15:45:00Z"})[0] == 200
    assert desk.call("GET", "/v2/stocks/bars", bars | {"feed": "iex"})[0] == 200


@pytest.mark.parametrize("query", [{"currency": "EUR"}, {"asof": "yesterday"}, {"feed": "rumour"}])
def test_a_source_that_does_not_exist_is_400(query: dict[str, str]) -> None:
    assert on("11:00").call("GET", "/v2/stocks/quotes/latest", {"symbols": "SYNAA", **query})[0] == 400


def test_requests_are_limited_by_account_and_minute_of_the_exchanges_clock() -> None:
    """Trading and data are counted apart, and all clients of the account together."""
    options = ExchangeOptions(rate_limit_per_minute=3, data_rate_limit_per_minute=1)
    desk = caller(flat(), options=options)
    other = Caller(desk.exchange)
    keys = {"APCA-API-KEY-ID": KEYS[0], "APCA-API-SECRET-KEY": KEYS[1]}

    headers = desk.gateway.handle("GET", "/v2/clock", "", keys, b"").headers
    assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("3", "2")
    assert headers["X-RateLimit-Reset"] == str(int(at("10:01").timestamp()))
    assert [one.call("GET", "/v2/clock")[0] for one in (desk, other, desk)] == [200, 200, 429]
    assert desk.call("GET", "/v2/clock")[1] == {"code": 42910000, "message": "rate limit exceeded"}
    data = [desk.call("GET", "/v2/stocks/quotes/latest", {"symbols": "ACME"})[0] for _ in range(2)]
    assert data == [200, 429]
    desk.exchange.advance(60)

    assert desk.call("GET", "/v2/clock")[0] == 200


# -- feed defects --------------------------------------------------------------------------------

BARS = {"timeframe": "1Min", "start": "2024-03-05T14:30:00Z", "end": "2024-03-05T15:00:00Z"}
SYMBOL = MARKET.listings()[0].symbol


def bars(desk: Caller, **query: Any) -> list[dict[str, Any]]:
    return desk.get("/v2/stocks/bars", symbols=SYMBOL, **BARS | query)["bars"].get(SYMBOL, [])  # type: ignore[no-any-return]


def test_the_latest_bar_may_be_late() -> None:
    desk = on("11:00")
    whole = bars(desk)
    trouble(desk, "late_bar", times=1)

    assert (bars(desk), bars(desk)) == (whole[:-1], whole)


def test_a_bar_may_be_corrected_later() -> None:
    desk = on("11:00")
    whole = bars(desk)
    trouble(desk, "bar_correction", percent=50, times=1)

    wrong, right = bars(desk), bars(desk)

    assert wrong[-1]["c"] == pytest.approx(whole[-1]["c"] * 1.5, abs=1e-4)
    assert wrong[-1]["h"] >= wrong[-1]["c"]
    assert (wrong[:-1], right) == (whole[:-1], whole)
    assert [(one["T"], one["S"], one["c"]) for one in desk.exchange.bulletins] == [("u", SYMBOL, whole[-1]["c"])]


def test_some_bars_may_be_missing_the_same_ones_for_the_same_seed() -> None:
    def gappy(seed: int) -> list[dict[str, Any]]:
        desk = on("11:00")
        trouble(desk, "missing_bars", fraction=0.4, seed=seed)
        return bars(desk)

    whole = bars(on("11:00"))
    assert gappy(1) == gappy(1) != gappy(2)
    assert 0 < len(gappy(1)) < len(whole)
    assert all(bar in whole for bar in gappy(1))


def test_a_page_may_claim_to_be_the_last() -> None:
    desk = on("11:00")
    trouble(desk, "page_cut", times=1)
    asked = {"symbols": SYMBOL, **BARS, "limit": 5}

    cut, whole = desk.get("/v2/stocks/bars", **asked), desk.get("/v2/stocks/bars", **asked)

    assert cut["next_page_token"] is None and whole["next_page_token"] is not None
    assert cut["bars"] == whole["bars"]


def test_prices_and_bars_agree_after_a_leap() -> None:
    """Minute bars, the running day's bar and the latest trade all show it; what was before stays."""
    desk, straight = on("11:00"), on("11:00")
    trouble(desk, "gap", symbol=SYMBOL, percent=-30)
    for one in (desk, straight):
        one.exchange.advance(1800)

    span = {"start": "2024-03-05T15:50:00Z", "end": "2024-03-05T16:30:00Z"}
    bent, plain = bars(desk, **span), bars(straight, **span)
    for bar, before in zip(bent, plain, strict=True):
        factor = 1.0 if bar["t"] < "2024-03-05T16:00:00Z" else 0.7
        assert bar["c"] == pytest.approx(before["c"] * factor, rel=0.002), bar["t"]
    trade = desk.get("/v2/stocks/trades/latest", symbols=SYMBOL)["trades"][SYMBOL]["p"]
    assert trade == pytest.approx(bent[-1]["c"], rel=0.02)
    for one in (desk, straight):
        one.exchange.set_clock(at_new_york(DAY, "18:00"))
    (day,), (straight_day,) = (bars(one, timeframe="1Day", start="2024-03-05") for one in (desk, straight))
    assert day["o"] == straight_day["o"]
    assert day["c"] == pytest.approx(straight_day["c"] * 0.7, rel=0.002)


def test_bars_are_adjusted_for_a_split_that_was_added() -> None:
    desk, straight = on("11:00"), on("11:00")
    trouble(desk, "split", symbol=SYMBOL, ratio=4)
    for one in (desk, straight):
        one.exchange.set_clock(at_new_york(DAY + timedelta(days=1), "18:00"))
    asked = {"timeframe": "1Day", "start": "2024-03-04", "end": "2024-03-06"}

    raw, adjusted, plain = bars(desk, **asked), bars(desk, **asked, adjustment="split"), bars(straight, **asked)

    assert [bar["c"] for bar in raw[:2]] == [bar["c"] for bar in plain[:2]]
    assert raw[2]["c"] == pytest.approx(plain[2]["c"] / 4, abs=0.01)
    assert [bar["c"] for bar in adjusted] == pytest.approx([bar["c"] / 4 for bar in plain], abs=0.01)
    assert adjusted[0]["v"] == plain[0]["v"] * 4
