"""An order becomes exactly one order, whatever is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from scripted_market import MONDAY, at, flat
from trading_desk import Bench, bench, buy_decision

from desk.errors import Ambiguous, Halt, Refused
from desk.ledger.engine import Ledger
from desk.ledger.records import TradingState
from desk.ledger.trading_state import current_state, set_state
from desk.orders import Leg, OrderState
from flows.trading import execution
from tasks.office import in_office

pytestmark = pytest.mark.integration


class Killed(BaseException):
    """The process is gone: nothing in it gets to react."""


@pytest.fixture
def desk(ledger: Ledger, tmp_path: Path) -> Iterator[Bench]:
    made = bench(ledger, tmp_path)
    with in_office(made.office):
        yield made


def states(desk: Bench) -> dict[str, str]:
    return {order.leg.value: order.state.value for order in desk.orders()}


def test_a_decided_buy_is_bought_once_and_protected_at_the_broker(desk: Bench) -> None:
    outcome = execution(MONDAY)

    assert outcome["bought"] == ["ACME"]
    assert desk.held() == 10
    assert states(desk) == {"entry": "filled", "target": "acked", "stop": "acked"}
    (trade,) = desk.trades()
    assert (trade.quantity, trade.stop_price, trade.target_price) == (10, Decimal("96"), Decimal("108"))


def test_running_execution_again_buys_nothing_more(desk: Bench) -> None:
    execution(MONDAY)
    execution(MONDAY)

    assert desk.held() == 10
    assert len(desk.line.posts) == 1


def test_an_answer_lost_after_the_broker_accepted_is_found_by_the_same_id(desk: Bench) -> None:
    desk.line.after = [Ambiguous("reset after acceptance")]

    execution(MONDAY)
    execution(MONDAY)

    assert (desk.held(), desk.entries_at_broker()) == (10, 1)
    assert states(desk)["entry"] == "filled"


def test_a_request_that_never_arrived_is_sent_again_under_the_same_id(desk: Bench) -> None:
    desk.line.before = [Ambiguous("hung before the broker")]

    execution(MONDAY)
    execution(MONDAY)

    assert (desk.held(), desk.entries_at_broker()) == (10, 1)
    assert len(set(desk.line.posts)) == 1 and len(desk.line.posts) == 2


@pytest.mark.parametrize("heard", [True, False], ids=["after the broker heard it", "before the broker heard it"])
def test_a_kill_in_the_middle_of_sending_leaves_one_order(desk: Bench, heard: bool) -> None:
    (desk.line.after if heard else desk.line.before).append(Killed())
    with pytest.raises(Killed):
        execution(MONDAY)
    assert states(desk) == {"entry": "sending"}

    execution(MONDAY)

    assert (desk.held(), desk.entries_at_broker()) == (10, 1)


def test_a_refusal_is_recorded_with_its_reason_and_the_rest_is_bought(ledger: Ledger, tmp_path: Path) -> None:
    desk = bench(ledger, tmp_path, script=flat() | flat("BETA"), decided=[buy_decision(), buy_decision("BETA")])
    desk.line.before = [Refused("insufficient buying power", status=403, code=40310000)]

    with in_office(desk.office):
        execution(MONDAY)

    assert (desk.held(), desk.held("BETA")) == (0, 10)
    assert [order.state for order in desk.orders()] == [OrderState.REJECTED]
    assert desk.rows("select kind from alerts where symbol = 'ACME'") == [{"kind": "order.rejected"}]


def test_an_order_that_differs_at_the_broker_halts_trading(desk: Bench) -> None:
    desk.line.after = [Ambiguous("lost")]
    original = desk.line.order
    desk.line.__dict__["order"] = lambda cid: _doubled(original(cid))
    desk.line.__dict__["orders"] = lambda **_: []

    with pytest.raises(Halt, match="quantity 10 here, 20 there"):
        execution(MONDAY)
        execution(MONDAY)

    with desk.office.ledger.transaction() as connection:
        assert current_state(connection, account=desk.office.account).state is TradingState.HALTED


def _doubled(order: object) -> object:
    from dataclasses import replace

    return None if order is None else replace(order, quantity=Decimal(20))  # type: ignore[type-var]


@pytest.mark.parametrize("state", [TradingState.REDUCING, TradingState.HALTED])
def test_no_entry_is_sent_while_trading_is_reduced_or_halted(desk: Bench, state: TradingState) -> None:
    with desk.office.ledger.transaction() as connection:
        set_state(connection, account=desk.office.account, state=state, reason="test", by="test", at=at("09:40"))

    execution(MONDAY)

    assert desk.line.posts == []
    denied = desk.rows("select control from control_verdicts where not allowed")
    assert denied == [{"control": "trading state"}]


def test_a_decision_past_its_cutoff_never_trades(ledger: Ledger, tmp_path: Path) -> None:
    desk = bench(ledger, tmp_path, now=at("11:00"))

    with in_office(desk.office):
        execution(MONDAY)

    assert desk.line.posts == []
    assert {"control": "session window"} in desk.rows("select control from control_verdicts where not allowed")


def test_a_denied_order_stays_denied_when_the_stage_is_run_again(desk: Bench) -> None:
    account = desk.office.account
    with desk.office.ledger.transaction() as connection:
        set_state(connection, account=account, state=TradingState.HALTED, reason="x", by="t", at=at("09:40"))
    execution(MONDAY)
    with desk.office.ledger.transaction() as connection:
        set_state(connection, account=account, state=TradingState.ACTIVE, reason="x", by="t", at=at("09:42"))

    execution(MONDAY)

    assert desk.line.posts == []


def test_two_executions_at_once_do_not_both_run(desk: Bench) -> None:
    with desk.office.ledger.try_lock(f"trading:{desk.office.account}") as is_ours:
        outcome = execution(MONDAY)

    assert is_ours and outcome == {"left to": "another run, which is at work"}
    assert desk.line.posts == []


def test_a_trade_closed_by_us_leaves_no_leg_and_no_share(desk: Bench) -> None:
    execution(MONDAY)
    (trade,) = desk.trades()

    sold = desk.office.orders.close(trade, "holding time")
    desk.exchange.advance(1)
    books = desk.office.orders.reconcile()

    assert (sold, desk.held(), books.differences, books.orders) == (10, 0, (), ())
    (closed,) = desk.rows("select close_reason, status from trades")
    assert closed == {"close_reason": "holding time", "status": "closed"}


def test_an_exit_whose_answer_was_lost_is_ours_when_its_fill_appears(desk: Bench) -> None:
    execution(MONDAY)
    (trade,) = desk.trades()
    desk.line.after = [Ambiguous("reset after acceptance")]

    desk.office.orders.close(trade, "holding time")
    desk.exchange.advance(60)
    desk.office.orders.reconcile()  # the fill is there, the order is still unproven
    desk.office.orders.resolve(patient=False)
    books = desk.office.orders.reconcile()

    assert (desk.held(), books.differences, books.trades) == (0, (), ())
    assert desk.rows("select close_reason from trades") == [{"close_reason": "holding time"}]
    assert desk.rows("select 1 from alerts where kind = 'foreign.sold'") == []


def test_closing_twice_sells_once(desk: Bench) -> None:
    execution(MONDAY)
    (trade,) = desk.trades()

    desk.office.orders.close(trade, "holding time")
    desk.office.orders.close(trade, "holding time")

    assert sum(order.leg is Leg.EXIT for order in desk.orders()) == 1
    assert desk.held() == 0


def test_the_brokers_own_stop_closes_the_trade_with_its_reason(desk: Bench) -> None:
    execution(MONDAY)
    desk.exchange.set_market("ACME", bid=95.0, ask=95.02, last=95.0)
    desk.exchange.advance(1)

    books = desk.office.orders.reconcile()

    assert (books.trades, books.orders, books.differences) == ((), (), ())
    (row,) = desk.rows("select close_reason, profit from trades")
    assert row["close_reason"] == "stop-loss" and row["profit"] < 0


def test_shares_sold_by_somebody_else_end_the_trade_and_raise_an_alert(desk: Bench) -> None:
    execution(MONDAY)
    legs = [order.broker_order_id for order in desk.orders() if order.leg in (Leg.TARGET, Leg.STOP)]
    for leg in legs:
        desk.office.broker.cancel(str(leg))
    from desk.orders import OrderRequest, OrderType, Side, TimeInForce

    desk.office.broker.submit(
        OrderRequest("by-hand", "ACME", Side.SELL, Decimal(10), OrderType.MARKET, TimeInForce.DAY)
    )
    desk.exchange.advance(1)

    books = desk.office.orders.reconcile()

    assert books.trades == () and books.differences == ()
    assert desk.rows("select close_reason from trades") == [{"close_reason": "closed outside"}]
    critical = desk.rows("select kind from alerts where severity = 'critical' order by alert_id")
    assert [alert["kind"] for alert in critical] == ["foreign.order", "foreign.sold"]


def test_shares_sold_by_somebody_else_in_parts_are_counted_whole(desk: Bench) -> None:
    """The order of others that ends a trade is as large as all its fills, not as its first."""
    execution(MONDAY)
    for leg in [order.broker_order_id for order in desk.orders() if order.leg in (Leg.TARGET, Leg.STOP)]:
        desk.office.broker.cancel(str(leg))
    from desk.orders import OrderRequest, OrderType, Side, TimeInForce

    desk.exchange.arm({"fault": "partial_stall", "fraction": 0.4, "for_s": 5, "times": 1})
    desk.office.broker.submit(
        OrderRequest("by-hand", "ACME", Side.SELL, Decimal(10), OrderType.MARKET, TimeInForce.DAY)
    )
    desk.exchange.advance(1)
    desk.office.orders.reconcile()
    desk.exchange.advance(120)

    books = desk.office.orders.reconcile()

    assert books.trades == () and books.differences == ()
    (row,) = desk.rows("select quantity, filled_quantity, state from orders where client_order_id like 'external-%'")
    assert dict(row) == {"quantity": 10, "filled_quantity": 10, "state": "filled"}
    assert desk.rows("select sum(quantity) as sold from fills where side = 'sell'") == [{"sold": 10}]


def test_a_position_nobody_here_bought_is_a_difference(desk: Bench) -> None:
    from desk.orders import OrderRequest, OrderType, Side, TimeInForce

    desk.office.broker.submit(OrderRequest("by-hand", "ACME", Side.BUY, Decimal(3), OrderType.MARKET, TimeInForce.DAY))
    desk.exchange.advance(1)

    assert desk.office.orders.reconcile().differences == ("ACME: 0 shares in the ledger, 3 at the broker",)
