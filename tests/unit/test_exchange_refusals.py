"""What the simulated exchange refuses: HTTP status, code and body as Alpaca gives them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from scripted_market import TUESDAY, Caller, at, caller, flat

LIMIT = {"type": "limit", "limit_price": 100}
EXITS = {"take_profit": {"limit_price": 110}, "stop_loss": {"stop_price": 90}}
BRACKET = {"order_class": "bracket", **EXITS}
OCO = {"order_class": "oco", "type": "limit", **EXITS}

MALFORMED = [
    ({"symbol": None}, "symbol is required"),
    ({"side": "hold"}, "invalid side"),
    ({"type": "iceberg"}, "invalid type"),
    ({"time_in_force": "week"}, "invalid time_in_force"),
    ({"qty": None}, "qty or notional is required"),
    ({"qty": 0}, "qty must be > 0"),
    ({"qty": "-3"}, "qty must be > 0"),
    ({"qty": "ten"}, "qty must be a number"),
    ({"qty": True}, "qty must be a number"),
    ({"qty": "1e99"}, "qty must be a finite number"),
    ({"qty": "Infinity"}, "qty must be a finite number"),
    ({"notional": 100}, "only one of qty or notional"),
    ({"type": "limit"}, "limit orders require a limit price"),
    ({"type": "stop"}, "stop orders require a stop price"),
    ({"limit_price": 100}, "market orders require no limit or stop price"),
    ({"type": "limit", "limit_price": -1}, "limit_price must be > 0"),
    ({"client_order_id": "x" * 129}, "client_order_id must be no more than 128 characters"),
    ({"take_profit": {"limit_price": 110}}, "require order_class"),
    ({"order_class": "bracket", "stop_loss": {"stop_price": 90}}, "bracket orders require take_profit.limit_price"),
    ({"order_class": "bracket", "take_profit": {"limit_price": 110}}, "bracket orders require stop_loss.stop_price"),
    ({"order_class": "oto", **EXITS}, "exactly one"),
    ({"order_class": "oco", **EXITS}, "oco orders must be limit orders"),
    ({"take_profit": 110, "order_class": "bracket"}, "take_profit must be an object"),
    ({"extended_hours": "yes"}, "extended_hours must be true or false"),
]
RULES = [
    ({"type": "limit", "limit_price": 100.001}, "sub-penny increment does not fulfill minimum pricing criteria"),
    ({"type": "limit", "limit_price": "0.12345"}, "sub-penny increment"),
    (BRACKET | {"stop_loss": {"stop_price": 90.005}}, "invalid stop_loss.stop_price 90.005. sub-penny"),
    (BRACKET | {"take_profit": {"limit_price": 80}}, "take_profit.limit_price must be > stop_loss.stop_price"),
    (BRACKET | {"stop_loss": {"stop_price": 100}}, "stop_loss.stop_price must be <= base_price - 0.01"),
    (BRACKET | LIMIT | {"stop_loss": {"stop_price": 100}}, "stop_loss.stop_price must be <= base_price - 0.01"),
    (BRACKET | {"take_profit": {"limit_price": 100}}, "take_profit.limit_price must be >= base_price + 0.01"),
    (BRACKET | {"qty": 1.5}, "fractional orders must be simple orders"),
    ({"qty": 1.5, "time_in_force": "gtc"}, "fractional orders must be DAY orders"),
    ({"qty": None, "notional": 0.5}, "notional must be >= 1.00"),
    ({"extended_hours": True}, "extended hours order must be DAY or GTC limit orders"),
    (OCO, "oco orders must be exit orders"),
    ({"symbol": "NOPE"}, 'asset "NOPE" not found'),
]


def refused(answer: tuple[int, Any]) -> tuple[int, int, str]:
    status, body = answer
    return status, body["code"], body["message"]


@pytest.mark.parametrize(("fields", "message"), MALFORMED)
def test_a_malformed_field_is_named(fields: dict[str, Any], message: str) -> None:
    status, code, said = refused(caller(flat()).order("ACME", 10, **fields))

    assert (status, code) == (422, 40010001)
    assert message in said


@pytest.mark.parametrize(("fields", "message"), RULES)
def test_a_broken_rule_is_named(fields: dict[str, Any], message: str) -> None:
    status, code, said = refused(caller(flat()).order("ACME", 10, **fields))

    assert (status, code) == (422, 42210000)
    assert message in said


def test_a_refused_order_leaves_no_trace_and_does_not_use_up_its_id() -> None:
    desk = caller(flat(), cash=100)

    refused(desk.order("ACME", 10, client_order_id="mine"))

    assert desk.get("/v2/orders", status="all") == []
    assert desk.get("/v2/account")["buying_power"] == "100"
    assert desk.order("ACME", 0.5, client_order_id="mine")[0] == 200


def test_leg_prices_name_the_base_they_were_checked_against() -> None:
    _, body = caller(flat()).order("ACME", 10, **BRACKET | LIMIT | {"stop_loss": {"stop_price": 100}})

    assert body["base_price"] == "100"


def test_buying_power_counts_open_buys_at_their_limit() -> None:
    desk = caller(flat(), cash=1_000)
    desk.buy("ACME", 6, type="limit", limit_price=99)

    status, body = desk.order("ACME", 5, **LIMIT)

    assert (status, body) == (
        403,
        {"code": 40310000, "message": "insufficient buying power", "buying_power": "406", "cost_basis": "500"},
    )


def test_shares_held_by_exit_legs_cannot_be_sold_again() -> None:
    desk = caller(flat())
    legs = desk.seen(desk.bracket("ACME", 10, target=110, stop=90))["legs"]

    status, body = desk.order("ACME", 10, "sell")

    assert status == 403
    assert body == {
        "code": 40310000,
        "message": "insufficient qty available for order (requested: 10, available: 0)",
        "available": "0",
        "existing_qty": "10",
        "held_for_orders": "10",
        "related_orders": [legs[0]["id"]],
        "symbol": "ACME",
    }


def test_what_is_not_held_cannot_be_sold() -> None:
    assert refused(caller(flat()).order("ACME", 1, "sell")) == (
        403,
        40310000,
        "insufficient qty available for order (requested: 1, available: 0)",
    )


def test_selling_before_the_buy_is_filled_is_refused() -> None:
    desk = caller(flat())
    desk.buy("ACME", 1, type="limit", limit_price=90)

    assert refused(desk.order("ACME", 1, "sell")) == (
        403,
        40310000,
        "cannot open a short sell while a long buy order is open",
    )


@pytest.mark.parametrize(
    ("resting", "coming", "refused"),
    [
        ({"type": "limit", "limit_price": 90}, {"type": "limit", "limit_price": 90}, True),
        ({"type": "limit", "limit_price": 90}, {"type": "limit", "limit_price": 91}, False),
        ({"type": "limit", "limit_price": 90}, {"type": "market"}, True),
        ({"type": "stop", "stop_price": 120}, {"type": "limit", "limit_price": 130}, True),
        ({"type": "limit", "limit_price": 90}, OCO, False),
    ],
)
def test_a_simple_order_must_not_meet_our_own_on_the_other_side(
    resting: dict[str, Any], coming: dict[str, Any], refused: bool
) -> None:
    desk = caller(flat())
    desk.buy("ACME", 10)
    other = desk.buy("ACME", 1, **resting)

    status, body = desk.order("ACME", 5, "sell", **coming)

    if not refused:
        assert status == 200
        return
    assert (status, body["code"], body["existing_order_id"]) == (403, 40310000, other["id"])
    assert body["message"] == "potential wash trade detected. use complex orders"


def test_a_client_order_id_is_used_up_for_ever() -> None:
    desk = caller(flat(), cash=1_000)
    order = desk.buy("ACME", 9, type="limit", limit_price=90, client_order_id="mine")
    twin = (422, 40010001, "client_order_id must be unique")

    assert refused(desk.order("ACME", 9, client_order_id="mine", **LIMIT)) == twin  # not: insufficient buying power
    desk.cancel(order)

    assert refused(desk.order("ACME", 1, client_order_id="mine")) == twin


def test_an_asset_may_be_inactive_untradable_or_whole() -> None:
    desk = caller(flat() | flat("BETA") | flat("GAMA"))
    desk.call("POST", "/admin/assets", body={"symbol": "ACME", "tradable": False})
    desk.call("POST", "/admin/assets", body={"symbol": "BETA", "status": "inactive"})
    desk.call("POST", "/admin/assets", body={"symbol": "GAMA", "fractionable": False})

    assert refused(desk.order("ACME", 1)) == (422, 42210000, 'asset "ACME" is not tradable')
    assert refused(desk.order("BETA", 1)) == (422, 42210000, 'asset "BETA" is not active')
    assert refused(desk.order("GAMA", 0.5)) == (403, 40310000, 'asset "GAMA" is not fractionable')


def test_what_has_ended_cannot_be_cancelled() -> None:
    desk = caller(flat())
    order = desk.buy("ACME", 1)

    assert refused(desk.cancel(order)) == (422, 42210000, 'order is already in "filled" state')


def test_missing_things_are_404_and_a_wrong_id_is_malformed() -> None:
    desk = caller(flat())
    unknown = "/v2/orders/00000000-0000-0000-0000-000000000000"

    assert refused(desk.call("GET", unknown))[:2] == (404, 40410000)
    assert refused(desk.call("DELETE", unknown))[:2] == (404, 40410000)
    assert refused(desk.call("GET", "/v2/orders:by_client_order_id", {"client_order_id": "x"}))[:2] == (404, 40410000)
    assert refused(desk.call("GET", "/v2/positions/ACME")) == (404, 40410000, "position does not exist")
    assert refused(desk.call("DELETE", "/v2/positions/ACME")) == (404, 40410000, "position does not exist")
    assert refused(desk.call("GET", "/v2/assets/NOPE"))[:2] == (404, 40410000)
    assert refused(desk.call("GET", "/v2/orders/17")) == (422, 40010001, "order_id is missing")
    assert refused(desk.call("GET", "/v2/nothing"))[:2] == (404, 40410000)
    assert refused(desk.call("PUT", "/v2/orders"))[0] == 405


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v2/orders", {"status": "some"}),
        ("/v2/orders", {"limit": 501}),
        ("/v2/orders", {"nested": "maybe"}),
        ("/v2/orders", {"after": "yesterday"}),
        ("/v2/calendar", {"start": "2024-13-01"}),
        ("/v2/calendar", {"start": "2024-03-05", "end": "2024-03-04"}),
        ("/v2/account/activities/FILL", {"page_size": 101}),
        ("/v2/account/activities/FILL", {"page_token": "nothing"}),
    ],
)
def test_a_wrong_parameter_is_malformed(path: str, query: dict[str, Any]) -> None:
    assert refused(caller(flat()).call("GET", path, query))[:2] == (422, 40010001)


def test_a_body_that_is_no_json_object_is_400() -> None:
    desk = caller(flat())
    headers = {"APCA-API-KEY-ID": "KEY", "APCA-API-SECRET-KEY": "SECRET"}

    for content in (b"{", b"[1]", b'{"qty": NaN}'):
        assert desk.gateway.handle("POST", "/v2/orders", "", headers, content).status == 400


def test_wrong_keys_are_refused_before_anything_else() -> None:
    desk = caller(flat())
    stranger = Caller(desk.exchange, keys=("KEY", "guess"))

    assert stranger.order("ACME", 1) == (401, {"message": "unauthorized."})
    bare = desk.gateway.handle("GET", "/v2/account", "", {}, b"")
    assert (bare.status, bare.headers["Content-Type"]) == (401, "text/html")


def test_body_numbers_are_read_by_their_digits() -> None:
    """A float that carries binary noise is refused as what was written, a clean one is exact."""
    desk = caller(flat(price=0.3))

    assert refused(desk.order("ACME", 1, type="limit", limit_price=0.1 + 0.2))[1] == 42210000
    assert desk.buy("ACME", 1, type="limit", limit_price=0.3)["limit_price"] == "0.3"


def test_a_queued_order_may_cost_more_than_cash_when_the_market_opens_higher() -> None:
    """Documented: the account was checked when the order came, and nothing is borrowed knowingly."""
    desk = caller({"ACME": {at("09:30"): 100.0, at("09:30", TUESDAY): 120.0}}, at="17:00", cash=1_005)
    order = desk.buy("ACME", 10)

    desk.exchange.set_clock(at("10:00", TUESDAY))

    assert desk.seen(order)["filled_avg_price"] == "120.01"
    assert desk.cash() == Decimal("-195.10")
