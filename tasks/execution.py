"""Steps of execution: decisions become orders, each exactly once, followed until they end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal

from desk.controls import Exposure, judge_entry
from desk.decision import Action, Decision
from desk.errors import Halt
from desk.ledger.activity import activity
from desk.ledger.anchors import anchors_of
from desk.ledger.decisions import decision_set_of, decisions_of
from desk.ledger.orders import LedgerOrder, live_orders
from desk.ledger.records import DecisionSet, TradingState
from desk.ledger.runs import run_of
from desk.ledger.screenings import watchlist_of
from desk.ledger.trades import Trade, open_trades
from desk.ledger.trading_state import current_state
from desk.losses import opening_equity
from desk.market import Asset, Session
from desk.orders import Leg, OrderClass, OrderState, OrderType, Side, TimeInForce, client_order_id
from desk.portfolio import Account
from desk.reconcile import Books
from tasks.office import Office, office
from tasks.step import step

__all__ = ["bare_trades", "close_sold", "one_at_a_time", "overdue_entries", "recover", "send_entries", "settle_entries"]

_LOOK_S = 5.0
_PARTIAL_AT_MOST = timedelta(seconds=10)  # then an entry is cancelled, and what was filled gets an OCO of its own
_NOT_CANCELLABLE = (OrderState.UNKNOWN, OrderState.QUARANTINED, OrderState.CANCELLING)
_ENTRY_FILL_S = 30.0  # an entry that has not filled by then is cancelled, and what was filled gets its own OCO


@contextmanager
def one_at_a_time(what: str) -> Iterator[bool]:
    """Hold the stage's lock in the ledger, or learn that another run does: a killed process lets go by itself."""
    desk = office()
    with desk.ledger.try_lock(f"{what}:{desk.account}") as is_ours:
        yield is_ours


@step(retries=2, retry_delay_seconds=[5, 15])
def recover(_session: date) -> None:
    """Resolve what an earlier attempt left behind before anything new is sent."""
    orders = office().orders
    orders.resolve(patient=True)
    orders.reconcile()


@step(retries=2, retry_delay_seconds=[5, 15])
def close_sold(session: date) -> list[str]:
    """Close every trade this session decided to sell. Exits pass no control."""
    desk = office()
    decided, _ = _decided(desk, session)
    selling = {decision.symbol for decision in decided if decision.action is Action.SELL}
    with desk.ledger.transaction() as connection:
        trades = open_trades(connection, account=desk.account)
    closed = [trade for trade in trades if trade.symbol in selling and trade.session < session]
    for trade in closed:
        desk.orders.close(trade, "signal")
    return [trade.symbol for trade in closed]


@step(retries=2, retry_delay_seconds=[5, 15])
def send_entries(session: date) -> list[str]:
    """Reserve and send each decided buy that every control allows. Returns the ids sent or under way."""
    desk = office()
    decided, decision_set = _decided(desk, session)
    buys = [decision for decision in decided if decision.action is Action.BUY]
    if not buys or decision_set is None:
        return []
    with desk.ledger.transaction() as connection:
        expected = run_of(connection, account=desk.account, session=session, stage="trading")
        volumes = {
            row.symbol: row.volume_20d for row in watchlist_of(connection, account=desk.account, session=session)
        }
    not_after = expected.cutoff_at if expected is not None else decision_set.decided_at
    assets = {asset.symbol: asset for asset in desk.broker.assets()}
    day = desk.session_of(session)
    if day is None:
        raise Halt(f"entries of {session}: it is no session in the broker's calendar")
    sent = []
    for decision in buys:
        order = _entry(desk, session, decision_set, decision, not_after)
        _send(desk, order, decision_set, volumes.get(decision.symbol, 0), assets.get(decision.symbol), day)
        sent.append(order.client_order_id)
    return sent


@step(retries=2, retry_delay_seconds=[5, 15])
def settle_entries(session: date, sent: list[str], sold: list[str]) -> Mapping[str, object]:
    """Follow the session's orders to their end; cancel what did not fill in time, protect what did in part."""
    desk = office()
    with desk.ledger.transaction() as connection:
        is_halted = current_state(connection, account=desk.account).state is TradingState.HALTED
    if is_halted:
        desk.orders.stand_down()
    desk.orders.resolve(patient=True)  # a lost answer is looked up now, not left to the next run
    books = _follow(desk, _entries(desk, sent), within_s=0.0 if is_halted else _ENTRY_FILL_S)
    open_entries = [order for order in books.orders if order.leg is Leg.ENTRY and order.client_order_id in sent]
    if open_entries:
        books = desk.orders.cancel([order for order in open_entries if order.state is not OrderState.UNKNOWN])
    for trade in bare_trades(books):
        desk.orders.protect(trade)
    decided, decision_set = _decided(desk, session)
    with desk.ledger.transaction() as connection:
        trades = open_trades(connection, account=desk.account)
    return {
        "decider": None if decision_set is None else decision_set.decider,
        "decisions": {action.value: sum(decision.action is action for decision in decided) for action in Action},
        "bought": sorted(trade.symbol for trade in trades if trade.session == session),
        "sold": sold,
    }


def _follow(desk: Office, order_ids: list[str], *, within_s: float) -> Books:
    """Follow orders to their end. An entry that stays partly filled is not waited for: its shares need a stop."""
    waited = 0.0
    while True:
        slice_s = min(_LOOK_S, within_s - waited)
        books = desk.orders.settle(order_ids, within_s=slice_s)
        waited += slice_s
        overdue = overdue_entries(books, desk.broker.clock().now)
        if overdue:
            books = desk.orders.cancel(overdue)
            for trade in bare_trades(books):
                desk.orders.protect(trade)
        is_under_way = any(order.client_order_id in order_ids for order in books.orders)
        if not is_under_way or waited >= within_s:
            return books


def overdue_entries(books: Books, now: datetime) -> list[LedgerOrder]:
    """Entries at the broker that must not stay: partly filled for 10 s and more, or past the decision's cutoff.

    The broker puts a stop under a bracket only when it is filled completely, however long that takes.
    """
    filling = {(trade.strategy, trade.session, trade.symbol): trade.entered_at for trade in books.trades}
    overdue = []
    for order in books.orders:
        if order.leg is not Leg.ENTRY or order.broker_order_id is None or order.state in _NOT_CANCELLABLE:
            continue
        since = filling.get((order.strategy, order.session, order.symbol))
        is_stuck = order.filled_quantity > 0 and since is not None and now - since >= _PARTIAL_AT_MOST
        if is_stuck or now > order.not_after:
            overdue.append(order)
    return overdue


def bare_trades(books: Books) -> list[Trade]:
    """Trades whose shares have no live stop at the broker, and none on its way.

    An OCO of ours that the broker has is no stop: the leg under it is, as long as it lives.
    """
    covered = {
        order.symbol
        for order in books.orders
        if order.leg in (Leg.STOP, Leg.ENTRY, Leg.EXIT) or (order.leg is Leg.PROTECT and order.is_on_its_way)
    }
    return [trade for trade in books.trades if trade.symbol not in covered and trade.symbol in books.positions]


def _decided(desk: Office, session: date) -> tuple[list[Decision], DecisionSet | None]:
    with desk.ledger.transaction() as connection:
        decision_set = decision_set_of(connection, account=desk.account, session=session, strategy=desk.strategy.name)
        if decision_set is None:
            return [], None
        return (
            decisions_of(connection, account=desk.account, session=session, strategy=desk.strategy.name),
            decision_set,
        )


def _entries(desk: Office, sent: list[str]) -> list[str]:
    with desk.ledger.transaction() as connection:
        exits = [order for order in live_orders(connection, account=desk.account) if order.leg is Leg.EXIT]
    return sent + [order.client_order_id for order in exits]


def _send(
    desk: Office, order: LedgerOrder, decided: DecisionSet, volume_20d: int, asset: Asset | None, day: Session
) -> None:
    """Judge with what is true this moment, reserve, send."""
    account = desk.broker.account()
    exposure = _exposure(desk, account)
    quote = desk.market_data.quotes([order.symbol]).get(order.symbol)
    now = desk.broker.clock().now
    limits = desk.strategy.controls
    with desk.ledger.transaction() as connection:
        anchors = anchors_of(
            connection, account=desk.account, session=order.session, opening=opening_equity(account), at=now
        )
        done = activity(
            connection,
            account=desk.account,
            symbol=order.symbol,
            day=order.session,
            now=now,
            rejects_window=timedelta(minutes=limits.rejects_window_minutes),
            decided=decided,
            anchors=anchors,
        )
    verdicts = judge_entry(
        order.request,
        strategy=desk.strategy,
        exposure=exposure,
        activity=done,
        quote=quote,
        asset=asset,
        volume_20d=volume_20d,
        session=day,
        now=now,
        not_after=order.not_after,
    )
    if desk.orders.reserve(order, verdicts, reference=None if quote is None else quote.mid):
        desk.orders.send(order.client_order_id)


def _exposure(desk: Office, account: Account) -> Exposure:
    held = {p.symbol: abs(p.market_value or p.quantity * p.avg_entry_price) for p in desk.broker.positions()}
    with desk.ledger.transaction() as connection:
        state = current_state(connection, account=desk.account)
        trades = open_trades(connection, account=desk.account)
        live = live_orders(connection, account=desk.account)
    entries = [order for order in live if order.leg is Leg.ENTRY]
    unsent = [order for order in entries if order.is_on_its_way]
    return Exposure(
        equity=account.equity,
        buying_power=account.buying_power - _at_full_size(unsent),
        gross=_gross(held, entries),
        symbols=frozenset({trade.symbol for trade in trades} | {order.symbol for order in entries}),
        trading_state=state.state.value,
        selling=frozenset(order.symbol for order in live if order.side is Side.SELL),
        held=held,
    )


def _gross(held: Mapping[str, Decimal], entries: list[LedgerOrder]) -> Decimal:
    """USD held and under way. What of an entry has filled is held already: each symbol counts by the larger of both."""
    full = {order.symbol: _at_full_size([order]) for order in entries}
    return sum(
        (max(held.get(symbol, Decimal(0)), full.get(symbol, Decimal(0))) for symbol in held.keys() | full.keys()),
        Decimal(0),
    )


def _at_full_size(entries: list[LedgerOrder]) -> Decimal:
    """USD, whatever of them has filled: what is not proven to have ended may still be bought."""
    return sum((order.quantity * (order.limit_price or Decimal(0)) for order in entries), Decimal(0))


def _entry(
    desk: Office, session: date, decision_set: DecisionSet, decision: Decision, not_after: datetime
) -> LedgerOrder:
    now = desk.broker.clock().now
    return LedgerOrder(
        client_order_id=client_order_id(
            account=desk.account,
            strategy=decision_set.strategy,
            session=session,
            decision=decision.symbol,
            leg=Leg.ENTRY,
            generation=0,
        ),
        parent_client_order_id=None,
        session=session,
        strategy=decision_set.strategy,
        strategy_version=decision_set.strategy_version,
        symbol=decision.symbol,
        leg=Leg.ENTRY,
        generation=0,
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        order_class=OrderClass.BRACKET,
        time_in_force=TimeInForce.GTC,
        quantity=decision.quantity,
        limit_price=decision.limit_price,
        stop_price=None,
        take_profit_price=decision.target_price,
        stop_loss_price=decision.stop_price,
        reason="entry",
        state=OrderState.RESERVED,
        broker_order_id=None,
        filled_quantity=Decimal(0),
        filled_avg_price=None,
        attempt=0,
        not_after=not_after,
        created_at=now,
        sent_at=None,
        updated_at=now,
    )
