"""Exit rules and entry controls, as facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from desk.controls import CONTROLS, Activity, Exposure, Verdict, judge_entry
from desk.exits import breached
from desk.ledger.trades import Trade
from desk.market import Asset, Quote, Session
from desk.orders import OrderClass, OrderRequest, OrderType, Side, TimeInForce
from desk.strategy import Strategy

DAY = date(2024, 3, 5)
SESSION = Session(DAY, datetime(2024, 3, 5, 14, 30, tzinfo=UTC), datetime(2024, 3, 5, 21, 0, tzinfo=UTC))
NOON = datetime(2024, 3, 5, 17, 0, tzinfo=UTC)
STRATEGY = Strategy()


def trade(high: str = "100", hold_until: date = date(2024, 3, 11)) -> Trade:
    return Trade(
        strategy="default",
        session=DAY,
        symbol="ACME",
        strategy_version=1,
        entry_client_order_id="op-x",
        quantity=Decimal(10),
        entry_price=Decimal(100),
        entered_at=SESSION.opens,
        stop_price=Decimal(96),
        target_price=Decimal(108),
        high_water_price=Decimal(high),
        hold_until=hold_until,
        status="open",
        quantity_closed=Decimal(0),
        exit_price=None,
        exited_at=None,
        close_reason=None,
        profit=None,
    )


@pytest.mark.parametrize(
    ("bid", "reason"),
    [("96.01", None), ("96", "stop-loss"), ("50", "stop-loss"), ("107.99", None), ("108", "take-profit")],
)
def test_a_bid_at_or_beyond_a_limit_breaches_it(bid: str, reason: str | None) -> None:
    assert breached(trade(), Decimal(bid), strategy=STRATEGY, session=SESSION, now=NOON) == reason


def test_the_trailing_stop_follows_the_high_and_never_falls() -> None:
    high = trade(high="106")

    assert breached(high, Decimal("99.65"), strategy=STRATEGY, session=SESSION, now=NOON) is None
    assert breached(high, Decimal("99.64"), strategy=STRATEGY, session=SESSION, now=NOON) == "trailing stop"


def test_a_strategy_without_a_trailing_stop_has_none() -> None:
    without = STRATEGY.model_copy(update={"trailing_stop_pct": None})

    assert breached(trade(high="107"), Decimal("97"), strategy=without, session=SESSION, now=NOON) is None


def test_the_holding_time_ends_ten_minutes_before_the_last_close_or_any_time_after() -> None:
    last = trade(hold_until=DAY)
    late = SESSION.closes - timedelta(minutes=10)

    assert breached(last, Decimal(100), strategy=STRATEGY, session=SESSION, now=late - timedelta(seconds=1)) is None
    assert breached(last, Decimal(100), strategy=STRATEGY, session=SESSION, now=late) == "holding time"
    overdue = trade(hold_until=DAY - timedelta(days=1))
    assert breached(overdue, Decimal(100), strategy=STRATEGY, session=SESSION, now=SESSION.opens) == "holding time"


ASSET = Asset("ACME", "id", "Acme", "NASDAQ", tradable=True, active=True, fractionable=True, shortable=True)
QUOTE = Quote("ACME", Decimal("99.99"), Decimal("100.01"), Decimal(1), Decimal(1), NOON)
EXPOSURE = Exposure(Decimal(100_000), Decimal(100_000), Decimal(0), frozenset(), "ACTIVE")
ACTIVITY = Activity(
    messages_minute=0,
    messages_minute_symbol=0,
    entries_symbol_day=0,
    orders_day=0,
    rejects=0,
    turnover_day=Decimal(0),
    fallback_sessions=0,
    checked_at=NOON,
    foreign_orders=0,
    opening_equity=Decimal(100_000),
    high_water_equity=Decimal(100_000),
)


def done(**changes: object) -> Activity:
    return replace(ACTIVITY, **changes)  # type: ignore[arg-type]


def exposed(**changes: object) -> Exposure:
    return replace(EXPOSURE, **changes)  # type: ignore[arg-type]


def request(quantity: int = 40, limit: str = "100.50") -> OrderRequest:
    return OrderRequest(
        "op-x",
        "ACME",
        Side.BUY,
        Decimal(quantity),
        OrderType.LIMIT,
        TimeInForce.GTC,
        OrderClass.BRACKET,
        limit_price=Decimal(limit),
        take_profit_price=Decimal(108),
        stop_loss_price=Decimal(96),
    )


def judged(**changes: object) -> list[Verdict]:
    given_ = {
        "strategy": STRATEGY,
        "exposure": EXPOSURE,
        "activity": ACTIVITY,
        "quote": QUOTE,
        "asset": ASSET,
        "volume_20d": 1_000_000,
        "session": SESSION,
        "now": NOON,
        "not_after": SESSION.closes,
    } | {name: value for name, value in changes.items() if name != "request"}
    return judge_entry(changes.get("request", request()), **given_)  # type: ignore[arg-type]


def denials(**changes: object) -> set[str]:
    return {verdict.control for verdict in judged(**changes) if not verdict.allowed}


def test_an_ordinary_entry_passes_every_control_and_each_says_so() -> None:
    verdicts = judged()

    assert all(verdict.allowed for verdict in verdicts)
    assert tuple(verdict.control for verdict in verdicts) == CONTROLS


def moment(now: datetime) -> dict[str, object]:
    """That time, with a quote and a check as fresh as at noon."""
    return {"now": now, "quote": replace(QUOTE, at=now), "activity": done(checked_at=now)}


BREAKING = [
    ({"exposure": exposed(trading_state="HALTED")}, "trading state"),
    ({"exposure": exposed(trading_state="REDUCING")}, "trading state"),
    (moment(SESSION.opens + timedelta(minutes=4)), "session window"),
    (moment(SESSION.closes - timedelta(minutes=9)), "session window"),
    ({"not_after": NOON - timedelta(seconds=1)}, "session window"),
    ({"activity": done(checked_at=None)}, "data"),
    ({"activity": done(checked_at=NOON - timedelta(minutes=15, seconds=1))}, "data"),
    ({"activity": done(fallback_sessions=3)}, "policy"),
    ({"asset": None}, "instrument"),
    ({"asset": replace(ASSET, tradable=False)}, "instrument"),
    (
        {"request": request(limit="4.99"), "quote": replace(QUOTE, bid=Decimal("4.98"), ask=Decimal("5.00"))},
        "instrument price",
    ),
    ({"quote": None}, "reference price"),
    ({"quote": replace(QUOTE, at=NOON - timedelta(seconds=6))}, "reference price"),
    ({"request": request(limit="102.01", quantity=10)}, "price collar"),
    ({"request": request(quantity=60)}, "order value"),
    ({"volume_20d": 1000}, "order quantity"),
    ({"exposure": exposed(symbols=frozenset({"ACME"}))}, "twin"),
    ({"exposure": exposed(selling=frozenset({"ACME"}))}, "self-trade"),
    ({"activity": done(foreign_orders=1)}, "foreign activity"),
    ({"exposure": exposed(symbols=frozenset(f"S{n}" for n in range(20)))}, "positions"),
    ({"exposure": exposed(held={"ACME": Decimal(7_000)})}, "symbol exposure"),
    ({"exposure": exposed(gross=Decimal(99_000))}, "gross exposure"),
    ({"exposure": exposed(buying_power=Decimal(10))}, "buying power"),
    ({"activity": done(turnover_day=Decimal(146_000))}, "turnover"),
    ({"activity": done(messages_minute=60)}, "message rate"),
    ({"activity": done(messages_minute_symbol=5)}, "message rate of the symbol"),
    ({"activity": done(entries_symbol_day=3)}, "entries of the symbol"),
    ({"activity": done(orders_day=40)}, "orders of the day"),
    ({"activity": done(rejects=5)}, "rejects"),
    ({"exposure": exposed(equity=Decimal(98_000))}, "loss of the day"),
    ({"activity": done(high_water_equity=Decimal(111_200))}, "drawdown"),
]


@pytest.mark.parametrize(("changes", "control"), BREAKING, ids=lambda value: value if isinstance(value, str) else "")
def test_each_control_denies_what_breaks_it_and_names_limit_value_and_reason(
    changes: dict[str, object], control: str
) -> None:
    denied = [verdict for verdict in judged(**changes) if not verdict.allowed]

    assert [verdict.control for verdict in denied] == [control]
    assert denied[0].limit and denied[0].value and denied[0].limit in denied[0].reason


def test_every_control_is_broken_by_one_of_these() -> None:
    assert {control for _, control in BREAKING} == set(CONTROLS)


@pytest.mark.parametrize(
    ("changes", "control"),
    [
        ({"activity": done(checked_at=NOON - timedelta(minutes=15))}, "data"),
        ({"activity": done(fallback_sessions=2)}, "policy"),
        ({"activity": done(messages_minute=59)}, "message rate"),
        ({"activity": done(messages_minute_symbol=4)}, "message rate of the symbol"),
        ({"activity": done(entries_symbol_day=2)}, "entries of the symbol"),
        ({"activity": done(orders_day=39)}, "orders of the day"),
        ({"activity": done(rejects=4)}, "rejects"),
        ({"exposure": exposed(equity=Decimal(98_001))}, "loss of the day"),
        ({"activity": done(turnover_day=Decimal(145_980))}, "turnover"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_at_its_limit_each_control_still_allows(changes: dict[str, object], control: str) -> None:
    assert control not in denials(**changes)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"activity": done(turnover_day=Decimal(149_000))}, "REDUCING"),
        ({"activity": done(messages_minute=60)}, "HALTED"),
        ({"activity": done(messages_minute_symbol=5)}, "HALTED"),
        ({"activity": done(rejects=5)}, "REDUCING"),
        ({"activity": done(fallback_sessions=3)}, "REDUCING"),
        ({"exposure": exposed(equity=Decimal(98_000))}, "REDUCING"),
        ({"exposure": exposed(equity=Decimal(96_000))}, "HALTED"),
        ({"activity": done(high_water_equity=Decimal(111_200))}, "HALTED"),
        ({"activity": done(entries_symbol_day=3)}, None),
        ({"exposure": exposed(symbols=frozenset({"ACME"}))}, None),
    ],
)
def test_a_denial_trips_the_state_its_control_names(changes: dict[str, object], state: str | None) -> None:
    (denied,) = [verdict for verdict in judged(**changes) if not verdict.allowed]

    assert (None if denied.trips is None else denied.trips.value) == state


@given(st.integers(1, 200), st.decimals("5", "500", places=2))
def test_what_passes_never_exceeds_a_limit(quantity: int, limit: Decimal) -> None:
    asked = request(quantity=quantity, limit=str(limit)) if limit < 108 else None
    if asked is None or denials(request=asked):
        return
    value = quantity * limit
    assert value <= 5000
    assert abs(limit - QUOTE.mid) / QUOTE.mid <= Decimal("0.02")
