"""Every fault of the list: set through the admin API, felt by the caller, written into the log."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_market import KEYS, TUESDAY, Caller, at, caller, flat

from desk.exchange.faultlist import FAULTS
from desk.exchange.faults import ProcessKilled
from desk.exchange.options import ExchangeOptions
from desk.exchange.transport import InProcessSession

LIMIT = {"type": "limit", "limit_price": 90}
URL = "http://exchange.invalid"
HEADERS = {"APCA-API-KEY-ID": KEYS[0], "APCA-API-SECRET-KEY": KEYS[1]}


def troubled(desk: Caller, fault: str, **script: Any) -> Any:
    status, answer = desk.call("POST", "/admin/faults", body={"fault": fault, **script})
    assert status == 200, answer
    return answer[0]


def fired(desk: Caller, fault: str) -> int:
    entries = [entry for entry in desk.exchange.log(limit=10_000) if entry["event"] == "fault.fired"]
    return sum(entry["fault"] == fault for entry in entries)


def told(desk: Caller) -> list[tuple[str, str]]:
    """(event, order type) of every update from now on."""
    heard: list[tuple[str, str]] = []
    desk.exchange.subscribe(lambda update: heard.append((update["event"], update["order"]["type"])))
    return heard


def code(desk: Caller, path: str = "/v2/clock") -> int:
    """HTTP status alone: not every answer here is JSON."""
    return desk.gateway.handle("GET", path, "", HEADERS, b"").status


def statuses(desk: Caller, order: Any) -> list[str]:
    seen = desk.seen(order)
    return [seen["status"], *(leg["status"] for leg in seen["legs"] or ())]


# -- scripts -------------------------------------------------------------------------------------


def test_an_unknown_fault_is_refused_with_the_names_that_are_known() -> None:
    status, body = caller(flat()).call("POST", "/admin/faults", body={"fault": "gremlin"})

    assert status == 422
    assert "fault 'gremlin': unknown" in body["message"]
    assert all(name in body["message"] for name in FAULTS)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ({}, "fault None: unknown"),
        ({"fault": "latency", "secnds": 2}, "unknown field 'secnds'; known are nth, symbol"),
        ({"fault": "latency", "seconds": "long"}, "seconds 'long'; a number from 0"),
        ({"fault": "latency", "seconds": -1}, "seconds -1; a number from 0"),
        ({"fault": "latency", "nth": 0}, "nth 0; a whole number from 1"),
        ({"fault": "latency", "nth": []}, "nth is an empty list"),
        ({"fault": "latency", "probability": 1.5}, "probability"),
        ({"fault": "latency", "probability": True}, "probability True"),
        ({"fault": "latency", "times": 1.5}, "times"),
        ({"fault": "latency", "seed": "x"}, "seed 'x'"),
        ({"fault": "latency", "operation": "submitt"}, "unknown operation 'submitt'; known are"),
        ({"fault": "latency", "symbol": 7}, "symbol 7; a name or a list of names"),
        ({"fault": "latency", "after": "noon"}, "after 'noon'; a time with its zone"),
        ({"fault": "latency", "after": "2024-03-04T15:00:00"}, "a time with its zone"),
        (
            {"fault": "latency", "after": "2024-03-04T15:00:00Z", "until": "2024-03-04T15:00:00Z"},
            "is not later than after",
        ),
        ({"fault": "garbage_body", "body": "poem"}, "one of html, truncated, empty, redirect"),
        ({"fault": "burst_429", "headers": 1}, "one of True, False"),
        ({"fault": "halt"}, "symbol is needed"),
        ({"faults": []}, "a list of scripts is needed"),
        ({"faults": [{"fault": "drop"}], "fault": "drop"}, "a list of scripts alone"),
    ],
)
def test_a_script_that_cannot_be_followed_is_refused_by_name(script: dict[str, Any], said: str) -> None:
    desk = caller(flat())

    status, body = desk.call("POST", "/admin/faults", body=script)

    assert status == 422
    assert said in body["message"]
    assert desk.call("GET", "/admin/faults") == (200, [])


def test_of_several_scripts_all_are_set_or_none() -> None:
    desk = caller(flat())
    good, bad = {"fault": "latency", "nth": 2}, {"fault": "gremlin"}

    assert desk.call("POST", "/admin/faults", body={"faults": [good, bad]})[0] == 422
    assert desk.call("GET", "/admin/faults") == (200, [])
    assert desk.call("POST", "/admin/faults", body={"faults": [good, good]})[0] == 200

    listed = desk.call("GET", "/admin/faults")[1]
    assert [(one["number"], one["fault"], one["nth"], one["calls"], one["fired"]) for one in listed] == [
        (1, "latency", [2], 0, 0),
        (2, "latency", [2], 0, 0),
    ]


def test_faults_are_cleared_one_by_one_or_all() -> None:
    desk = caller(flat())
    for name in ("auth_revoked", "async_reject", "drop"):
        troubled(desk, name)

    assert desk.call("GET", "/v2/clock")[0] == 401
    assert desk.call("DELETE", "/admin/faults", {"number": 1}) == (200, {"cleared": 1})
    assert desk.call("GET", "/v2/clock")[0] == 200
    assert desk.call("DELETE", "/admin/faults", {"number": 1})[0] == 404
    assert desk.call("DELETE", "/admin/faults") == (200, {"cleared": 2})
    assert desk.call("GET", "/admin/faults") == (200, [])
    assert desk.exchange.floor.mischief is None and desk.exchange.journal.interfere is None
    assert not desk.exchange.faults.at_gateway


def test_while_no_fault_is_set_nobody_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of an order looks at flags alone."""
    desk = caller(flat())
    troubled(desk, "latency")
    desk.call("DELETE", "/admin/faults")
    heard = told(desk)

    def asked(*_: Any, **__: Any) -> None:
        raise AssertionError("a fault was asked for")

    monkeypatch.setattr(desk.exchange.faults, "fires", asked)
    monkeypatch.setattr("desk.exchange.gateway.troubled", asked)
    order = desk.bracket("ACME", 5, target=110, stop=90)
    desk.call("PATCH", f"/v2/orders/{desk.seen(order)['legs'][0]['id']}", body={"limit_price": 111})
    desk.call("DELETE", "/v2/positions", {"cancel_orders": True})
    desk.exchange.set_clock(at("10:00", TUESDAY))

    assert desk.position("ACME") is None and len(heard) > 8


def test_a_fault_fires_at_its_nth_calls_only() -> None:
    desk = caller(flat())
    troubled(desk, "burst_5xx", nth=[2, 4], length=1, operation="clock")

    answers = [code(desk, "/v2/clock" if turn != 2 else "/v2/account") for turn in range(6)]

    assert answers == [200, 503, 200, 200, 503, 200]
    assert fired(desk, "burst_5xx") == 2


def test_a_fault_fires_for_its_symbol_only_whatever_the_request_calls_it() -> None:
    desk = caller(flat("ACME") | flat("BETA"))
    acme, beta = desk.buy("ACME", 1, **LIMIT, client_order_id="a"), desk.buy("BETA", 1, **LIMIT)
    desk.buy("ACME", 1)
    troubled(desk, "ambiguous_504", symbol="ACME")

    def status(method: str, path: str, **query: Any) -> int:
        headers, text = HEADERS, "&".join(f"{name}={value}" for name, value in query.items())
        return desk.gateway.handle(method, path, text, headers, b"").status

    assert status("GET", f"/v2/orders/{acme['id']}") == 504
    assert status("GET", "/v2/orders:by_client_order_id", client_order_id="a") == 504
    assert status("GET", "/v2/positions/ACME") == 504
    assert status("GET", f"/v2/positions/{desk.exchange.asset('ACME').asset_id}") == 504
    assert status("GET", "/v2/stocks/quotes/latest", symbols="BETA,ACME") == 504
    assert status("GET", f"/v2/orders/{beta['id']}") == 200
    assert status("GET", "/v2/stocks/quotes/latest", symbols="BETA") == 200
    assert status("GET", "/v2/account") == 200


def test_a_fault_fires_within_its_time_only() -> None:
    desk = caller(flat())
    troubled(desk, "auth_revoked", after="2024-03-04T15:01:00Z", until="2024-03-04T15:02:00Z")

    answers = []
    for _ in range(6):
        answers.append(desk.call("GET", "/v2/clock")[0])
        desk.exchange.advance(30)

    assert answers == [200, 200, 401, 401, 200, 200]


def test_a_fault_fires_so_many_times_at_most() -> None:
    desk = caller(flat())
    troubled(desk, "burst_5xx", length=1, times=2)

    assert [code(desk) for _ in range(4)] == [503, 503, 200, 200]


def draws(seed: int, probability: float) -> list[int]:
    desk = caller(flat())
    troubled(desk, "burst_5xx", length=1, probability=probability, seed=seed)
    return [code(desk) for _ in range(200)]


def test_a_fault_fires_with_its_probability_the_same_way_for_the_same_seed() -> None:
    assert draws(1, 0.3) == draws(1, 0.3)
    assert draws(1, 0.3) != draws(2, 0.3)
    assert 35 <= draws(1, 0.3).count(503) <= 85


def test_each_setting_firing_and_clearing_is_a_numbered_line_of_the_log() -> None:
    desk = caller(flat())
    troubled(desk, "drop")
    troubled(desk, "burst_5xx", length=1, times=1, operation="clock")
    code(desk)
    desk.call("DELETE", "/admin/faults", {"number": 2})

    entries = desk.get("/admin/log")
    assert [entry["number"] for entry in entries] == list(range(1, len(entries) + 1))
    assert [(entry["event"], entry["set_as"]) for entry in entries] == [
        ("fault.set", "1"),
        ("fault.set", "2"),
        ("fault.fired", "2"),
        ("fault.cleared", "2"),
    ]
    assert entries[2] == {
        "number": 3, "at": "2024-03-04T15:00:00.000000Z", "event": "fault.fired", "fault": "burst_5xx", "set_as": "2",
        "operation": "clock",
    }  # fmt: skip


def test_the_admin_api_itself_is_never_troubled() -> None:
    desk = caller(flat())
    troubled(desk, "auth_revoked")

    assert desk.call("GET", "/admin/clock")[0] == 200


def test_a_reset_clears_the_faults() -> None:
    desk = caller(flat())
    troubled(desk, "halt", symbol="ACME")
    troubled(desk, "gap", symbol="ACME")
    troubled(desk, "async_reject")

    desk.call("POST", "/admin/reset", body={})

    assert desk.call("GET", "/admin/faults") == (200, [])
    assert desk.seen(desk.buy("ACME", 1))["filled_avg_price"] == "100.01"


# -- the wire, in process ------------------------------------------------------------------------


def post(desk: Caller, session: requests.Session, **fields: Any) -> requests.Response:
    body = {"symbol": "ACME", "qty": 1, "side": "buy", "type": "market", "time_in_force": "day"} | fields
    return session.request("POST", f"{URL}/v2/orders", headers=HEADERS, json=body)


def count(desk: Caller) -> int:
    return len(desk.exchange.floor.orders)


@pytest.mark.parametrize(
    ("fault", "settings", "error", "orders"),
    [
        ("lost_request", {}, requests.ReadTimeout, 0),
        ("lost_response", {}, requests.ConnectionError, 1),
        ("process_kill", {"moment": "before"}, ProcessKilled, 0),
        ("process_kill", {"moment": "after"}, ProcessKilled, 1),
    ],
)
def test_what_never_comes_back_was_processed_or_not(
    fault: str, settings: dict[str, Any], error: type[BaseException], orders: int
) -> None:
    desk = caller(flat())
    session = InProcessSession(desk.exchange)
    troubled(desk, fault, times=1, **settings)

    with pytest.raises(error):
        post(desk, session)

    assert (count(desk), fired(desk, fault)) == (orders, 1)
    assert post(desk, session).status_code == 200


def test_a_lost_request_costs_the_caller_its_patience_in_virtual_time() -> None:
    desk = caller(flat())
    session = InProcessSession(desk.exchange)
    troubled(desk, "lost_request", hang_s=30)

    with pytest.raises(requests.ReadTimeout):
        session.get(f"{URL}/v2/clock", headers=HEADERS, timeout=(3, 10))

    assert desk.exchange.now == at("10:00").replace(second=10)


def test_latency_passes_virtual_time_and_may_exceed_the_callers_patience() -> None:
    desk = caller(flat())
    session = InProcessSession(desk.exchange)
    troubled(desk, "latency", seconds=5)

    assert post(desk, session).status_code == 200
    assert desk.exchange.now == at("10:00").replace(second=5)
    with pytest.raises(requests.ReadTimeout):
        session.get(f"{URL}/v2/clock", headers=HEADERS, timeout=(3, 2))

    assert desk.exchange.now == at("10:00").replace(second=7)


def test_an_ambiguous_504_comes_after_the_order_was_taken() -> None:
    desk = caller(flat())
    session = InProcessSession(desk.exchange)
    troubled(desk, "ambiguous_504", operation="submit", times=1)

    answer = post(desk, session, client_order_id="mine")

    assert (answer.status_code, count(desk)) == (504, 1)
    twin = post(desk, session, client_order_id="mine")
    assert (twin.status_code, twin.json()["code"]) == (422, 40010001)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_burst_of_errors_processes_nothing(status: int) -> None:
    desk = caller(flat())
    session = InProcessSession(desk.exchange)
    troubled(desk, "burst_5xx", status=status, length=3, nth=1)

    assert [post(desk, session).status_code for _ in range(4)] == [status] * 3 + [200]
    assert count(desk) == 1


@pytest.mark.parametrize("headers", [True, False])
def test_a_throttled_burst_comes_with_or_without_headers(headers: bool) -> None:
    desk = caller(flat())
    session = InProcessSession(desk.exchange)
    troubled(desk, "burst_429", length=2, nth=1, headers=headers)

    answers = [post(desk, session) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert ("X-RateLimit-Remaining" in answers[0].headers) is headers
    assert answers[0].json() == (
        {"code": 42910000, "message": "rate limit exceeded"} if headers else {"message": "too many requests."}
    )


def test_revoked_keys_are_refused_until_the_fault_is_cleared() -> None:
    desk = caller(flat())
    troubled(desk, "auth_revoked")

    assert desk.order("ACME", 1) == (401, {"message": "unauthorized."})
    desk.call("DELETE", "/admin/faults")

    assert desk.order("ACME", 1)[0] == 200


@pytest.mark.parametrize(("body", "status"), [("html", 200), ("truncated", 200), ("empty", 200), ("redirect", 302)])
def test_a_garbage_body_follows_an_order_that_was_taken(body: str, status: int) -> None:
    desk = caller(flat())
    troubled(desk, "garbage_body", body=body, times=1)
    content = json.dumps({"symbol": "ACME", "qty": 1, "side": "buy", "type": "market", "time_in_force": "day"}).encode()

    answer = desk.gateway.handle("POST", "/v2/orders", "", HEADERS, content)

    assert (answer.status, count(desk)) == (status, 1)
    with pytest.raises(ValueError):
        json.loads(answer.content)


def test_a_schema_may_drift_by_an_unknown_enum_or_a_null() -> None:
    desk = caller(flat())
    desk.buy("ACME", 1)
    troubled(desk, "schema_drift", change="enum", nth=[1], operation="orders")
    troubled(desk, "schema_drift", change="null", nth=[1], operation=["positions", "latest_quotes"])

    (order,) = desk.get("/v2/orders", status="all")
    (position,) = desk.get("/v2/positions")

    assert order["status"] == "unheard_of"
    assert position["symbol"] is None


# -- answers -------------------------------------------------------------------------------------


def test_positions_may_lag_behind_their_fills() -> None:
    desk = caller(flat("ACME") | flat("BETA"))
    desk.buy("ACME", 4)
    desk.exchange.advance(60)
    troubled(desk, "position_lag", lag_s=10)
    desk.buy("ACME", 3)
    desk.buy("BETA", 5)

    assert [(one["symbol"], one["qty"]) for one in desk.get("/v2/positions")] == [("ACME", "4")]
    assert desk.position("ACME")["qty"] == "4"
    desk.exchange.advance(10)

    assert [(one["symbol"], one["qty"]) for one in desk.get("/v2/positions")] == [("ACME", "7"), ("BETA", "5")]


def test_a_position_that_was_closed_may_still_be_there() -> None:
    desk = caller(flat())
    desk.buy("ACME", 4)
    desk.exchange.advance(60)
    troubled(desk, "position_lag", lag_s=10)
    desk.sell("ACME", 4)

    assert [(one["symbol"], one["qty"]) for one in desk.get("/v2/positions")] == [("ACME", "4")]
    assert desk.position("ACME")["qty"] == "4"
    assert desk.order("ACME", 4, "sell")[0] == 403
    desk.exchange.advance(10)

    assert desk.get("/v2/positions") == []
    assert desk.position("ACME") is None


def test_orders_may_lag_behind_and_a_new_one_is_not_found() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("10:02"): 89.0}})
    old = desk.buy("ACME", 4, **LIMIT)
    desk.exchange.advance(60)
    troubled(desk, "order_lag", lag_s=10)
    desk.exchange.advance(60)  # the fill is fresh
    new = desk.buy("ACME", 1, **LIMIT, client_order_id="new")

    listed = desk.get("/v2/orders", status="all")
    assert [(one["id"], one["status"], one["filled_qty"]) for one in listed] == [(old["id"], "new", "0")]
    assert desk.call("GET", f"/v2/orders/{new['id']}")[0] == 404
    assert desk.call("GET", "/v2/orders:by_client_order_id", {"client_order_id": "new"})[0] == 404
    desk.exchange.advance(10)

    assert {one["status"] for one in desk.get("/v2/orders", status="all")} == {"filled"}


def test_buying_power_may_lag_behind_orders_and_fills() -> None:
    desk = caller(flat())
    troubled(desk, "bp_lag", lag_s=10)
    desk.buy("ACME", 10)
    desk.buy("ACME", 10, **LIMIT)

    assert (desk.get("/v2/account")["buying_power"], desk.get("/v2/account")["cash"]) == ("100000", "100000")
    desk.exchange.advance(10)

    assert desk.get("/v2/account")["buying_power"] == "98099.9"


def test_quotes_may_be_stale_or_without_a_side() -> None:
    desk = caller(flat())
    path = "/v2/stocks/quotes/latest"
    troubled(desk, "stale_quote", nth=1, age_s=90)
    troubled(desk, "zero_quote", nth=[2], side="bid")

    stale, zero, sound = (desk.get(path, symbols="ACME")["quotes"]["ACME"] for _ in range(3))

    assert stale["t"] == "2024-03-04T14:58:30.000000Z"
    assert (zero["bp"], zero["bs"], zero["ap"]) == (0, 0, 100.01)
    assert (sound["t"], sound["bp"]) == ("2024-03-04T15:00:00Z", 99.99)
    troubled(desk, "zero_quote", side="both")
    assert desk.get("/v2/stocks/snapshots", symbols="ACME")["ACME"]["latestQuote"]["ap"] == 0


def test_the_clock_may_be_wrong() -> None:
    desk = caller(flat())
    troubled(desk, "clock_skew", skew_s=-45)

    assert desk.get("/v2/clock")["timestamp"] == "2024-03-04T09:59:15-05:00"


# -- orders --------------------------------------------------------------------------------------


def test_an_accepted_order_may_be_rejected_and_releases_its_money_once() -> None:
    desk = caller(flat())
    heard = told(desk)
    troubled(desk, "async_reject", times=1)

    order = desk.bracket("ACME", 5, target=110, stop=90)

    assert order["status"] == "pending_new"
    assert statuses(desk, order) == ["rejected", "canceled", "canceled"]
    assert desk.seen(order)["failed_at"] is not None
    assert ("rejected", "market") in heard
    assert desk.get("/v2/account")["buying_power"] == "100000"


def test_an_order_may_never_leave_its_first_status_and_can_be_cancelled() -> None:
    desk = caller(flat())
    troubled(desk, "stuck_pending", nth=1)
    troubled(desk, "stuck_pending", nth=1, for_s=30)  # of calls that the first one lets through

    stuck, slow = desk.buy("ACME", 1), desk.buy("ACME", 1)
    desk.exchange.advance(29)
    assert (statuses(desk, stuck), statuses(desk, slow)) == (["pending_new"], ["filled"])
    desk.exchange.advance(3600)

    assert statuses(desk, stuck) == ["pending_new"]
    assert desk.cancel(stuck)[0] == 204
    assert statuses(desk, stuck) == ["canceled"]


def test_a_stuck_order_may_come_loose() -> None:
    desk = caller(flat())
    troubled(desk, "stuck_pending", for_s=30, times=1)
    order = desk.buy("ACME", 1)

    desk.exchange.advance(29)
    assert statuses(desk, order) == ["pending_new"]
    desk.exchange.advance(1)

    assert statuses(desk, order) == ["filled"]


def test_a_fill_may_stall_half_way() -> None:
    desk = caller(flat())
    troubled(desk, "partial_stall", fraction=0.3, for_s=600, times=1)
    order = desk.buy("ACME", 10)

    desk.exchange.advance(599)
    assert (desk.seen(order)["status"], desk.seen(order)["filled_qty"]) == ("partially_filled", "3")
    desk.exchange.advance(61)

    assert desk.seen(order)["filled_qty"] == "10"


def test_a_fill_may_win_over_a_cancel() -> None:
    desk = caller(flat())
    heard = told(desk)
    troubled(desk, "cancel_fill_race")
    order = desk.buy("ACME", 4, **LIMIT)

    assert desk.cancel(order)[0] == 204

    assert (desk.seen(order)["status"], desk.seen(order)["filled_avg_price"]) == ("filled", "90")
    assert desk.position("ACME")["qty"] == "4"
    assert [event for event, _ in heard][-3:] == ["pending_cancel", "fill", "order_cancel_rejected"]


def test_a_cancel_may_stay_stuck() -> None:
    desk = caller(flat())
    troubled(desk, "cancel_stuck", nth=1)
    troubled(desk, "cancel_stuck", nth=1, for_s=20)
    first, second = desk.buy("ACME", 1, **LIMIT), desk.buy("ACME", 1, **LIMIT)

    assert (desk.cancel(first)[0], desk.cancel(second)[0]) == (204, 204)
    desk.exchange.advance(60)

    assert (statuses(desk, first), statuses(desk, second)) == (["pending_cancel"], ["canceled"])


def test_a_fill_may_win_over_a_replacement() -> None:
    desk = caller(flat())
    heard = told(desk)
    troubled(desk, "replace_race", times=1)
    order = desk.buy("ACME", 4, **LIMIT)

    status, new = desk.call("PATCH", f"/v2/orders/{order['id']}", body={"qty": 9})

    assert (status, statuses(desk, order), statuses(desk, new)) == (200, ["filled"], ["rejected"])
    assert desk.position("ACME")["qty"] == "4"
    assert heard[-1][0] == "order_replace_rejected"


def test_an_entry_may_be_part_filled_and_cancelled_leaving_shares_without_a_stop() -> None:
    desk = caller(flat())
    troubled(desk, "entry_partial_cancel", fraction=0.5)

    order = desk.bracket("ACME", 10, target=110, stop=90)

    assert statuses(desk, order) == ["canceled", "canceled", "canceled"]
    assert desk.position("ACME")["qty_available"] == "5"


@pytest.mark.parametrize(
    ("leg", "left"),
    [("stop", ["new", "canceled"]), ("target", ["canceled", "held"]), ("both", ["canceled", "canceled"])],
)
def test_a_leg_may_be_lost(leg: str, left: list[str]) -> None:
    desk = caller(flat())
    troubled(desk, "leg_loss", leg=leg)

    assert statuses(desk, desk.bracket("ACME", 10, target=110, stop=90)) == ["filled", *left]


def test_both_legs_may_fill_and_leave_a_short_that_can_only_be_bought_back() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("10:01"): 111.0, at("10:05"): 100.0}})
    troubled(desk, "leg_double_fill")
    order = desk.bracket("ACME", 10, target=110, stop=90)

    desk.exchange.advance(60)

    assert statuses(desk, order) == ["filled", "filled", "filled"]
    assert (desk.position("ACME")["qty"], desk.position("ACME")["side"]) == ("-10", "short")
    desk.call("DELETE", "/admin/faults")
    assert desk.order("ACME", 1, "sell")[0] == 403
    assert desk.order("ACME", 11)[0] == 403
    desk.buy("ACME", 10)
    assert desk.position("ACME") is None


def test_legs_may_go_without_a_word() -> None:
    desk = caller(flat())
    troubled(desk, "leg_silent_cancel", after_s=30)
    order = desk.bracket("ACME", 10, target=110, stop=90)
    heard = told(desk)

    desk.exchange.advance(30)

    assert statuses(desk, order) == ["filled", "canceled", "canceled"]
    assert heard == []
    assert desk.position("ACME")["qty_available"] == "10"


def test_an_asset_may_be_refused_and_a_pattern_day_trade_too() -> None:
    desk = caller(flat())
    troubled(desk, "untradable", symbol="ACME", times=1)
    troubled(desk, "pdt_legacy", times=1)

    first, second, third = (desk.order("ACME", 1) for _ in range(3))

    assert (first[0], first[1]["message"]) == (422, 'asset "ACME" is not tradable')
    assert (second[0], second[1]["code"], third[0]) == (403, 40310100, 200)


# -- trade updates -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "settings", "events"),
    [
        ("drop", {"nth": 2}, ["pending_new", "fill"]),
        ("duplicate", {"nth": 3}, ["pending_new", "new", "fill", "fill"]),
        ("reorder", {"nth": 2}, ["pending_new", "fill", "new"]),
        ("mute", {"nth": 2}, ["pending_new"]),
        ("disconnect", {"nth": 3}, ["pending_new", "new"]),
    ],
)
def test_trade_updates_may_be_lost_doubled_swapped_or_silenced(
    fault: str, settings: dict[str, Any], events: list[str]
) -> None:
    desk = caller(flat())
    heard = told(desk)
    troubled(desk, fault, **settings)

    order = desk.buy("ACME", 1)

    assert [event for event, _ in heard] == events
    assert statuses(desk, order) == ["filled"]
    assert fired(desk, fault) == 1


def test_a_duplicate_repeats_its_execution_id() -> None:
    desk = caller(flat())
    updates: list[dict[str, Any]] = []
    desk.exchange.subscribe(updates.append)
    troubled(desk, "duplicate")

    desk.buy("ACME", 1)

    ids = [update["execution_id"] for update in updates]
    assert len(ids) == 6 and len(set(ids)) == 3


def test_silence_ends_with_its_time_or_with_the_fault() -> None:
    desk = caller(flat())
    heard = told(desk)
    troubled(desk, "mute", nth=1, for_s=60)
    desk.buy("ACME", 1)
    desk.exchange.advance(60)
    desk.buy("ACME", 1)
    assert [event for event, _ in heard] == ["pending_new", "new", "fill"]
    troubled(desk, "mute")
    desk.buy("ACME", 1)
    assert len(heard) == 3

    desk.call("DELETE", "/admin/faults")
    desk.buy("ACME", 1)

    assert len(heard) == 6


# -- the world -----------------------------------------------------------------------------------


def test_in_a_halted_symbol_orders_rest_until_trading_resumes() -> None:
    desk = caller({"ACME": {at("09:30"): 100.0, at("10:01"): 80.0}} | flat("BETA"))
    desk.bracket("ACME", 5, target=110, stop=90)
    troubled(desk, "halt", symbol="ACME", for_s=120)

    order, other = desk.buy("BETA", 1), desk.buy("ACME", 1, type="limit", limit_price=101, order_class="oto",
                                                 stop_loss={"stop_price": 70})  # fmt: skip
    desk.exchange.advance(90)
    assert (statuses(desk, order), statuses(desk, other)[0]) == (["filled"], "new")
    assert desk.position("ACME")["qty"] == "5"
    desk.exchange.advance(30)

    assert statuses(desk, other)[0] == "filled"
    assert desk.position("ACME")["qty"] == "1"  # the stop sold at what the market had become
    assert [one["sc"] for one in desk.exchange.bulletins] == ["H", "T"]


def test_clearing_the_faults_ends_a_halt() -> None:
    desk = caller(flat())
    troubled(desk, "halt", symbol="ACME")
    order = desk.buy("ACME", 1)
    assert statuses(desk, order) == ["new"]

    desk.call("DELETE", "/admin/faults")

    assert statuses(desk, order) == ["filled"]


def test_a_price_may_leap_through_a_stop_at_a_time() -> None:
    desk = caller(flat())
    order = desk.bracket("ACME", 5, target=110, stop=90)
    troubled(desk, "gap", symbol="ACME", percent=-20, after="2024-03-04T15:01:30Z")

    desk.exchange.advance(60)
    assert desk.exchange.price("ACME") == 100
    desk.exchange.advance(60)

    assert desk.seen(order)["legs"][1]["filled_avg_price"] == "79.99"
    desk.exchange.set_clock(at("10:00", TUESDAY))
    assert desk.exchange.price("ACME") == 80  # it stays


def test_a_session_may_close_early_unannounced() -> None:
    desk = caller(flat())
    order = desk.buy("ACME", 1, **LIMIT)
    troubled(desk, "early_close", in_s=300)

    assert desk.get("/v2/clock")["next_close"] == "2024-03-04T10:05:00-05:00"
    desk.exchange.advance(301)

    assert desk.get("/v2/clock")["is_open"] is False
    assert statuses(desk, order) == ["expired"]
    assert desk.get("/v2/calendar", start="2024-03-04", end="2024-03-04")[0]["close"] == "10:05"
    assert desk.get("/v2/clock")["next_open"] == "2024-03-05T09:30:00-05:00"


def test_a_split_may_come_overnight_and_changes_shares_prices_and_orders() -> None:
    desk = caller(flat())
    order = desk.bracket("ACME", 5, target=110, stop=90)
    before = Decimal(desk.get("/v2/account")["equity"])
    troubled(desk, "split", symbol="ACME", ratio=2)

    desk.exchange.set_clock(at("10:00", TUESDAY))

    assert (desk.position("ACME")["qty"], desk.position("ACME")["current_price"]) == ("10", "50")
    assert [leg["qty"] for leg in desk.seen(order)["legs"]] == ["10", "10"]
    assert Decimal(desk.get("/v2/account")["equity"]) == before
    told_of = desk.get("/v1/corporate-actions", symbols="ACME", start="2024-03-05")["corporate_actions"]
    assert (told_of["forward_splits"][0]["new_rate"], told_of["forward_splits"][0]["old_rate"]) == (2, 1)


def test_a_dividend_may_come_overnight() -> None:
    desk = caller(flat())
    desk.buy("ACME", 5)
    troubled(desk, "dividend", symbol="ACME", usd=0.4)
    cash = desk.cash()

    desk.exchange.set_clock(at("10:00", TUESDAY))

    assert desk.cash() == cash + 2
    assert len(desk.get("/v2/account/activities/DIV")) == 1


def test_someone_else_may_send_an_order() -> None:
    desk = caller(flat())
    troubled(desk, "foreign_order", symbol="ACME", side="buy", qty=7, nth=2)

    desk.get("/v2/clock")
    assert desk.get("/v2/orders", status="all") != []  # the second request found it there

    assert desk.position("ACME")["qty"] == "7"
    assert fired(desk, "foreign_order") == 1


def test_the_broker_may_liquidate_a_position() -> None:
    desk = caller(flat())
    order = desk.bracket("ACME", 5, target=110, stop=90)
    troubled(desk, "forced_liquidation", symbol="ACME")

    assert statuses(desk, order) == ["filled", "canceled", "canceled"]
    assert desk.position("ACME") is None
    assert len(desk.get("/v2/account/activities/FILL")) == 2


def test_what_the_world_cannot_do_is_written_down() -> None:
    desk = caller(flat(), at="20:00")
    troubled(desk, "early_close")
    troubled(desk, "forced_liquidation", symbol="ACME")

    void = [entry for entry in desk.exchange.log() if entry["event"] == "fault.void"]

    assert [entry["fault"] for entry in void] == ["early_close", "forced_liquidation"]


# -- all of them together ------------------------------------------------------------------------

ORDER_FAULTS = [name for name, kind in FAULTS.items() if kind.place in ("floor", "update")]


def a_day_of_trouble(seed: int) -> tuple[Caller, list[dict[str, Any]]]:
    """Orders of every kind while every fault of orders and updates may strike."""
    script = {"ACME": {at("09:30"): 100.0}} | flat("BETA")
    script["ACME"] |= {at(f"10:{minute:02d}"): 100.0 + (minute * 7 + seed) % 23 - 11 for minute in range(1, 60)}
    desk = caller(script, options=ExchangeOptions(seed=seed))
    for name in ORDER_FAULTS:
        troubled(desk, name, probability=0.15, seed=seed)
    updates: list[dict[str, Any]] = []
    desk.exchange.subscribe(updates.append)
    for turn in range(12):
        desk.order("ACME", 4, order_class="bracket", time_in_force="gtc", take_profit={"limit_price": 104},
                   stop_loss={"stop_price": 95})  # fmt: skip
        desk.order("BETA", 3, type="limit", limit_price=99.99)
        for order in desk.get("/v2/orders")[:1]:
            if turn % 2:
                desk.cancel(order)
            else:
                desk.call("PATCH", f"/v2/orders/{order['id']}", body={"limit_price": 98 + turn})
        desk.exchange.advance(240)
    return desk, updates


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_under_any_faults_fills_explain_cash_and_positions(seed: int) -> None:
    """Also: no order fills beyond its quantity, and each ends once."""
    desk, _ = a_day_of_trouble(seed)

    cash, held = Decimal(100_000), dict[str, Decimal]()
    filled: dict[str, Decimal] = {}
    for activity in desk.exchange.account.activities:
        row = activity.document
        signed = Decimal(row["qty"]) * (1 if row["side"] == "buy" else -1)
        cash -= signed * Decimal(row["price"])
        held[row["symbol"]] = held.get(row["symbol"], Decimal(0)) + signed
        filled[row["order_id"]] = filled.get(row["order_id"], Decimal(0)) + abs(signed)
    assert desk.cash() == cash
    holdings = desk.exchange.account.holdings
    assert {symbol: one.qty for symbol, one in holdings.items()} == {s: q for s, q in held.items() if q}
    ended: dict[str, int] = {}
    for entry in desk.exchange.log(limit=10_000):
        if entry["event"] in ("order.fill", "order.canceled", "order.expired", "order.rejected", "order.replaced"):
            ended[entry["id"]] = ended.get(entry["id"], 0) + 1
    assert set(ended.values()) <= {1}
    for order in desk.exchange.floor.orders:
        assert order.filled_qty <= order.qty
        if order.replaces is None:
            assert filled.get(order.id, Decimal(0)) == order.filled_qty
    reserved = sum((order.reserved_cash for order in desk.exchange.floor.open_orders()), Decimal(0))
    assert desk.exchange.floor.register.reserved == reserved


def test_the_same_seed_makes_the_same_trouble_to_the_byte() -> None:
    (one, heard), (other, heard_again) = a_day_of_trouble(11), a_day_of_trouble(11)

    assert json.dumps(one.exchange.log(limit=10_000)) == json.dumps(other.exchange.log(limit=10_000))
    assert heard == heard_again
    assert one.exchange.log(limit=10_000) != a_day_of_trouble(12)[0].exchange.log(limit=10_000)
    assert sum(entry["event"] == "fault.fired" for entry in one.exchange.log(limit=10_000)) > 10
