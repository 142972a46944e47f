"""What the watchdog pages on, from what it read: each page once, and a quiet session none."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import pytest

from desk.ledger.facts import AccountFact
from desk.ledger.records import MonitorCycle, Run, RunState, StateChange, TradingState, Verdict
from desk.ledger.standing import StageStanding, Standing
from desk.market import Session, at_new_york
from desk.orders import BrokerOrder, BrokerStatus, OrderClass, OrderType, Side
from desk.portfolio import Fill, Position
from desk.watch import BrokerSight, Disk, Finding, LedgerSight, Sight, bare_symbols, has_evidence, judge, still_bare

DAY = date(2024, 3, 5)
SESSION = Session(DAY, at_new_york(DAY, "09:30"), at_new_york(DAY, "16:00"))
NOW = at_new_york(DAY, "11:00")
TEN = Decimal(10)


def order(kind: OrderType, side: Side = Side.SELL, **values: object) -> BrokerOrder:
    made = BrokerOrder(
        broker_order_id=f"b-{kind}", client_order_id=f"op-{kind}", symbol="ACME", side=side, quantity=TEN,
        filled_quantity=Decimal(0), filled_avg_price=None, order_type=kind, order_class=OrderClass.SIMPLE,
        time_in_force="gtc", limit_price=None, stop_price=None, status=BrokerStatus.NEW, submitted_at=NOW,
        updated_at=NOW,
    )  # fmt: skip
    return replace(made, **values)  # type: ignore[arg-type]


LEGS = (order(OrderType.LIMIT), order(OrderType.STOP, status=BrokerStatus.HELD))
BRACKET = order(
    OrderType.LIMIT,
    Side.BUY,
    order_class=OrderClass.BRACKET,
    status=BrokerStatus.FILLED,
    filled_quantity=TEN,
    legs=LEGS,
)
HELD = Position("ACME", "a-1", TEN, Decimal(0), Decimal(100), Decimal(101), Decimal(1010))
BROKER = BrokerSight("SIM-1", NOW, 0.1, (HELD,), (BRACKET,), session=SESSION)
CYCLE = MonitorCycle(
    cycle_at=NOW - timedelta(seconds=40), session=DAY, verdict=Verdict.OK, positions_expected=1, positions_evaluated=1,
    position_hash="h", quote_age_max_s=1.0, stops_verified=1, exits=(), errors=(),
    next_due_at=NOW + timedelta(seconds=20),
)  # fmt: skip
STANDING = Standing(
    account=AccountFact("SIM-1", "paper", "alpaca paper"), as_of=NOW, clock="broker", session=SESSION, stages=(),
    cycle=CYCLE, cycle_age_s=40.0, open_trades=(), trading_state=StateChange(0, TradingState.ACTIVE, "", "", None),
    undelivered=0, undelivered_age_s=None, critical=(), last_closing=None,
)  # fmt: skip
QUIET = Sight(at=NOW, broker=BROKER, ledger=LedgerSight(STANDING, None, NOW), disks=(Disk("/", 40.0),))


def standing(**values: object) -> Sight:
    return replace(QUIET, ledger=LedgerSight(replace(STANDING, **values), None, NOW))  # type: ignore[arg-type]


def broker(**values: object) -> Sight:
    return replace(QUIET, broker=replace(BROKER, **values))  # type: ignore[arg-type]


def cycled(age_s: float, **values: object) -> Sight:
    cycle = replace(CYCLE, cycle_at=NOW - timedelta(seconds=age_s), **values)  # type: ignore[arg-type]
    return standing(cycle=cycle, cycle_age_s=age_s)


def run(stage: str, state: RunState, *, due: str = "09:40", started: str | None = None) -> Run:
    at = at_new_york(DAY, started) if started else None
    return Run(DAY, stage, at_new_york(DAY, due), at_new_york(DAY, "10:10"), state, None, 1, at, None, None, None)


def staged(stage: str, *, last: Run | None = None, overdue: tuple[Run, ...] = ()) -> Sight:
    return standing(stages=(StageStanding(stage, last, None, overdue),))


def the_one(sight: Sight) -> Finding:
    (found,) = judge(sight)
    return found


def test_a_quiet_session_gives_no_page_and_is_evidence() -> None:
    assert judge(QUIET) == []
    assert has_evidence(QUIET, [])


def test_a_page_is_out_before_the_evidence_is_180_s_old() -> None:
    """One look in 30 s, and up to 5 s to the channel."""
    assert judge(cycled(145)) == []

    found = the_one(cycled(180 - 30 - 4))

    assert (found.kind, found.session, found.stage) == ("monitor.stale", DAY, "position-monitor")
    assert "2 min" in found.message
    assert not has_evidence(cycled(146), [found])


@pytest.mark.parametrize("cycle", [None, replace(CYCLE, session=date(2024, 3, 4))])
def test_a_session_the_monitor_never_began_pages_within_180_s_of_the_open(cycle: MonitorCycle | None) -> None:
    def seen(seconds: int) -> list[str]:
        at = SESSION.opens + timedelta(seconds=seconds)
        sight = replace(standing(cycle=cycle, cycle_age_s=None), at=at)
        return [found.kind for found in judge(sight)]

    assert seen(145) == []
    assert seen(146) == ["monitor.stale"]


def test_after_the_close_and_on_a_day_without_session_nobody_has_to_watch() -> None:
    after = replace(cycled(6000), at=SESSION.closes)
    closed = replace(cycled(60_000), broker=replace(BROKER, session=None))

    assert judge(after) == [] and has_evidence(after, [])
    assert judge(closed) == [] and has_evidence(closed, [])


def test_a_position_the_monitor_did_not_evaluate_pages() -> None:
    found = the_one(cycled(40, positions_evaluated=0, verdict=Verdict.RED))

    assert found.kind == "monitor.unlike"
    assert "evaluated 0 positions" in found.message and "the broker holds 1" in found.message


def test_a_fill_since_the_cycle_explains_a_difference_until_the_next_one() -> None:
    def after(seconds: int) -> Fill:
        at = CYCLE.cycle_at + timedelta(seconds=seconds)
        return Fill("f", "b", "ACME", Side.SELL, TEN, Decimal(96), at)

    assert judge(broker(positions=(), fills=(after(5),))) == []
    assert the_one(broker(positions=(), fills=(after(-5),))).kind == "monitor.unlike"


def test_a_red_cycle_is_no_evidence() -> None:
    """Its page is the monitor's own; the dead-man's URL is not pinged."""
    red = cycled(40, verdict=Verdict.RED)

    assert judge(red) == [] and not has_evidence(red, [])


def test_a_position_without_a_live_stop_pages_after_a_minute() -> None:
    since = {"ACME": NOW - timedelta(seconds=59)}
    longer = {"ACME": NOW - timedelta(seconds=60)}

    found = the_one(replace(QUIET, bare_since=longer))

    assert judge(replace(QUIET, bare_since=since)) == []
    assert (found.kind, found.symbol) == ("position.uncovered", "ACME")


@pytest.mark.parametrize(
    ("orders", "is_bare"),
    [
        ((BRACKET,), False),
        ((), True),
        ((replace(BRACKET, legs=LEGS[:1]),), True),  # a target alone protects nothing
        ((replace(BRACKET, legs=(replace(LEGS[1], status=BrokerStatus.CANCELED),)),), True),
        ((replace(BRACKET, legs=(replace(LEGS[1], quantity=Decimal(9)),)),), True),
        ((replace(BRACKET, legs=(replace(LEGS[1], symbol="BETA"),)),), True),
        ((replace(BRACKET, status=BrokerStatus.PARTIALLY_FILLED),), True),  # its legs are not in force yet
        ((order(OrderType.LIMIT, order_class=OrderClass.OCO, legs=LEGS[1:]),), False),
        ((order(OrderType.STOP),), False),
        ((order(OrderType.TRAILING_STOP),), False),
        ((order(OrderType.MARKET),), False),  # on its way out
        ((order(OrderType.STOP, Side.BUY),), True),
    ],
)
def test_only_live_stops_over_all_shares_cover_a_position(orders: tuple[BrokerOrder, ...], is_bare: bool) -> None:
    assert bare_symbols(replace(BROKER, orders=orders)) == ({"ACME"} if is_bare else set())


def test_it_is_remembered_since_when_a_stop_is_missing_and_forgotten_once_it_is_back() -> None:
    bare, later = replace(BROKER, orders=()), NOW + timedelta(seconds=30)

    first = still_bare({}, bare)

    assert first == {"ACME": NOW}
    assert still_bare(first, replace(bare, now=later)) == first
    assert still_bare(first, BROKER) == {}


def test_a_stage_that_should_have_begun_pages() -> None:
    missing = run("trading", RunState.EXPECTED)

    found = the_one(staged("trading", overdue=(missing,)))

    assert (found.kind, found.stage, found.session) == ("stage.overdue", "trading", DAY)
    assert "80 min" in found.message or "1 h" in found.message


def test_in_session_a_monitor_that_never_began_is_told_once_by_its_evidence() -> None:
    sight = staged("position-monitor", overdue=(run("position-monitor", RunState.EXPECTED, due="09:30"),))

    assert judge(sight) == []
    assert [found.kind for found in judge(replace(sight, at=SESSION.closes))] == ["stage.overdue"]


def test_what_was_due_days_ago_is_for_the_next_stage_to_close() -> None:
    old = replace(run("trading", RunState.EXPECTED), due_at=NOW - timedelta(days=2))

    assert judge(staged("trading", overdue=(old,))) == []


def test_a_stage_running_for_more_than_an_hour_pages() -> None:
    assert judge(staged("trading", last=run("trading", RunState.RUNNING, started="10:00"))) == []
    assert the_one(staged("trading", last=run("trading", RunState.RUNNING, started="09:59"))).kind == "stage.hanging"


def test_an_alert_that_reaches_nobody_pages_after_five_minutes() -> None:
    def waiting(seconds: int) -> Sight:
        return replace(QUIET, ledger=LedgerSight(STANDING, NOW - timedelta(seconds=seconds), NOW))

    assert judge(waiting(300)) == []
    assert the_one(waiting(301)).kind == "alerts.undelivered"
    assert the_one(replace(QUIET, stuck_channels=("json-1",))).kind == "alerts.undelivered"


def test_each_source_that_cannot_be_read_pages_and_the_rest_is_still_judged() -> None:
    no_ledger = replace(QUIET, ledger=None, ledger_error="refused", bare_since={"ACME": NOW - timedelta(minutes=5)})
    no_broker = replace(cycled(500), broker=None, broker_error="timeout")

    assert [found.kind for found in judge(no_ledger)] == ["ledger.unreachable", "position.uncovered"]
    assert [found.kind for found in judge(no_broker)] == ["broker.unreachable", "monitor.stale"]
    assert the_one(replace(QUIET, prefect_error="http://x: HTTP 500")).kind == "prefect.unreachable"
    assert not has_evidence(replace(QUIET, ledger=None), [])
    assert not has_evidence(replace(QUIET, broker=None), [])


def test_one_hiccup_of_broker_or_prefect_pages_nobody_and_is_no_evidence() -> None:
    hiccup = replace(
        QUIET,
        broker=None,
        broker_error="timeout",
        prefect_error="timeout",
        new_failures=frozenset({"broker", "prefect"}),
    )

    assert judge(hiccup) == []
    assert not has_evidence(hiccup, [])
    assert [found.kind for found in judge(replace(hiccup, new_failures=frozenset()))] == [
        "broker.unreachable",
        "prefect.unreachable",
    ]


def test_the_books_of_another_account_are_no_evidence() -> None:
    assert the_one(broker(account="SIM-2")).kind == "broker.unlike"


@pytest.mark.parametrize(("skew_s", "is_told"), [(5.0, False), (5.1, True), (-6.0, True), (None, False)])
def test_a_clock_more_than_five_seconds_off_the_brokers_is_told(skew_s: float | None, is_told: bool) -> None:
    assert [found.kind for found in judge(broker(skew_s=skew_s))] == (["clock.skewed"] if is_told else [])


def test_a_disk_nearly_full_is_told_and_does_not_stop_the_pings() -> None:
    full = replace(QUIET, disks=(Disk("/data", 4.9),))

    assert the_one(full).kind == "disk.filling"
    assert has_evidence(full, judge(full))
