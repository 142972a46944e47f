"""The fallback rule: who is bought, who is sold, how many shares, at which prices, and why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from desk.decision import Action, Approval, Decision
from desk.market import Quote
from desk.portfolio import Position
from desk.strategy import Controls, Strategy
from models.deciding import choose_decider
from models.fallback import decide, entry_prices

NOW = datetime(2019, 1, 2, 14, 40, tzinfo=UTC)
STRATEGY = Strategy()


@dataclass(frozen=True)
class Row:
    symbol: str
    buy_probability: float = 0.8
    sell_probability: float = 0.1


def quote(symbol: str, bid: str = "99.99", ask: str = "100.01", age_s: float = 1) -> Quote:
    at = NOW - timedelta(seconds=age_s)
    return Quote(symbol, Decimal(bid), Decimal(ask), Decimal(100), Decimal(100), at)


def position(symbol: str, quantity: str = "10") -> Position:
    return Position(symbol, f"id-{symbol}", Decimal(quantity), Decimal(quantity), Decimal(90), None, None)


def decided(
    candidates: Sequence[Row],
    holdings: Sequence[Position] = (),
    *,
    quotes: Mapping[str, Quote] | None = None,
    equity: str = "100000",
    buying_power: str = "100000",
    strategy: Strategy = STRATEGY,
    **more: object,
) -> list[Decision]:
    symbols = {row.symbol for row in candidates} | {held.symbol for held in holdings}
    return decide(
        candidates,
        holdings,
        equity=Decimal(equity),
        buying_power=Decimal(buying_power),
        quotes={symbol: quote(symbol) for symbol in symbols} if quotes is None else quotes,
        now=NOW,
        strategy=strategy,
        **more,  # type: ignore[arg-type]
    )


def only(decisions: list[Decision]) -> Decision:
    (decision,) = decisions
    return decision


def test_a_buy_has_its_bracket_around_the_mid_and_its_limit_above_the_ask() -> None:
    """5 % of 100,000 is 5,000; the limit is 100.01 x 1.005 = 100.51005, down to the cent; 49 shares fit."""
    assert only(decided([Row("AAA")])) == Decision(
        symbol="AAA",
        action=Action.BUY,
        reason="buy_probability 0.80 > 0.7, sell_probability 0.10 < 0.3",
        quantity=Decimal(49),
        reference_price=Decimal("100"),
        limit_price=Decimal("100.51"),
        stop_price=Decimal("96.00"),
        target_price=Decimal("108.00"),
        buy_probability=0.8,
        sell_probability=0.1,
    )


def test_a_sell_is_of_all_that_is_held() -> None:
    decision = only(decided([Row("AAA", 0.1, 0.9)], [position("AAA", "37")]))

    assert (decision.action, decision.quantity, decision.reference_price) == (Action.SELL, Decimal(37), Decimal("100"))
    assert decision.reason == "sell_probability 0.90 > 0.7, buy_probability 0.10 < 0.3"


@pytest.mark.parametrize(
    ("buy", "sell"), [(0.7, 0.1), (0.8, 0.3), (0.5, 0.5), (0.1, 0.1)], ids=["at min", "at max", "even", "low"]
)
def test_the_thresholds_themselves_do_not_buy(buy: float, sell: float) -> None:
    decision = only(decided([Row("AAA", buy, sell)]))

    assert decision.action is Action.HOLD
    assert decision.reason == f"neither rule met: buy_probability {buy:.2f}, sell_probability {sell:.2f}"


@pytest.mark.parametrize(
    ("row", "holdings", "more", "reason"),
    [
        (Row("AAA"), [position("AAA")], {}, "held, already bought"),
        (
            Row("AAA", 0.5, 0.5),
            [position("AAA")],
            {},
            "held, neither rule met: buy_probability 0.50, sell_probability 0.50",
        ),
        (Row("AAA", 0.1, 0.9), [], {}, "not held"),
        (Row("AAA"), [], {"pending": {"AAA"}}, "buy rule met, an order is live"),
        (Row("AAA"), [], {"open_trades": {"AAA"}}, "buy rule met, a trade is open"),
        (Row("AAA", 0.1, 0.9), [position("AAA")], {"pending": {"AAA"}}, "sell rule met, an order is live"),
        (Row("AAA", 0.1, 0.9), [position("AAA", "-5")], {}, "sell rule met, no whole share is held: -5"),
        (Row("AAA", 0.1, 0.9), [position("AAA", "0.4")], {}, "sell rule met, no whole share is held: 0.4"),
        (Row("AAA"), [], {"quotes": {}}, "no quote"),
        (
            Row("AAA"),
            [],
            {"equity": "1000"},
            "buy rule met, one share at 100.51 is above 50.00 USD, the bound of order_value_max_fraction",
        ),
        (
            Row("AAA"),
            [],
            {"buying_power": "-3"},
            "buy rule met, one share at 100.51 is above 0.00 USD, the bound of buying power",
        ),
    ],
)
def test_a_hold_says_why(row: Row, holdings: list[Position], more: dict[str, object], reason: str) -> None:
    decision = only(decided([row], holdings, **more))  # type: ignore[arg-type]

    assert (decision.action, decision.quantity, decision.reason) == (Action.HOLD, Decimal(0), reason)


@pytest.mark.parametrize("holdings", [[], [position("AAA")]], ids=["entry", "exit"])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (quote("AAA", bid="0"), "zero quote"),
        (quote("AAA", bid="100.02"), "crossed quote"),
        (quote("AAA", age_s=5.5), "stale quote"),
    ],
)
def test_an_unusable_quote_decides_nothing(bad: Quote, reason: str, holdings: list[Position]) -> None:
    row = Row("AAA", 0.1, 0.9) if holdings else Row("AAA")

    decision = only(decided([row], holdings, quotes={"AAA": bad}))

    assert decision.action is Action.HOLD
    assert decision.reason.startswith(reason)


def test_what_is_held_without_a_score_is_held_on() -> None:
    decision = only(decided([], [position("AAA")]))

    assert (decision.action, decision.reason, decision.buy_probability) == (Action.HOLD, "held, no score today", None)


def test_rules_that_contradict_each_other_move_nothing() -> None:
    loose = Strategy(buy_probability_min=0.2, sell_probability_max=0.9)

    for holdings in ([], [position("AAA")]):
        decision = only(decided([Row("AAA", 0.5, 0.5)], holdings, strategy=loose))
        assert decision.reason == "the buy and the sell rule contradict each other"


def test_positions_are_given_to_the_best_until_none_is_left() -> None:
    """One holding and one live order take two of four places."""
    rows = [Row("AAA", 0.75), Row("BBB", 0.95), Row("CCC", 0.95), Row("DDD", 0.9)]
    strategy = Strategy(positions_max=4)

    decisions = decided(rows, [position("HELD")], strategy=strategy, pending={"LIVE"})

    assert [d.symbol for d in decisions if d.action is Action.BUY] == ["BBB", "CCC"]
    assert {d.symbol: d.reason for d in decisions}["DDD"] == "buy rule met, all 4 positions are taken"


def test_buying_power_is_spent_in_order_and_never_twice() -> None:
    decisions = decided([Row("AAA", 0.8), Row("BBB", 0.9), Row("CCC", 0.7001)], buying_power="7000")

    bought = {d.symbol: d.quantity for d in decisions if d.action is Action.BUY}
    assert bought == {"BBB": Decimal(49), "AAA": Decimal(20)}
    assert sum(quantity * Decimal("100.51") for quantity in bought.values()) <= 7000


def test_what_a_sale_will_free_is_not_spent_before_it_is_there() -> None:
    decisions = decided([Row("AAA"), Row("OLD", 0.1, 0.9)], [position("OLD")], buying_power="0")

    assert [(d.symbol, d.action) for d in decisions] == [("OLD", Action.SELL), ("AAA", Action.HOLD)]


@pytest.mark.parametrize(
    ("strategy", "equity", "shares"),
    [
        (Strategy(position_fraction=Decimal("0.02")), "100000", 19),
        (Strategy(controls=Controls(order_value_max_usd=Decimal(1000))), "100000", 9),
        (Strategy(controls=Controls(order_value_max_fraction=Decimal("0.01"))), "100000", 9),
        (Strategy(), "1000000", 49),
    ],
    ids=["position fraction", "order value", "order fraction", "order value again"],
)
def test_the_tightest_bound_sizes_an_entry(strategy: Strategy, equity: str, shares: int) -> None:
    assert only(decided([Row("AAA")], strategy=strategy, equity=equity, buying_power="1000000")).quantity == shares


def test_below_a_dollar_prices_have_four_decimals() -> None:
    prices = entry_prices(quote("AAA", "0.8999", "0.9001"), STRATEGY)

    assert not isinstance(prices, str)
    assert (prices.limit, prices.stop, prices.target) == (Decimal("0.9046"), Decimal("0.8640"), Decimal("0.9720"))


@pytest.mark.parametrize(
    ("bid", "ask", "reason"),
    [("80", "100", "the spread is too wide"), ("0.20", "0.2001", "is not below the limit")],
    ids=["wide spread", "too cheap for a bracket"],
)
def test_a_quote_that_carries_no_bracket_is_not_bought(bid: str, ask: str, reason: str) -> None:
    decision = only(decided([Row("AAA")], quotes={"AAA": quote("AAA", bid, ask)}))

    assert decision.action is Action.HOLD
    assert reason in decision.reason


scores = st.sampled_from([0.05, 0.25, 0.5, 0.75, 0.95])
symbols = st.sampled_from([f"S{n}" for n in range(12)])
cents = st.integers(1, 500_00).map(lambda n: Decimal(n) / 100)


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Row], list[Position], dict[str, Quote], Strategy, Decimal, Decimal]:
    rows = [Row(symbol, draw(scores), draw(scores)) for symbol in draw(st.lists(symbols, unique=True))]
    held = [
        position(symbol, str(draw(st.integers(-3, 50)))) for symbol in draw(st.lists(symbols, unique=True, max_size=4))
    ]
    quotes = {}
    for symbol in {row.symbol for row in rows} | {p.symbol for p in held}:
        bid = draw(cents)
        quotes[symbol] = quote(symbol, str(bid), str(bid + draw(st.integers(0, 300)) / Decimal(100)))
    strategy = Strategy(positions_max=draw(st.integers(1, 6)), entry_limit_pct=draw(st.sampled_from(["0", "0.5", "2"])))
    equity = Decimal(draw(st.integers(0, 300_000)))
    return rows, held, quotes, strategy, equity, Decimal(draw(st.integers(-100, 300_000)))


@given(situations(), st.randoms(use_true_random=False))
def test_the_order_of_inputs_does_not_matter(situation, random) -> None:  # type: ignore[no-untyped-def]
    rows, held, quotes, strategy, equity, power = situation

    def answer(rows: list[Row], held: list[Position], quotes: dict[str, Quote]) -> list[Decision]:
        return decided(rows, held, quotes=quotes, strategy=strategy, equity=str(equity), buying_power=str(power))

    straight = answer(rows, held, quotes)
    shuffled = [random.sample(part, len(part)) for part in (rows, held, list(quotes.items()))]

    assert answer(shuffled[0], shuffled[1], dict(shuffled[2])) == straight


@given(situations())
def test_no_bound_is_ever_exceeded(situation) -> None:  # type: ignore[no-untyped-def]
    rows, held, quotes, strategy, equity, power = situation

    decisions = decided(rows, held, quotes=quotes, strategy=strategy, equity=str(equity), buying_power=str(power))

    buys = [d for d in decisions if d.action is Action.BUY]
    costs = [d.quantity * d.limit_price for d in buys if d.limit_price is not None]
    holding = {p.symbol: p.quantity for p in held if p.quantity}
    assert sorted(d.symbol for d in decisions) == sorted({row.symbol for row in rows} | holding.keys())
    assert sum(costs) <= max(Decimal(0), power)
    assert all(cost <= min(Decimal(5000), equity * Decimal("0.05")) for cost in costs)
    assert not buys or len(holding) + len(buys) <= strategy.positions_max
    assert not {d.symbol for d in buys} & holding.keys()
    assert all(d.quantity == holding[d.symbol] for d in decisions if d.action is Action.SELL)
    for buy in buys:
        assert buy.stop_price is not None and buy.limit_price is not None and buy.target_price is not None
        assert buy.stop_price < buy.limit_price - Decimal("0.01")
        assert buy.target_price > buy.limit_price + Decimal("0.01")


def test_without_a_champion_the_fallback_decides_and_says_so() -> None:
    decider = choose_decider(None)

    assert (decider.name, decider.decide, decider.policy_digest) == ("fallback: no champion", decide, None)


def test_a_champion_that_cannot_be_served_is_named() -> None:
    decider = choose_decider(Approval("onepath-policy", 7, "ab" * 32))

    assert decider.name == "fallback: policy onepath-policy/7 cannot be served by this version"
    assert decider.decide is decide
