"""The broker's JSON becomes the desk's values exactly, and our orders go out exactly."""

from __future__ import annotations

import copy
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from desk.broker import parse
from desk.broker.wire import order_request
from desk.market import at_new_york
from desk.orders import BrokerStatus, OrderClass, OrderRequest, OrderType, Side, TimeInForce

ORDER = {
    "id": "61e69015-8549-4bfd-b9c3-01e75843f47d",
    "client_order_id": "op-entry",
    "updated_at": "2024-03-05T14:40:01.987654321Z",
    "submitted_at": "2024-03-05T14:40:00.123456789Z",
    "symbol": "TSLA",
    "notional": None,
    "qty": "10",
    "filled_qty": "4",
    "filled_avg_price": "187.505",
    "order_class": "bracket",
    "type": "limit",
    "side": "buy",
    "time_in_force": "gtc",
    "limit_price": "187.53",
    "stop_price": None,
    "status": "partially_filled",
    "replaced_by": None,
    "replaces": None,
    "legs": None,
}
TARGET = {**ORDER, "id": "t", "side": "sell", "limit_price": "202.50", "status": "held", "filled_qty": "0"}
STOP = {**TARGET, "id": "s", "type": "stop", "limit_price": None, "stop_price": "180.01"}
BRACKET = {**ORDER, "legs": [TARGET, STOP]}

POSITION = {
    "asset_id": "b0b6dd9d-8b9b-48a9-ba46-b9d54906e415",
    "symbol": "TSLA",
    "qty": "10",
    "qty_available": "0",
    "side": "long",
    "avg_entry_price": "187.505",
    "current_price": "190.1",
    "market_value": "1901",
}


def changed(raw, **fields):
    return {**copy.deepcopy(raw), **fields}


# -- orders --------------------------------------------------------------------------------------------------------


def test_an_order_arrives_with_its_legs():
    order = parse.order(BRACKET)

    assert order.quantity == Decimal(10)
    assert order.remaining == Decimal(6)
    assert order.filled_avg_price == Decimal("187.505")
    assert order.order_class is OrderClass.BRACKET
    assert order.submitted_at == datetime(2024, 3, 5, 14, 40, 0, 123456, tzinfo=UTC)
    assert [leg.status for leg in order.legs] == [BrokerStatus.HELD] * 2
    assert [leg.order_type for leg in order.legs] == [OrderType.LIMIT, OrderType.STOP]
    assert order.legs[1].stop_price == Decimal("180.01")


def test_a_simple_order_has_an_empty_class_on_the_wire():
    assert parse.order(changed(ORDER, order_class="")).order_class is OrderClass.SIMPLE


def test_an_order_placed_in_dollars_by_hand_is_readable():
    """It has no quantity: what was filled is all that is known. It must not hide the account's other orders."""
    order = parse.order(changed(ORDER, qty=None, notional="500", filled_qty="1.25", type="market"))

    assert order.quantity == order.filled_quantity == Decimal("1.25")


@pytest.mark.parametrize("status", [status for status in BrokerStatus if status is not BrokerStatus.UNRECOGNISED])
def test_every_documented_status_is_known(status):
    assert parse.order(changed(ORDER, status=status.value)).status is status


def test_a_new_word_for_a_status_is_kept_visible():
    order = parse.order(changed(ORDER, status="teleported"))

    assert order.status is BrokerStatus.UNRECOGNISED
    assert not order.status.is_terminal


def test_the_field_of_a_leg_is_named_with_the_leg():
    with pytest.raises(parse.Unreadable, match="order s: stop_price is 'high', an amount is needed"):
        parse.order(changed(ORDER, legs=[TARGET, changed(STOP, stop_price="high")]))


@given(
    field=st.sampled_from([name for name in ORDER if name not in ("legs", "notional")]), junk=st.sampled_from([{}, []])
)
def test_no_junk_in_an_order_passes_or_crashes(field, junk):
    with pytest.raises(parse.Unreadable, match=f"{field} is"):
        parse.order(changed(ORDER, **{field: junk}))


@given(missing=st.sampled_from([n for n in ORDER if ORDER[n] is not None and n != "filled_avg_price"]))
def test_a_missing_field_is_named(missing):
    raw = {name: value for name, value in ORDER.items() if name != missing}
    if missing == "limit_price":  # may be absent, as for a market order
        assert parse.order(raw).limit_price is None
        return

    with pytest.raises(parse.Unreadable, match=f"{missing} is nothing"):
        parse.order(raw)


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["new", "filled", "canceled"]),
        "filled_qty": st.sampled_from(["0", "4", "10"]),
        "filled_avg_price": st.sampled_from([None, "187.5", "187.6"]),
        "limit_price": st.sampled_from(["187.53", "188"]),
        "updated_at": st.sampled_from(["2024-03-05T14:40:01Z", "2024-03-05T14:40:02Z"]),
        "legs": st.lists(st.builds(lambda s: {**STOP, "status": s}, st.sampled_from(["held", "new", "filled"]))),
    },
)


@given(st.lists(st.lists(CHANGES, max_size=4), max_size=6))
def test_remembering_orders_changes_nothing(lists):
    """Whatever changes between two lists, what is remembered equals what would be read afresh."""
    remembering = parse.Orders()

    for changes in lists:
        raw = [changed(ORDER, id=str(number), **change) for number, change in enumerate(changes)]
        assert remembering.parse(raw) == [parse.order(entry) for entry in raw]


def test_an_unchanged_list_costs_nothing_and_cannot_be_spoilt():
    """The same JSON object gives the same orders, in a list of the caller's own."""
    remembering, raw = parse.Orders(), [copy.deepcopy(BRACKET)]
    first = remembering.parse(raw)
    first.clear()

    again = remembering.parse(raw)

    assert again == [parse.order(BRACKET)]
    assert remembering.parse(raw)[0] is again[0]


# -- amounts and times ---------------------------------------------------------------------------------------------


@given(st.decimals(min_value=0, max_value=10**9, places=9))
def test_an_amount_is_exact(amount):
    order = parse.order(changed(ORDER, qty=str(amount)))

    assert order.quantity == amount


@given(st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)), st.integers(0, 999), st.integers(-14 * 4, 14 * 4))  # noqa: DTZ001
def test_a_time_is_read_to_the_microsecond_in_any_zone(moment, nanos, quarter_hours):
    """RFC 3339 with nanoseconds and any offset; the same moment in UTC."""
    offset = timedelta(minutes=15 * quarter_hours)
    sign = "-" if quarter_hours < 0 else "+"
    hours, minutes = divmod(abs(15 * quarter_hours), 60)
    text = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}{nanos:03d}{sign}{hours:02d}:{minutes:02d}"

    assert parse.instant(text) == (moment - offset).replace(tzinfo=UTC)
    assert parse.instant(text).utcoffset() == timedelta(0)


def test_the_clock_speaks_new_york():
    clock = parse.clock(
        {
            "timestamp": "2024-03-05T09:35:00.25-05:00",
            "is_open": True,
            "next_open": "2024-03-06T09:30:00-05:00",
            "next_close": "2024-03-05T16:00:00-05:00",
        }
    )

    assert clock.now == datetime(2024, 3, 5, 14, 35, 0, 250000, tzinfo=UTC)
    assert clock.today == date(2024, 3, 5)


def test_a_half_day_ends_at_one():
    session = parse.session({"date": "2024-11-29", "open": "09:30", "close": "13:00", "session_open": "0400"})

    assert session.closes == at_new_york(date(2024, 11, 29), "13:00")
    assert session.is_half_day


@pytest.mark.parametrize("raw", [{"date": "2024-11-31", "open": "09:30", "close": "13:00"}, {"date": "x"}, {}, None])
def test_a_day_that_does_not_exist_is_unreadable(raw):
    with pytest.raises(parse.Unreadable):
        parse.session(raw)


# -- positions, fills, splits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "qty", "expected"), [("long", "10", 10), ("short", "-10", -10), ("short", "10", -10), ("long", "0.5", 0.5)]
)
def test_a_short_is_negative_however_it_was_written(side, qty, expected):
    assert parse.position(changed(POSITION, side=side, qty=qty)).quantity == Decimal(str(expected))


def test_a_long_position_below_zero_is_unreadable():
    with pytest.raises(parse.Unreadable, match="position TSLA: qty is '-10'"):
        parse.position(changed(POSITION, qty="-10"))


def test_a_position_without_a_price_is_a_position():
    assert parse.position(changed(POSITION, current_price=None, market_value=None)).current_price is None


@pytest.mark.parametrize(("side", "expected"), [("buy", Side.BUY), ("sell", Side.SELL), ("sell_short", Side.SELL)])
def test_a_fill_keeps_its_side(side, expected):
    raw = {
        "id": "20240305144000123::61e6",
        "order_id": "o",
        "symbol": "TSLA",
        "side": side,
        "qty": "4",
        "price": "187.505",
        "transaction_time": "2024-03-05T14:40:00.123456789Z",
    }

    fill = parse.fill(raw)

    assert (fill.side, fill.quantity, fill.price) == (expected, Decimal(4), Decimal("187.505"))
    for field in ("qty", "price"):
        with pytest.raises(parse.Unreadable):
            parse.fill({**raw, field: "0"})


SPLIT = {"activity_type": "SPLIT", "date": "2020-08-31", "symbol": "TSLA", "net_amount": "0"}


def test_a_split_booked_as_shares_out_and_shares_in_is_one_adjustment():
    (split,) = parse.adjustments(
        [
            {**SPLIT, "id": "2", "qty": "50"},
            {**SPLIT, "id": "1", "qty": "-10"},
            {**SPLIT, "id": "3", "qty": "0", "net_amount": "12.5"},
        ]
    )

    assert (split.quantity_change, split.ratio, split.cash) == (Decimal(40), Decimal(5), Decimal("12.5"))
    assert (split.activity_id, split.day, split.symbol) == ("1", date(2020, 8, 31), "TSLA")


def test_a_split_booked_as_one_row_states_its_ratio():
    (split,) = parse.adjustments([{**SPLIT, "id": "1", "qty": "40", "split_ratio": "5"}])

    assert (split.quantity_change, split.ratio) == (Decimal(40), Decimal(5))


def test_a_split_without_a_ratio_is_not_guessed():
    with pytest.raises(parse.Unreadable, match="adjustment 1: qty is '40'"):
        parse.adjustments([{**SPLIT, "id": "1", "qty": "40"}])


def test_quotes_keep_the_price_that_was_sent():
    raw = json.loads('{"t":"2024-03-05T14:40:00.1Z","bp":187.1,"ap":187.13,"bs":300,"as":0}')

    quote = parse.quote("TSLA", raw)

    assert (quote.bid, quote.ask, quote.bid_size, quote.ask_size) == (
        Decimal("187.1"),
        Decimal("187.13"),
        Decimal(300),
        Decimal(0),
    )


@pytest.mark.parametrize("bid", [float("nan"), float("inf"), None, True, "x", {}])
def test_a_quote_without_a_number_is_unreadable(bid):
    with pytest.raises(parse.Unreadable, match="quote of TSLA"):
        parse.quote("TSLA", {"t": "2024-03-05T14:40:00Z", "bp": bid, "ap": 187.13, "bs": 3, "as": 0})


# -- orders going out ----------------------------------------------------------------------------------------------


def request(**changes) -> OrderRequest:
    fields = {
        "client_order_id": "op-1",
        "symbol": "TSLA",
        "side": Side.BUY,
        "quantity": Decimal(10),
        "order_type": OrderType.MARKET,
        "time_in_force": TimeInForce.DAY,
    }
    return OrderRequest(**{**fields, **changes})


def on_the_wire(asked: OrderRequest) -> dict[str, object]:
    return json.loads(json.dumps(order_request(asked).to_request_fields()), parse_float=Decimal)


@given(
    quantity=st.integers(1, 10**7),
    limit=st.decimals("0.0001", "999999", places=4),
    stop=st.decimals("0.0001", "999999", places=4),
)
def test_every_price_on_the_tick_grid_goes_out_unchanged(quantity, limit, stop):
    """alpaca-py makes floats of them; what is read back at the other end is the same amount."""
    sent = on_the_wire(
        request(
            quantity=Decimal(quantity),
            order_type=OrderType.LIMIT,
            order_class=OrderClass.BRACKET,
            limit_price=limit,
            take_profit_price=limit,
            stop_loss_price=stop,
        )
    )

    assert sent["qty"] == quantity
    assert sent["limit_price"] == limit
    assert sent["take_profit"] == {"limit_price": limit}
    assert sent["stop_loss"] == {"stop_price": stop}


def test_a_price_that_would_change_on_the_way_is_not_sent():
    with pytest.raises(
        ValueError, match=r"order op-1 for TSLA: price .* would go out as .*; round it to the tick first"
    ):
        order_request(request(order_type=OrderType.LIMIT, limit_price=Decimal(100) * Decimal("1.04") / Decimal(3)))


def test_each_kind_of_order_goes_out_with_its_own_prices():
    market = on_the_wire(request(side=Side.SELL))
    stop = on_the_wire(request(order_type=OrderType.STOP, stop_price=Decimal("180.01"), side=Side.SELL))
    stop_limit = on_the_wire(
        request(order_type=OrderType.STOP_LIMIT, stop_price=Decimal(180), limit_price=Decimal(179), side=Side.SELL)
    )
    oto = on_the_wire(request(order_class=OrderClass.OTO, stop_loss_price=Decimal(180)))

    assert (market["type"], market["side"], market["time_in_force"]) == ("market", "sell", "day")
    assert (stop["type"], stop["stop_price"]) == ("stop", Decimal("180.01"))
    assert (stop_limit["type"], stop_limit["stop_price"], stop_limit["limit_price"]) == ("stop_limit", 180, 179)
    assert (oto["order_class"], oto["stop_loss"]) == ("oto", {"stop_price": 180})


def test_an_oco_states_its_limit_once_as_its_take_profit():
    oco = {
        "side": Side.SELL,
        "order_type": OrderType.LIMIT,
        "order_class": OrderClass.OCO,
        "take_profit_price": Decimal("202.5"),
        "stop_loss_price": Decimal(180),
    }

    sent = on_the_wire(request(limit_price=Decimal("202.5"), **oco))

    assert "limit_price" not in sent
    assert sent["take_profit"] == {"limit_price": Decimal("202.5")}
    with pytest.raises(ValueError, match="an OCO's must be its take-profit"):
        order_request(request(limit_price=Decimal(203), **oco))


def test_a_trailing_stop_is_not_sent():
    with pytest.raises(ValueError, match="trailing_stop"):
        order_request(request(order_type=OrderType.TRAILING_STOP))
