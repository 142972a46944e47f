"""Exit rules and entry controls, as facts."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from desk.controls import Exposure, Verdict, judge_entry
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
HALTED = Exposure(Decimal(100_000), Decimal(100_000), Decimal(0), frozenset(), "HALTED")


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
    assert len({verdict.control for verdict in verdicts}) == len(verdicts) == 13


@pytest.mark.parametrize(
    ("changes", "control"),
    [
        (
            {"exposure": Exposure(Decimal(100_000), Decimal(100_000), Decimal(0), frozenset(), "HALTED")},
            "trading state",
        ),
        ({"now": SESSION.opens + timedelta(minutes=4)}, "session window"),
        ({"now": SESSION.closes - timedelta(minutes=9)}, "session window"),
        ({"not_after": NOON - timedelta(seconds=1)}, "session window"),
        ({"asset": None}, "instrument"),
        ({"request": request(limit="4.99")}, "instrument price"),
        ({"request": request(quantity=60)}, "order value"),
        ({"volume_20d": 1000}, "order quantity"),
        ({"quote": None}, "reference price"),
        ({"exposure": Exposure(Decimal(100_000), Decimal(100_000), Decimal(0), frozenset({"ACME"}), "ACTIVE")}, "twin"),
        (
            {"exposure": Exposure(Decimal(100_000), Decimal(100_000), Decimal(99_000), frozenset(), "ACTIVE")},
            "gross exposure",
        ),
        ({"exposure": Exposure(Decimal(100_000), Decimal(10), Decimal(0), frozenset(), "ACTIVE")}, "buying power"),
        ({"request": request(limit="102.01", quantity=10)}, "price collar"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_control_denies_what_breaks_it(changes: dict[str, object], control: str) -> None:
    assert control in denials(**changes)


@given(st.integers(1, 200), st.decimals("5", "500", places=2))
def test_what_passes_never_exceeds_a_limit(quantity: int, limit: Decimal) -> None:
    asked = request(quantity=quantity, limit=str(limit)) if limit < 108 else None
    if asked is None or denials(request=asked):
        return
    value = quantity * limit
    assert value <= 5000
    assert abs(limit - QUOTE.mid) / QUOTE.mid <= Decimal("0.02")
