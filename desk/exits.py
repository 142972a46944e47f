"""When a position is to be closed. Pure rules on one bid; exits pass no control and wait for no gate."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from desk.ledger.trades import Trade
from desk.market import Session
from desk.strategy import Strategy

__all__ = ["HOLDING_TIME", "STOP_LOSS", "TAKE_PROFIT", "breached"]

STOP_LOSS, TAKE_PROFIT = "stop-loss", "take-profit"
TRAILING_STOP, HOLDING_TIME = "trailing stop", "holding time"

_BEFORE_CLOSE = timedelta(minutes=10)


def breached(trade: Trade, bid: Decimal, *, strategy: Strategy, session: Session, now: datetime) -> str | None:
    """The first limit this trade has breached at this bid (USD), or None.

    stop-loss: bid <= stop. take-profit: bid >= target. trailing stop: bid has fallen trailing_stop_pct below the
    highest bid since entry. holding time: the last allowed session is in its last ten minutes, or over.
    """
    if bid <= trade.stop_price:
        return STOP_LOSS
    if bid >= trade.target_price:
        return TAKE_PROFIT
    if strategy.trailing_stop_pct is not None:
        high = max(trade.high_water_price, bid)
        if bid <= high * (1 - strategy.trailing_stop_pct / 100):
            return TRAILING_STOP
    if session.day > trade.hold_until or (session.day == trade.hold_until and now >= session.closes - _BEFORE_CLOSE):
        return HOLDING_TIME
    return None
