"""Orders that nobody here sent: written down, told of, and no entry in their symbol until someone has looked."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from scripted_market import MONDAY, TUESDAY, at, flat
from trading_desk import Bench, bench, buy_decision, write_decisions
from typer.testing import CliRunner

from desk.ledger.engine import Ledger
from desk.orders import OrderRequest, OrderType, Side, TimeInForce
from desk.reconcile import Reconciler
from flows.cli import app
from flows.close_of_day import close_of_day
from flows.position_monitor import position_monitor
from flows.trading import execution
from tasks.office import in_office

pytestmark = pytest.mark.integration

DECIDED = [buy_decision(), buy_decision("BETA")]


@pytest.fixture
def desk(ledger: Ledger, tmp_path: Path) -> Iterator[Bench]:
    made = bench(ledger, tmp_path, script=flat() | flat("BETA") | flat("GAMMA"), decided=DECIDED)
    with in_office(made.office):
        yield made


def by_hand(desk: Bench, order_id: str = "by-hand", symbol: str = "BETA") -> None:
    """A buy far below the market: it rests, and moves no share."""
    desk.office.broker.submit(
        OrderRequest(order_id, symbol, Side.BUY, Decimal(3), OrderType.LIMIT, TimeInForce.GTC, limit_price=Decimal(50))
    )


def external(desk: Bench) -> list[str]:
    return [row["client_order_id"] for row in desk.rows("select client_order_id from external_orders order by 1")]


def foreign_alerts(desk: Bench) -> list[str]:
    return [row["symbol"] for row in desk.rows("select symbol from alerts where kind = 'foreign.order'")]


def restarted(desk: Bench) -> Reconciler:
    """A process that just began remembers nothing."""
    office = desk.office
    return Reconciler(
        ledger=office.ledger,
        broker=office.broker,
        account=office.account,
        hold_until=office.hold_until,
        limits=lambda: office.strategy.controls,
    )


def test_an_order_sent_elsewhere_is_written_down_and_told_of_once(desk: Bench) -> None:
    """Also on an account with nothing under way, and by a process that begins after it."""
    by_hand(desk)

    for _ in range(2):
        desk.office.orders.reconcile()
        desk.exchange.advance(60)
    restarted(desk).reconcile(desk.exchange.now)

    assert (external(desk), foreign_alerts(desk)) == (["by-hand"], ["BETA"])
    (alert,) = desk.rows("select severity, message from alerts where kind = 'foreign.order'")
    assert alert["severity"] == "critical"
    assert "buy 3 BETA was ordered elsewhere" in alert["message"] and "no entry in BETA" in alert["message"]


def test_the_monitor_sees_it_in_its_cycle(desk: Bench) -> None:
    execution(MONDAY)
    by_hand(desk, symbol="GAMMA")
    desk.exchange.advance(60)

    position_monitor()

    assert external(desk) == ["by-hand"]


def test_no_entry_in_its_symbol_until_someone_acknowledges(
    desk: Bench, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand(desk)
    execution(MONDAY)
    denied = desk.rows("select symbol, control, value from control_verdicts where not allowed")

    monkeypatch.setenv("ONEPATH_DATABASE_URL", ledger_url)
    (alert,) = desk.rows("select alert_id from alerts where kind = 'foreign.order'")
    said = CliRunner().invoke(app, ["alerts", "ack", str(alert["alert_id"]), "--by", "anna"], catch_exceptions=False)
    desk.exchange.set_clock(at("09:41", TUESDAY))
    write_decisions(desk.office, TUESDAY, DECIDED[1:], checked_at=desk.exchange.now)
    execution(TUESDAY)

    assert [(row["symbol"], row["control"], row["value"]) for row in denied] == [("BETA", "foreign activity", "1")]
    assert said.exit_code == 0
    assert (desk.held("ACME"), desk.held("BETA")) == (10, 10)


def test_a_second_order_stops_the_symbol_again(desk: Bench, ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEPATH_DATABASE_URL", ledger_url)
    by_hand(desk)
    desk.office.orders.reconcile()
    (alert,) = desk.rows("select alert_id from alerts where kind = 'foreign.order'")
    CliRunner().invoke(app, ["alerts", "ack", str(alert["alert_id"]), "--by", "anna"], catch_exceptions=False)
    by_hand(desk, "again")

    execution(MONDAY)

    assert external(desk) == ["again", "by-hand"]
    assert (desk.held("ACME"), desk.held("BETA")) == (10, 0)


def test_our_own_orders_and_their_legs_are_nobody_elses(desk: Bench) -> None:
    """Entries, legs, an exit and a new protection, over two days and a restart."""
    execution(MONDAY)
    acme, _ = desk.trades()
    for order in desk.orders("BETA"):
        if order.is_live:
            desk.office.broker.cancel(str(order.broker_order_id))
    desk.exchange.advance(60)
    position_monitor()
    desk.office.orders.close(acme, "signal")
    desk.exchange.set_clock(at("16:15"))
    close_of_day()
    desk.exchange.set_clock(at("10:00", TUESDAY))
    position_monitor()
    restarted(desk).reconcile(desk.exchange.now)

    assert external(desk) == [] and foreign_alerts(desk) == []


def test_an_order_of_others_keeps_no_position_from_its_exit(desk: Bench) -> None:
    """A buy that rests in the symbol makes the broker refuse a market sale, as a wash trade: it goes first."""
    execution(MONDAY)
    _, beta = desk.trades()
    for order in desk.orders("BETA"):
        if order.is_live:
            desk.office.broker.cancel(str(order.broker_order_id))
    by_hand(desk)

    sold = desk.office.orders.close(beta, "signal")

    assert (sold, desk.held("BETA")) == (10, 0)
    theirs = desk.office.broker.order("by-hand")
    assert theirs is not None and theirs.status.value == "canceled"
    assert external(desk) == ["by-hand"]
