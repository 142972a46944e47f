"""What follows when a control denies: trading is made stricter, or somebody is told, in the denial's transaction."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta

from sqlalchemy import Connection

from desk.controls import Verdict, slipped_pct
from desk.ledger.alerts import raise_alert
from desk.ledger.orders import LedgerOrder, reference_of, rejected_since
from desk.ledger.records import Severity, TradingState
from desk.ledger.trading_state import tighten_state
from desk.orders import Leg, Side
from desk.portfolio import Fill, shares
from desk.strategy import Controls

__all__ = ["trip", "trip_on_rejects", "trip_on_slippage"]


def trip(
    connection: Connection,
    *,
    account: str,
    verdicts: Iterable[Verdict],
    session: date,
    symbol: str | None,
    at: datetime,
) -> bool:
    """See to the consequences of these verdicts. Returns whether trading was made stricter."""
    is_stricter = False
    for verdict in verdicts:
        if verdict.allowed:
            continue
        if verdict.trips is not None:
            is_stricter |= tighten_state(
                connection,
                account=account,
                state=verdict.trips,
                reason=verdict.reason if symbol is None else f"{symbol}: {verdict.reason}",
                by=f"control {verdict.control}",
                at=at,
            )
        if verdict.alerts:
            raise_alert(
                connection,
                account=account,
                severity=Severity.CRITICAL,
                kind="control.denied",
                message=f"entry in {symbol} denied: {verdict.reason}",
                at=at,
                session=session,
                symbol=symbol,
            )
    return is_stricter


def trip_on_rejects(connection: Connection, *, account: str, limits: Controls, at: datetime) -> None:
    """The broker refusing one order after another means that we are wrong about something."""
    window = timedelta(minutes=limits.rejects_window_minutes)
    count = rejected_since(connection, account=account, since=at - window)
    if count >= limits.rejects_max:
        tighten_state(
            connection,
            account=account,
            state=TradingState.REDUCING,
            reason=f"rejects: {count} in {limits.rejects_window_minutes} min, < {limits.rejects_max} needed",
            by="control rejects",
            at=at,
        )


def trip_on_slippage(
    connection: Connection, *, account: str, limits: Controls, order: LedgerOrder, fill: Fill, at: datetime
) -> None:
    """A fill worse than what its order was sent at. Our own orders are measured against the quote they were sent at.

    A stop is measured against its price, and tells but does not trip: a market that opens below every stop is no
    sign of a broken execution, and the limits on losses see what it costs.
    """
    reference = order.stop_price or reference_of(connection, account=account, client_order_id=order.client_order_id)
    if reference is None or reference <= 0:
        return
    slipped = slipped_pct(is_buy=fill.side is Side.BUY, price=fill.price, reference=reference)
    if slipped < limits.slippage_alert_pct:
        return
    what = f"{fill.side} {shares(fill.quantity)} {fill.symbol} at {fill.price:.2f}"
    said = f"{what}, {slipped:.2f} % worse than {reference:.2f}"
    raise_alert(
        connection,
        account=account,
        severity=Severity.WARNING,
        kind="fill.slipped",
        message=f"{said}; up to {limits.slippage_alert_pct} % is quiet",
        at=at,
        session=order.session,
        symbol=fill.symbol,
        detail={"activity_id": fill.activity_id, "slipped_pct": slipped, "leg": order.leg},
    )
    if slipped >= limits.slippage_reducing_pct and order.leg in (Leg.ENTRY, Leg.EXIT):
        tighten_state(
            connection,
            account=account,
            state=TradingState.REDUCING,
            reason=f"slippage: {said}, < {limits.slippage_reducing_pct} % needed",
            by="control slippage",
            at=at,
        )
