"""Steps of decisioning: watchlist, positions and cash in, one decision per symbol out, written before any order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from desk.decision import Decision
from desk.errors import Halt
from desk.ledger.alerts import raise_alert
from desk.ledger.approvals import champion
from desk.ledger.decisions import decision_set_of, record_decisions
from desk.ledger.orders import live_orders
from desk.ledger.records import DecisionSet, Severity
from desk.ledger.runs import run_of
from desk.ledger.screenings import screening_of
from desk.ledger.trades import Trade, open_trades
from desk.market import Quote
from desk.orders import Leg
from desk.portfolio import Account, Position
from desk.screening import Screening
from expectations.decisions import frame as decisions_frame
from models.deciding import Decider, choose_decider
from tasks.gates import gate
from tasks.office import office
from tasks.shift import Shift
from tasks.step import step

__all__ = ["Inputs", "decide", "read_inputs", "write_decisions"]


@dataclass(frozen=True, slots=True)
class Inputs:
    """All a decider may look at, read once."""

    session: date
    now: datetime
    screening: Screening
    account: Account
    positions: tuple[Position, ...]
    trades: tuple[Trade, ...]
    pending: frozenset[str]  # symbols with an entry under way
    quotes: Mapping[str, Quote]
    decider: Decider

    @property
    def digest(self) -> str:
        """sha256 over everything above but the decider: same inputs, same digest."""
        desk = office()
        seen = {
            "session": self.session.isoformat(),
            "data": self.screening.data_hash,
            "scores": [[row.symbol, row.buy_probability, row.sell_probability] for row in self.screening.rows],
            "equity": str(self.account.equity),
            "buying_power": str(self.account.buying_power),
            "positions": [[p.symbol, str(p.quantity)] for p in self.positions],
            "pending": sorted(self.pending),
            "quotes": [[q.symbol, str(q.bid), str(q.ask), q.at.isoformat()] for _, q in sorted(self.quotes.items())],
            "strategy": [desk.strategy.name, desk.strategy_version],
        }
        return hashlib.sha256(json.dumps(seen, separators=(",", ":")).encode()).hexdigest()


@step(retries=3, retry_delay_seconds=[1, 4, 15])
def read_inputs(session: date) -> Inputs | None:
    """What the decision rests on; None when this session's decisions stand already, or it is too late to decide.

    Raises Halt when there is no watchlist of this session, or ledger and broker disagree.
    """
    desk = office()
    now = desk.broker.clock().now
    with desk.ledger.transaction() as connection:
        decided = decision_set_of(connection, account=desk.account, session=session, strategy=desk.strategy.name)
        screened = screening_of(connection, account=desk.account, session=session)
        expected = run_of(connection, account=desk.account, session=session, stage="trading")
        approval = champion(connection, account=desk.account, model="onepath-policy")
    if decided is not None:
        return None
    if screened is None:
        raise Halt(f"trading of {session}: there is no watchlist of this session; run premarket-screening first")
    if expected is not None and now > expected.cutoff_at:
        raise Halt(
            f"trading of {session}: {now:%H:%M} UTC is after the cutoff {expected.cutoff_at:%H:%M} UTC; "
            "a decision past its cutoff never trades"
        )
    books = desk.orders.reconcile()
    if books.differences:
        raise Halt(
            f"trading of {session}: ledger and broker differ ({'; '.join(books.differences)}); nothing is bought"
        )
    with desk.ledger.transaction() as connection:
        trades = open_trades(connection, account=desk.account)
        live = live_orders(connection, account=desk.account)
    rows = screened.screening.rows
    symbols = sorted({row.symbol for row in rows} | books.positions.keys())
    return Inputs(
        session=session,
        now=desk.broker.clock().now,
        screening=screened.screening,
        account=desk.broker.account(),
        positions=tuple(books.positions.values()),
        trades=tuple(trades),
        pending=frozenset(order.symbol for order in live if order.leg is Leg.ENTRY),
        quotes=desk.market_data.quotes(symbols),
        decider=choose_decider(approval),
    )


@step
def decide(inputs: Inputs) -> list[Decision]:
    """Ask the champion policy or, when it is unavailable for a named reason, the fallback rule."""
    strategy = office().strategy
    return inputs.decider.decide(
        inputs.screening.rows,
        inputs.positions,
        equity=inputs.account.equity,
        buying_power=inputs.account.buying_power,
        quotes=inputs.quotes,
        now=inputs.now,
        strategy=strategy,
        open_trades=[trade.symbol for trade in inputs.trades],
        pending=inputs.pending,
    )


@step
def write_decisions(inputs: Inputs, decided: Sequence[Decision]) -> None:
    """Gate, then commit all decisions of the session at once. The first set stands."""
    desk = office()
    today = Shift(stage="trading", day=inputs.session, started_at=inputs.now)
    passed = gate(
        today,
        "decisions",
        decisions_frame(
            decided,
            holdings={position.symbol: position.quantity for position in inputs.positions},
            equity=inputs.account.equity,
            buying_power=inputs.account.buying_power,
            controls=desk.strategy.controls,
        ),
    )
    with desk.ledger.transaction() as connection:
        record_decisions(
            connection,
            account=desk.account,
            decision_set=DecisionSet(
                session=inputs.session,
                strategy=desk.strategy.name,
                strategy_version=desk.strategy_version,
                decider=inputs.decider.name,
                policy_digest=inputs.decider.policy_digest,
                input_hash=inputs.digest,
                equity=inputs.account.equity,
                buying_power=inputs.account.buying_power,
                decided_at=inputs.now,
                gate_hash=passed.data_hash,
            ),
            decided=decided,
        )
        if inputs.decider.policy_digest is None:
            raise_alert(
                connection,
                account=desk.account,
                severity=Severity.INFO if inputs.decider.name.endswith("no champion") else Severity.WARNING,
                kind="decider.fallback",
                message=f"decisions of {inputs.session} by {inputs.decider.name}",
                at=inputs.now,
                session=inputs.session,
                stage="trading",
            )
