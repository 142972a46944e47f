"""Whatever is asked of the exchange, in whatever order: its books agree with each other."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_market import DAYS, TUESDAY, WEDNESDAY, Caller, Price, at, caller

from desk.exchange.market import CorporateAction
from desk.exchange.options import ExchangeOptions

CASH = Decimal(100_000)
SEEDS = st.integers(0, 10**9)


def options_of(chance: random.Random) -> ExchangeOptions:
    return ExchangeOptions(
        partial_fill_probability=chance.choice([0.0, 0.5]),
        cancel_latency_s=chance.choice([0.0, 45.0]),
        replace_latency_s=chance.choice([0.0, 45.0]),
        fill_on_submit_latency_s=chance.choice([0.0, 0.0, 45.0]),
        replace_keeps_fills=chance.random() < 0.5,
        shorting=chance.random() < 0.5,
        split_open_orders=chance.choice(["adjust", "cancel"]),
        stop_trigger_ends_target=chance.choice(["canceled", "replaced"]),
        seed=chance.randrange(1000),
    )


ACTIONS = [
    CorporateAction("ACME", TUESDAY, "split", Decimal("1.5")),
    CorporateAction("BETA", TUESDAY, "dividend", Decimal("0.3")),
    CorporateAction("BETA", WEDNESDAY, "delisting", Decimal(90)),
]


def script() -> dict[str, dict[Any, Price]]:
    """Prices that wander within a tenth; ACME's after its split by two thirds."""
    told: dict[str, dict[Any, Price]] = {"ACME": {}, "BETA": {}}
    for day in DAYS:
        for symbol, moments in told.items():
            split = 1.5 if symbol == "ACME" and day >= TUESDAY else 1.0
            for step in range(27):
                hour, minute = divmod(9 * 60 + 30 + 15 * step, 60)
                wander = 100 + (step * 7 + len(moments) * 3) % 21 - 10
                moments[at(f"{hour:02d}:{minute:02d}", day)] = round(wander / split, 2)
    return told


def desk_of(options: ExchangeOptions) -> Caller:
    return caller(script(), actions=ACTIONS, delisted={"BETA": WEDNESDAY}, options=options)


def order_of(chance: random.Random, price: float) -> dict[str, Any]:
    """An order that mostly makes sense at that price, of any kind."""

    def near(low: float, high: float) -> float:
        return round(price * chance.uniform(low, high), 2)

    side = chance.choice(["buy", "buy", "sell"])
    kind = chance.choice(["market", "market", "limit", "limit", "stop", "stop_limit", "trailing_stop"])
    fields: dict[str, Any] = {"type": kind, "side": side, "qty": chance.choice([1, 7, 30, 120])}
    patient = kind in ("stop", "stop_limit", "trailing_stop")
    fields["time_in_force"] = chance.choice(
        ["day", "gtc"] if patient else ["day", "gtc", "day", "ioc", "fok", "cls", "opg"]
    )
    if kind in ("limit", "stop_limit"):
        fields["limit_price"] = near(0.95, 1.05)
    if kind in ("stop", "stop_limit"):
        fields["stop_price"] = near(0.96, 1.04)
    if kind == "trailing_stop":
        fields |= chance.choice([{"trail_price": 2}, {"trail_percent": 3}])
    if kind in ("market", "limit") and fields["time_in_force"] in ("day", "gtc"):
        shape = chance.choice(["", "", "bracket", "oto", "oco"])
        up, down = near(1.06, 1.1), near(0.9, 0.94)
        target, stop = (up, down) if (side == "buy") != (shape == "oco") else (down, up)
        exits = {"take_profit": {"limit_price": target}, "stop_loss": {"stop_price": stop}}
        if shape == "oto":
            exits.pop(chance.choice(sorted(exits)))
        if shape == "oco":
            fields |= {"type": "limit", "limit_price": None}
        if shape:
            fields |= {"order_class": shape, **exits}
        elif kind == "limit":
            fields["extended_hours"] = chance.random() < 0.3
    if not fields.get("order_class") and chance.random() < 0.2:
        fields |= chance.choice([{"qty": 0.75}, {"qty": None, "notional": 250}]) | {"time_in_force": "day"}
    return fields


def act(desk: Caller, chance: random.Random) -> str:
    """Ask for something. Returns what, and how it was answered."""
    exchange = desk.exchange
    symbol = chance.choice(["ACME", "ACME", "BETA"])
    price = float(exchange.price(symbol) or 100)
    kind = chance.choice([*["order"] * 8, *["replace"] * 3, *["wait"] * 5, "cancel", "close", "close all", "price"])
    status = 0
    if kind == "order":
        status, _ = desk.call("POST", "/v2/orders", body={"symbol": symbol, **order_of(chance, price)})
    elif kind in ("cancel", "replace"):
        working = exchange.floor.register.open_in_order() or exchange.floor.orders
        if working:
            order = chance.choice(working)
            now = order.limit_price or order.stop_price
            change = {"limit_price" if order.limit_price else "stop_price": round(float(now) * 1.01, 2)} if now else {}
            change |= chance.choice([{}, {"qty": int(order.qty) + chance.randrange(-3, 9)}])
            change = {"trail": 3} if order.type == "trailing_stop" else change
            method, body = ("DELETE", None) if kind == "cancel" else ("PATCH", change)
            status, _ = desk.call(method, f"/v2/orders/{order.id}", body=body)
    elif kind == "close":
        status, _ = desk.call("DELETE", f"/v2/positions/{symbol}", chance.choice([{}, {"qty": 1}, {"percentage": 50}]))
    elif kind == "close all":
        status, _ = desk.call("DELETE", "/v2/positions", chance.choice([{}, {"cancel_orders": True}]))
    elif kind == "price":
        moved = round(price * chance.uniform(0.93, 1.07), 2)
        exchange.set_market(symbol, bid=moved - 0.02, ask=moved + 0.02, last=moved)
    else:
        exchange.advance(chance.choice([1, 30, 61, 600, 1_800, 7_200, 15_000, 40_000]))
    return f"{kind} {status}"


def check_money(desk: Caller) -> None:
    """Cash and positions are what the activities say."""
    cash, held = CASH, dict[str, Decimal]()
    for activity in desk.exchange.account.activities:
        row = activity.document
        symbol, qty = row["symbol"], Decimal(row["qty"])
        if activity.kind == "FILL":
            signed = qty if row["side"] == "buy" else -qty
            held[symbol] = held.get(symbol, Decimal(0)) + signed
            cash -= signed * Decimal(row["price"])
            continue
        cash += Decimal(row["net_amount"])
        if activity.kind == "SPLIT":
            held[symbol] = held.get(symbol, Decimal(0)) + qty
    assert desk.cash() == cash
    assert {one["symbol"]: Decimal(one["qty"]) for one in desk.get("/v2/positions")} == {
        symbol: qty for symbol, qty in held.items() if qty
    }


def check_orders(desk: Caller, ended: dict[str, str]) -> None:
    """Nothing fills beyond its quantity, nothing ends twice, and no more shares are promised than are held."""
    floor, shorting = desk.exchange.floor, desk.exchange.options.shorting
    for order in floor.orders:
        assert 0 <= order.filled_qty <= order.qty, order
        assert order.is_open == (order in floor.open_orders(order.symbol))
        assert order.status != "filled" or order.filled_qty == order.qty
        if order.is_open and order.time_in_force != "gtc" and order.created_at < at("16:00", DAYS[-1]):
            assert desk.exchange.now - order.created_at <= timedelta(hours=24), order
        if not order.is_open:
            assert ended.setdefault(order.id, order.status) == order.status
    for symbol in ("ACME", "BETA"):
        assert floor.available(symbol) >= 0
        assert shorting or desk.exchange.account.shares(symbol) >= 0
    assert floor.register.reserved == sum((order.reserved_cash for order in floor.open_orders()), Decimal(0))


def check_stream(desk: Caller, updates: list[dict[str, Any]]) -> None:
    """The last word about an order in the stream is what REST says of its status and fills, and the fills in the
    stream are the activities."""
    fills = [update for update in updates if update["event"] in ("fill", "partial_fill")]
    booked = [one.document for one in desk.exchange.account.activities if one.kind == "FILL"]
    assert [(one["order"]["id"], one["qty"], one["price"]) for one in fills] == [
        (row["order_id"], row["qty"], row["price"]) for row in booked
    ]
    assert [one["execution_id"] for one in fills] == [row["id"].split("::")[1] for row in booked]
    last = {update["order"]["id"]: update["order"] for update in updates}
    for order_id, said in last.items():
        seen = desk.get(f"/v2/orders/{order_id}")
        assert (said["status"], said["filled_qty"]) == (seen["status"], seen["filled_qty"]), (said, seen)


def lived(seed: int, *, checked: bool, steps: int = 45) -> tuple[Caller, list[dict[str, Any]], Counter[str]]:
    """Three days of an account that asks for anything."""
    chance = random.Random(seed)
    desk = desk_of(options_of(chance))
    updates: list[dict[str, Any]] = []
    desk.exchange.subscribe(updates.append)
    ended: dict[str, str] = {}
    did = Counter[str]()
    for _ in range(steps):
        did[act(desk, chance)] += 1
        if checked:
            check_money(desk)
            check_orders(desk, ended)
            check_stream(desk, updates)
    return desk, updates, did


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_money_shares_orders_and_stream_agree_after_every_step(seed: int) -> None:
    lived(seed, checked=True)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_same_requests_make_the_same_log_to_the_byte(seed: int) -> None:
    (one, heard, _), (other, heard_again, _) = (lived(seed, checked=False) for _ in range(2))

    assert json.dumps(one.exchange.log(limit=10_000)) == json.dumps(other.exchange.log(limit=10_000))
    assert json.dumps(heard) == json.dumps(heard_again)


def test_such_lives_are_eventful() -> None:
    """What is checked above happens: every status is reached, and most orders are accepted."""
    did, reached = Counter[str](), set[tuple[str, str]]()
    for seed in range(60):
        desk, _, asked = lived(seed, checked=False)
        did += asked
        reached |= {(order.type, order.status) for order in desk.exchange.floor.orders}

    assert did["order 200"] > did["order 422"] + did["order 403"]
    assert did["replace 200"] > 30 and did["close 200"] > 10 and did["cancel 204"] > 30
    for kind in ("market", "limit", "stop", "stop_limit", "trailing_stop"):
        assert (kind, "filled") in reached and (kind, "canceled") in reached
    assert {status for _, status in reached} >= {"filled", "canceled", "expired", "replaced", "held", "pending_replace"}
