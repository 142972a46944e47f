"""The orders we make ourselves once a trade is open, and the proof that the broker's order is the one we sent."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from desk.ledger.orders import LedgerOrder
from desk.ledger.trades import Trade
from desk.orders import BrokerOrder, Leg, OrderClass, OrderState, OrderType, Side, TimeInForce, client_order_id

__all__ = ["closing_order", "mismatch"]

_GOOD_FOR = timedelta(days=1)
_CENT = Decimal("0.01")


def closing_order(
    account: str, trade: Trade, leg: Leg, generation: int, quantity: Decimal, reason: str, now: datetime
) -> LedgerOrder:
    """A market sell (leg EXIT), or an OCO of target and stop (leg PROTECT), of this many shares of a trade."""
    is_oco = leg is Leg.PROTECT
    target, stop = trade.target_price.quantize(_CENT), trade.stop_price.quantize(_CENT)
    return LedgerOrder(
        client_order_id=client_order_id(
            account=account,
            strategy=trade.strategy,
            session=trade.session,
            decision=trade.symbol,
            leg=leg,
            generation=generation,
        ),
        parent_client_order_id=None,
        session=trade.session,
        strategy=trade.strategy,
        strategy_version=trade.strategy_version,
        symbol=trade.symbol,
        leg=leg,
        generation=generation,
        side=Side.SELL,
        order_type=OrderType.LIMIT if is_oco else OrderType.MARKET,
        order_class=OrderClass.OCO if is_oco else OrderClass.SIMPLE,
        time_in_force=TimeInForce.GTC if is_oco else TimeInForce.DAY,
        quantity=quantity,
        limit_price=target if is_oco else None,
        stop_price=None,
        take_profit_price=target if is_oco else None,
        stop_loss_price=stop if is_oco else None,
        reason=reason,
        state=OrderState.RESERVED,
        broker_order_id=None,
        filled_quantity=Decimal(0),
        filled_avg_price=None,
        attempt=0,
        not_after=now + _GOOD_FOR,
        created_at=now,
        sent_at=None,
        updated_at=now,
    )


def mismatch(order: LedgerOrder, found: BrokerOrder) -> str | None:
    """In what the broker's order is not the one we sent; None when it is."""
    pairs = {
        "symbol": (order.symbol, found.symbol),
        "side": (order.side, found.side),
        "quantity": (order.quantity, found.quantity),
        "type": (order.order_type, found.order_type),
        "limit price": (order.limit_price, found.limit_price),
        "stop price": (order.stop_price, found.stop_price),
    }
    wrong = [
        f"{name} {_said(ours)} here, {_said(theirs)} there" for name, (ours, theirs) in pairs.items() if ours != theirs
    ]
    return "; ".join(wrong) or None


def _said(value: object) -> str:
    return f"{value.normalize():f}" if isinstance(value, Decimal) else str(value)
