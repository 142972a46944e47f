"""Trades: one per entry to exit, grown from fills, each fill applied exactly once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import ColumnElement, Connection, Row, bindparam, select, text, update
from sqlalchemy.dialects.postgresql import insert

from desk.ledger.tables import adjustments, decisions, trades
from desk.ledger.writing import insert_first
from desk.orders import Side
from desk.portfolio import Adjustment, Fill

__all__ = [
    "Trade",
    "all_trades",
    "apply_adjustment",
    "apply_fill",
    "open_trades",
    "raise_high_water",
    "trades_closed_in",
]

_t = trades.c


@dataclass(frozen=True, slots=True)
class Trade:
    """Prices in USD per share as the shares are today: a split changes them with the quantity."""

    strategy: str
    session: date  # of the entry decision
    symbol: str
    strategy_version: int
    entry_client_order_id: str
    quantity: Decimal  # bought
    entry_price: Decimal
    entered_at: datetime
    stop_price: Decimal
    target_price: Decimal
    high_water_price: Decimal
    hold_until: date
    status: str
    quantity_closed: Decimal
    exit_price: Decimal | None
    exited_at: datetime | None
    close_reason: str | None
    profit: Decimal | None

    @property
    def remaining(self) -> Decimal:
        return self.quantity - self.quantity_closed


def open_trades(connection: Connection, *, account: str) -> list[Trade]:
    """By symbol."""
    return [_trade(row) for row in connection.execute(_OPEN, {"account": account})]


_OPEN = select(trades).where(_t.account == bindparam("account"), _t.status == "open").order_by(_t.symbol, _t.session)


def all_trades(connection: Connection, *, account: str) -> list[Trade]:
    """Every trade there ever was, open or closed, oldest first."""
    rows = connection.execute(select(trades).where(_t.account == account).order_by(_t.entered_at, _t.symbol))
    return [_trade(row) for row in rows]


def trades_closed_in(connection: Connection, *, account: str, start: datetime, end: datetime) -> list[Trade]:
    rows = connection.execute(
        select(trades)
        .where(_t.account == account, _t.status == "closed", _t.exited_at >= start, _t.exited_at < end)
        .order_by(_t.exited_at, _t.symbol)
    )
    return [_trade(row) for row in rows]


def apply_fill(
    connection: Connection,
    *,
    account: str,
    strategy: str,
    strategy_version: int,
    session: date,
    entry_client_order_id: str,
    hold_until: date,
    fill: Fill,
    reason: str,
    at: datetime,
) -> None:
    """Grow the trade of this decision by one fill that `record_fill` just found to be new.

    A buy opens or enlarges the trade, a sell closes as many shares as it sold; the trade is closed when none is left.
    Raises RuntimeError for a sell without a trade: a fill of ours whose entry the ledger does not know.
    """
    key = (_t.account == account) & (_t.strategy == strategy) & (_t.session == session) & (_t.symbol == fill.symbol)
    row = connection.execute(select(trades).where(key).with_for_update()).one_or_none()
    trade = None if row is None else _trade(row)
    if fill.side is Side.BUY:
        _enter(
            connection,
            key,
            trade,
            account,
            strategy,
            strategy_version,
            session,
            entry_client_order_id,
            hold_until,
            fill,
            at,
        )
    elif trade is None:
        raise RuntimeError(f"fill {fill.activity_id}: sold {fill.symbol} of {session} without a trade in the ledger")
    else:
        _leave(connection, key, trade, fill, reason, at)


def _enter(
    connection: Connection,
    key: ColumnElement[bool],
    trade: Trade | None,
    account: str,
    strategy: str,
    strategy_version: int,
    session: date,
    entry_client_order_id: str,
    hold_until: date,
    fill: Fill,
    at: datetime,
) -> None:
    if trade is not None:
        quantity = trade.quantity + fill.quantity
        price = (trade.quantity * trade.entry_price + fill.quantity * fill.price) / quantity
        connection.execute(update(trades).where(key).values(quantity=quantity, entry_price=price, updated_at=at))
        return
    planned = connection.execute(
        select(decisions.c.stop_price, decisions.c.target_price).where(
            decisions.c.account == account,
            decisions.c.session == session,
            decisions.c.strategy == strategy,
            decisions.c.symbol == fill.symbol,
        )
    ).one()
    connection.execute(
        insert(trades).values(
            account=account,
            strategy=strategy,
            session=session,
            symbol=fill.symbol,
            strategy_version=strategy_version,
            entry_client_order_id=entry_client_order_id,
            quantity=fill.quantity,
            entry_price=fill.price,
            entered_at=fill.at,
            stop_price=planned.stop_price,
            target_price=planned.target_price,
            high_water_price=fill.price,
            hold_until=hold_until,
            status="open",
            quantity_closed=Decimal(0),
            updated_at=at,
        )
    )


def _leave(
    connection: Connection, key: ColumnElement[bool], trade: Trade, fill: Fill, reason: str, at: datetime
) -> None:
    before = trade.quantity_closed
    closed = before + fill.quantity
    price = (
        fill.price if trade.exit_price is None else (before * trade.exit_price + fill.quantity * fill.price) / closed
    )
    profit = (trade.profit or Decimal(0)) + fill.quantity * (fill.price - trade.entry_price)
    values: dict[str, object] = {"quantity_closed": closed, "exit_price": price, "profit": profit, "updated_at": at}
    if closed == trade.quantity:
        values |= {"status": "closed", "exited_at": fill.at, "close_reason": reason}
    connection.execute(update(trades).where(key).values(values))


def raise_high_water(
    connection: Connection, *, account: str, marks: Iterable[tuple[Trade, Decimal]], at: datetime
) -> None:
    """Remember the highest bid seen since entry. It never falls."""
    raised = list(marks)
    connection.execute(
        _RAISE,
        {
            "account": account,
            "at": at,
            "strategies": [trade.strategy for trade, _ in raised],
            "sessions": [trade.session for trade, _ in raised],
            "symbols": [trade.symbol for trade, _ in raised],
            "bids": [bid for _, bid in raised],
        },
    )


_RAISE = text(
    """
    UPDATE trades SET high_water_price = mark.bid, updated_at = :at
    FROM unnest(CAST(:strategies AS text[]), CAST(:sessions AS date[]), CAST(:symbols AS text[]),
                CAST(:bids AS numeric[])) AS mark (strategy, session, symbol, bid)
    WHERE trades.account = :account AND trades.strategy = mark.strategy AND trades.session = mark.session
      AND trades.symbol = mark.symbol AND trades.high_water_price < mark.bid
    """
)


def apply_adjustment(
    connection: Connection, *, account: str, adjustment: Adjustment, held: Decimal, at: datetime
) -> bool:
    """Record a split once, and restate the open trade of its symbol in the new shares.

    `held`: shares the broker shows after it; a fraction paid in cash is not held, and its cash counts as profit.
    Returns whether it was new.
    """
    is_new = insert_first(
        connection,
        adjustments,
        {
            "account": account,
            "activity_id": adjustment.activity_id,
            "symbol": adjustment.symbol,
            "kind": adjustment.kind,
            "day": adjustment.day,
            "quantity_change": adjustment.quantity_change,
            "ratio": adjustment.ratio,
            "cash": adjustment.cash,
        },
    )
    if not is_new:
        return False
    row = connection.execute(
        select(trades)
        .where(_t.account == account, _t.symbol == adjustment.symbol, _t.status == "open")
        .with_for_update()
    ).one_or_none()
    if row is None or adjustment.ratio == 1:
        return True
    trade, ratio = _trade(row), adjustment.ratio
    closed = trade.quantity_closed * ratio
    connection.execute(
        update(trades)
        .where(
            _t.account == account,
            _t.strategy == trade.strategy,
            _t.session == trade.session,
            _t.symbol == trade.symbol,
        )
        .values(
            quantity=closed + held,
            quantity_closed=closed,
            entry_price=trade.entry_price / ratio,
            exit_price=None if trade.exit_price is None else trade.exit_price / ratio,
            stop_price=trade.stop_price / ratio,
            target_price=trade.target_price / ratio,
            high_water_price=trade.high_water_price / ratio,
            profit=None if adjustment.cash == 0 else (trade.profit or Decimal(0)) + adjustment.cash,
            updated_at=at,
        )
    )
    return True


def _trade(row: Row[tuple[object, ...]]) -> Trade:
    return Trade(**{name: getattr(row, name) for name in Trade.__slots__})
