"""How an order becomes exactly one order: sent at least once, refused as a twin by the broker, outcome proven.

Reserved and committed, marked as being sent and committed, sent without a connection held, answered and committed.
A crash between two of these is found by the next run and resolved by looking the same id up at the broker.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection

from desk.adoption import adopt
from desk.controls import Verdict
from desk.errors import Ambiguous, Halt, Refused, Transient
from desk.ledger.alerts import raise_alert
from desk.ledger.engine import Ledger, xact_lock
from desk.ledger.orders import LedgerOrder, live_orders, move, order_of, orders_of_trade, record_order, record_verdicts
from desk.ledger.records import Severity, TradingState
from desk.ledger.trades import Trade
from desk.ledger.trading_state import current_state, set_state
from desk.orders import BrokerOrder, Leg, OrderState, Side
from desk.own_orders import closing_order, mismatch
from desk.ports import Broker, Waiter
from desk.reconcile import Books, Reconciler
from desk.strategy import Controls
from desk.tripping import trip, trip_on_rejects

__all__ = ["OrderDesk"]

_IN_FLIGHT = (OrderState.SENDING, OrderState.UNKNOWN)
_LOOKUPS = 3  # this often looked up and absent, over _ABSENT_S: it may be sent again
_LOOKUP_PAUSE_S = 30.0
_QUICK_LOOKUPS = 2
_QUICK_PAUSE_S = 1.0
_ABSENT_S = 60.0
_IN_FLIGHT_AT_MOST = timedelta(seconds=20)  # longer than connect and read timeouts: whoever was sending is gone
_CANCEL_POLLS_MAX = 30


class OrderDesk:
    """Sends, resolves, follows and closes orders of one account, one at a time: callers hold the stage's lock."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        broker: Broker,
        waiter: Waiter,
        account: str,
        reconciler: Reconciler,
        limits: Callable[[], Controls],
    ) -> None:
        self._ledger = ledger
        self._broker = broker
        self._waiter = waiter
        self._account = account
        self._reconciler = reconciler
        self._limits = limits
        self._absent: dict[str, list[datetime]] = {}  # when the broker said it has no such order

    def reconcile(self, now: datetime | None = None) -> Books:
        """Ledger and broker brought together. `now`: the broker's time, when it was read a moment ago."""
        return self._reconciler.reconcile(now or self._now())

    def reserve(self, order: LedgerOrder, verdicts: Collection[Verdict], *, reference: Decimal | None = None) -> bool:
        """Step 1: the intent and the controls' verdicts, committed before anything is sent.

        `reference`: the price in USD the order is made at, to tell later how far its fills slipped.
        Returns whether the order may be sent now: a denied one is recorded as denied, a known one is left to `resolve`.
        """
        with self._ledger.transaction() as connection:
            xact_lock(connection, f"orders:{self._account}")
            if order_of(connection, account=self._account, client_order_id=order.client_order_id) is not None:
                return False
            is_first = record_verdicts(
                connection,
                account=self._account,
                client_order_id=order.client_order_id,
                session=order.session,
                symbol=order.symbol,
                verdicts=verdicts,
            )
            if not is_first:
                return False  # a denial stands: judged again later, it would be another decision
            if not all(verdict.allowed for verdict in verdicts):
                trip(
                    connection,
                    account=self._account,
                    verdicts=verdicts,
                    session=order.session,
                    symbol=order.symbol,
                    at=order.created_at,
                )
                return False
            detail = {"reason": order.reason} | ({} if reference is None else {"reference": str(reference)})
            return record_order(connection, account=self._account, order=order, detail=detail)

    def send(self, order_id: str) -> None:
        """Steps 2 to 4 for a reserved order; nothing for one in any other state."""
        if self._begin_sending(order_id, only_from=(OrderState.RESERVED,)):
            self._post(order_id)

    def resolve(self, *, patient: bool) -> None:
        """Bring every order a crash or a lost answer left behind to a proven state.

        An order that three lookups over a minute did not find is sent again under the same id while its time has
        not passed; until then it stays as it is: absence in session never means rejected. `patient`: wait for those
        lookups here, up to a minute an order. Otherwise each call adds two, a second apart, and only orders that
        get us out or protect us are sent: an entry waits for its own stage.
        """
        with self._ledger.transaction() as connection:
            left = live_orders(connection, account=self._account)
        for order in left:
            if order.state is OrderState.RESERVED:
                if patient or order.leg is not Leg.ENTRY:
                    self.send(order.client_order_id)
            elif order.state in _IN_FLIGHT:
                self._resolve(order, patient)

    def settle(self, order_ids: Collection[str], *, within_s: float) -> Books:
        """Follow these orders until each is terminal or time is up, reconciling as they fill."""
        waited = 0.0
        while True:
            books = self.reconcile()
            under_way = [order for order in books.orders if order.client_order_id in order_ids]
            if not under_way or waited >= within_s:
                return books
            self._waiter.wait(1.0)
            waited += 1.0

    def cancel(self, orders: Collection[LedgerOrder]) -> Books:
        """Ask for the cancel of these orders and wait until the broker has ended them: a fill may still win."""
        wanted = {order.client_order_id for order in orders}
        now = self._now()
        with self._ledger.transaction() as connection:
            for order in orders:
                move(
                    connection,
                    account=self._account,
                    client_order_id=order.client_order_id,
                    to=OrderState.CANCELLING,
                    only_from=(OrderState.ACKED, OrderState.PARTIAL),
                    at=now,
                    detail={},
                )
        for order in orders:
            if order.broker_order_id is not None:
                self._broker.cancel(order.broker_order_id)
        return self.settle(wanted, within_s=_CANCEL_POLLS_MAX)

    def close(self, trade: Trade, reason: str, *, reference: Decimal | None = None) -> Decimal:
        """Close a trade by an order of our own: exit legs cancelled, position read again, exactly the rest sold.

        `reference`: the bid this is decided at.
        Returns the shares asked to be sold: 0 when a leg or another exit was faster. Raises Transient when the legs
        could not be ended in time: the next cycle tries again.
        """
        legs = [order for order in self._of(trade) if order.is_live and order.leg is not Leg.EXIT]
        books = self._released(trade, legs, "closing")
        if self._cancel_buys(books, trade):
            books = self.reconcile()
        rest = next((t for t in books.trades if _same(t, trade)), None)
        position = books.positions.get(trade.symbol)
        exits = [order for order in self._of(trade) if order.leg is Leg.EXIT]
        if rest is None or position is None or any(order.is_live for order in exits):
            return Decimal(0)
        quantity = min(rest.remaining, position.available)
        if quantity <= 0:
            return Decimal(0)
        self._send_new(self._made(trade, Leg.EXIT, len(exits), quantity, reason), reference)
        return quantity

    def _cancel_buys(self, books: Books, trade: Trade) -> bool:
        """Whoever sent a buy in this symbol: resting, it would have the broker refuse our sale as a wash trade."""
        buys = [
            order
            for order in books.broker_orders.values()
            if order.symbol == trade.symbol and order.side is Side.BUY and not order.status.is_terminal
        ]
        for order in buys:
            self._broker.cancel(order.broker_order_id)
        return bool(buys)

    def protect(self, trade: Trade) -> Decimal:
        """Give an unprotected trade a stop and a target at the broker: one OCO over all that is left of it.

        A target whose stop was lost holds the shares, so it is cancelled first. Returns the shares protected by this
        call: 0 when a stop is there or on its way, or the broker has none of them free. Raises Transient as `close`.
        """
        orders = self._of(trade)
        live = [order for order in orders if order.is_live]
        if any(order.leg is Leg.STOP or (order.leg is Leg.PROTECT and order.is_on_its_way) for order in live):
            return Decimal(0)
        generation = sum(order.leg is Leg.PROTECT for order in orders)
        holding = [order for order in live if order.leg in (Leg.TARGET, Leg.PROTECT)]
        books = self._released(trade, holding, "protecting")
        rest = next((t for t in books.trades if _same(t, trade)), None)
        position = books.positions.get(trade.symbol)
        if rest is None or position is None or min(rest.remaining, position.available) <= 0:
            return Decimal(0)
        quantity = min(rest.remaining, position.available)
        self._send_new(self._made(trade, Leg.PROTECT, generation, quantity, "protection"), None)
        return quantity

    def _released(self, trade: Trade, legs: Collection[LedgerOrder], doing: str) -> Books:
        """Cancel what holds the trade's shares, and read again. Raises Transient when it did not end in time."""
        books = self.cancel(legs) if legs else self.reconcile()
        still = {order.client_order_id for order in legs} & {order.client_order_id for order in books.orders}
        if still:
            raise Transient(f"{doing} {trade.symbol}: exit legs {sorted(still)} did not end in {_CANCEL_POLLS_MAX} s")
        return books

    def stand_down(self) -> list[str]:
        """Cancel every entry under way, whatever else happens; protective stops and exits stay. Returns the symbols.

        What of an entry has filled until then is a trade, and gets a stop of its own like any other.
        """
        with self._ledger.transaction() as connection:
            entries = [order for order in live_orders(connection, account=self._account) if order.leg is Leg.ENTRY]
        at_broker = [order for order in entries if order.broker_order_id is not None]
        if at_broker:  # one that is not proven to be there is cancelled once it is found; an unsent one is held back
            self.cancel(at_broker)
        return sorted({order.symbol for order in entries})

    # -- the pieces --

    def _now(self) -> datetime:
        return self._broker.clock().now

    def _of(self, trade: Trade) -> list[LedgerOrder]:
        with self._ledger.transaction() as connection:
            return orders_of_trade(
                connection,
                account=self._account,
                strategy=trade.strategy,
                session=trade.session,
                symbol=trade.symbol,
            )

    def _made(self, trade: Trade, leg: Leg, generation: int, quantity: Decimal, reason: str) -> LedgerOrder:
        return closing_order(self._account, trade, leg, generation, quantity, reason, self._now())

    def _send_new(self, order: LedgerOrder, reference: Decimal | None) -> None:
        if self.reserve(order, (), reference=reference):
            self.send(order.client_order_id)

    def _begin_sending(self, order_id: str, *, only_from: Collection[OrderState]) -> bool:
        """Step 2, compare-and-set. What may not be sent any more, and never was, lapses instead.

        That is an order whose time has passed, and an entry while trading is not active: a halt between its
        reservation and this moment holds it back, a repetition of it too. Nothing else is ever held back here.
        """
        now = self._now()
        with self._ledger.transaction() as connection:
            order = order_of(connection, account=self._account, client_order_id=order_id)
            if order is None:
                raise RuntimeError(f"order {order_id}: not in the ledger; reserve it first")
            why_not = self._held_back(connection, order, now)
            if why_not is not None:
                if order.state is OrderState.RESERVED:
                    move(
                        connection,
                        account=self._account,
                        client_order_id=order_id,
                        to=OrderState.LAPSED,
                        only_from=(OrderState.RESERVED,),
                        at=now,
                        detail={"never sent": why_not},
                    )
                return False
            return move(
                connection,
                account=self._account,
                client_order_id=order_id,
                to=OrderState.SENDING,
                only_from=only_from,
                at=now,
                detail={"attempt": order.attempt + 1},
                values={"attempt": order.attempt + 1, "sent_at": now},
            )

    def _held_back(self, connection: Connection, order: LedgerOrder, now: datetime) -> str | None:
        if now > order.not_after:
            return f"its time ended at {order.not_after.isoformat()}"
        if order.leg is not Leg.ENTRY:
            return None
        held = current_state(connection, account=self._account)
        return None if held.state is TradingState.ACTIVE else f"trading is {held.state.value}: {held.reason}"

    def _post(self, order_id: str) -> None:
        """Steps 3 and 4. Only a definitive refusal is a rejection; whatever else is not an answer is UNKNOWN."""
        with self._ledger.transaction() as connection:
            order = order_of(connection, account=self._account, client_order_id=order_id)
        if order is None:
            raise RuntimeError(f"order {order_id}: vanished from the ledger")
        try:
            answer = self._broker.submit(order.request)
        except Refused as refusal:
            self._note(order, OrderState.REJECTED, f"{refusal}")
        except (Ambiguous, Transient) as lost:
            self._note(order, OrderState.UNKNOWN, f"{lost}")
        except Halt as halt:
            self._note(order, OrderState.UNKNOWN, f"{halt}")
            raise
        else:
            self._adopt(order, answer)

    def _note(self, order: LedgerOrder, state: OrderState, why: str) -> None:
        now = self._now()
        with self._ledger.transaction() as connection:
            moved = move(
                connection,
                account=self._account,
                client_order_id=order.client_order_id,
                to=state,
                only_from=(OrderState.SENDING,),
                at=now,
                detail={"why": why},
            )
            if moved:
                raise_alert(
                    connection,
                    account=self._account,
                    severity=Severity.WARNING,
                    kind=f"order.{state.value}",
                    message=f"{order.side} {order.quantity:f} {order.symbol} ({order.reason}) is {state.value}: {why}",
                    at=now,
                    session=order.session,
                    symbol=order.symbol,
                )
                if state is OrderState.REJECTED:
                    trip_on_rejects(connection, account=self._account, limits=self._limits(), at=now)

    def _adopt(self, order: LedgerOrder, found: BrokerOrder) -> None:
        now = self._now()
        wrong = mismatch(order, found)
        with self._ledger.transaction() as connection:
            if wrong is None:
                adopt(connection, account=self._account, known=order, found=found, at=now)
                return
            move(
                connection,
                account=self._account,
                client_order_id=order.client_order_id,
                to=OrderState.QUARANTINED,
                at=now,
                detail={"mismatch": wrong},
                values={"broker_order_id": found.broker_order_id},
            )
            reason = f"order {order.client_order_id} for {order.symbol} differs at the broker: {wrong}"
            set_state(
                connection,
                account=self._account,
                state=TradingState.HALTED,
                reason=reason,
                by="order protocol",
                at=now,
            )
            raise_alert(
                connection,
                account=self._account,
                severity=Severity.CRITICAL,
                kind="order.quarantined",
                message=f"{reason}; trading is halted",
                at=now,
                session=order.session,
                symbol=order.symbol,
            )
        raise Halt(reason)

    def _resolve(self, order: LedgerOrder, patient: bool) -> None:
        now = self._now()
        is_fresh = order.sent_at is not None and now - order.sent_at < _IN_FLIGHT_AT_MOST
        if order.state is OrderState.SENDING and is_fresh and not patient:
            return  # somebody may be sending it this very moment
        if self._find(order, patient):
            return
        now = self._now()
        seen_absent = self._absent[order.client_order_id]
        is_absent = len(seen_absent) >= _LOOKUPS and (seen_absent[-1] - seen_absent[0]).total_seconds() >= _ABSENT_S
        may_send = is_absent and (patient or order.leg is not Leg.ENTRY)
        if may_send and self._begin_sending(order.client_order_id, only_from=_IN_FLIGHT):
            del self._absent[order.client_order_id]
            self._post(order.client_order_id)
        elif now > order.not_after and not self._broker.clock().is_open:
            self._lapse(order, now)

    def _find(self, order: LedgerOrder, patient: bool) -> bool:
        """Look the id up at the broker and adopt what is there; or note each time it was not."""
        pause_s = _LOOKUP_PAUSE_S if patient else _QUICK_PAUSE_S
        for lookup in range(_LOOKUPS if patient else _QUICK_LOOKUPS):
            if lookup:
                self._waiter.wait(pause_s)
            found = self._broker.order(order.client_order_id)
            if found is not None:
                self._absent.pop(order.client_order_id, None)
                self._adopt(order, found)
                return True
            self._absent.setdefault(order.client_order_id, []).append(self._now())
        return False

    def _lapse(self, order: LedgerOrder, now: datetime) -> None:
        """The session is over: an id the complete order list lacks never arrived."""
        listed = self._broker.orders(status="all", after=order.created_at - timedelta(minutes=1))
        if any(each.client_order_id == order.client_order_id for each in listed):
            return
        with self._ledger.transaction() as connection:
            move(
                connection,
                account=self._account,
                client_order_id=order.client_order_id,
                to=OrderState.LAPSED,
                only_from=_IN_FLIGHT,
                at=now,
                detail={"proof": f"absent among {len(listed)} orders after the session"},
            )


def _same(one: Trade, other: Trade) -> bool:
    return (one.strategy, one.session, one.symbol) == (other.strategy, other.session, other.symbol)
