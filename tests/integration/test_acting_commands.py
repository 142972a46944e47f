"""`onepath halt`, `resume`, `flatten` and `reconcile`, as typed, on a real ledger and an exchange over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from scripted_market import KEYS, MONDAY, at, flat
from trading_desk import Bench, bench, buy_decision
from typer.testing import CliRunner, Result

from desk.errors import Ambiguous, BadInput
from desk.exchange.server import ExchangeServer
from desk.ledger.anchors import anchors_of, current_anchors
from desk.ledger.engine import Ledger
from desk.ledger.records import TradingState
from desk.ledger.trading_state import current_state, set_state
from desk.orders import Leg, OrderRequest, OrderType, Side, TimeInForce
from flows.cli import app
from flows.trading import execution
from tasks.office import in_office

pytestmark = pytest.mark.integration


@pytest.fixture
def desk(ledger: Ledger, ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Ten ACME are held with their stop; an entry in BETA rests below the market. The settings name all of it."""
    decided = [buy_decision(), replace(buy_decision("BETA"), limit_price=Decimal("99"))]
    made = bench(ledger, tmp_path, script=flat() | flat("BETA"), decided=decided)
    with in_office(made.office), pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.execution._ENTRY_FILL_S", 0.0)
        patch.setattr(made.office.orders, "cancel", lambda _orders: made.office.orders.reconcile())
        execution(MONDAY)
    monkeypatch.setenv("ONEPATH_DATABASE_URL", ledger_url)
    monkeypatch.setenv("ONEPATH_ALPACA_KEY_ID", KEYS[0])
    monkeypatch.setenv("ONEPATH_ALPACA_SECRET_KEY", KEYS[1])
    monkeypatch.setenv("ONEPATH_EXCHANGE_CLOCK_DRIVEN", "true")
    with ExchangeServer(made.exchange) as server:
        monkeypatch.setenv("ONEPATH_EXCHANGE_URL", server.url)
        yield made


def typed(*words: str, answer: str | None = None) -> Result:
    result = CliRunner().invoke(app, words, input=answer, env={"COLUMNS": "160"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def state(desk: Bench) -> TradingState:
    with desk.office.ledger.transaction() as connection:
        return current_state(connection, account=desk.office.account).state


def entry_states(desk: Bench, symbol: str) -> list[str]:
    return [order.state.value for order in desk.orders(symbol) if order.leg is Leg.ENTRY]


def by_hand(desk: Bench, side: Side, quantity: int, symbol: str = "ACME") -> None:
    desk.office.broker.submit(
        OrderRequest(f"by-hand-{side}-{symbol}", symbol, side, Decimal(quantity), OrderType.MARKET, TimeInForce.DAY)
    )
    desk.exchange.advance(1)


def test_a_halt_is_kept_with_who_and_why_cancels_entries_and_leaves_stops(desk: Bench) -> None:
    result = typed("halt", "--reason", "news", "--by", "anna")

    assert result.exit_code == 0
    assert "trading is HALTED by anna (news); was ACTIVE" in result.output
    assert "entries cancelled: BETA" in result.output
    assert (state(desk), entry_states(desk, "BETA")) == (TradingState.HALTED, ["canceled"])
    assert [order.state.value for order in desk.orders() if order.leg is Leg.STOP] == ["acked"]
    assert desk.held() == 10


def test_a_second_halt_keeps_who_halted_first(desk: Bench) -> None:
    typed("halt", "--reason", "news", "--by", "anna")

    result = typed("halt", "--reason", "other", "--by", "bert")

    assert result.exit_code == 0
    assert "HALTED by anna (news); was HALTED already" in result.output and "no entry was under way" in result.output


def test_a_halt_holds_although_the_broker_cannot_be_reached(desk: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEPATH_EXCHANGE_URL", "http://127.0.0.1:9")

    result = typed("halt", "--reason", "news")

    assert result.exit_code == 1
    assert "entries under way were not cancelled" in result.output and "in its next cycle" in result.output
    assert state(desk) is TradingState.HALTED


def test_a_named_person_resumes(desk: Bench) -> None:
    typed("halt", "--reason", "news", "--by", "anna")

    result = typed("resume", "--by", "bert", "--reason", "read it")

    assert result.exit_code == 0
    assert "trading is ACTIVE by bert (read it); was HALTED by anna (news)" in result.output
    assert state(desk) is TradingState.ACTIVE
    assert "ACTIVE already (read it, bert)" in typed("resume", "--by", "bert").output


def test_whoever_resumes_accepts_the_losses_that_had_stopped_trading(desk: Bench) -> None:
    account = desk.office.account
    with desk.office.ledger.transaction() as connection:
        anchors_of(connection, account=account, session=MONDAY, opening=Decimal(120_000), at=at("09:30"))
    with desk.office.ledger.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE equity_anchors DISABLE TRIGGER append_only")
        connection.exec_driver_sql("UPDATE equity_anchors SET opening_equity = 120000, high_water_equity = 120000")
        set_state(
            connection, account=account, state=TradingState.HALTED, reason="17 %", by="control drawdown", at=at("09:42")
        )

    result = typed("resume", "--by", "anna")

    assert "losses count from 99999" in result.output and "drawdown: 16.67 %" in result.output
    with desk.office.ledger.transaction() as connection:
        anchors = current_anchors(connection, account=account)
    assert anchors is not None and anchors.opening_equity < 100_001


@pytest.mark.parametrize(
    "words", [("halt", "--reason", " "), ("halt", "--reason", "x", "--by", " "), ("resume", "--by", "")]
)
def test_nobody_acts_without_a_name_or_a_reason(desk: Bench, words: tuple[str, ...]) -> None:
    with pytest.raises(BadInput, match=r"empty; (give the name|say why)"):
        typed(*words)

    assert state(desk) is TradingState.ACTIVE


def test_flatten_shows_what_is_held_asks_and_does_nothing_on_a_no(desk: Bench) -> None:
    result = typed("flatten", answer="n\n")

    assert result.exit_code == 1
    assert "sell all of this at the market?" in result.output and "held since 2024-03-04" in result.output
    assert (desk.held(), state(desk), entry_states(desk, "BETA")) == (10, TradingState.ACTIVE, ["acked"])


def test_flatten_sells_everything_cancels_the_rest_and_leaves_trading_halted(desk: Bench) -> None:
    result = typed("flatten", "--yes", "--by", "anna")

    assert result.exit_code == 0, result.output
    assert "entries cancelled: BETA" in result.output and "nothing is left" in result.output
    assert [line.split() for line in result.output.splitlines() if line.startswith("ACME")][-1] == [
        "ACME",
        "10",
        "99.99",
    ]
    assert desk.held() == 0 and state(desk) is TradingState.HALTED
    assert desk.rows("select close_reason from trades") == [{"close_reason": "flatten"}]
    assert desk.office.broker.orders(status="open") == []


def test_flatten_goes_through_the_order_protocol(desk: Bench) -> None:
    """One exit with an id of our own, reserved and marked as being sent before it was."""
    typed("flatten", "--yes")

    (order,) = [order for order in desk.orders() if order.leg is Leg.EXIT]
    assert order.client_order_id.startswith("op-") and order.reason == "flatten"
    events = desk.rows(
        f"select state from order_events where client_order_id = '{order.client_order_id}' order by sequence"
    )
    assert [event["state"] for event in events][:2] == ["reserved", "sending"]


def test_flatten_names_what_is_left(desk: Bench) -> None:
    """The market is closed: the sale waits for the open, and that is not sold."""
    desk.exchange.set_clock(at("17:00"))

    result = typed("flatten", "--yes")

    assert result.exit_code == 1
    assert "the market is closed" in result.output
    assert "left ACME: 10 shares held, their sale is under way" in result.output


def test_flatten_leaves_what_was_bought_elsewhere_and_says_so(desk: Bench) -> None:
    by_hand(desk, Side.BUY, 3, "BETA")

    result = typed("flatten", "--yes")

    assert result.exit_code == 1
    assert "left BETA: 3 shares held that no trade here bought" in result.output
    assert (desk.held(), desk.held("BETA")) == (0, 3)


def test_flatten_with_nothing_to_do_says_so(desk: Bench) -> None:
    typed("flatten", "--yes")

    again = typed("flatten")

    assert again.exit_code == 0 and "nothing is held and nothing is under way" in again.output


def test_reconcile_finds_no_difference_where_there_is_none(desk: Bench) -> None:
    result = typed("reconcile")

    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"account {desk.office.account}: 1 positions, 5 live orders, no differences left"
    ]


def test_reconcile_heals_what_the_broker_gives_evidence_for(desk: Bench) -> None:
    desk.exchange.set_market("ACME", bid=95.0, ask=95.02, last=95.0)
    desk.exchange.advance(1)

    result = typed("reconcile")

    assert result.exit_code == 0
    assert "healed ACME: 10 shares in the ledger, 0 at the broker" in result.output
    assert "no differences left" in result.output


def test_reconcile_prints_what_nobody_can_explain_and_fails(desk: Bench) -> None:
    by_hand(desk, Side.BUY, 3, "BETA")

    result = typed("reconcile")

    assert result.exit_code == 1
    assert "left   BETA: 0 shares in the ledger, 3 at the broker" in result.output
    assert "1 difference left" in result.output


def test_reconcile_names_an_order_the_broker_does_not_have(desk: Bench) -> None:
    (trade,) = desk.trades()
    desk.line.before = [Ambiguous("hung before the broker")]
    desk.office.orders.close(trade, "test")

    result = typed("reconcile")

    assert result.exit_code == 1
    assert "is unknown in the ledger, the broker does not have it" in result.output
