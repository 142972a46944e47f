"""Entries that fill in part get their own stop in time; and nothing is healed on readings that do not agree."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from scripted_market import KEYS, MONDAY, Caller, at, flat
from trading_desk import Bench, bench

from desk.errors import Transient
from desk.evidence import gather
from desk.ledger.engine import Ledger
from desk.orders import Leg, OrderClass
from desk.verify import violations
from flows.position_monitor import position_monitor
from flows.trading import execution
from tasks.execution import send_entries
from tasks.office import in_office

pytestmark = pytest.mark.integration


@pytest.fixture
def desk(ledger: Ledger, tmp_path: Path) -> Iterator[Bench]:
    made = bench(ledger, tmp_path)
    with in_office(made.office):
        yield made


def stall_half_way(desk: Bench, fraction: float = 0.3) -> None:
    """The next fill takes this part; the rest does not come for ten minutes."""
    script = {"fault": "partial_stall", "fraction": fraction, "for_s": 600, "times": 1}
    assert Caller(desk.exchange, KEYS).call("POST", "/admin/faults", body=script)[0] == 200


def submitted_at(desk: Bench, order_class: OrderClass) -> datetime:
    listed = desk.office.broker.orders(status="all", after=at("00:00"))
    return max(order.submitted_at for order in listed if order.order_class is order_class)


def legs(desk: Bench) -> dict[str, tuple[str, Decimal]]:
    return {order.leg.value: (order.state.value, order.quantity) for order in desk.orders() if order.is_live}


def test_what_a_stalled_entry_has_filled_gets_its_own_stop_within_thirty_seconds(desk: Bench) -> None:
    stall_half_way(desk)

    outcome = execution(MONDAY)

    (trade,) = desk.trades()
    assert (outcome["bought"], desk.held(), trade.quantity) == (["ACME"], 3, 3)
    assert legs(desk) == {"protect": ("acked", 3), "stop": ("acked", 3)}
    waited = submitted_at(desk, OrderClass.OCO) - trade.entered_at
    assert timedelta(seconds=10) <= waited <= timedelta(seconds=30)
    assert violations(gather(desk.office.ledger, desk.office.broker, account=desk.office.account)) == []


def test_an_entry_that_fills_within_ten_seconds_is_left_to_its_bracket(desk: Bench) -> None:
    execution(MONDAY)

    assert legs(desk) == {"target": ("acked", 10), "stop": ("acked", 10)}


def test_a_stalled_entry_whose_stage_was_killed_is_seen_to_by_the_monitor(desk: Bench) -> None:
    stall_half_way(desk)
    send_entries(MONDAY)  # and killed before it could follow its orders
    desk.exchange.advance(9)
    position_monitor()
    before = legs(desk)
    desk.exchange.advance(60)

    position_monitor()

    assert before["entry"] == ("partial", 10) and "protect" not in before
    assert desk.held() == 3 and legs(desk) == {"protect": ("acked", 3), "stop": ("acked", 3)}


def test_an_entry_left_resting_past_its_cutoff_is_cancelled_by_the_monitor(ledger: Ledger, tmp_path: Path) -> None:
    """Its stage was killed, and a decision past its cutoff never trades."""
    desk = bench(ledger, tmp_path, script=flat(price=101.0))  # above the limit of 100.50
    with in_office(desk.office):
        send_entries(MONDAY)
        desk.exchange.set_clock(at("10:09"))
        position_monitor()
        before = legs(desk)
        desk.exchange.set_clock(at("10:11"))

        position_monitor()

    assert before["entry"] == ("acked", 10)
    assert [order.state.value for order in desk.orders() if order.leg is Leg.ENTRY] == ["canceled"]


class Readings:
    """Counts what is read, and does something between two readings of the orders."""

    def __init__(self, desk: Bench, then: Any = lambda count: None) -> None:
        self.made: list[str] = []
        line, broker = desk.line, desk.line._broker

        def orders(**asked: Any) -> Any:
            found = broker.orders(**asked)
            self.made.append("orders")
            then(self.made.count("orders"))
            return found

        def positions() -> Any:
            self.made.append("positions")
            return broker.positions()

        line.__dict__.update(orders=orders, positions=positions)


def test_what_is_as_the_ledger_has_it_is_read_once(desk: Bench) -> None:
    execution(MONDAY)
    readings = Readings(desk)

    desk.office.orders.reconcile()

    assert readings.made == ["orders", "positions"]


def test_a_change_is_read_until_two_readings_agree(desk: Bench) -> None:
    """ACME's stop is triggered after the orders were read, and before the positions: that pair never was."""
    execution(MONDAY)

    def fall(count: int) -> None:
        if count == 1:
            desk.exchange.set_market("ACME", bid=95.0, ask=95.02, last=95.0)
            desk.exchange.advance(1)

    readings = Readings(desk, fall)

    books = desk.office.orders.reconcile()

    assert readings.made == ["orders", "positions", "orders", "positions", "orders"]
    assert (books.trades, books.positions, books.differences) == ((), {}, ())


def test_readings_that_never_agree_heal_nothing(desk: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    execution(MONDAY)
    desk.exchange.set_market("ACME", bid=95.0, ask=95.02, last=95.0)
    desk.exchange.advance(1)
    before = desk.trades()
    numbers = iter(range(100))
    monkeypatch.setattr("desk.reconcile._said", lambda _found: next(numbers))

    with pytest.raises(Transient, match="no two of 6 readings agree; nothing is healed"):
        desk.office.orders.reconcile()

    assert desk.trades() == before


@pytest.mark.parametrize("call", ["orders", "positions", "fills"])
def test_a_failed_read_is_not_flat(desk: Bench, call: str) -> None:
    execution(MONDAY)
    desk.exchange.set_market("ACME", bid=95.0, ask=95.02, last=95.0)
    desk.exchange.advance(1)

    def unreadable(*_: Any, **__: Any) -> None:
        raise Transient(f"{call}: no answer")

    desk.line.__dict__[call] = unreadable
    with pytest.raises(Transient, match="no answer"):
        desk.office.orders.reconcile()
    assert len(desk.trades()) == 1

    del desk.line.__dict__[call]
    assert desk.office.orders.reconcile().trades == ()
