"""The invariants on a real ledger and exchange: a clean day is clean, and each planted violation is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from scripted_market import KEYS, MONDAY, TUESDAY, at, flat
from sqlalchemy import text
from trading_desk import Bench, bench, buy_decision
from typer.testing import CliRunner, Result

from desk.errors import Ambiguous
from desk.evidence import Evidence, gather
from desk.exchange.market import CorporateAction
from desk.exchange.server import ExchangeServer
from desk.ledger.engine import Ledger
from desk.orders import Leg, OrderClass, OrderRequest, OrderType, Side, TimeInForce
from desk.portfolio import Adjustment
from desk.verify import CHECKED, Violation, violations
from flows.cli import app
from flows.close_of_day import close_of_day
from flows.position_monitor import position_monitor
from flows.trading import execution
from tasks.office import in_office

pytestmark = pytest.mark.integration

TWO = flat() | flat("BETA")


@pytest.fixture
def desk(ledger: Ledger, tmp_path: Path) -> Iterator[Bench]:
    """ACME is held; BETA was bought and sold again; the monitor has looked."""
    made = bench(ledger, tmp_path, script=TWO, decided=[buy_decision(), buy_decision("BETA")])
    with in_office(made.office):
        execution(MONDAY)
        (_, beta) = made.trades()
        made.exchange.set_clock(at("09:50"))
        made.office.orders.close(beta, "signal")
        made.exchange.set_clock(at("09:51"))
        position_monitor()
        yield made


def seen(desk: Bench) -> Evidence:
    return gather(desk.office.ledger, desk.office.broker, account=desk.office.account)


def change(desk: Bench, table: str, statement: str) -> None:
    """What nobody may do: edit a table that only grows, and leave its trigger as it was."""
    with desk.office.ledger.transaction() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # neither triggers nor foreign keys
        connection.execute(text(statement))


def buy(order_id: str, quantity: int = 3) -> OrderRequest:
    return OrderRequest(order_id, "BETA", Side.BUY, Decimal(quantity), OrderType.MARKET, TimeInForce.DAY)


def test_a_clean_day_is_clean_in_session_and_after_the_close(desk: Bench) -> None:
    assert violations(seen(desk)) == []

    desk.exchange.set_clock(at("16:15"))
    close_of_day()

    assert violations(seen(desk)) == []


def test_lost_answers_and_repetitions_leave_a_clean_ledger(ledger: Ledger, tmp_path: Path) -> None:
    desk = bench(ledger, tmp_path, script=TWO, decided=[buy_decision(), buy_decision("BETA")])
    desk.line.before = [Ambiguous("hung before the broker")]
    desk.line.after = [Ambiguous("reset after acceptance")]
    with in_office(desk.office):
        execution(MONDAY)
        execution(MONDAY)

    assert desk.held() == desk.held("BETA") == 10
    assert violations(seen(desk)) == []


Plant = Callable[[Bench], Evidence | None]


def twin_at_the_broker(desk: Bench) -> Evidence:
    evidence = seen(desk)
    first = evidence.broker_orders[0]
    return replace(evidence, broker_orders=[*evidence.broker_orders, replace(first, broker_order_id="another")])


def second_live_stop(desk: Bench) -> Evidence:
    evidence = seen(desk)
    stop = next(order for order in evidence.books.orders if order.leg is Leg.STOP and order.is_live)
    again = replace(stop, client_order_id="another", generation=stop.generation + 1)
    return replace(evidence, books=replace(evidence.books, orders=[*evidence.books.orders, again]))


def sent_without_intent(desk: Bench) -> None:
    desk.office.broker.submit(replace(buy("op-nobody-knows"), order_type=OrderType.LIMIT, limit_price=Decimal(50)))


def sent_before_it_was_committed(desk: Bench) -> None:
    change(desk, "order_events", "UPDATE order_events SET at = at + interval '10 seconds' WHERE state = 'sending'")


def never_marked_as_sent(desk: Bench) -> None:
    change(desk, "order_events", "UPDATE order_events SET state = 'planned' WHERE state = 'sending'")


def share_from_nowhere(desk: Bench) -> None:
    desk.office.broker.submit(buy("by-hand"))


def trade_without_its_shares(desk: Bench) -> None:
    change(desk, "trades", "UPDATE trades SET quantity_closed = 4 WHERE symbol = 'ACME'")


def cash_that_leaked(desk: Bench) -> Evidence:
    desk.exchange.set_clock(at("16:15"))
    close_of_day()
    evidence = seen(desk)
    return replace(evidence, cash=evidence.cash - Decimal("0.02"))


def trigger_off(desk: Bench) -> None:
    with desk.office.ledger.transaction() as connection:
        connection.execute(text("ALTER TABLE fills DISABLE TRIGGER append_only"))


def event_removed(desk: Bench) -> None:
    change(desk, "order_events", "DELETE FROM order_events WHERE state = 'acked'")


def fill_edited(desk: Bench) -> None:
    change(desk, "fills", "UPDATE fills SET price = price + 1 WHERE side = 'buy' AND symbol = 'ACME'")


def fill_lost(desk: Bench) -> None:
    change(desk, "fills", "DELETE FROM fills WHERE side = 'buy' AND symbol = 'ACME'")


def fill_applied_twice(desk: Bench) -> None:
    change(desk, "trades", "UPDATE trades SET quantity = 20 WHERE symbol = 'ACME'")


def denied_and_sent(desk: Bench) -> None:
    change(desk, "control_verdicts", "UPDATE control_verdicts SET allowed = false WHERE control = 'drawdown'")


def never_judged(desk: Bench) -> None:
    change(desk, "control_verdicts", "DELETE FROM control_verdicts")


def more_than_was_judged(desk: Bench) -> None:
    change(desk, "orders", "UPDATE orders SET quantity = 100 WHERE leg = 'entry' AND symbol = 'ACME'")


def unknown_not_counted(desk: Bench) -> None:
    """BETA was judged as if ACME, then unknown, were not there."""
    change(desk, "order_events", "DELETE FROM order_events WHERE state IN ('filled', 'acked')")
    change(
        desk,
        "control_verdicts",
        "UPDATE control_verdicts SET value = '1005.00 USD' WHERE control = 'gross exposure' AND symbol = 'BETA'",
    )


def too_many_a_minute(desk: Bench) -> None:
    limits = "{controls,messages_minute_max}"
    change(desk, "strategies", f"UPDATE strategies SET document = jsonb_set(document, '{limits}', '1')")
    limits = "{controls,messages_minute_symbol_max}"
    change(desk, "strategies", f"UPDATE strategies SET document = jsonb_set(document, '{limits}', '1')")


def a_short(desk: Bench) -> Evidence:
    evidence = seen(desk)
    return replace(evidence, positions=[replace(evidence.positions[0], quantity=Decimal(-10))])


def more_sold_than_held(desk: Bench) -> Evidence:
    evidence = seen(desk)
    acme = next(order for order in evidence.broker_orders if order.symbol == "ACME")
    again = replace(
        acme, client_order_id="x", side=Side.SELL, order_class=OrderClass.SIMPLE, legs=(),
        filled_quantity=Decimal(0), status=acme.legs[0].status, quantity=Decimal(1),
    )  # fmt: skip
    return replace(evidence, broker_orders=[*evidence.broker_orders, again])


def call_with_a_connection(desk: Bench) -> None:
    reason = "RuntimeError: account: a database connection is checked out during an outside call; commit first"
    change(
        desk,
        "expected_runs",
        f"UPDATE expected_runs SET state = 'failed', reason = '{reason}' WHERE stage = 'trading'",
    )


def idle_transaction(desk: Bench) -> Evidence:
    evidence = seen(desk)
    return replace(evidence, books=replace(evidence.books, idle_s=7.0))


def fallback_in_silence(desk: Bench) -> None:
    change(desk, "alerts", "DELETE FROM alerts WHERE kind = 'decider.fallback'")


def unapproved_policy(desk: Bench) -> None:
    change(desk, "decision_sets", "UPDATE decision_sets SET decider = 'policy onepath-policy/7', policy_digest = 'x'")


def nameless_data(desk: Bench) -> None:
    change(desk, "decision_sets", "UPDATE decision_sets SET input_hash = ''")


def decision_of_another_set(desk: Bench) -> None:
    change(desk, "decisions", "UPDATE decisions SET decider = 'policy onepath-policy/7' WHERE symbol = 'ACME'")


PLANTED: list[tuple[Plant, int, str, str, str]] = [
    (twin_at_the_broker, 1, "client order id op-", "2 orders at the broker", "at most 1"),
    (second_live_stop, 1, "stop of ACME", "2 live orders", "at most 1"),
    (sent_without_intent, 2, "order op-nobody-knows", "no intent in the ledger", "committed before it was sent"),
    (sent_before_it_was_committed, 2, "of ACME", "marked as being sent at", "when the broker had it"),
    (never_marked_as_sent, 2, "of ACME", "never marked as being sent", "SENDING committed"),
    (share_from_nowhere, 3, "shares of BETA", "0 by fills", "3, as the broker has"),
    (trade_without_its_shares, 3, "open trade in ACME", "6 shares", "10, as its fills say"),
    (cash_that_leaked, 3, "cash, the broker's cash now", "USD", "by the ledger"),
    (trigger_off, 4, "table fills", "it can be edited", "refuses changes"),
    (event_removed, 4, "events of order", "1, 2, 4", "all from the first on"),
    (fill_edited, 4, "fill ", "in the ledger", "as the broker has"),
    (fill_lost, 4, "fill ", "not in the ledger", "buy 10 ACME"),
    (fill_applied_twice, 4, "trade in ACME", "bought 20", "10 by its fills"),
    (denied_and_sent, 5, "entry in ACME", "denied by drawdown", "< 10 %"),
    (never_judged, 5, "entry in ACME", "without a control's verdict", "every control's"),
    (more_than_was_judged, 5, "entry in ACME of 2024-03-04, order value", "10050.00 USD", "<= 5000.00 USD"),
    (unknown_not_counted, 5, "entry in BETA of 2024-03-04, gross exposure", "1005.00 USD", "2010.00 USD, with ACME"),
    (too_many_a_minute, 5, "entry in BETA of 2024-03-04, orders a minute", "2", "<= 1"),
    (a_short, 6, "position in ACME", "-10 shares", "0 or more"),
    (more_sold_than_held, 6, "live sells of ACME", "11 shares", "at most the 10 held"),
    (call_with_a_connection, 9, "trading of 2024-03-04", "a connection held", "none"),
    (idle_transaction, 9, "a transaction", "idle for 7 s", "at most 5 s"),
    (fallback_in_silence, 11, "decisions of 2024-03-04", "of which nobody was told", "an alert"),
    (unapproved_policy, 11, "decisions of 2024-03-04", "policy digest x", "approved"),
    (nameless_data, 11, "decisions of 2024-03-04", "data hash ''", "a sha256"),
    (decision_of_another_set, 11, "decision on ACME", "policy onepath-policy/7", "fallback: no champion"),
]


@pytest.mark.parametrize(
    ("plant", "invariant", "what", "found", "needed"), PLANTED, ids=[case[0].__name__ for case in PLANTED]
)
def test_what_is_planted_is_found_and_named(
    desk: Bench, plant: Plant, invariant: int, what: str, found: str, needed: str
) -> None:
    evidence = plant(desk) or seen(desk)

    named = violations(evidence)

    assert any(
        each.invariant == invariant and what in each.what and found in each.found and needed in each.needed
        for each in named
    ), "\n".join(map(str, named))


def test_something_is_planted_for_every_invariant_checked() -> None:
    assert {invariant for _, invariant, *_ in PLANTED} == set(CHECKED)


def test_an_adjustment_explains_shares_no_order_bought(desk: Bench) -> None:
    evidence = seen(desk)
    split = Adjustment("s-1", "ACME", "split", MONDAY, Decimal(10), Decimal(2), Decimal(0))
    doubled = [replace(evidence.positions[0], quantity=Decimal(20))]
    books = replace(evidence.books, adjustments=[split], trades=[])

    named = violations(replace(evidence, books=books, positions=doubled))

    assert [each for each in named if each.what == "shares of ACME"] == []


def test_a_dividend_is_no_leak(ledger: Ledger, tmp_path: Path) -> None:
    """Cash the broker booked by itself, on the morning of the ex-date, between two closings."""
    paid = CorporateAction("ACME", TUESDAY, "dividend", Decimal("0.35"))
    desk = bench(ledger, tmp_path, script=flat(), actions=[paid])
    with in_office(desk.office):
        execution(MONDAY)
        desk.exchange.set_clock(at("16:15"))
        close_of_day()
        desk.exchange.set_clock(at("16:15", TUESDAY))
        close_of_day()

    evidence = seen(desk)
    assert [(each.kind, each.day, each.amount) for each in evidence.moved] == [("DIV", TUESDAY, Decimal("3.5"))]
    assert violations(evidence) == []
    assert [each.invariant for each in violations(replace(evidence, moved=[]))] == [3]


# the command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(desk: Bench, ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("ONEPATH_DATABASE_URL", ledger_url)
    monkeypatch.setenv("ONEPATH_ALPACA_KEY_ID", KEYS[0])
    monkeypatch.setenv("ONEPATH_ALPACA_SECRET_KEY", KEYS[1])
    monkeypatch.setenv("ONEPATH_EXCHANGE_CLOCK_DRIVEN", "true")
    with ExchangeServer(desk.exchange) as server:
        monkeypatch.setenv("ONEPATH_EXCHANGE_URL", server.url)
        yield desk


def verify(*words: str) -> Result:
    return CliRunner().invoke(app, ["verify", *words], env={"COLUMNS": "160"}, catch_exceptions=False)


def test_the_command_says_that_nothing_is_violated(served: Bench) -> None:
    shown = verify()

    assert shown.exit_code == 0
    assert "no violation of invariants 1, 2, 3, 4, 5, 6, 9, 11" in shown.output


def test_the_command_names_each_violation_and_fails(served: Bench) -> None:
    share_from_nowhere(served)
    served.exchange.advance(1)

    shown, told = verify(), verify("--json")

    assert (shown.exit_code, told.exit_code) == (1, 1)
    assert "shares of BETA" in shown.output and "3, as the broker has" in shown.output
    assert {"invariant": 3, "what": "shares of BETA"}.items() <= json.loads(told.output)["violations"][0].items()


def test_a_difference_that_is_gone_at_the_second_reading_is_none(
    served: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a fill and the monitor that books it, ledger and broker differ."""
    readings = [[Violation(3, "shares of ACME", "0", "10")], []]
    monkeypatch.setattr("desk.verify.violations", lambda _seen: readings.pop(0))

    assert verify().exit_code == 0 and readings == []
