"""The life of orders at the simulated exchange."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from scripted_market import MONDAY, TUESDAY, WEDNESDAY, Caller, at, caller, flat

from desk.exchange.options import ExchangeOptions


def statuses(caller: Caller, order: Any) -> list[str]:
    """Of an order and its legs."""
    seen = caller.seen(order)
    return [seen["status"], *(leg["status"] for leg in seen["legs"] or ())]


# -- simple orders -------------------------------------------------------------------------------


def test_a_market_order_is_answered_pending_and_fills_at_the_ask_although_the_clock_stands() -> None:
    desk = caller(flat())

    answer = desk.buy("ACME", 10)

    assert (answer["status"], answer["filled_qty"]) == ("pending_new", "0")
    seen = desk.seen(answer)
    assert (seen["status"], seen["filled_avg_price"], seen["filled_qty"]) == ("filled", "100.01", "10")
    assert desk.cash() == Decimal("98999.90")


def test_a_market_sell_fills_at_the_bid() -> None:
    desk = caller(flat())
    desk.buy("ACME", 10)

    sold = desk.seen(desk.sell("ACME", 4))

    assert (sold["status"], sold["filled_avg_price"]) == ("filled", "99.99")
    assert desk.position("ACME")["qty"] == "6"


def test_with_the_market_closed_orders_wait_accepted_for_the_next_open() -> None:
    desk = caller(flat(), at="08:00", day=TUESDAY)

    order = desk.buy("ACME", 10)
    assert statuses(desk, order) == ["accepted"]
    desk.exchange.set_clock(at("09:30", TUESDAY))

    seen = desk.seen(order)
    assert (seen["status"], seen["filled_at"]) == ("filled", "2024-03-05T14:30:00.000000Z")


def test_a_marketable_limit_takes_the_quote_and_a_resting_one_its_limit() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("10:05"): 97.0}})

    marketable = desk.seen(desk.buy("ACME", 1, type="limit", limit_price=101))
    resting = desk.buy("ACME", 1, type="limit", limit_price=98)
    assert statuses(desk, resting) == ["new"]
    desk.exchange.advance(300)

    assert marketable["filled_avg_price"] == "100.01"
    seen = desk.seen(resting)
    assert (seen["status"], seen["filled_avg_price"], seen["filled_at"]) == (
        "filled",
        "98",
        "2024-03-04T15:05:00.000000Z",
    )


def test_a_limit_waiting_overnight_gets_the_better_opening_price() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("09:30", TUESDAY): 95.0}})

    order = desk.buy("ACME", 1, type="limit", limit_price=98, time_in_force="gtc")
    desk.exchange.set_clock(at("09:30", TUESDAY))

    assert desk.seen(order)["filled_avg_price"] == "95.01"


def test_a_stop_gapped_through_fills_at_the_price_of_the_gap() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("09:30", TUESDAY): 80.0}})
    desk.buy("ACME", 5)

    stop = desk.sell("ACME", 5, type="stop", stop_price=95, time_in_force="gtc")
    desk.exchange.set_clock(at("10:00", TUESDAY))

    assert desk.seen(stop)["filled_avg_price"] == "79.99"


def test_a_buy_stop_pays_at_most_a_little_above_its_stop() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("10:01"): 112.0, at("10:02"): 104.0}})

    order = desk.buy("ACME", 1, type="stop", stop_price=102)
    desk.exchange.advance(60)
    assert statuses(desk, order) == ["new"]  # triggered, but 112 is above 102 x 1.025
    desk.exchange.advance(60)

    assert desk.seen(order)["filled_avg_price"] == "104.01"


def test_a_stop_limit_waits_at_its_limit_once_triggered() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("10:01"): 90.0, at("10:02"): 94.5}})
    desk.buy("ACME", 5)

    order = desk.sell("ACME", 5, type="stop_limit", stop_price=95, limit_price=94)
    desk.exchange.advance(60)
    assert statuses(desk, order) == ["new"]
    desk.exchange.advance(60)

    assert desk.seen(order)["filled_avg_price"] == "94"


def test_a_day_order_expires_at_the_close_and_a_gtc_order_lives_on() -> None:
    desk = caller(flat())
    day = desk.buy("ACME", 1, type="limit", limit_price=50)
    gtc = desk.buy("ACME", 1, type="limit", limit_price=50, time_in_force="gtc")

    desk.exchange.set_clock(at("16:00"))

    assert statuses(desk, day) == ["expired"]
    assert statuses(desk, gtc) == ["new"]
    assert desk.seen(gtc)["expires_at"] == "2024-06-02T20:15:00.000000Z"
    assert desk.get("/v2/account")["buying_power"] == "99950"


def test_a_half_day_ends_at_one() -> None:
    desk = caller(flat(), closes="13:00")
    order = desk.buy("ACME", 1, type="limit", limit_price=50)

    desk.exchange.set_clock(at("13:00"))

    assert statuses(desk, order) == ["expired"]
    assert desk.get("/v2/clock")["is_open"] is False


def test_a_side_priced_zero_fills_nothing() -> None:
    desk = caller(flat(price=(0.0, 100.01, 100.0)))
    desk.buy("ACME", 1)

    order = desk.sell("ACME", 1)
    desk.exchange.advance(60)

    assert statuses(desk, order) == ["new"]


# -- brackets ------------------------------------------------------------------------------------

PATH = {at("09:30"): 100.0, at("10:01"): 97.0, at("10:02"): 100.0}


def test_legs_are_held_until_the_entry_is_complete_and_then_the_target_works() -> None:
    desk = caller({"ACME": PATH})

    order = desk.bracket("ACME", 10, target=110, stop=90, type="limit", limit_price=98)
    assert statuses(desk, order) == ["new", "held", "held"]
    desk.exchange.advance(60)

    assert statuses(desk, order) == ["filled", "new", "held"]
    assert desk.position("ACME")["qty_available"] == "0"


def test_the_target_fills_at_its_limit_and_the_stop_goes() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("10:01"): 112.0}})
    order = desk.bracket("ACME", 10, target=110, stop=90)

    desk.exchange.advance(60)

    assert statuses(desk, order) == ["filled", "filled", "canceled"]
    assert desk.seen(order)["legs"][0]["filled_avg_price"] == "110"
    assert desk.position("ACME") is None


def test_the_stop_triggers_and_the_target_goes() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("10:01"): 89.0}})
    order = desk.bracket("ACME", 10, target=110, stop=90)

    desk.exchange.advance(60)

    assert statuses(desk, order) == ["filled", "canceled", "filled"]
    assert desk.seen(order)["legs"][1]["filled_avg_price"] == "88.99"


@pytest.mark.parametrize("member", [0, 1, 2])
def test_cancelling_any_open_member_cancels_the_remaining_ones(member: int) -> None:
    desk = caller({"ACME": PATH})
    limit = {"type": "limit", "limit_price": 98} if member == 0 else {}
    order = desk.bracket("ACME", 10, target=110, stop=90, **limit)
    entry = desk.seen(order)

    status, _ = desk.cancel([entry, *entry["legs"]][member])

    assert status == 204
    first = "canceled" if member == 0 else "filled"
    assert statuses(desk, order) == [first, "canceled", "canceled"]


def test_a_day_brackets_legs_expire_and_leave_the_position() -> None:
    desk = caller(flat())
    order = desk.bracket("ACME", 10, target=110, stop=90, time_in_force="day")

    desk.exchange.set_clock(at("16:30"))

    assert statuses(desk, order) == ["filled", "expired", "expired"]
    assert desk.position("ACME")["qty_available"] == "10"


def test_part_filled_entries_leave_their_shares_unprotected_when_cancelled() -> None:
    desk = caller(flat(), options=ExchangeOptions(partial_fill_probability=1.0, seed=3))
    order = desk.bracket("ACME", 10, target=110, stop=90, type="limit", limit_price=101)
    seen = desk.seen(order)
    assert seen["status"] == "partially_filled" and 0 < int(seen["filled_qty"]) < 10

    desk.cancel(order)

    assert statuses(desk, order) == ["canceled", "canceled", "canceled"]
    assert desk.position("ACME")["qty_available"] == seen["filled_qty"]


def test_a_part_filled_target_shrinks_the_stop_to_the_rest() -> None:
    script = {"ACME": {at("09:30"): 100.0, at("10:01"): 112.0, at("10:02"): 109.0}}
    desk = caller(script, options=ExchangeOptions(partial_fill_probability=1.0, seed=3))
    order = desk.bracket("ACME", 1, target=110, stop=90)  # one share cannot fill in part
    assert statuses(desk, order)[0] == "filled"
    big = desk.bracket("ACME", 10, target=110, stop=90)
    while desk.seen(big)["status"] != "filled":
        desk.exchange.set_market("ACME", bid=99.99, ask=100.01, last=100)

    desk.exchange.advance(60)

    target, stop = desk.seen(big)["legs"]
    assert target["status"] == "partially_filled"
    assert int(stop["qty"]) == 10 - int(target["filled_qty"])


def test_an_oco_protects_what_is_held_and_holds_the_shares_once() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("10:01"): 94.0}})
    desk.buy("ACME", 10)
    oco = {"order_class": "oco", "type": "limit", "time_in_force": "gtc"}

    order = desk.sell("ACME", 10, **oco, take_profit={"limit_price": 110}, stop_loss={"stop_price": 95})
    assert (order["limit_price"], [leg["stop_price"] for leg in order["legs"]]) == ("110", ["95"])
    assert statuses(desk, order) == ["new", "held"]
    assert desk.position("ACME")["qty_available"] == "0"
    desk.exchange.advance(60)

    assert statuses(desk, order) == ["canceled", "filled"]
    assert desk.position("ACME") is None


def test_an_oto_has_one_exit_that_works_once_the_entry_is_filled() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("10:01"): 89.0}})

    order = desk.buy("ACME", 10, order_class="oto", stop_loss={"stop_price": 90})
    assert statuses(desk, order) == ["filled", "new"]
    desk.exchange.advance(60)

    assert statuses(desk, order) == ["filled", "filled"]


# -- lists ---------------------------------------------------------------------------------------


def test_a_held_stop_is_neither_open_nor_closed_and_a_nested_open_list_omits_its_bracket() -> None:
    desk = caller(flat())
    order = desk.seen(desk.bracket("ACME", 10, target=110, stop=90))
    target, stop = (leg["id"] for leg in order["legs"])

    def listed(**query: Any) -> set[str]:
        return {entry["id"] for entry in desk.get("/v2/orders", **query)}

    assert listed(status="open") == {target}
    assert listed(status="closed") == {order["id"]}
    assert listed(status="all") == {order["id"], target, stop}
    assert listed(status="open", nested=True) == set()
    assert listed(status="all", nested=True) == {order["id"]}


def test_lists_are_cut_by_time_symbol_side_limit_and_direction() -> None:
    desk = caller(flat("ACME") | flat("BETA"))
    first = desk.buy("ACME", 1)["id"]
    desk.exchange.advance(60)
    second = desk.buy("BETA", 1)["id"]
    desk.exchange.advance(60)
    third = desk.sell("ACME", 1)["id"]

    def listed(**query: Any) -> list[str]:
        return [entry["id"] for entry in desk.get("/v2/orders", status="all", **query)]

    assert listed() == [third, second, first]
    assert listed(direction="asc", limit=2) == [first, second]
    assert listed(symbols="ACME") == [third, first]
    assert listed(side="sell") == [third]
    assert listed(after="2024-03-04T15:00:00Z", direction="asc") == [second, third]
    assert listed(until="2024-03-04T15:02:00Z") == [second, first]


def test_an_order_is_found_by_its_client_order_id_without_legs() -> None:
    desk = caller(flat())
    order = desk.bracket("ACME", 10, target=110, stop=90, client_order_id="mine")

    found = desk.get("/v2/orders:by_client_order_id", client_order_id="mine", nested=True)

    assert (found["id"], found["legs"]) == (order["id"], None)


def test_cancel_all_answers_for_each_open_order() -> None:
    desk = caller(flat())
    bracket = desk.bracket("ACME", 10, target=110, stop=90)
    limit = desk.buy("ACME", 1, order_class="oto", type="limit", limit_price=90, stop_loss={"stop_price": 80})

    status, answers = desk.call("DELETE", "/v2/orders")

    assert (status, [answer["status"] for answer in answers]) == (207, [200, 200])
    assert statuses(desk, bracket) == ["filled", "canceled", "canceled"]
    assert statuses(desk, limit) == ["canceled", "canceled"]


# -- latencies -----------------------------------------------------------------------------------


def test_with_latency_an_order_is_taken_after_that_many_virtual_seconds() -> None:
    desk = caller(flat(), options=ExchangeOptions(fill_on_submit_latency_s=2.0))
    order = desk.buy("ACME", 1)

    desk.exchange.advance(1)
    assert statuses(desk, order) == ["pending_new"]
    desk.exchange.advance(1)

    assert desk.seen(order)["filled_at"] == "2024-03-04T15:00:02.000000Z"


def test_a_fill_may_win_over_a_cancel_that_takes_time() -> None:
    script = {"ACME": {at("09:30"): 100.0, at("10:01"): 97.0}}
    desk = caller(script, options=ExchangeOptions(cancel_latency_s=90))
    order = desk.buy("ACME", 1, type="limit", limit_price=98)

    assert desk.cancel(order)[0] == 204
    assert statuses(desk, order) == ["pending_cancel"]
    desk.exchange.advance(300)

    assert statuses(desk, order) == ["filled"]


def test_gtc_orders_end_ninety_days_later() -> None:
    days = [MONDAY, TUESDAY, WEDNESDAY.replace(month=6, day=3), WEDNESDAY.replace(month=6, day=4)]
    desk = caller(flat(days=days), days=days, day=TUESDAY)
    order = desk.buy("ACME", 1, type="limit", limit_price=50, time_in_force="gtc")

    desk.exchange.set_clock(at("15:00", days[2]))
    assert statuses(desk, order) == ["new"]
    desk.exchange.set_clock(at("18:00", days[2]))

    assert statuses(desk, order) == ["expired"]


def test_a_gtc_order_whose_last_day_was_a_weekend_does_not_trade_on_monday() -> None:
    days = [MONDAY, WEDNESDAY.replace(month=6, day=3)]  # ninety days after Monday is Sunday, June 2
    desk = caller({"ACME": {at("09:30"): 100.0, at("09:30", days[1]): 40.0}}, days=days)
    order = desk.buy("ACME", 1, type="limit", limit_price=50, time_in_force="gtc")

    desk.exchange.set_clock(at("10:00", days[1]))

    assert statuses(desk, order) == ["expired"]
