"""Short positions, closing everything, the account's settings."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_market import TUESDAY, Caller, at, caller, flat

from desk.exchange.market import CorporateAction
from desk.exchange.options import ExchangeOptions

SHORTING = ExchangeOptions(shorting=True)


def refused(answer: tuple[int, Any]) -> tuple[int, int, str]:
    status, body = answer
    return status, body["code"], body["message"]


# -- short sales ---------------------------------------------------------------------------------


def test_a_short_position_is_written_with_negative_amounts() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("10:05"): 95.0}}, options=SHORTING)

    order = desk.sell("ACME", 10)
    assert order["position_intent"] == "sell_to_open"
    desk.exchange.advance(300)

    position = desk.position("ACME")
    assert {name: position[name] for name in ("qty", "side", "market_value", "cost_basis", "qty_available")} == {
        "qty": "-10", "side": "short", "market_value": "-950", "cost_basis": "-999.9", "qty_available": "-10"
    }  # fmt: skip
    assert (position["unrealized_pl"], float(position["unrealized_plpc"])) == ("49.9", pytest.approx(0.0499, abs=1e-4))
    account = desk.get("/v2/account")
    assert (account["short_market_value"], account["equity"], account["cash"]) == ("-950", "100049.9", "100999.9")
    assert Decimal(account["buying_power"]) == Decimal("100999.9") - 2 * 950


def test_a_short_sale_reserves_the_larger_of_its_limit_and_the_ask_with_three_percent() -> None:
    desk = caller(flat(), cash=10_000, options=SHORTING)

    desk.sell("ACME", 10, type="limit", limit_price=101)
    assert Decimal(desk.get("/v2/account")["buying_power"]) == 10_000 - 10 * Decimal("100.01") * Decimal("1.03")
    desk.sell("ACME", 10, type="limit", limit_price=120)

    assert Decimal(desk.get("/v2/account")["buying_power"]) == 10_000 - Decimal("1030.103") - 1_200
    assert refused(desk.order("ACME", 100, "sell", type="limit", limit_price=120))[:2] == (403, 40310000)


def test_what_cannot_be_borrowed_cannot_be_sold_short() -> None:
    desk = caller(flat(), options=SHORTING)
    desk.call("POST", "/admin/assets", body={"symbol": "ACME", "shortable": False})

    assert refused(desk.order("ACME", 1, "sell")) == (422, 42210000, 'asset "ACME" cannot be sold short')


def test_no_fraction_is_sold_short() -> None:
    desk = caller(flat(), options=SHORTING)

    assert refused(desk.order("ACME", 1.5, "sell")) == (422, 42210000, "fractional orders cannot be sold short")


def test_an_account_opens_long_or_short_but_not_both() -> None:
    desk = caller(flat("ACME") | flat("BETA"), options=SHORTING)
    desk.buy("ACME", 1, type="limit", limit_price=90)
    desk.sell("BETA", 1, type="limit", limit_price=120)

    assert refused(desk.order("ACME", 1, "sell")) == (
        403, 40310000, "cannot open a short sell while a long buy order is open"
    )  # fmt: skip
    assert refused(desk.order("BETA", 1)) == (
        403, 40310000, "cannot open a long buy while a short sell order is open"
    )  # fmt: skip


def test_no_order_crosses_zero() -> None:
    desk = caller(flat("ACME") | flat("BETA"), options=SHORTING)
    desk.buy("ACME", 5)
    desk.sell("BETA", 5)

    assert refused(desk.order("ACME", 6, "sell"))[2].endswith("(requested: 6, available: 5)")
    assert refused(desk.order("BETA", 6, "buy"))[2].endswith("(requested: 6, available: 5)")


def test_a_bracket_may_open_a_short_and_mirrors_its_exits() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("10:01"): 111.0}}, options=SHORTING)
    legs = {"order_class": "bracket", "time_in_force": "gtc"}

    def exits(target: float, stop: float) -> dict[str, Any]:
        return legs | {"take_profit": {"limit_price": target}, "stop_loss": {"stop_price": stop}}

    assert "stop_loss.stop_price must be >= base_price + 0.01" in refused(
        desk.order("ACME", 5, "sell", **exits(90, 100))
    )[2]  # fmt: skip
    assert "take_profit.limit_price must be <= base_price - 0.01" in refused(
        desk.order("ACME", 5, "sell", **exits(100, 110))
    )[2]  # fmt: skip
    order = desk.sell("ACME", 5, **exits(90, 110))
    desk.exchange.advance(60)

    seen = desk.seen(order)
    assert [leg["side"] for leg in seen["legs"]] == ["buy", "buy"]
    assert [seen["status"], *(leg["status"] for leg in seen["legs"])] == ["filled", "canceled", "filled"]
    assert desk.position("ACME") is None


def test_splits_and_dividends_reach_short_positions() -> None:
    actions = [
        CorporateAction("ACME", TUESDAY, "split", Decimal("1.5")),
        CorporateAction("ACME", TUESDAY, "dividend", Decimal("0.10")),
    ]
    script = {"ACME": {at("09:30"): 90.0, at("09:30", TUESDAY): 60.0}}
    desk = caller(script, actions=actions, options=SHORTING)
    desk.sell("ACME", 15)

    desk.exchange.set_clock(at("10:00", TUESDAY))

    assert desk.position("ACME")["qty"] == "-22"
    # half a share short is paid for at 60, and the dividend is owed on 22
    assert desk.cash() == 100_000 + 15 * Decimal("89.99") - 30 - Decimal("2.20")


def test_a_delisted_short_is_bought_back_at_the_last_price() -> None:
    gone = CorporateAction("ACME", TUESDAY, "delisting", Decimal(80))
    desk = caller(flat(), actions=[gone], delisted={"ACME": TUESDAY}, options=SHORTING)
    desk.sell("ACME", 10)

    desk.exchange.set_clock(at("09:30", TUESDAY))

    assert desk.position("ACME") is None
    assert desk.cash() == 100_000 + 10 * Decimal("99.99") - 800


def test_shorting_is_off_by_default_and_can_be_switched_off_by_the_account() -> None:
    plain, willing = caller(flat()), caller(flat(), options=SHORTING)
    assert plain.get("/v2/account")["shorting_enabled"] is False
    willing.call("PATCH", "/v2/account/configurations", body={"no_shorting": True})

    for desk in (plain, willing):
        assert refused(desk.order("ACME", 1, "sell"))[:2] == (403, 40310000)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["buy", "sell", "cancel", "close", "move"]),
        st.sampled_from(["market", "limit", "stop", "trailing_stop"]),
        st.integers(1, 30),
        st.integers(90, 110),
    ),
    max_size=25,
)


def replayed(desk: Caller) -> tuple[Decimal, dict[str, Decimal]]:
    """Cash and positions as the fills alone tell them."""
    cash, held = Decimal(100_000), dict[str, Decimal]()
    fills = desk.get("/v2/account/activities/FILL", page_size=100, direction="asc")
    while fills:
        for fill in fills:
            qty = Decimal(fill["qty"]) * (1 if fill["side"] == "buy" else -1)
            cash -= qty * Decimal(fill["price"])
            held[fill["symbol"]] = held.get(fill["symbol"], Decimal(0)) + qty
        fills = desk.get("/v2/account/activities/FILL", page_size=100, direction="asc", page_token=fills[-1]["id"])
    return cash, {symbol: qty for symbol, qty in held.items() if qty}


def act(desk: Caller, step: tuple[str, str, int, int]) -> None:
    kind, order_type, qty, price = step
    if kind == "move":
        desk.exchange.set_market("ACME", bid=price - 0.01, ask=price + 0.01, last=price)
    elif kind == "close":
        desk.call("DELETE", "/v2/positions", {"cancel_orders": True})
    elif kind == "cancel":
        for order in desk.get("/v2/orders")[:2]:
            desk.cancel(order)
    else:
        fields = {
            "market": {},
            "limit": {"limit_price": price},
            "stop": {"stop_price": price},
            "trailing_stop": {"trail_price": 2},
        }[order_type]
        desk.order("ACME", qty, kind, type=order_type, **fields)
    desk.exchange.advance(61)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.booleans())
def test_cash_and_positions_are_the_replayed_fills_whatever_is_ordered(
    steps: list[tuple[str, str, int, int]], shorting: bool
) -> None:
    """Also: no more is filled than was ordered, what is free is never below zero, and the running reservation is
    the sum over open orders."""
    options = ExchangeOptions(shorting=shorting, partial_fill_probability=0.3, seed=5, override_holds="until_replaced")
    desk = caller(flat(), options=options)
    ended: dict[str, str] = {}
    for step in steps:
        act(desk, step)

        cash, held = replayed(desk)
        assert desk.cash() == cash
        assert {one["symbol"]: Decimal(one["qty"]) for one in desk.get("/v2/positions")} == held
        assert shorting or all(qty > 0 for qty in held.values())
        floor = desk.exchange.floor
        assert floor.register.reserved == sum((order.reserved_cash for order in floor.open_orders()), Decimal(0))
        assert floor.available("ACME") >= 0
        for order in floor.orders:
            assert 0 <= order.filled_qty <= order.qty
            if not order.is_open:
                assert ended.setdefault(order.id, order.status) == order.status


# -- closing all ---------------------------------------------------------------------------------


def test_closing_all_positions_answers_for_each_of_them() -> None:
    desk = caller(flat("ACME") | flat("BETA") | flat("GAMA"), options=SHORTING)
    desk.buy("ACME", 3)
    desk.sell("BETA", 4)
    desk.bracket("GAMA", 5, target=110, stop=90)

    status, answers = desk.call("DELETE", "/v2/positions")

    assert status == 207
    assert [(one["symbol"], one["status"]) for one in answers] == [("ACME", 200), ("BETA", 200), ("GAMA", 403)]
    assert (answers[0]["body"]["side"], answers[1]["body"]["side"]) == ("sell", "buy")
    assert answers[2]["body"]["held_for_orders"] == "5"
    assert [one["symbol"] for one in desk.get("/v2/positions")] == ["GAMA"]


def test_closing_all_positions_can_cancel_the_orders_first() -> None:
    desk = caller(flat())
    desk.bracket("ACME", 5, target=110, stop=90)

    status, answers = desk.call("DELETE", "/v2/positions", {"cancel_orders": "True"})

    assert (status, answers[0]["status"]) == (207, 200)
    assert desk.get("/v2/positions") == [] == desk.get("/v2/orders")


def test_while_cancels_take_time_the_shares_are_still_held() -> None:
    desk = caller(flat(), options=ExchangeOptions(cancel_latency_s=5))
    desk.bracket("ACME", 5, target=110, stop=90)

    _, first = desk.call("DELETE", "/v2/positions", {"cancel_orders": "True"})
    desk.exchange.advance(5)
    _, second = desk.call("DELETE", "/v2/positions", {"cancel_orders": "True"})

    assert (first[0]["status"], second[0]["status"]) == (403, 200)


@pytest.mark.parametrize(
    ("query", "status"),
    [({"qty": 2}, 200), ({"percentage": 0}, 422), ({"percentage": 101}, 422), ({"qty": 1, "percentage": 1}, 422)],
)
def test_a_position_is_closed_by_quantity_or_by_percentage(query: dict[str, int], status: int) -> None:
    desk = caller(flat())
    desk.buy("ACME", 5)

    code, _ = desk.call("DELETE", "/v2/positions/ACME", query)

    assert code == status
    assert desk.position("ACME")["qty"] == ("3" if status == 200 else "5")


# -- settings ------------------------------------------------------------------------------------


def test_null_in_a_change_of_settings_means_unchanged_or_the_default() -> None:
    asked = {"suspend_trade": None, "no_shorting": True, "fractional_trading": None, "pdt_check": None}
    kept, reset = caller(flat()), caller(flat(), options=ExchangeOptions(configuration_nulls="default"))
    for desk in (kept, reset):
        desk.call("PATCH", "/v2/account/configurations", body={"fractional_trading": False, "suspend_trade": True})
        status, answer = desk.call("PATCH", "/v2/account/configurations", body=asked)
        assert (status, answer) == (200, desk.get("/v2/account/configurations"))
        assert answer["no_shorting"] is True

    assert kept.get("/v2/account/configurations")["suspend_trade"] is True
    assert reset.get("/v2/account/configurations")["suspend_trade"] is False
    assert reset.get("/v2/account/configurations")["fractional_trading"] is True


@pytest.mark.parametrize("field", [{"suspend_trade": "yes"}, {"max_margin_multiplier": "3"}, {"no_shorting": 1}])
def test_a_setting_that_cannot_be_is_refused(field: dict[str, Any]) -> None:
    status, code, said = refused(caller(flat()).call("PATCH", "/v2/account/configurations", body=field))

    assert (status, code) == (422, 40010001)
    assert next(iter(field)) in said


def test_a_suspended_account_takes_no_new_orders() -> None:
    desk = caller(flat())
    desk.call("PATCH", "/v2/account/configurations", body={"suspend_trade": True})

    assert refused(desk.order("ACME", 1))[:2] == (403, 40310000)
    assert desk.get("/v2/account")["trade_suspended_by_user"] is True


@pytest.mark.parametrize("name", ["trading_blocked", "account_blocked"])
def test_a_blocked_account_takes_no_new_orders_and_still_cancels(name: str) -> None:
    desk = caller(flat())
    order = desk.buy("ACME", 1, type="limit", limit_price=90)

    assert desk.call("POST", "/admin/account", body={name: True})[0] == 200

    assert refused(desk.order("ACME", 1))[:2] == (403, 40310000)
    assert desk.get("/v2/account")[name] is True
    assert desk.cancel(order)[0] == 204
    desk.call("POST", "/admin/account", body={name: False})
    assert desk.order("ACME", 1)[0] == 200
