"""Steps of close-of-day."""

from __future__ import annotations

from decimal import Decimal

from desk.ledger.alerts import raise_alert
from desk.ledger.closings import closing_of, record_closing
from desk.ledger.monitor import end_monitoring
from desk.ledger.records import Closing, HeldPosition, Severity
from desk.orders import OrderState
from desk.reconcile import Books
from desk.report import write_session_report
from desk.report.render import report_path
from tasks.artifacts import publish_session
from tasks.office import office
from tasks.shift import Shift
from tasks.step import step

__all__ = ["close_books", "publish_report", "reconcile_to_rest"]


@step(retries=3, retry_delay_seconds=[1, 4, 15])
def reconcile_to_rest(today: Shift) -> Books:
    """Bring every order of the session to a proven state, and ledger and broker to the same positions."""
    orders = office().orders
    books = orders.reconcile()
    if any(order.state in (OrderState.SENDING, OrderState.UNKNOWN) for order in books.orders):
        orders.resolve(patient=False)
        books = orders.reconcile()
    today.evidence |= {"positions": len(books.positions), "differences": list(books.differences)}
    return books


@step
def close_books(today: Shift, books: Books) -> None:
    """Mark to market and write the session's books. The first ones stand."""
    desk = office()
    account = desk.broker.account()
    closing = Closing(
        session=today.day,
        equity_before=account.last_equity,
        equity=account.equity,
        cash=account.cash,
        long_market_value=account.long_market_value,
        positions=tuple(
            HeldPosition(
                symbol=position.symbol,
                quantity=position.quantity,
                price=position.current_price or Decimal(0),
                value=position.market_value or Decimal(0),
                entry_price=position.avg_entry_price,
            )
            for position in books.positions.values()
        ),
        differences=books.differences,
        report=str(report_path(desk.home, desk.account, today.day)),
        closed_at=today.started_at,
    )
    with desk.ledger.transaction() as connection:
        is_new = record_closing(connection, account=desk.account, closing=closing)
        standing = closing_of(connection, account=desk.account, session=today.day) or closing
        end_monitoring(connection, account=desk.account, session=today.day, at=today.started_at)
        if is_new and books.differences:
            raise_alert(
                connection,
                account=desk.account,
                severity=Severity.CRITICAL,
                kind="books.differ",
                message=f"books of {today.day} closed with differences: {'; '.join(books.differences)}",
                at=today.started_at,
                session=today.day,
                stage=today.stage,
            )
    today.evidence |= {
        "positions": len(standing.positions),
        "equity": standing.equity,
        "closed_before": not is_new,
    }


@step
def publish_report(today: Shift) -> None:
    """The session's report as a file, and its figures as a Prefect artifact when there is a flow run to hold it."""
    desk = office()
    if not desk.publishes_reports:
        return
    path = write_session_report(desk.ledger, account=desk.account, session=today.day, home=desk.home)
    with desk.ledger.transaction() as connection:
        closing = closing_of(connection, account=desk.account, session=today.day)
    today.evidence["report"] = str(path)
    if closing is not None:
        publish_session(closing, path)
