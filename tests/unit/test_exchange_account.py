"""Clock, calendar, assets, account, positions, activities and corporate actions of the simulated exchange."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_market import DAYS, MONDAY, TUESDAY, WEDNESDAY, Caller, at, caller, flat

from desk.errors import BadInput
from desk.exchange.market import CorporateAction
from desk.exchange.options import ExchangeOptions


def test_the_clock_speaks_new_york_time_and_knows_what_comes_next() -> None:
    desk = caller(flat())

    assert desk.get("/v2/clock") == {
        "timestamp": "2024-03-04T10:00:00-05:00",
        "is_open": True,
        "next_open": "2024-03-05T09:30:00-05:00",
        "next_close": "2024-03-04T16:00:00-05:00",
    }


def test_open_belongs_to_the_session_and_close_does_not() -> None:
    desk = caller(flat(), at="09:29")

    desk.exchange.set_clock(at("09:30"))
    assert desk.get("/v2/clock")["is_open"] is True
    desk.exchange.set_clock(at("16:00"))
    assert desk.get("/v2/clock")["is_open"] is False


def test_the_clock_never_goes_back() -> None:
    desk = caller(flat())

    with pytest.raises(BadInput, match="never goes back"):
        desk.exchange.set_clock(at("09:59"))


def test_the_calendar_has_session_hours_and_settlement() -> None:
    desk = caller(flat(), days=(MONDAY, TUESDAY, WEDNESDAY), closes="13:00")

    assert desk.get("/v2/calendar", start="2024-03-02", end="2024-03-04") == [
        {
            "date": "2024-03-04",
            "open": "09:30",
            "close": "13:00",
            "session_open": "0400",
            "session_close": "1700",
            "settlement_date": "2024-03-06",
        }
    ]


def test_positions_are_valued_at_the_last_trade_against_entry_and_yesterday() -> None:
    script = {"ACME": {at("09:30"): 100.0, at("15:59"): 104.0, at("09:30", TUESDAY): 106.0}}
    desk = caller(script)
    desk.buy("ACME", 10)

    desk.exchange.set_clock(at("10:00", TUESDAY))

    position = desk.position("ACME")
    assert {name: position[name] for name in ("avg_entry_price", "market_value", "unrealized_pl", "lastday_price")} == {
        "avg_entry_price": "100.01",
        "market_value": "1060",
        "unrealized_pl": "59.9",
        "lastday_price": "104",
    }
    assert position["unrealized_intraday_pl"] == "20"
    account = desk.get("/v2/account")
    assert (account["equity"], account["last_equity"]) == ("100059.9", "100039.9")


def test_last_equity_is_of_the_day_before_until_the_day_is_over() -> None:
    """After today's close it still tells yesterday's: the day's profit can be read all evening."""
    script = {"ACME": {at("09:30"): 100.0, at("15:59"): 104.0}}
    desk = caller(script)
    desk.buy("ACME", 10)

    desk.exchange.set_clock(at("16:15"))
    evening = desk.get("/v2/account")
    desk.exchange.set_clock(at("04:00", TUESDAY))
    morning = desk.get("/v2/account")

    assert (evening["equity"], evening["last_equity"]) == ("100039.9", "100000")
    assert morning["last_equity"] == "100039.9"


def test_closing_a_position_sells_what_is_free() -> None:
    desk = caller(flat())
    desk.buy("ACME", 10)

    status, order = desk.call("DELETE", "/v2/positions/ACME", {"percentage": 40})
    assert (status, order["qty"]) == (200, "4")
    desk.call("DELETE", "/v2/positions/ACME")

    assert desk.get("/v2/positions") == []


def test_a_split_multiplies_shares_pays_the_fraction_and_writes_two_rows() -> None:
    split = CorporateAction("ACME", TUESDAY, "split", Decimal("1.5"))
    script = {"ACME": {at("09:30"): 90.0, at("09:30", TUESDAY): 60.0}}
    desk = caller(script, actions=[split])
    order = desk.bracket("ACME", 15, target=120, stop=75.01)

    desk.exchange.set_clock(at("10:00", TUESDAY))

    position = desk.position("ACME")
    assert (position["qty"], position["avg_entry_price"], position["lastday_price"]) == ("22", "60.006667", "60")
    legs = desk.seen(order)["legs"]
    assert [(leg["qty"], leg["limit_price"], leg["stop_price"]) for leg in legs] == [
        ("22", "80", None),
        ("22", None, "50.01"),
    ]
    assert desk.cash() == 100_000 - 15 * Decimal("90.01") + 30  # half a share at 60
    out, into = desk.get("/v2/account/activities/SPLIT", direction="asc")
    assert (out["qty"], out["net_amount"], into["qty"], into["net_amount"]) == ("-15", "0", "22", "30")
    assert out["split_ratio"] == "1.5" and out["date"] == "2024-03-05"


def test_a_split_may_cancel_open_orders_instead() -> None:
    split = CorporateAction("ACME", TUESDAY, "split", Decimal(2))
    desk = caller(flat(), actions=[split], options=ExchangeOptions(split_open_orders="cancel"))
    order = desk.bracket("ACME", 10, target=110, stop=90)

    desk.exchange.set_clock(at("09:30", TUESDAY))

    assert [leg["status"] for leg in desk.seen(order)["legs"]] == ["canceled", "canceled"]


def test_a_reverse_split_may_leave_nothing_but_cash() -> None:
    split = CorporateAction("ACME", TUESDAY, "split", Decimal("0.1"))
    desk = caller({"ACME": {at("09:30"): 1.0, at("09:30", TUESDAY): 10.0}}, actions=[split])
    desk.bracket("ACME", 7, target=2, stop=0.5)

    desk.exchange.set_clock(at("09:30", TUESDAY))

    assert desk.position("ACME") is None
    assert desk.get("/v2/orders") == []
    assert desk.cash() == Decimal(100_000) - 7 * Decimal("1.01") + 7


def test_a_dividend_is_paid_on_its_ex_date() -> None:
    desk = caller(flat(), actions=[CorporateAction("ACME", TUESDAY, "dividend", Decimal("0.253"))])
    desk.buy("ACME", 10)
    before = desk.cash()

    desk.exchange.set_clock(at("09:30", TUESDAY))

    assert desk.cash() - before == Decimal("2.53")
    (paid,) = desk.get("/v2/account/activities", activity_types="DIV")
    assert (paid["net_amount"], paid["qty"], paid["per_share_amount"]) == ("2.53", "10", "0.253")


def test_a_delisting_ends_orders_and_sells_the_shares_at_the_last_price() -> None:
    gone = CorporateAction("ACME", TUESDAY, "delisting", Decimal("42.5"))
    desk = caller(flat(), actions=[gone], delisted={"ACME": TUESDAY})
    order = desk.bracket("ACME", 10, target=110, stop=90)

    desk.exchange.set_clock(at("10:00", TUESDAY))

    assert desk.position("ACME") is None
    assert [leg["status"] for leg in desk.seen(order)["legs"]] == ["canceled", "canceled"]
    fill = desk.get("/v2/account/activities/FILL")[0]
    assert (fill["side"], fill["qty"], fill["price"]) == ("sell", "10", "42.5")
    assert desk.get("/v2/assets/ACME")["status"] == "inactive"


def test_fills_are_listed_in_pages_by_time() -> None:
    desk = caller(flat())
    for _ in range(5):
        desk.buy("ACME", 1)
        desk.exchange.advance(60)

    first = desk.get("/v2/account/activities/FILL", direction="asc", page_size=2)
    second = desk.get("/v2/account/activities/FILL", direction="asc", page_size=2, page_token=first[-1]["id"])
    every = desk.get("/v2/account/activities/FILL", direction="asc")

    assert [fill["id"] for fill in first + second] == [fill["id"] for fill in every[:4]]
    assert len(every) == 5
    later = desk.get("/v2/account/activities/FILL", after="2024-03-04T15:02:00Z", until="2024-03-04T15:04:00Z")
    assert [fill["transaction_time"] for fill in later] == ["2024-03-04T15:03:00.000000Z"]
    assert desk.get("/v2/account/activities/FILL", date="2024-03-05") == []
    assert every[0]["type"] == "fill" and every[0]["leaves_qty"] == "0" and every[0]["cum_qty"] == "1"


def test_a_partial_fill_says_what_is_left() -> None:
    desk = caller(flat(), options=ExchangeOptions(partial_fill_probability=1.0, seed=1))
    desk.buy("ACME", 100)

    (fill,) = desk.get("/v2/account/activities/FILL")

    assert (fill["type"], fill["order_status"]) == ("partial_fill", "partially_filled")
    assert int(fill["cum_qty"]) + int(fill["leaves_qty"]) == 100


# -- the admin's hands -------------------------------------------------------------------------------


def test_a_price_set_by_hand_moves_orders_at_once_and_holds_until_the_next_tick() -> None:
    desk = caller(flat())
    order = desk.bracket("ACME", 10, target=110, stop=90)

    status, shown = desk.call("POST", "/admin/market/ACME", body={"bid": 88, "ask": 88.5, "last": 88.2})
    assert (status, shown["bid"], shown["last"]) == (200, 88.0, 88.2)
    assert desk.seen(order)["legs"][1]["filled_avg_price"] == "88"
    desk.exchange.advance(30)
    assert desk.exchange.price("ACME") == Decimal("88.2")
    desk.exchange.advance(30)

    assert desk.exchange.price("ACME") == Decimal(100)


def test_a_price_set_by_hand_may_hold_until_it_is_replaced() -> None:
    script = {"ACME": {at("09:30"): 100.0, at("10:01"): 50.0, at("09:30", TUESDAY): 50.0}}
    desk = caller(script, options=ExchangeOptions(override_holds="until_replaced"))
    desk.bracket("ACME", 10, target=110, stop=90)
    desk.call("POST", "/admin/market/ACME", body={"last": 101, "bid": 100.99, "ask": 101.01})

    desk.exchange.set_clock(at("10:00", TUESDAY))
    late = desk.bracket("ACME", 1, target=110, stop=90)

    assert desk.seen(late)["filled_avg_price"] == "101.01"
    assert desk.position("ACME")["qty"] == "11"


def test_a_quote_is_fresh_in_session_unless_it_was_given_an_age() -> None:
    desk = caller(flat())
    desk.exchange.advance(45)  # the last tick is 45 s old, quotes are not

    fresh = desk.exchange.quote("ACME")
    desk.call("POST", "/admin/market/ACME", body={"last": 100, "age_s": 90})
    stale = desk.exchange.quote("ACME")
    desk.exchange.set_clock(at("18:00"))
    evening = desk.exchange.quote("ACME")

    assert fresh is not None and stale is not None and evening is not None
    assert fresh.at == at("10:00").timestamp() + 45
    assert stale.at == fresh.at - 90
    assert evening.at == at("16:00").timestamp()


def test_a_symbol_without_a_tick_today_shows_its_old_quote_and_fills_nothing() -> None:
    desk = caller(flat("ACME") | {"HALT": {at("15:00"): 50.0}})
    desk.exchange.set_clock(at("10:00", TUESDAY))

    quote = desk.exchange.quote("HALT")
    order = desk.buy("HALT", 1)
    desk.exchange.advance(60)

    assert quote is not None and quote.at == at("15:00").timestamp()
    assert desk.seen(order)["status"] == "new"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/admin/clock", {}),
        ("/admin/clock", {"now": "2024-03-04T15:30:00Z", "advance_s": 1}),
        ("/admin/clock", {"now": "2024-03-04T15:30:00"}),
        ("/admin/clock", {"now": 17}),
        ("/admin/clock", {"advance_s": -1}),
        ("/admin/clock", {"advance_s": "soon"}),
        ("/admin/clock", {"advance_s": 1e300}),
        ("/admin/clock", {"advance": 5}),
        ("/admin/market/NOPE", {"last": 1}),
        ("/admin/market/ACME", {}),
        ("/admin/market/ACME", {"bid": -1}),
        ("/admin/market/ACME", {"last": 0}),
        ("/admin/market/ACME", {"last": 5, "at": "2024-03-04T15:30:00Z", "age_s": 1}),
        ("/admin/assets", {"tradable": True}),
        ("/admin/assets", {"symbol": "ACME", "tradable": "no"}),
        ("/admin/assets", {"symbol": "ACME", "status": "asleep"}),
        ("/admin/reset", {"cash": -1}),
        ("/admin/reset", {"cash": "much"}),
    ],
)
def test_the_admin_hears_what_was_wrong(path: str, body: dict[str, Any]) -> None:
    desk = caller(flat())

    status, answer = desk.call("POST", path, body=body)

    assert status == 422 and answer["message"]
    assert desk.exchange.now == at("10:00")


def test_an_added_asset_trades_at_the_price_it_is_given() -> None:
    desk = caller(flat())
    desk.call("POST", "/admin/assets", body={"symbol": "NEWCO"})
    assert desk.order("NEWCO", 1)[1]["message"] == 'no market price for "NEWCO"'

    desk.call("POST", "/admin/market/NEWCO", body={"last": 20, "bid": 19.9, "ask": 20.1})

    assert desk.seen(desk.buy("NEWCO", 1))["filled_avg_price"] == "20.1"


def test_a_reset_begins_a_new_life_that_repeats_the_first() -> None:
    def day(desk: Caller) -> list[dict[str, Any]]:
        desk.bracket("ACME", 10, target=110, stop=90, client_order_id="mine")
        desk.exchange.advance(3600)
        desk.order("ACME", 10, "sell")
        return desk.exchange.log()

    desk = caller(flat(), options=ExchangeOptions(partial_fill_probability=0.5, seed=9))
    first = day(desk)
    desk.call("POST", "/admin/reset", body={"now": at("10:00").isoformat(), "cash": 100000})
    assert desk.get("/v2/orders", status="all") == []

    assert day(desk) == first


def test_the_log_is_read_on_from_where_one_stopped() -> None:
    desk = caller(flat())
    desk.buy("ACME", 1)

    first = desk.get("/admin/log", limit=2)
    rest = desk.get("/admin/log", after=first[-1]["number"])

    assert [entry["event"] for entry in first + rest] == ["order.pending_new", "order.new", "order.fill"]


def test_trade_updates_are_told_in_order_outside_of_the_lock() -> None:
    desk = caller(flat())
    heard: list[tuple[str, str | None]] = []

    def listen(update: dict[str, Any]) -> None:
        heard.append((update["event"], update.get("position_qty")))
        desk.get("/v2/account")  # a listener may ask the exchange

    end = desk.exchange.subscribe(listen)
    desk.buy("ACME", 3)
    end()
    desk.buy("ACME", 1)

    assert heard == [("pending_new", None), ("new", None), ("fill", "3")]


# -- what always holds ---------------------------------------------------------------------------

PRICES = st.integers(80, 120)
ORDERS = st.fixed_dictionaries(
    {
        "symbol": st.sampled_from(["ACME", "BETA"]),
        "side": st.sampled_from(["buy", "sell"]),
        "qty": st.integers(1, 40),
        "kind": st.sampled_from(["market", "limit", "stop", "bracket", "oco", "oto"]),
        "price": PRICES,
        "tif": st.sampled_from(["day", "gtc"]),
    }
)
STEPS = st.lists(
    st.one_of(
        ORDERS,
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("advance"), st.sampled_from([7, 60, 3600, 24 * 3600])),
        st.tuples(st.just("move"), PRICES),
    ),
    max_size=25,
)
SPLIT = CorporateAction("BETA", TUESDAY, "split", Decimal("1.5"))


def body_of(step: dict[str, Any]) -> dict[str, Any]:
    price, kind = step["price"], step["kind"]
    body = {"symbol": step["symbol"], "qty": step["qty"], "side": step["side"], "time_in_force": step["tif"]}
    exits = {"take_profit": {"limit_price": price + 5}, "stop_loss": {"stop_price": price - 5}}
    by_kind: dict[str, dict[str, Any]] = {
        "market": {"type": "market"},
        "limit": {"type": "limit", "limit_price": price},
        "stop": {"type": "stop", "stop_price": price},
        "bracket": {"type": "limit", "limit_price": price, "order_class": "bracket", **exits},
        "oco": {"type": "limit", "order_class": "oco", **exits},
        "oto": {"type": "limit", "limit_price": price, "order_class": "oto", "stop_loss": exits["stop_loss"]},
    }
    return body | by_kind[kind]


def take(desk: Caller, step: Any) -> None:
    if isinstance(step, dict):
        desk.call("POST", "/v2/orders", body=body_of(step))
    elif step[0] == "cancel":
        every = desk.get("/v2/orders", status="all", limit=500)
        if every:
            desk.cancel(every[step[1] % len(every)])
    elif step[0] == "advance":
        desk.exchange.advance(step[1])
    else:
        desk.exchange.set_market("ACME", bid=step[1] - 0.01, ask=step[1] + 0.01, last=step[1])


def replay(desk: Caller) -> tuple[Decimal, dict[str, Decimal]]:
    """Cash and shares that the activities add up to."""
    cash, shares = Decimal(20_000), {"ACME": Decimal(0), "BETA": Decimal(0)}
    for activity in desk.exchange.account.activities:
        row = activity.document
        if activity.kind == "FILL":
            sign = 1 if row["side"] == "buy" else -1
            shares[row["symbol"]] += sign * Decimal(row["qty"])
            cash -= sign * Decimal(row["qty"]) * Decimal(row["price"])
        else:
            cash += Decimal(row["net_amount"])
            shares[row["symbol"]] += Decimal(row["qty"]) if activity.kind == "SPLIT" else 0
    return cash, shares


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, chance=st.sampled_from([0.0, 0.5]), cancel_latency=st.sampled_from([0.0, 30.0]))
def test_cash_and_positions_are_the_sum_of_what_happened(
    steps: list[Any], chance: float, cancel_latency: float
) -> None:
    wild = {at("09:30", day): 100.0 for day in DAYS}
    wild |= {at(f"{hour}:{minute:02}", day): 85.0 + (hour * 7 + minute * 3 + day.day) % 31
             for day in DAYS for hour in range(10, 16) for minute in range(0, 60, 5)}  # fmt: skip
    options = ExchangeOptions(partial_fill_probability=chance, seed=5, cancel_latency_s=cancel_latency)
    desk = caller({"ACME": wild, "BETA": wild}, cash=20_000, actions=[SPLIT], options=options)

    for step in steps:
        take(desk, step)

        account, floor = desk.exchange.account, desk.exchange.floor
        cash, shares = replay(desk)
        assert account.cash == cash
        assert {symbol: account.shares(symbol) for symbol in shares} == shares
        for symbol in shares:
            assert 0 <= floor.available(symbol) <= account.shares(symbol)
        for order in floor.orders:
            assert 0 <= order.filled_qty <= order.qty
            assert order.is_open == (order in floor.open_orders(order.symbol))


def test_days_are_of_new_york() -> None:
    desk = caller(flat(), at="21:00")

    assert desk.exchange.today == date(2024, 3, 4)
