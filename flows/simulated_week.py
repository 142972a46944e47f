"""The scheduler of the simulation: stages and mishaps in order of virtual time, on one thread.

Whoever waits for the broker lets others have their turn, as processes do: the monitor's minute comes while trading
follows its orders, in an office of its own. A stage that fails is run again after a minute, twice at most: that stands
for the retries that steps have in Prefect.

The monitor runs each minute in the first twenty of a session, each minute of the quarter of an hour in which the books
come to rest, and each half hour otherwise: a quiet minute shows nothing that a later one does not.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from desk.broker.alpaca import AlpacaBroker
from desk.errors import BadInput, OnepathError
from desk.exchange.exchange import Exchange
from desk.exchange.routing import ApiError
from desk.market import Session, at_new_york
from desk.orders import OUR_PREFIX, BrokerOrder, OrderRequest, Side
from flows.close_of_day import close_of_day
from flows.position_monitor import position_monitor
from flows.premarket_screening import premarket_screening
from flows.simulated_books import LedgerView
from flows.simulated_faults import Mishap
from flows.simulated_proof import Violation
from flows.trading import trading
from tasks.office import Office, in_office

__all__ = ["MONITOR", "Clerk", "Turns", "Week", "Witness"]

MONITOR = "position-monitor"
_STAGES: Mapping[str, Callable[[], object]] = {
    stage.name: stage for stage in (premarket_screening, trading, position_monitor, close_of_day)
}
_MINUTE = timedelta(minutes=1)
_BUSY_MINUTES, _QUIET_MINUTES, _CALM_MINUTES = 20, 30, 15
_RETRIES = 2
_DEPTH_MAX = 2  # a stage that waits inside a stage that waits
_POSITIONS_PCT = Decimal("1.02")  # prices move between a control's look and ours


@dataclass(order=True)
class Due:
    at: datetime
    place: int
    name: str = field(compare=False)
    attempt: int = field(compare=False, default=0)
    mishap: Mishap | None = field(compare=False, default=None)


class Witness:
    """The real adapter, watched: what is proven at the moment an order leaves."""

    def __init__(self, broker: AlpacaBroker, exchange: Exchange, view: LedgerView, found: list[Violation]) -> None:
        self._broker, self._exchange, self._view, self._found = broker, exchange, view, found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def submit(self, request: OrderRequest) -> BrokerOrder:
        row = self._view.order(request.client_order_id)
        if row is None or row.state != "sending":
            state = "unwritten" if row is None else row.state
            self._found.append(
                Violation(2, f"{request.side} {request.quantity:f} {request.symbol} leaves while its intent is {state}")
            )
        if request.side is Side.BUY:
            self._found += self._over_a_limit(request)
        return self._broker.submit(request)

    def _over_a_limit(self, request: OrderRequest) -> list[Violation]:
        """Invariant 5, reckoned anew: trading state, order value, and gross exposure with all that may still fill."""
        found = []
        if (state := self._view.trading_state()) != "ACTIVE":
            found.append(Violation(5, f"buy of {request.symbol} while trading is {state}"))
        value = request.quantity * (request.limit_price or Decimal(0))
        if value > 5000:
            found.append(Violation(5, f"buy of {request.symbol} for {value} USD, at most 5000 is allowed"))
        exchange = self._exchange
        there = [order for order in exchange.floor.register.orders if order.buy and order.is_open]
        known = {order.client_order_id for order in exchange.floor.register.orders}
        lost = [
            row
            for row in self._view.unsettled_entries()
            if row.client_order_id not in known | {request.client_order_id}
        ]
        open_usd = sum((order.remaining * (order.limit_price or Decimal(0)) for order in there), Decimal(0))
        lost_usd = sum((row.quantity * (row.limit_price or Decimal(0)) for row in lost), Decimal(0))
        gross = exchange.values()[0] + open_usd + lost_usd + value
        if gross > exchange.equity() * _POSITIONS_PCT:
            found.append(Violation(5, f"buy of {request.symbol} makes the exposure {gross:.0f} USD"))
        return found


class Clerk:
    """What is written down: the story of the week, line by line, and what was violated."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.lines: list[tuple[datetime, str]] = []
        self.fired: dict[str, int] = {}

    def tell(self, sentence: str) -> None:
        self.lines.append((self._exchange.now, sentence))

    def count(self, family: str, times: int) -> None:
        if times:
            self.fired[family] = self.fired.get(family, 0) + times


class Turns:
    """How a stage waits: whatever is due meanwhile has its turn, then the clock is where it was asked to be."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.others: Callable[[datetime], None] | None = None

    def wait(self, seconds: float) -> None:
        until = self._exchange.now + timedelta(seconds=seconds)
        if self.others is not None:
            self.others(until)
        if self._exchange.now < until:
            self._exchange.set_clock(until)


class Week:
    """`office` is that of the stages, `second` that of the monitor and of a stage that runs while another waits."""

    def __init__(
        self, exchange: Exchange, office: Office, second: Office, clerk: Clerk, violations: list[Violation]
    ) -> None:
        self._exchange, self._office, self._second = exchange, office, second
        self._clerk, self.violations = clerk, violations
        self._queue: list[Due] = []
        self._count = 0
        self._depth = 0
        self._armed: list[tuple[Mishap, int]] = []

    # -- planning --

    def plan(self, session: Session, mishaps: Sequence[Mishap], *, calm_from: datetime | None = None) -> None:
        """A session's stages and what goes wrong with them. From `calm_from` on the monitor runs each minute for a
        quarter of an hour."""
        due = [
            Due(at_new_york(session.day, "04:00"), 0, premarket_screening.name),
            Due(session.opens + 10 * _MINUTE, 1, trading.name),
            Due(session.closes + 15 * _MINUTE, 2, close_of_day.name),
        ]
        length = int((session.closes - session.opens) / _MINUTE)
        calm = range(0) if calm_from is None else range(*_minutes(session, calm_from))
        due += [
            Due(session.opens + minute * _MINUTE, 3, MONITOR)
            for minute in range(length)
            if minute < _BUSY_MINUTES or minute % _QUIET_MINUTES == 0 or minute in calm
        ]
        for mishap in mishaps:
            if mishap.script is None:
                due = _disturbed(due, mishap)
            self._push(mishap.at, mishap.name, mishap=mishap)
        for each in due:
            self._push(each.at, each.name)

    def _push(self, at: datetime, name: str, *, attempt: int = 0, mishap: Mishap | None = None) -> None:
        self._count += 1
        heapq.heappush(self._queue, Due(at, self._count, name, attempt, mishap))

    # -- running --

    def run(self, until: datetime) -> None:
        """Everything due up to and at that time; then the clock is there."""
        while self._queue and self._queue[0].at <= until:
            self._do(heapq.heappop(self._queue))
        if self._exchange.now < until:
            self._exchange.set_clock(until)

    def others(self, until: datetime) -> None:
        """The turns of others while the stage at work waits."""
        if self._depth >= _DEPTH_MAX:
            return
        while self._queue and self._queue[0].at <= until:
            self._do(heapq.heappop(self._queue))

    def end_faults(self) -> None:
        """Nothing goes wrong any more; what has happened stays happened."""
        self._count_fired()
        self._exchange.disarm()
        self._armed.clear()
        self._queue = [due for due in self._queue if due.mishap is None]
        heapq.heapify(self._queue)
        self._clerk.tell("faults ended")

    def _count_fired(self) -> None:
        fired = {one.number: one.fired for one in self._exchange.faults.armed}
        for mishap, number in self._armed:
            self._clerk.count(mishap.family, fired.get(number, 0))

    def _do(self, due: Due) -> None:
        if self._exchange.now < due.at:
            self._exchange.set_clock(due.at)
        if due.mishap is not None:
            self._happen(due.mishap)
        else:
            self._work(due)

    def _work(self, due: Due) -> None:
        nested = self._depth > 0 or due.name == MONITOR
        self._depth += 1
        try:
            with in_office(self._second if nested else self._office):
                outcome = _STAGES[due.name]()
        except OnepathError as error:
            self._clerk.tell(f"{due.name} failed: {type(error).__name__}: {error}")
            if due.attempt < _RETRIES and due.name != MONITOR:
                self._push(self._exchange.now + _MINUTE, due.name, attempt=due.attempt + 1)
        except Exception as error:  # noqa: BLE001 - nobody meant it to be raised: that is what is looked for
            held = "database connection is checked out" in str(error)
            self.violations.append(Violation(9 if held else 0, f"{due.name}: {type(error).__name__}: {error}"))
            self._clerk.tell(f"{due.name} broke: {type(error).__name__}: {error}")
        else:
            told = outcome if isinstance(outcome, Mapping) else {}
            quiet = due.name == MONITOR and not told.get("exits") and not told.get("errors")
            if not quiet:
                self._clerk.tell(f"{due.name}: " + ", ".join(f"{name} {told[name]}" for name in told if name in _TOLD))
        finally:
            self._depth -= 1

    # -- mishaps --

    def _happen(self, mishap: Mishap) -> None:
        self._clerk.tell(f"{mishap.family}: {mishap.name} {dict(mishap.choices)}")
        if mishap.script is not None:
            self._arm(mishap)
            return
        deed = _DEEDS.get(mishap.name)
        if deed is None or deed(self._exchange, mishap, self._clerk):  # without one: the plan was disturbed already
            self._clerk.count(mishap.family, 1)

    def _arm(self, mishap: Mishap) -> None:
        assert mishap.script is not None
        script = dict(mishap.script)
        if "until" in script and datetime.fromisoformat(script["until"]) <= self._exchange.now:
            return  # its time passed while everybody slept
        (armed,) = self._exchange.arm(script)
        self._armed.append((mishap, armed.number))


_TOLD = ("skipped", "ran", "decisions", "bought", "sold", "exits", "errors", "differences", "positions")


def _minutes(session: Session, calm_from: datetime) -> tuple[int, int]:
    first = int((calm_from - session.opens) / _MINUTE) + 1
    return first, first + _CALM_MINUTES


def _disturbed(due: list[Due], mishap: Mishap) -> list[Due]:
    """The day's plan after a deed of the scheduler. The monitor is disturbed from that moment on."""
    later = [each for each in due if each.at >= mishap.until]
    due = [each for each in due if each.at < mishap.until]
    return [*_shifted(due, mishap), *later]


def _shifted(due: list[Due], mishap: Mishap) -> list[Due]:
    chosen, at = mishap.choices, mishap.at
    if mishap.name == "sleep":
        awake = min(at + timedelta(hours=chosen["hours"]), mishap.until)
        slept = [each for each in due if at <= each.at < awake]
        late = {each.name: replace(each, at=awake) for each in slept}  # of the monitor's missed minutes, one is made up
        return [each for each in due if not at <= each.at < awake] + list(late.values())
    if mishap.name not in ("late", "doubled", "skipped", "rerun"):
        return due
    hit = [each for each in due if each.name == chosen["stage"] and (each.name != MONITOR or each.at >= at)]
    if not hit:
        return due
    if mishap.name == "rerun":
        return [*due, replace(hit[0], at=max(at, hit[0].at))]
    if mishap.name == "doubled":
        return [*due, replace(hit[0], at=hit[0].at + timedelta(seconds=chosen["seconds"]))]
    window = at + timedelta(minutes=chosen["minutes"])
    struck = [each for each in hit if each.name != MONITOR or each.at < window]
    kept = [each for each in due if all(each is not one for one in struck)]
    if mishap.name == "skipped" or not struck:
        return kept
    return [*kept, replace(struck[0], at=struck[0].at + timedelta(minutes=chosen["minutes"]))]


# -- what a person does at the broker's own screen ------------------------------------------------


def _manual_cancel(exchange: Exchange, _mishap: Mishap, clerk: Clerk) -> bool:
    """Of the oldest of our open orders."""
    mine = [o for o in exchange.floor.register.open_in_order() if o.client_order_id.startswith(OUR_PREFIX)]
    return bool(mine) and _by_hand(clerk, lambda: exchange.cancel(mine[0]))


def _manual_sale(exchange: Exchange, mishap: Mishap, clerk: Clerk) -> bool:
    """All or half of the first position, after its exits were cancelled."""
    holding = next((exchange.account.holdings[name] for name in sorted(exchange.account.holdings)), None)
    if holding is None or holding.qty < 1:
        return False
    share = Decimal(str(mishap.choices.get("share", 1)))
    quantity = max(Decimal(1), (holding.qty * share).to_integral_value())
    _cancel_all_of(exchange, holding.symbol, clerk)
    body = {"symbol": holding.symbol, "qty": min(quantity, holding.qty), "side": "sell", "type": "market",
            "time_in_force": "day"}  # fmt: skip
    return _by_hand(clerk, lambda: exchange.submit(body))


def _manual_buy(exchange: Exchange, mishap: Mishap, clerk: Clerk) -> bool:
    """Of the first symbol nobody holds or has an order in. While it is held, the books differ and nothing is bought:
    it is sold again after an hour, or nothing else would happen in that week."""
    busy = {*exchange.account.holdings, *(order.symbol for order in exchange.floor.register.open_orders())}
    free = sorted({listing.symbol for listing in exchange.market.listings()} - busy)
    if not free or not exchange.is_open:
        return False
    order = {"symbol": free[0], "qty": Decimal(mishap.choices["qty"]), "type": "market", "time_in_force": "day"}
    exchange.at(exchange.now_s + 3600, lambda: _by_hand(clerk, lambda: exchange.submit({**order, "side": "sell"})))
    return _by_hand(clerk, lambda: exchange.submit({**order, "side": "buy"}))


def _cancel_all_of(exchange: Exchange, symbol: str, clerk: Clerk) -> None:
    for order in exchange.floor.register.open_orders(symbol):
        if order.is_open and order.parent is None:
            _by_hand(clerk, lambda order=order: exchange.cancel(order))  # type: ignore[misc]
    for order in exchange.floor.register.open_orders(symbol):
        if order.is_open:
            _by_hand(clerk, lambda order=order: exchange.cancel(order))  # type: ignore[misc]


def _by_hand(clerk: Clerk, act: Callable[[], object]) -> bool:
    try:
        act()
    except (ApiError, BadInput) as refusal:
        clerk.tell(f"by hand: refused, {refusal}")
        return False
    return True


_DEEDS: Mapping[str, Callable[[Exchange, Mishap, Clerk], bool]] = {
    "manual_buy": _manual_buy,
    "manual_cancel": _manual_cancel,
    "manual_sale": _manual_sale,
}
