"""Types and times in force beyond the plain ones: trailing stops, auctions, immediate orders, extended hours, money."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from scripted_market import TUESDAY, Caller, at, caller, flat

from desk.exchange.options import ExchangeOptions


def status(desk: Caller, order: Any) -> str:
    return str(desk.seen(order)["status"])


def refused(answer: tuple[int, Any]) -> tuple[int, int, str]:
    code, body = answer
    return code, body["code"], body["message"]


# -- trailing stops ------------------------------------------------------------------------------

RISE_AND_FALL = {at("09:30"): 100.0, at("10:01"): 104.0, at("10:02"): 103.0, at("10:03"): 108.0, at("10:04"): 105.5}


def test_a_trailing_stop_follows_the_best_price_and_never_falls_back() -> None:
    desk = caller({"ACME": RISE_AND_FALL})
    desk.buy("ACME", 5)
    order = desk.sell("ACME", 5, type="trailing_stop", trail_price=2, time_in_force="gtc")
    assert (order["hwm"], order["stop_price"], order["trail_price"]) == ("100", "98", "2")

    seen = []
    for _ in range(4):
        desk.exchange.advance(60)
        now = desk.seen(order)
        seen.append((now["hwm"], now["stop_price"], now["status"]))

    assert seen == [
        ("104", "102", "new"),
        ("104", "102", "new"),
        ("108", "106", "new"),
        ("108", "106", "filled"),
    ]
    assert desk.seen(order)["filled_avg_price"] == "105.49"  # 105.5 is below the stop: sold at the bid


def test_a_trailing_stop_may_trail_by_percent() -> None:
    desk = caller({"ACME": RISE_AND_FALL})
    desk.buy("ACME", 5)

    order = desk.sell("ACME", 5, type="trailing_stop", trail_percent="1.5")
    desk.exchange.advance(180)

    seen = desk.seen(order)
    assert (seen["trail_percent"], seen["hwm"], seen["stop_price"]) == ("1.5", "108", "106.38")


def test_a_trailing_buy_follows_the_price_down() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("10:01"): 95.0, at("10:02"): 97.5}})

    order = desk.buy("ACME", 1, type="trailing_stop", trail_price=2)
    desk.exchange.advance(60)
    assert desk.seen(order)["stop_price"] == "97"
    desk.exchange.advance(60)

    assert desk.seen(order)["filled_avg_price"] == "97.51"


def test_a_trailing_stop_sleeps_outside_of_the_session() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("09:30", TUESDAY): 100.0}}, at="17:00")
    desk.exchange.set_clock(at("09:30", TUESDAY))
    desk.buy("ACME", 5)
    order = desk.sell("ACME", 5, type="trailing_stop", trail_price=2, time_in_force="gtc")
    desk.exchange.set_clock(at("17:00", TUESDAY))

    desk.exchange.set_market("ACME", bid=50, ask=50.02, last=50.01)

    assert (status(desk, order), desk.seen(order)["hwm"]) == ("new", "100")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "exactly one of trail_price and trail_percent"),
        ({"trail_price": 1, "trail_percent": 1}, "exactly one of trail_price and trail_percent"),
        ({"trail_price": 0}, "trail_price must be > 0"),
        ({"trail_percent": 100}, "trail_percent must be < 100"),
        ({"trail_price": 1, "stop_price": 90}, "require no limit or stop price"),
    ],
)
def test_a_trailing_stop_has_exactly_one_sensible_distance(fields: dict[str, Any], said: str) -> None:
    answer = refused(caller(flat()).order("ACME", 1, type="trailing_stop", **fields))

    assert answer[:2] == (422, 40010001)
    assert said in answer[2]


# -- auctions ------------------------------------------------------------------------------------


def test_an_opening_order_gets_the_first_trade_of_the_session() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("09:30", TUESDAY): (95.0, 97.0, 96.0)}}, at="19:30")

    order = desk.buy("ACME", 3, time_in_force="opg")
    assert order["status"] == "accepted"
    desk.exchange.set_clock(at("09:30", TUESDAY))

    seen = desk.seen(order)
    assert (seen["status"], seen["filled_avg_price"]) == ("filled", "96")


def test_an_opening_order_that_cannot_fill_is_cancelled_at_the_open() -> None:
    desk = caller(flat(), at="08:00")

    order = desk.buy("ACME", 3, time_in_force="opg", type="limit", limit_price=90)
    desk.exchange.set_clock(at("09:30"))

    assert status(desk, order) == "canceled"


def test_a_closing_order_gets_the_last_trade_and_nothing_before() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("12:00"): 90.0, at("16:00"): (103.0, 105.0, 104.0)}})
    order = desk.buy("ACME", 3, time_in_force="cls")

    desk.exchange.set_clock(at("15:59"))
    assert status(desk, order) == "new"
    desk.exchange.set_clock(at("16:00"))

    seen = desk.seen(order)
    assert (seen["status"], seen["filled_avg_price"], seen["filled_at"]) == (
        "filled",
        "104",
        "2024-03-04T21:00:00.000000Z",
    )


@pytest.mark.parametrize(
    ("tif", "hhmm", "allowed"),
    [
        ("opg", "09:27", True),
        ("opg", "09:28", False),
        ("opg", "18:59", False),
        ("opg", "19:00", True),
        ("cls", "15:49", True),
        ("cls", "15:50", False),
        ("cls", "18:59", False),
        ("cls", "19:00", True),
    ],
)
def test_auction_orders_are_taken_in_their_window_only(tif: str, hhmm: str, allowed: bool) -> None:
    answer = caller(flat(), at=hhmm, day=TUESDAY).order("ACME", 1, time_in_force=tif)

    if allowed:
        assert answer[0] == 200
    else:
        assert refused(answer)[:2] == (403, 40310000)
        assert f"{tif} orders must be submitted after 7:00pm and before" in refused(answer)[2]


# -- immediate orders ----------------------------------------------------------------------------


def test_what_an_ioc_order_cannot_fill_at_once_is_cancelled() -> None:
    half = caller(flat(), options=ExchangeOptions(partial_fill_probability=1.0, seed=1))

    part = half.seen(half.buy("ACME", 10, time_in_force="ioc"))
    none = half.seen(half.buy("ACME", 10, time_in_force="ioc", type="limit", limit_price=90))

    assert part["status"] == "canceled" and 0 < int(part["filled_qty"]) < 10
    assert (none["status"], none["filled_qty"]) == ("canceled", "0")


def test_a_fok_order_fills_wholly_or_not_at_all() -> None:
    half = caller(flat(), options=ExchangeOptions(partial_fill_probability=1.0, seed=1))

    whole = half.seen(half.buy("ACME", 10, time_in_force="fok"))
    none = half.seen(half.buy("ACME", 10, time_in_force="fok", type="limit", limit_price=90))

    assert (whole["status"], whole["filled_qty"]) == ("filled", "10")
    assert (none["status"], none["filled_qty"]) == ("canceled", "0")


def test_an_ioc_order_queued_overnight_meets_the_opening_trade_and_goes() -> None:
    desk = caller(flat(), at="08:00")

    order = desk.buy("ACME", 1, time_in_force="ioc", type="limit", limit_price=90)
    assert status(desk, order) == "accepted"
    desk.exchange.set_clock(at("09:30"))

    assert status(desk, order) == "canceled"


@pytest.mark.parametrize("tif", ["opg", "cls", "ioc", "fok"])
@pytest.mark.parametrize(
    "fields", [{"type": "stop", "stop_price": 120}, {"type": "trailing_stop", "trail_price": 1}], ids=["stop", "trail"]
)
def test_stops_are_day_or_gtc_orders(tif: str, fields: dict[str, Any]) -> None:
    answer = refused(caller(flat(), at="08:00").order("ACME", 1, time_in_force=tif, **fields))

    assert answer == (422, 42210000, f"{fields['type']} orders must be DAY or GTC orders")


@pytest.mark.parametrize("tif", ["opg", "cls", "ioc", "fok"])
def test_an_account_may_have_auction_and_immediate_orders_switched_off(tif: str) -> None:
    desk = caller(flat(), at="08:00", options=ExchangeOptions(auction_and_immediate_orders=False))

    assert refused(desk.order("ACME", 1, time_in_force=tif))[:2] == (422, 42210000)


# -- extended hours ------------------------------------------------------------------------------

EXTENDED = {"type": "limit", "extended_hours": True}


def test_an_extended_hours_order_trades_before_the_open_and_a_plain_one_waits() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("09:30", TUESDAY): 100.0}}, at="08:00", day=TUESDAY)

    early = desk.buy("ACME", 1, **EXTENDED, limit_price=101)
    plain = desk.buy("ACME", 1, type="limit", limit_price=101)

    assert (early["status"], status(desk, early)) == ("pending_new", "filled")
    assert status(desk, plain) == "accepted"


def test_an_extended_hours_order_sent_at_night_goes_to_work_at_four() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0}}, at="02:00", day=TUESDAY)
    order = desk.buy("ACME", 1, **EXTENDED, limit_price=101)

    desk.exchange.set_clock(at("03:59", TUESDAY))
    assert status(desk, order) == "accepted"
    desk.exchange.set_clock(at("04:00", TUESDAY))

    assert desk.seen(order)["filled_at"] == "2024-03-05T09:00:00.000000Z"


def test_an_extended_hours_day_order_outlives_the_close_and_ends_at_eight() -> None:
    desk = caller(flat())
    order = desk.buy("ACME", 1, **EXTENDED, limit_price=90)
    gtc = desk.buy("ACME", 1, **EXTENDED, limit_price=89, time_in_force="gtc")

    desk.exchange.set_clock(at("16:30"))
    assert status(desk, order) == "new"
    desk.exchange.set_clock(at("20:00"))

    assert (status(desk, order), status(desk, gtc)) == ("expired", "new")


def test_a_price_set_after_the_close_meets_extended_hours_orders_only() -> None:
    desk = caller(flat())
    extended = desk.buy("ACME", 1, **EXTENDED, limit_price=90, time_in_force="gtc")
    plain = desk.buy("ACME", 1, type="limit", limit_price=90, time_in_force="gtc")
    desk.exchange.set_clock(at("17:00"))

    desk.exchange.set_market("ACME", bid=88, ask=88.02, last=88.01)

    assert desk.seen(extended)["filled_avg_price"] == "90"  # it rested: it fills at its limit
    assert status(desk, plain) == "new"


def test_extended_hours_may_trade_with_set_prices_only() -> None:
    desk = caller(flat(), at="17:00", options=ExchangeOptions(extended_hours_quotes="set"))
    order = desk.buy("ACME", 1, **EXTENDED, limit_price=101)
    assert status(desk, order) == "new"

    desk.exchange.set_market("ACME", bid=99, ask=99.02, last=99)

    assert status(desk, order) == "filled"


@pytest.mark.parametrize(
    "fields",
    [
        {"extended_hours": True},
        {**EXTENDED, "limit_price": 99, "time_in_force": "ioc"},
        {**EXTENDED, "limit_price": 99, "order_class": "oto", "take_profit": {"limit_price": 110}},
    ],
    ids=["market", "ioc", "oto"],
)
def test_extended_hours_take_simple_day_or_gtc_limits(fields: dict[str, Any]) -> None:
    answer = refused(caller(flat()).order("ACME", 1, **fields))

    assert answer == (422, 42210000, "extended hours order must be DAY or GTC limit orders")


# -- fractions and money -------------------------------------------------------------------------


def money(desk: Caller, notional: float | str, side: str = "buy", **fields: Any) -> tuple[int, Any]:
    body = {"symbol": "ACME", "notional": notional, "side": side, "type": "market", "time_in_force": "day"}
    return desk.call("POST", "/v2/orders", body=body | fields)


def test_a_notional_order_buys_what_the_money_comes_to_at_the_fill() -> None:
    desk = caller(flat())

    code, order = money(desk, "250.50")

    assert (code, order["notional"], order["qty"]) == (200, "250.5", None)
    seen = desk.seen(order)
    assert (seen["status"], seen["filled_qty"], seen["qty"]) == ("filled", "2.504749525", None)
    assert desk.position("ACME")["qty"] == "2.504749525"
    assert 0 <= Decimal("250.50") - (100_000 - desk.cash()) < Decimal("0.0001")


def test_a_notional_sale_never_sells_more_than_is_there() -> None:
    """The price falls between order and open: the money would take more shares than are held."""
    desk = caller({"ACME": {at("09:30"): 100.0, at("09:30", TUESDAY): 50.0}})
    desk.buy("ACME", 2)
    desk.exchange.set_clock(at("18:00"))

    code, order = money(desk, 190, "sell")
    assert code == 200
    desk.exchange.set_clock(at("09:30", TUESDAY))

    assert desk.seen(order)["filled_qty"] == "2"
    assert desk.position("ACME") is None


def test_money_may_be_spent_by_a_limit_order() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("10:05"): 79.0}})

    _, order = money(desk, 80, type="limit", limit_price=80)
    assert status(desk, order) == "new"
    assert desk.get("/v2/account")["buying_power"] == "99920"
    desk.exchange.advance(300)

    assert (desk.seen(order)["filled_qty"], desk.seen(order)["filled_avg_price"]) == ("1", "80")


@pytest.mark.parametrize(
    ("chosen", "answer"),
    [
        ("rule", (422, 42210000, "notional must be >= 1.00")),
        ("malformed", (422, 40010001, "notional must be >= 1.00")),
        ("cost_basis", (403, 40310000, "cost basis must be >= minimal amount of order 1")),
    ],
)
def test_a_notional_below_one_dollar_is_refused_in_the_chosen_way(chosen: Any, answer: tuple[int, int, str]) -> None:
    assert refused(money(caller(flat(), options=ExchangeOptions(small_notional=chosen)), 0.99)) == answer


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"time_in_force": "gtc"}, "fractional orders must be DAY orders"),
        (
            {"order_class": "bracket", "take_profit": {"limit_price": 110}, "stop_loss": {"stop_price": 90}},
            "fractional orders must be simple orders",
        ),
        ({"type": "trailing_stop", "trail_price": 1}, "fractional orders must be market, limit, stop or stop_limit"),
    ],
)
def test_money_orders_follow_the_rules_of_fractions(fields: dict[str, Any], said: str) -> None:
    answer = refused(money(caller(flat()), 100, **fields))

    assert answer[:2] == (422, 42210000)
    assert said in answer[2]


def test_fractions_may_be_switched_off_by_asset_or_by_account() -> None:
    desk = caller(flat())
    desk.call("PATCH", "/v2/account/configurations", body={"fractional_trading": False})
    assert refused(desk.order("ACME", 0.5))[:2] == (403, 40310000)

    strict = caller(flat(), options=ExchangeOptions(not_fractionable_status=422))
    strict.call("POST", "/admin/assets", body={"symbol": "ACME", "fractionable": False})

    assert refused(money(strict, 100)) == (422, 42210000, 'asset "ACME" is not fractionable')


# -- choices -------------------------------------------------------------------------------------


def test_what_remains_of_a_day_order_may_end_as_cancelled() -> None:
    desk = caller(flat(), options=ExchangeOptions(day_order_ends="canceled"))
    order = desk.buy("ACME", 1, type="limit", limit_price=50)

    desk.exchange.set_clock(at("16:00"))

    assert (status(desk, order), desk.seen(order)["expired_at"]) == ("canceled", None)


@pytest.mark.parametrize("answered", ["pending_new", "accepted"])
def test_a_new_order_is_answered_with_the_chosen_status(answered: Any) -> None:
    desk = caller(flat(), options=ExchangeOptions(submitted_status=answered))

    order = desk.buy("ACME", 1)

    assert (order["status"], status(desk, order)) == (answered, "filled")


@pytest.mark.parametrize("market_too", [True, False])
def test_exits_of_a_limit_entry_may_be_checked_against_the_market_as_well(market_too: bool) -> None:
    """The stop is below the limit of 95, but above what the market allows."""
    desk = caller(flat(price=90.0), options=ExchangeOptions(bracket_base_includes_market=market_too))
    exits = {"take_profit": {"limit_price": 110}, "stop_loss": {"stop_price": 92}}

    answer = desk.order("ACME", 1, type="limit", limit_price=95, order_class="bracket", **exits)

    assert answer[0] == (422 if market_too else 200)
    if market_too:
        assert answer[1]["base_price"] == "90"


def test_a_repeated_cancel_is_refused_or_accepted_as_chosen() -> None:
    strict, lenient = caller(flat()), caller(flat(), options=ExchangeOptions(repeated_cancel="accept"))
    for desk, answer in ((strict, 422), (lenient, 204)):
        order = desk.buy("ACME", 1, type="limit", limit_price=50)
        assert desk.cancel(order)[0] == 204
        assert desk.cancel(order)[0] == answer
    filled = lenient.buy("ACME", 1)
    assert lenient.cancel(filled)[0] == 422


def test_a_triggered_stop_may_leave_its_target_replaced() -> None:
    script = {"ACME": {at("09:30"): 100.0, at("10:01"): 89.0}}
    desk = caller(script, options=ExchangeOptions(stop_trigger_ends_target="replaced"))
    order = desk.bracket("ACME", 10, target=110, stop=90)

    desk.exchange.advance(60)

    assert [leg["status"] for leg in desk.seen(order)["legs"]] == ["replaced", "filled"]


@pytest.mark.parametrize("told", [True, False])
def test_the_stop_that_goes_with_a_filled_target_is_told_or_not(told: bool) -> None:
    script = {"ACME": {at("09:30"): 100.0, at("10:01"): 112.0}}
    desk = caller(script, options=ExchangeOptions(sibling_cancel_event=told))
    heard: list[tuple[str, str]] = []
    desk.exchange.subscribe(lambda update: heard.append((update["event"], update["order"]["type"])))
    order = desk.bracket("ACME", 10, target=110, stop=90)

    desk.exchange.advance(60)

    assert [leg["status"] for leg in desk.seen(order)["legs"]] == ["filled", "canceled"]
    assert (("canceled", "stop") in heard) is told


@pytest.mark.parametrize("rewritten", [True, False])
def test_submitted_at_of_a_queued_order_may_be_rewritten_at_the_open(rewritten: bool) -> None:
    options = ExchangeOptions(submitted_at_when_routed=rewritten)
    desk = caller(flat(), at="08:00", day=TUESDAY, options=options)
    order = desk.buy("ACME", 1)

    desk.exchange.set_clock(at("09:31", TUESDAY))

    seen = desk.seen(order)
    assert seen["created_at"] == "2024-03-05T13:00:00.000000Z"
    assert seen["submitted_at"] == ("2024-03-05T14:30:00.000000Z" if rewritten else seen["created_at"])


def test_a_wash_trade_may_be_refused_with_422() -> None:
    desk = caller(flat(), options=ExchangeOptions(wash_trade_status=422))
    desk.buy("ACME", 1)
    desk.buy("ACME", 1, type="limit", limit_price=90)

    assert refused(desk.order("ACME", 1, "sell"))[:2] == (422, 42210000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"partial_fill_probability": 1.5},
        {"replace_latency_s": -1},
        {"rate_limit_per_minute": 0},
        {"data_stream_symbols": 0},
    ],
)
def test_options_that_cannot_be_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ExchangeOptions(**wrong)
