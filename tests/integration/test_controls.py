"""Controls on a real ledger and exchange: what trips stays tripped, and nothing ever keeps us from getting out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from scripted_market import MONDAY, TUESDAY, at, flat
from sqlalchemy import text
from trading_desk import Bench, bench, buy_decision, write_decisions

from desk.controls import CONTROLS, Verdict, judge_entry
from desk.errors import Ambiguous, Refused
from desk.ledger.activity import fallback_sessions
from desk.ledger.anchors import current_anchors, measure_anew
from desk.ledger.engine import Ledger
from desk.ledger.gates import record_gate
from desk.ledger.records import GateRecord, TradingState
from desk.ledger.trading_state import current_state, set_state, tighten_state
from desk.losses import LossWatch
from desk.orders import Leg
from desk.strategy import Universe
from flows.position_monitor import position_monitor
from flows.trading import execution
from tasks.execution import send_entries
from tasks.office import in_office

pytestmark = pytest.mark.integration

TWO = flat() | flat("BETA")


@pytest.fixture
def desk(ledger: Ledger, tmp_path: Path) -> Iterator[Bench]:
    """ACME and BETA decided for Monday."""
    made = bench(ledger, tmp_path, script=TWO, decided=[buy_decision(), buy_decision("BETA")])
    with in_office(made.office):
        yield made


def state(desk: Bench) -> TradingState:
    with desk.office.ledger.transaction() as connection:
        return current_state(connection, account=desk.office.account).state


def become(desk: Bench, wanted: TradingState, by: str = "test") -> None:
    with desk.office.ledger.transaction() as connection:
        set_state(connection, account=desk.office.account, state=wanted, reason="test", by=by, at=desk.exchange.now)


def limit(desk: Bench, **limits: Any) -> None:
    strategy = desk.office.strategy
    desk.office.strategy = strategy.model_copy(update={"controls": strategy.controls.model_copy(update=limits)})


def denials(desk: Bench, symbol: str) -> set[str]:
    rows = desk.rows(f"select control from control_verdicts where not allowed and symbol = '{symbol}'")
    return {row["control"] for row in rows}


def tick(desk: Bench) -> None:
    position_monitor()
    desk.exchange.advance(60)


Break = Callable[[Bench, pytest.MonkeyPatch], None]


def limits(**values: Any) -> Break:
    return lambda desk, _patch: limit(desk, **values)


def numbers(**values: Any) -> Break:
    def change(desk: Bench, _patch: pytest.MonkeyPatch) -> None:
        desk.office.strategy = desk.office.strategy.model_copy(update=values)

    return change


def quoted(bid: float, ask: float) -> Break:
    return lambda desk, _patch: desk.exchange.set_market("BETA", bid=bid, ask=ask, last=ask)


def pretend(**changes: Any) -> Break:
    """Judge as if: what a single day on a bench does not come to by itself."""

    def change(_desk: Bench, patch: pytest.MonkeyPatch) -> None:
        def judged(request: Any, **given: Any) -> list[Verdict]:
            for part in ("exposure", "activity"):
                own = {name: value for name, value in changes.items() if name in given[part].__slots__}
                given[part] = replace(given[part], **own)
            given |= {name: value for name, value in changes.items() if name in given}
            return judge_entry(request, **given)

        patch.setattr("tasks.execution.judge_entry", judged)

    return change


BROKEN: dict[str, Break] = {
    "trading state": lambda desk, _patch: become(desk, TradingState.REDUCING),
    "session window": limits(entries_not_in_first_minutes=60),
    "data": lambda desk, _patch: desk.exchange.set_clock(at("09:57")),
    "policy": pretend(fallback_sessions=3),
    "instrument": pretend(asset=None),
    "instrument price": numbers(universe=Universe(price_min_usd=Decimal(1_000))),
    "reference price": quoted(0.0, 100.0),
    "price collar": quoted(109.98, 110.0),
    "order value": limits(order_value_max_usd=Decimal(100)),
    "order quantity": limits(order_quantity_max_volume_fraction=Decimal("0.000001")),
    "twin": pretend(symbols=frozenset({"ACME", "BETA"})),
    "self-trade": pretend(selling=frozenset({"BETA"})),
    "foreign activity": pretend(foreign_orders=1),
    "positions": numbers(positions_max=1),
    "symbol exposure": limits(symbol_exposure_max_fraction=Decimal("0.001")),
    "gross exposure": limits(gross_exposure_max_fraction=Decimal("0.001")),
    "buying power": pretend(buying_power=Decimal(0)),
    "turnover": limits(turnover_day_max_fraction=Decimal("0.001")),
    "message rate": limits(messages_minute_max=1),
    "message rate of the symbol": pretend(messages_minute_symbol=5),
    "entries of the symbol": pretend(entries_symbol_day=3),
    "orders of the day": limits(orders_day_max=1),
    "rejects": pretend(rejects=5),
    "loss of the day": pretend(equity=Decimal(97_000)),
    "drawdown": pretend(high_water_equity=Decimal(112_000)),
}


def buy_the_first_then(desk: Bench, patch: pytest.MonkeyPatch, then: Break) -> None:
    """ACME is bought; then something is wrong, and it is BETA's turn."""
    send = desk.office.orders.send
    ids: list[str] = []

    def sent(order_id: str) -> None:
        send(order_id)
        ids.append(order_id)
        if len(ids) == 1:
            then(desk, patch)

    with pytest.MonkeyPatch.context() as hook:
        hook.setattr(desk.office.orders, "send", sent)
        execution(MONDAY)


def lose_the_stop_and_fall(desk: Bench) -> None:
    """Nothing at the broker protects ACME any more, and it is below its stop."""
    for order in desk.orders():
        if order.leg in (Leg.TARGET, Leg.STOP):
            desk.office.broker.cancel(str(order.broker_order_id))
    desk.exchange.set_market("ACME", bid=95.0, ask=95.02, last=95.0)


def test_every_control_has_its_case() -> None:
    assert set(BROKEN) == set(CONTROLS)


@pytest.mark.parametrize("control", CONTROLS)
def test_no_control_that_denies_an_entry_keeps_a_position_from_its_exit(
    desk: Bench, monkeypatch: pytest.MonkeyPatch, control: str
) -> None:
    buy_the_first_then(desk, monkeypatch, BROKEN[control])
    assert control in denials(desk, "BETA") and denials(desk, "ACME") == set()
    assert (desk.held("ACME"), desk.held("BETA")) == (10, 0)

    lose_the_stop_and_fall(desk)
    tick(desk)
    tick(desk)

    assert desk.held("ACME") == 0
    assert desk.rows("select close_reason from trades") == [{"close_reason": "stop-loss"}]


@pytest.mark.parametrize("wanted", list(TradingState))
def test_no_trading_state_keeps_a_position_from_its_exit(desk: Bench, wanted: TradingState) -> None:
    execution(MONDAY)
    become(desk, wanted)

    lose_the_stop_and_fall(desk)
    tick(desk)
    tick(desk)

    assert (desk.held("ACME"), state(desk)) == (0, wanted)


@pytest.mark.parametrize("wanted", list(TradingState))
def test_no_trading_state_keeps_a_position_from_being_sold_by_a_decision(desk: Bench, wanted: TradingState) -> None:
    execution(MONDAY)
    (trade, _) = desk.trades()
    become(desk, wanted)

    desk.office.orders.close(trade, "signal")

    assert desk.held("ACME") == 0


@pytest.mark.parametrize(
    ("stage", "frame"),
    [("premarket-screening", "bars"), ("premarket-screening", "watchlist"), ("trading", "decisions")],
)
def test_no_gate_that_failed_keeps_a_position_from_its_exit(desk: Bench, stage: str, frame: str) -> None:
    execution(MONDAY)
    failed = GateRecord(MONDAY, stage, frame, "f" * 64, False, 1, [], desk.exchange.now)
    with desk.office.ledger.transaction() as connection:
        record_gate(connection, account=desk.office.account, gate=failed)

    lose_the_stop_and_fall(desk)
    tick(desk)
    tick(desk)

    assert desk.held("ACME") == 0


@pytest.mark.parametrize(
    ("control", "tripped"),
    [
        ("message rate", TradingState.HALTED),
        ("turnover", TradingState.REDUCING),
        ("policy", TradingState.REDUCING),
        ("rejects", TradingState.REDUCING),
        ("loss of the day", TradingState.REDUCING),
        ("drawdown", TradingState.HALTED),
        ("orders of the day", TradingState.ACTIVE),
    ],
)
def test_a_tripped_control_latches_the_state_in_the_ledger_and_pages_once(
    desk: Bench, monkeypatch: pytest.MonkeyPatch, control: str, tripped: TradingState
) -> None:
    buy_the_first_then(desk, monkeypatch, BROKEN[control])

    assert state(desk) is tripped
    pages = desk.rows("select message from alerts where kind like 'trading.%' and severity = 'critical'")
    assert len(pages) == (0 if tripped is TradingState.ACTIVE else 1)
    assert all(control in page["message"] and "BETA" in page["message"] for page in pages)


def test_a_twin_is_denied_and_somebody_is_told(desk: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    buy_the_first_then(desk, monkeypatch, BROKEN["twin"])

    (alert,) = desk.rows("select symbol, message from alerts where kind = 'control.denied'")
    assert alert["symbol"] == "BETA" and "twin" in alert["message"]


def test_a_control_makes_trading_stricter_and_never_looser(desk: Bench) -> None:
    become(desk, TradingState.HALTED)
    with desk.office.ledger.transaction() as connection:
        changed = tighten_state(
            connection,
            account=desk.office.account,
            state=TradingState.REDUCING,
            reason="x",
            by="control x",
            at=desk.exchange.now,
        )

    assert not changed and state(desk) is TradingState.HALTED


def test_decisions_that_passed_no_gate_are_not_traded(ledger: Ledger, tmp_path: Path) -> None:
    """Neither is a gate that passed on other decisions of the same session of any use."""
    desk = bench(ledger, tmp_path)
    with desk.office.ledger.transaction() as connection:
        connection.execute(text("ALTER TABLE gate_results DISABLE TRIGGER append_only"))
        connection.execute(text("UPDATE gate_results SET data_hash = 'another'"))

    with in_office(desk.office):
        execution(MONDAY)

    assert denials(desk, "ACME") == {"data"} and desk.line.posts == []


def test_five_refusals_within_ten_minutes_reduce_trading(ledger: Ledger, tmp_path: Path) -> None:
    names = ["AAA", "BBB", "CCC", "DDD", "EEE", "FFF"]
    script = {symbol: prices for name in names for symbol, prices in flat(name).items()}
    desk = bench(ledger, tmp_path, script=script, decided=[buy_decision(name) for name in names])
    desk.line.before = [Refused("no", status=403, code=40310000)] * 5

    with in_office(desk.office):
        execution(MONDAY)

    assert state(desk) is TradingState.REDUCING
    assert denials(desk, "FFF") == {"trading state", "rejects"}
    assert all(desk.held(name) == 0 for name in names)


def test_an_unknown_order_counts_at_full_size(desk: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer was lost and it may or may not be there: 10 of 100.50 are under way until proven otherwise."""
    desk.line.before = [Ambiguous("hung before the broker")]
    limit(desk, gross_exposure_max_fraction=Decimal("0.02"))  # 2,000 USD: room for one of the two

    execution(MONDAY)

    assert denials(desk, "BETA") == {"gross exposure"}


def test_what_of_an_entry_has_filled_counts_once(desk: Bench) -> None:
    """ACME is held by the time BETA is judged; the ledger does not know yet, and has its entry in full."""
    limit(desk, gross_exposure_max_fraction=Decimal("0.021"))  # 2,100 USD: room for two of 1,005

    execution(MONDAY)

    assert (desk.held("ACME"), desk.held("BETA")) == (10, 10)


def test_a_halt_cancels_live_entries_and_keeps_protective_stops(ledger: Ledger, tmp_path: Path) -> None:
    """ACME is held with its stop; BETA's limit is below the market, its entry rests."""
    resting = replace(buy_decision("BETA"), limit_price=Decimal("99"))
    desk = bench(ledger, tmp_path, script=TWO, decided=[buy_decision(), resting])
    with in_office(desk.office), pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.execution._ENTRY_FILL_S", 0.0)
        patch.setattr(desk.office.orders, "cancel", lambda _orders: desk.office.orders.reconcile())
        execution(MONDAY)
        patch.undo()
        assert [order.state.value for order in desk.orders("BETA") if order.leg is Leg.ENTRY] == ["acked"]

        become(desk, TradingState.HALTED)
        tick(desk)

    assert [order.state.value for order in desk.orders("BETA") if order.leg is Leg.ENTRY] == ["canceled"]
    assert [order.state.value for order in desk.orders("ACME") if order.leg is Leg.STOP] == ["acked"]
    assert desk.held("ACME") == 10


def test_an_entry_reserved_before_a_halt_is_never_sent(desk: Bench) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk.office.orders, "send", lambda _order_id: None)  # killed just before
        send_entries(MONDAY)
    become(desk, TradingState.HALTED)

    execution(MONDAY)

    assert desk.line.posts == [] and desk.held("ACME") == 0
    assert {order.state.value for order in desk.orders("ACME")} == {"lapsed"}


def test_a_day_that_loses_two_percent_reduces_and_four_percent_halts(desk: Bench) -> None:
    execution(MONDAY)
    limit(desk, loss_day_reducing_pct=Decimal("0.05"), loss_day_halted_pct=Decimal("0.10"))
    tick(desk)
    before = state(desk)

    desk.exchange.set_market("ACME", bid=97.0, ask=97.02, last=97.0)  # 10 shares, 30 USD of 100,000 and the spread
    desk.exchange.set_market("BETA", bid=97.0, ask=97.02, last=97.0)
    tick(desk)
    after = state(desk)
    desk.exchange.set_market("ACME", bid=96.2, ask=96.22, last=96.2)
    desk.exchange.set_market("BETA", bid=93.0, ask=93.02, last=93.0)
    tick(desk)
    tick(desk)

    assert (before, after, state(desk)) == (TradingState.ACTIVE, TradingState.REDUCING, TradingState.HALTED)


def test_a_quiet_look_at_the_losses_asks_neither_ledger_nor_broker(
    desk: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution(MONDAY)
    positions = {position.symbol: position for position in desk.office.broker.positions()}
    look = {"session": MONDAY, "limits": desk.office.strategy.controls, "now": desk.exchange.now}
    desk.office.losses.look(positions, **look)
    monkeypatch.setattr(desk.office.ledger, "transaction", lambda: pytest.fail("a query"))
    monkeypatch.setitem(desk.line.__dict__, "account", lambda: pytest.fail("a call"))

    assert not desk.office.losses.look(positions, **look)


def test_the_anchors_of_losses_survive_a_restart(desk: Bench) -> None:
    """A process started in the afternoon measures from the morning, and from the highest day before it."""
    account, ledger = desk.office.account, desk.office.ledger
    with ledger.transaction() as connection:
        measure_anew(
            connection, account=account, session=MONDAY, equity=Decimal(120_000), reason="t", at=desk.exchange.now
        )

    restarted = LossWatch(ledger=ledger, broker=desk.office.broker, account=account)
    restarted.look({}, session=TUESDAY, limits=desk.office.strategy.controls, now=at("10:00", TUESDAY))

    with ledger.transaction() as connection:
        anchors = current_anchors(connection, account=account)
    assert anchors is not None
    assert (anchors.session, anchors.opening_equity, anchors.high_water_equity) == (TUESDAY, 100_000, 120_000)
    assert state(desk) is TradingState.HALTED  # 16.7 % below it


def test_a_fill_far_from_its_quote_alerts_and_reduces(desk: Bench) -> None:
    execution(MONDAY)
    (trade, _) = desk.trades()

    desk.office.orders.close(trade, "signal", reference=Decimal("104"))  # sold at 99.99
    desk.exchange.advance(1)
    desk.office.orders.reconcile()

    assert state(desk) is TradingState.REDUCING
    (alert,) = desk.rows("select message from alerts where kind = 'fill.slipped'")
    assert "3.86 % worse than 104.00" in alert["message"]


def test_a_stop_that_gaps_alerts_and_leaves_trading_as_it_is(desk: Bench) -> None:
    execution(MONDAY)

    desk.exchange.set_market("ACME", bid=90.0, ask=90.02, last=90.0)  # the stop is at 96
    desk.exchange.advance(1)
    desk.office.orders.reconcile()

    assert state(desk) is TradingState.ACTIVE
    (alert,) = desk.rows("select message from alerts where kind = 'fill.slipped'")
    assert "6.25 % worse than 96.00" in alert["message"]


def test_only_sessions_in_which_a_champion_should_have_decided_count_as_fallbacks(
    ledger: Ledger, tmp_path: Path
) -> None:
    desk = bench(ledger, tmp_path)
    for day, decider in ((TUESDAY, "fallback: registry down"),):
        desk.exchange.set_clock(at("09:41", day))
        write_decisions(desk.office, day, [buy_decision()], checked_at=desk.exchange.now, decider=decider)
    with desk.office.ledger.transaction() as connection:
        assert fallback_sessions(connection, account=desk.office.account) == 1
