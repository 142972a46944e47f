"""PATCH /v2/orders/{id}: what may be changed, what a replacement is, and who wins a race."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from scripted_market import TUESDAY, Caller, at, caller, flat

from desk.exchange.options import ExchangeOptions

LIMIT = {"type": "limit", "limit_price": 90}


def replaced(desk: Caller, order: Any, **change: Any) -> tuple[int, Any]:
    return desk.call("PATCH", f"/v2/orders/{order['id']}", body=change)


def refused(answer: tuple[int, Any]) -> tuple[int, int, str]:
    status, body = answer
    return status, body["code"], body["message"]


def test_a_replacement_is_a_new_order_and_each_names_the_other() -> None:
    desk = caller(flat())
    order = desk.buy("ACME", 5, **LIMIT, client_order_id="mine")

    status, new = replaced(desk, order, limit_price=91, qty=7)

    assert (status, new["replaces"], new["qty"], new["limit_price"]) == (200, order["id"], "7", "91")
    assert new["id"] != order["id"] and new["client_order_id"] != "mine"
    old, now = desk.seen(order), desk.seen(new)
    assert (old["status"], old["replaced_by"]) == ("replaced", new["id"])
    assert old["replaced_at"] is not None
    assert now["status"] == "new"
    assert [entry["id"] for entry in desk.get("/v2/orders")] == [new["id"]]


def test_a_replacement_that_reaches_the_market_fills() -> None:
    desk = caller(flat())
    order = desk.buy("ACME", 5, **LIMIT)

    _, new = replaced(desk, order, limit_price=101)

    assert desk.seen(new)["filled_avg_price"] == "100.01"
    assert desk.position("ACME")["qty"] == "5"


def test_a_replacement_may_bring_its_own_client_order_id_but_no_used_one() -> None:
    desk = caller(flat())
    order = desk.buy("ACME", 5, **LIMIT, client_order_id="mine")

    assert refused(replaced(desk, order, qty=4, client_order_id="mine")) == (
        422,
        40010001,
        "client_order_id must be unique",
    )
    _, new = replaced(desk, order, qty=4, client_order_id="next")

    assert desk.get("/v2/orders:by_client_order_id", client_order_id="next")["id"] == new["id"]


@pytest.mark.parametrize(
    ("fields", "change", "said"),
    [
        (LIMIT, {}, "order parameters are not changed"),
        (LIMIT, {"limit_price": 90, "qty": 5, "time_in_force": "day"}, "order parameters are not changed"),
        (LIMIT, {"limit_price": 90.005}, "sub-penny increment"),
        ({**LIMIT, "order_class": "oto", "stop_loss": {"stop_price": 80}}, {"limit_price": 91}, "oto orders cannot be"),
        ({**LIMIT, "qty": 0.5}, {"qty": 2}, "qty of a fractional order cannot be changed"),
        ({**LIMIT, "qty": None, "notional": 100}, {"limit_price": 91}, "notional orders cannot be replaced"),
    ],
)
def test_a_rule_of_replacing_is_named(fields: dict[str, Any], change: dict[str, Any], said: str) -> None:
    desk = caller(flat())
    _, order = desk.order("ACME", 5, **fields)

    status, code, message = refused(replaced(desk, order, **change))

    assert (status, code) == (422, 42210000)
    assert said in message
    assert desk.seen(order)["status"] == "new"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"qty": 1.5}, "qty must be a whole number > 0"),
        ({"qty": 0}, "qty must be a whole number > 0"),
        ({"trail": -1}, "trail must be > 0"),
        ({"trail": 1}, "limit orders require no trail"),
        ({"stop_price": 80}, "limit orders require no stop price"),
        ({"time_in_force": "week"}, "invalid time_in_force"),
    ],
)
def test_a_malformed_change_is_named(change: dict[str, Any], said: str) -> None:
    desk = caller(flat())

    status, code, message = refused(replaced(desk, desk.buy("ACME", 5, **LIMIT), **change))

    assert (status, code) == (422, 40010001)
    assert said in message


def test_an_order_not_yet_at_the_venue_or_ended_cannot_be_replaced() -> None:
    night = caller(flat(), at="08:00", day=TUESDAY)
    queued = night.buy("ACME", 5, **LIMIT)
    assert refused(replaced(night, queued, qty=4)) == (422, 42210000, "cannot replace order in accepted status")
    desk = caller(flat())
    filled = desk.buy("ACME", 5)
    assert refused(replaced(desk, filled, qty=7))[2] == "cannot replace order in filled status"
    slow = caller(flat(), options=ExchangeOptions(cancel_latency_s=5))
    going = slow.buy("ACME", 5, **LIMIT)
    slow.cancel(going)
    assert refused(replaced(slow, going, qty=4))[2] == "cannot replace order in pending_cancel status"
    unknown = {"id": str(uuid.uuid4())}
    assert refused(replaced(desk, unknown, qty=4))[:2] == (404, 40410000)
    assert refused(replaced(desk, {"id": "17"}, qty=4)) == (422, 40010001, "order_id is missing")


def part_filled(**options: Any) -> tuple[Caller, Any]:
    """A buy of 10 at 100.5 of which a part is filled, in a market that has gone away from it."""
    desk = caller(flat(), options=ExchangeOptions(partial_fill_probability=1.0, seed=3, **options))
    order = desk.buy("ACME", 10, type="limit", limit_price=100.5)
    desk.exchange.set_market("ACME", bid=109.99, ask=110.01, last=110)
    seen = desk.seen(order)
    assert seen["status"] == "partially_filled"
    return desk, seen


def test_quantity_must_exceed_what_is_filled() -> None:
    desk, order = part_filled()

    assert refused(replaced(desk, order, qty=int(order["filled_qty"])))[2] == "qty must be > filled_qty"


def test_a_replacement_carries_the_fills_of_the_order_it_replaces() -> None:
    desk, order = part_filled()

    _, new = replaced(desk, order, qty=12)

    now = desk.seen(new)
    assert (now["status"], now["qty"], now["filled_qty"]) == ("partially_filled", "12", order["filled_qty"])
    assert now["filled_avg_price"] == order["filled_avg_price"]
    assert desk.position("ACME")["qty"] == order["filled_qty"]


def test_a_replacement_may_start_afresh_with_the_rest() -> None:
    desk, order = part_filled(replace_keeps_fills=False)

    _, new = replaced(desk, order, qty=12)

    now = desk.seen(new)
    assert (now["status"], now["filled_qty"]) == ("new", "0")
    assert int(now["qty"]) == 12 - int(order["filled_qty"])


def test_a_fill_may_win_over_a_replacement_that_takes_time() -> None:
    script = {"ACME": {at("09:30"): 100.0, at("10:01"): 89.0}}
    desk = caller(script, options=ExchangeOptions(replace_latency_s=90))
    events: list[tuple[str, str]] = []
    desk.exchange.subscribe(lambda update: events.append((update["event"], update["order"]["id"])))
    order = desk.buy("ACME", 5, **LIMIT)

    status, new = replaced(desk, order, qty=9)
    assert (status, desk.seen(order)["status"]) == (200, "pending_replace")
    desk.exchange.advance(300)

    assert (desk.seen(order)["status"], desk.seen(new)["status"]) == ("filled", "rejected")
    assert desk.position("ACME")["qty"] == "5"
    assert events[-1] == ("order_replace_rejected", order["id"])
    assert ("pending_replace", order["id"]) in events


def test_while_a_replacement_is_pending_the_larger_of_both_is_reserved() -> None:
    desk = caller(flat(), cash=1_000, options=ExchangeOptions(replace_latency_s=10))
    order = desk.buy("ACME", 5, **LIMIT)

    def power() -> str:
        return str(desk.get("/v2/account")["buying_power"])

    _, bigger = replaced(desk, order, qty=8)
    assert power() == "280"
    desk.exchange.advance(10)
    assert power() == "280"
    _, smaller = replaced(desk, bigger, qty=2)
    assert power() == "280"
    assert refused(replaced(desk, smaller, qty=3)) == (422, 42210000, "order chain not fully replaced")
    desk.exchange.advance(10)

    assert power() == "820"
    assert desk.seen(smaller)["status"] == "new"


def test_a_replacement_needs_the_means_for_what_it_adds() -> None:
    desk = caller(flat(), cash=1_000)
    order = desk.buy("ACME", 5, **LIMIT)

    assert refused(replaced(desk, order, qty=12))[:2] == (403, 40310000)
    assert replaced(desk, order, qty=11)[0] == 200
    assert desk.get("/v2/account")["buying_power"] == "10"


def test_a_sale_cannot_be_replaced_by_more_than_is_held() -> None:
    desk = caller(flat())
    desk.buy("ACME", 5)
    order = desk.sell("ACME", 3, type="limit", limit_price=110)

    assert refused(replaced(desk, order, qty=6))[:2] == (403, 40310000)
    assert replaced(desk, order, qty=5)[0] == 200
    assert desk.position("ACME")["qty_available"] == "0"


def test_one_leg_of_a_bracket_is_replaced_and_the_pair_still_is_one() -> None:
    script = {"ACME": {at("09:30"): 100.0, at("10:01"): 94.0}}
    desk = caller(script)
    bracket = desk.bracket("ACME", 5, target=110, stop=90)
    _, stop = desk.seen(bracket)["legs"]

    status, tighter = replaced(desk, stop, stop_price=95)

    assert (status, tighter["status"]) == (200, "held")
    assert [leg["id"] for leg in desk.seen(bracket)["legs"]][1] == tighter["id"]
    assert desk.position("ACME")["qty_available"] == "0"
    desk.exchange.advance(60)
    assert [leg["status"] for leg in desk.seen(bracket)["legs"]] == ["canceled", "filled"]
    assert desk.position("ACME") is None


def test_an_exit_of_a_pair_keeps_its_quantity_and_its_side_of_the_other() -> None:
    desk = caller(flat())
    target, stop = desk.seen(desk.bracket("ACME", 5, target=110, stop=90))["legs"]

    assert "qty of an exit of a pair" in refused(replaced(desk, target, qty=4))[2]
    assert "take_profit.limit_price must be >" in refused(replaced(desk, stop, stop_price=111))[2]


def test_an_entry_that_waits_is_replaced_with_its_legs() -> None:
    script = {"ACME": {at("09:30"): 100.0, at("10:01"): 94.0}}
    desk = caller(script)
    entry = desk.bracket("ACME", 5, target=110, stop=85, **LIMIT)

    _, new = replaced(desk, entry, qty=8, limit_price=95)
    desk.exchange.advance(60)

    seen = desk.seen(new)
    assert (seen["status"], [leg["status"] for leg in seen["legs"]]) == ("filled", ["new", "held"])
    assert [leg["qty"] for leg in seen["legs"]] == ["8", "8"]


def test_a_trailing_stop_is_replaced_with_another_distance_from_its_best_price() -> None:
    script = {"ACME": {at("09:30"): 100.0, at("10:01"): 108.0, at("10:02"): 107.0}}
    desk = caller(script)
    desk.buy("ACME", 5)
    order = desk.sell("ACME", 5, type="trailing_stop", trail_price=5)
    desk.exchange.advance(120)

    _, new = replaced(desk, order, trail=3)

    seen = desk.seen(new)
    assert (seen["trail_price"], seen["hwm"], seen["stop_price"]) == ("3", "108", "105")


def test_cancelling_the_pending_replacement_leaves_the_order_as_it_was() -> None:
    desk = caller(flat(), options=ExchangeOptions(replace_latency_s=10))
    order = desk.buy("ACME", 5, **LIMIT)
    _, new = replaced(desk, order, qty=8)

    assert desk.cancel(new)[0] == 204
    desk.exchange.advance(10)

    assert (desk.seen(order)["status"], desk.seen(new)["status"]) == ("new", "canceled")


def test_an_exit_replaced_before_its_entry_fills_goes_to_work_with_it() -> None:
    script = {"ACME": {at("09:30"): 100.0, at("10:01"): 94.0, at("10:05"): 108.0}}
    desk = caller(script, options=ExchangeOptions(replace_latency_s=90))
    entry = desk.bracket("ACME", 5, target=110, stop=85, **LIMIT | {"limit_price": 95})
    target, _ = desk.seen(entry)["legs"]

    _, new = replaced(desk, target, limit_price=107)
    desk.exchange.advance(100)
    assert [leg["status"] for leg in desk.seen(entry)["legs"]] == ["new", "held"]
    assert desk.position("ACME")["qty_available"] == "0"
    desk.exchange.advance(300)

    assert desk.seen(new)["filled_avg_price"] == "107"
    assert desk.position("ACME") is None


def test_the_pending_replacement_of_a_stop_shrinks_with_its_part_filled_target() -> None:
    script = {"ACME": {at("09:30"): 100.0, at("10:01"): 112.0, at("10:02"): 90.0}}
    desk = caller(script, options=ExchangeOptions(replace_latency_s=90))
    bracket = desk.bracket("ACME", 10, target=110, stop=85)
    desk.call("POST", "/admin/faults", body={"fault": "partial_stall", "fraction": 0.3})
    _, stop = desk.seen(bracket)["legs"]

    _, new = replaced(desk, stop, stop_price=95)
    desk.exchange.advance(60)
    assert desk.position("ACME")["qty"] == "7"
    desk.call("DELETE", "/admin/faults")
    desk.exchange.advance(60)

    assert (desk.seen(new)["qty"], desk.seen(new)["status"]) == ("7", "filled")
    assert desk.position("ACME") is None


def test_a_replaced_extended_hours_order_still_ends_with_its_day() -> None:
    desk = caller(flat())
    order = desk.buy("ACME", 5, **LIMIT, extended_hours=True)

    _, new = replaced(desk, order, limit_price=91)
    desk.exchange.set_clock(at("19:59"))
    assert desk.seen(new)["status"] == "new"
    desk.exchange.set_clock(at("20:00"))

    assert desk.seen(new)["status"] == "expired"
