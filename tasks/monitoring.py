"""The position monitor's cycle. Its evidence row is written last; what could not be known is RED."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from desk.alerts import deliver
from desk.errors import OnepathError
from desk.exits import STOP_LOSS, TAKE_PROFIT, breached
from desk.ledger.alerts import raise_alert
from desk.ledger.monitor import last_cycle, record_cycle
from desk.ledger.records import Exit, MonitorCycle, Severity, TradingState, Verdict
from desk.ledger.trades import Trade, raise_high_water
from desk.ledger.trading_state import current_state
from desk.market import Quote
from desk.orders import Leg
from desk.reconcile import Books
from tasks.execution import bare_trades, overdue_entries
from tasks.office import Office, office
from tasks.shift import LEFT_TO, Shift
from tasks.step import step

__all__ = ["QUOTE_AGE_S_MAX", "watch_positions"]

QUOTE_AGE_S_MAX = 30.0  # an older quote is never used to decide
_PERIOD = timedelta(seconds=60)
# Which live leg at the broker is about to act on a breach by itself.
_COVERING = {STOP_LOSS: (Leg.STOP,), TAKE_PROFIT: (Leg.TARGET, Leg.PROTECT)}


@dataclass
class _Cycle:
    """What one cycle found, while it finds it."""

    at: datetime
    expected: int | None = None
    evaluated: int = 0
    position_hash: str | None = None
    oldest_quote_s: float | None = None
    stops: int = 0
    exits: list[Exit] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    marks: list[tuple[Trade, Decimal]] = field(default_factory=list)  # bids above all since the entry
    closed: int = 0
    failure: OnepathError | None = None  # the first that kept a position from its exit or its stop

    @contextmanager
    def apart(self, what: str) -> Iterator[None]:
        """What fails for one position, or among the orders, keeps no other position from being looked after."""
        try:
            yield
        except OnepathError as error:
            self.errors.append(f"{what}: {type(error).__name__}: {error}")
            self.failure = self.failure or error


@step(name="watch", retries=1, retry_delay_seconds=5)
def watch_positions(now: Shift) -> Mapping[str, object]:
    """One cycle over all open positions: one orders read, one positions read, one batched quote call.

    Writes a cycle row whatever happens, then raises what stopped it.
    """
    desk = office()
    with desk.ledger.try_lock(f"monitor:{desk.account}") as is_ours:
        if not is_ours:
            return {LEFT_TO: "another monitor, which is at work"}
        cycle = _Cycle(at=now.started_at)
        try:
            _look(desk, now, cycle)
        except OnepathError as error:
            cycle.errors.append(f"{type(error).__name__}: {error}")
            _write(desk, now, cycle)
            raise
        _write(desk, now, cycle)
        if cycle.failure is not None:
            raise cycle.failure
    return {"positions": cycle.expected, "exits": len(cycle.exits), "errors": len(cycle.errors)}


def _look(desk: Office, now: Shift, cycle: _Cycle) -> None:
    books = desk.orders.reconcile(cycle.at)
    if any(order.is_on_its_way for order in books.orders):
        with cycle.apart("orders"):
            desk.orders.resolve(patient=False)
        books = desk.orders.reconcile()
    overdue = overdue_entries(books, cycle.at)
    if overdue:  # whoever sent them is gone, or slow: their shares have no stop until they end
        with cycle.apart("entries"):
            books = desk.orders.cancel(overdue)
    cycle.expected = len(books.positions)
    cycle.position_hash = _hash(books)
    cycle.errors += books.differences
    if books.trades:
        _watch(desk, now, books, cycle)
    with cycle.apart("limits"):
        _see_to_limits(desk, now, books, cycle)


def _watch(desk: Office, now: Shift, books: Books, cycle: _Cycle) -> None:
    quotes = desk.market_data.quotes([trade.symbol for trade in books.trades])
    for trade in books.trades:
        quote = quotes.get(trade.symbol)
        reason = _unusable(trade, quote, cycle)
        if quote is None or reason is not None:
            cycle.errors.append(f"{trade.symbol}: {reason}")
            continue
        cycle.evaluated += 1
        if quote.bid > trade.high_water_price:
            cycle.marks.append((trade, quote.bid))
        strategy = desk.strategy_of(trade.strategy_version)
        breach = breached(trade, quote.bid, strategy=strategy, session=now.open_session, now=cycle.at)
        if breach is not None:
            with cycle.apart(trade.symbol):
                _act_on(desk, books, trade, quote.bid, breach, cycle)
    _see_to_cover(desk, books, cycle)


def _unusable(trade: Trade, quote: Quote | None, cycle: _Cycle) -> str | None:
    if quote is None:
        return "no quote"
    age = quote.age_s(cycle.at)
    cycle.oldest_quote_s = max(age, cycle.oldest_quote_s or 0.0)
    return quote.unusable(cycle.at, age_s_max=QUOTE_AGE_S_MAX)


def _act_on(desk: Office, books: Books, trade: Trade, bid: Decimal, breach: str, cycle: _Cycle) -> None:
    """Close it, unless a live leg at the broker is just about to: that one gets a minute."""
    is_covered = any(order.symbol == trade.symbol and order.leg in _COVERING.get(breach, ()) for order in books.orders)
    if is_covered and not _seen_before(desk, trade, breach):
        cycle.exits.append(Exit(trade.symbol, f"{breach}, left to the broker's leg"))
        return
    sold = desk.orders.close(trade, breach, reference=bid)
    cycle.exits.append(Exit(trade.symbol, breach if sold else f"{breach}, already closing"))
    cycle.closed += 1


def _seen_before(desk: Office, trade: Trade, breach: str) -> bool:
    """Whether the last cycle left this same breach to the broker, in vain."""
    with desk.ledger.transaction() as connection:
        last = last_cycle(connection, account=desk.account)
    return last is not None and any(
        gone.symbol == trade.symbol and gone.reason.startswith(breach) for gone in last.exits
    )


def _see_to_cover(desk: Office, books: Books, cycle: _Cycle) -> None:
    """Count the stops the broker shows, and give a stop to what has none."""
    if cycle.closed:
        with cycle.apart("orders"):
            desk.orders.resolve(patient=False)  # an exit whose answer was lost: the first looks for it are now
        books = desk.orders.reconcile()
        cycle.position_hash = _hash(books)
        cycle.evaluated -= max(0, (cycle.expected or 0) - len(books.positions))
        cycle.expected = len(books.positions)
    bare = bare_trades(books)
    cycle.stops = len(books.positions) - len(bare)
    for trade in bare:
        with cycle.apart(trade.symbol):
            sent = desk.orders.protect(trade)
            done = "one was sent" if sent else "its shares are not free for one"
            cycle.errors.append(f"{trade.symbol}: no live stop at the broker; {done}")


def _see_to_limits(desk: Office, now: Shift, books: Books, cycle: _Cycle) -> None:
    """The limits on losses; and no entry stays under way while trading is halted, whoever halted it."""
    desk.losses.look(books.positions, session=now.day, limits=desk.strategy.controls, now=cycle.at)
    if not any(order.leg is Leg.ENTRY for order in books.orders):
        return
    with desk.ledger.transaction() as connection:
        held = current_state(connection, account=desk.account)
    if held.state is TradingState.HALTED:
        desk.orders.stand_down()


def _hash(books: Books) -> str:
    held = ";".join(f"{symbol}={position.quantity:f}" for symbol, position in sorted(books.positions.items()))
    return hashlib.sha256(held.encode()).hexdigest()


def _write(desk: Office, now: Shift, cycle: _Cycle) -> None:
    """The evidence, and an alert for each error the cycle before did not have."""
    is_ok = not cycle.errors and cycle.expected is not None and cycle.evaluated == cycle.expected
    is_one_row = not cycle.errors and not cycle.marks
    with desk.ledger.at_once(writes=True) if is_one_row else desk.ledger.transaction() as connection:
        if cycle.marks:
            raise_high_water(connection, account=desk.account, marks=cycle.marks, at=cycle.at)
        if cycle.errors:
            last = last_cycle(connection, account=desk.account)
            known = set(last.errors) if last is not None else set()
            for error in cycle.errors:
                if error not in known:
                    raise_alert(
                        connection,
                        account=desk.account,
                        severity=Severity.CRITICAL,
                        kind="monitor.red",
                        message=error,
                        at=cycle.at,
                        session=now.day,
                        stage=now.stage,
                        symbol=error.split(":")[0] if error.split(":")[0].isupper() else None,
                    )
        record_cycle(
            connection,
            account=desk.account,
            cycle=MonitorCycle(
                cycle_at=cycle.at,
                session=now.day,
                verdict=Verdict.OK if is_ok else Verdict.RED,
                positions_expected=cycle.expected,
                positions_evaluated=cycle.evaluated,
                position_hash=cycle.position_hash,
                quote_age_max_s=cycle.oldest_quote_s,
                stops_verified=cycle.stops,
                exits=tuple(cycle.exits),
                errors=tuple(cycle.errors),
                next_due_at=cycle.at + _PERIOD,
            ),
        )
    if cycle.errors:
        deliver(desk.ledger, account=desk.account, channels=desk.channels)
