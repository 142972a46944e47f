"""The position monitor: each minute, with evidence, and never on a quote that must not decide."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from scripted_market import MONDAY, TUESDAY, at, flat
from trading_desk import Bench, bench, buy_decision

from desk.errors import Ambiguous, Transient
from desk.ledger.engine import Ledger
from flows.position_monitor import position_monitor
from flows.trading import execution
from tasks.office import in_office

pytestmark = pytest.mark.integration


@pytest.fixture
def desk(ledger: Ledger, tmp_path: Path) -> Iterator[Bench]:
    """Ten shares of ACME bought at about 100; stop 96, target 108, trailing 6 %."""
    made = bench(ledger, tmp_path)
    with in_office(made.office):
        execution(MONDAY)
        made.exchange.set_clock(at("09:45"))
        yield made


def cycle(desk: Bench) -> dict[str, object]:
    position_monitor()
    desk.exchange.advance(60)
    return dict(desk.rows("select * from monitor_cycles order by cycle_at desc limit 1")[0])


def test_a_quiet_cycle_is_ok_with_its_evidence(desk: Bench) -> None:
    row = cycle(desk)

    assert row["verdict"] == "OK"
    assert (row["positions_expected"], row["positions_evaluated"], row["stops_verified"]) == (1, 1, 1)
    assert row["next_due_at"] - row["cycle_at"] == timedelta(seconds=60)


@pytest.mark.parametrize(
    ("bid", "ask", "age_s", "what"),
    [(0.0, 50.0, 0, "zero quote"), (51.0, 50.0, 0, "crossed quote"), (50.0, 50.02, 31, "stale quote")],
)
def test_an_unusable_quote_decides_nothing_and_raises_an_alert(
    desk: Bench, bid: float, ask: float, age_s: int, what: str
) -> None:
    desk.exchange.set_market("ACME", bid=bid, ask=ask, last=100.0, at=desk.exchange.now - timedelta(seconds=age_s))

    row = cycle(desk)

    assert row["verdict"] == "RED" and what in str(row["errors"])
    assert row["exits"] == [] and desk.held() == 10
    assert what in desk.rows("select message from alerts where kind = 'monitor.red'")[0]["message"]


def test_the_same_error_alerts_once_while_it_lasts(desk: Bench) -> None:
    desk.office.broker.cancel(str(desk.orders()[1].broker_order_id))  # somebody removes the protection
    for _ in range(3):
        cycle(desk)

    assert len(desk.rows("select 1 from alerts where kind = 'monitor.red'")) == 1


def test_lost_protection_is_replaced_within_the_cycle(desk: Bench) -> None:
    for order in desk.orders():
        if order.leg.value in ("target", "stop"):
            desk.office.broker.cancel(str(order.broker_order_id))

    first, second = cycle(desk), cycle(desk)

    assert first["verdict"] == "RED" and "no live stop" in str(first["errors"])
    assert second["verdict"] == "OK" and second["stops_verified"] == 1
    assert any(order.leg.value == "protect" and order.is_live for order in desk.orders())


def test_a_stop_that_was_lost_while_its_target_lives_is_replaced(ledger: Ledger, tmp_path: Path) -> None:
    """The target holds all the shares: the broker would refuse a second order on them."""
    desk = bench(ledger, tmp_path)
    desk.exchange.arm({"fault": "leg_loss", "leg": "stop"})
    with in_office(desk.office):
        execution(MONDAY)
        desk.exchange.set_clock(at("09:45"))
        for _ in range(3):
            last = cycle(desk)

    live = {(order.leg.value, order.state.value) for order in desk.orders() if order.is_live}
    assert live == {("protect", "acked"), ("stop", "acked")}
    assert (last["verdict"], last["stops_verified"]) == ("OK", 1)
    assert desk.rows("select 1 from orders where state = 'rejected'") == []


def test_an_oco_whose_stop_was_lost_is_no_protection(ledger: Ledger, tmp_path: Path) -> None:
    desk = bench(ledger, tmp_path)
    desk.exchange.arm({"fault": "leg_loss", "leg": "stop"})
    with in_office(desk.office):
        execution(MONDAY)
        desk.exchange.set_clock(at("09:45"))
        cycle(desk)
        (stop,) = [order for order in desk.orders() if order.is_live and order.leg.value == "stop"]
        floor = desk.exchange.floor
        floor.end([floor.register.by_client_id[stop.client_order_id]], "canceled")
        for _ in range(3):
            last = cycle(desk)

    assert sorted(order.leg.value for order in desk.orders() if order.is_live) == ["protect", "stop"]
    assert sum(order.leg.value == "protect" for order in desk.orders()) == 2
    assert (last["verdict"], last["stops_verified"]) == ("OK", 1)


def test_a_fall_from_the_high_by_the_trailing_stop_closes_the_trade(desk: Bench) -> None:
    desk.exchange.set_market("ACME", bid=107.0, ask=107.02, last=107.0)
    cycle_at_the_high = position_monitor()
    desk.exchange.set_market("ACME", bid=100.5, ask=100.52, last=100.5)

    position_monitor()
    desk.exchange.advance(1)
    desk.office.orders.reconcile()

    assert cycle_at_the_high["exits"] == 0
    assert desk.held() == 0
    assert desk.rows("select close_reason from trades") == [{"close_reason": "trailing stop"}]


def test_a_breached_stop_without_a_live_leg_is_sold_by_us(desk: Bench) -> None:
    for order in desk.orders():
        if order.leg.value in ("target", "stop"):
            desk.office.broker.cancel(str(order.broker_order_id))
    desk.exchange.set_market("ACME", bid=95.0, ask=95.02, last=95.0)

    cycle(desk)
    desk.office.orders.reconcile()

    assert desk.held() == 0
    assert desk.rows("select close_reason from trades") == [{"close_reason": "stop-loss"}]


def test_the_last_allowed_session_closes_the_trade_before_its_end(ledger: Ledger, tmp_path: Path) -> None:
    desk = bench(ledger, tmp_path, script=flat(days=(MONDAY, TUESDAY)))
    desk.office._versions[1] = desk.office.strategy.model_copy(update={"holding_sessions_max": 2})
    with in_office(desk.office):
        execution(MONDAY)
        desk.exchange.set_clock(at("15:49", TUESDAY))
        position_monitor()
        still_held = desk.held()
        desk.exchange.set_clock(at("15:50", TUESDAY))
        position_monitor()
        desk.exchange.advance(1)
        desk.office.orders.reconcile()

    assert (still_held, desk.held()) == (10, 0)
    assert desk.rows("select close_reason from trades") == [{"close_reason": "holding time"}]


def test_a_broker_that_cannot_be_read_is_red_and_fails_the_run(desk: Bench) -> None:
    def unreadable() -> None:
        raise Transient("positions: no answer")

    desk.line.__dict__["positions"] = unreadable

    with pytest.raises(Transient):
        position_monitor()

    (row,) = desk.rows("select verdict, positions_expected, errors from monitor_cycles")
    assert (row["verdict"], row["positions_expected"]) == ("RED", None)
    assert row["errors"] == ["Transient: positions: no answer"]


def test_a_position_that_cannot_be_closed_keeps_no_other_from_its_exit(ledger: Ledger, tmp_path: Path) -> None:
    desk = bench(ledger, tmp_path, script=flat() | flat("BETA"), decided=[buy_decision(), buy_decision("BETA")])
    with in_office(desk.office):
        execution(MONDAY)
        for symbol in ("ACME", "BETA"):
            desk.exchange.set_market(symbol, bid=107.0, ask=107.02, last=107.0)
        position_monitor()
        for symbol in ("ACME", "BETA"):
            desk.exchange.set_market(symbol, bid=100.5, ask=100.52, last=100.5)
        acme = {str(order.broker_order_id) for order in desk.orders("ACME")}
        cancel = desk.line._broker.cancel

        def deaf_to_acme(order_id: str) -> None:
            if order_id in acme:
                raise Transient("cancel: no answer")
            cancel(order_id)

        desk.line.__dict__["cancel"] = deaf_to_acme
        desk.exchange.advance(60)
        with pytest.raises(Transient, match="cancel: no answer"):
            position_monitor()

        assert (desk.held("ACME"), desk.held("BETA")) == (10, 0)
        (row,) = desk.rows("select verdict, errors from monitor_cycles order by cycle_at desc limit 1")
        assert row["verdict"] == "RED"
        assert row["errors"] == ["ACME: Transient: cancel: no answer"]


def test_an_exit_that_never_arrived_is_sent_again_by_the_monitor_under_the_same_id(desk: Bench) -> None:
    """Its legs are cancelled by then: until it is sold, nothing at the broker protects the position."""
    desk.exchange.set_market("ACME", bid=107.0, ask=107.02, last=107.0)
    cycle(desk)
    desk.exchange.set_market("ACME", bid=100.5, ask=100.52, last=100.5)
    desk.line.posts.clear()
    desk.line.before = [Ambiguous("hung before the broker")]

    for _ in range(3):
        cycle(desk)
    desk.office.orders.reconcile()

    assert desk.held() == 0
    assert len(desk.line.posts) == 2 and len(set(desk.line.posts)) == 1
    assert desk.rows("select close_reason from trades") == [{"close_reason": "trailing stop"}]


def test_an_exit_reserved_by_a_monitor_that_was_killed_is_sent_by_the_next_cycle(desk: Bench) -> None:
    desk.exchange.set_market("ACME", bid=107.0, ask=107.02, last=107.0)
    cycle(desk)
    desk.exchange.set_market("ACME", bid=100.5, ask=100.52, last=100.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk.office.orders, "send", lambda _order_id: None)  # killed just before
        cycle(desk)

    cycle(desk)
    desk.office.orders.reconcile()

    assert desk.held() == 0


def test_a_second_monitor_leaves_the_work_to_the_first(desk: Bench) -> None:
    with desk.office.ledger.try_lock(f"monitor:{desk.office.account}") as is_ours:
        outcome = position_monitor()

    assert is_ours and outcome["skipped"] == "left to another monitor, which is at work"
    assert desk.rows("select 1 from monitor_cycles") == []


def test_outside_the_session_the_monitor_skips_with_a_reason(ledger: Ledger, tmp_path: Path) -> None:
    desk = bench(ledger, tmp_path, now=at("08:00"))
    with in_office(desk.office):
        outcome = position_monitor()

    assert "outside the session" in str(outcome["skipped"])


def test_a_day_without_a_session_is_skipped_with_its_reason_on_record(ledger: Ledger, tmp_path: Path) -> None:
    from flows.premarket_screening import premarket_screening

    desk = bench(ledger, tmp_path)
    with in_office(desk.office):
        outcome = premarket_screening(MONDAY - timedelta(days=1))

    assert "no session" in str(outcome["skipped"])
    assert "exchange is closed" in desk.rows("select reason from expected_runs where state = 'skipped'")[0]["reason"]


def test_money_is_what_the_fills_say(desk: Bench) -> None:
    (trade,) = desk.trades()
    desk.office.orders.close(trade, "test")
    desk.exchange.advance(1)
    desk.office.orders.reconcile()

    (sums,) = desk.rows(
        "select sum(case side when 'sell' then quantity * price else -quantity * price end) cash from fills"
    )
    assert Decimal(100_000) + sums["cash"] == desk.office.broker.account().cash
