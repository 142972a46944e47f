"""An order of ours as alpaca-py's request object. The library makes floats of the amounts: see that none is changed."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from alpaca.trading import enums
from alpaca.trading.requests import (
    LimitOrderRequest,
    MarketOrderRequest,
    StopLimitOrderRequest,
    StopLossRequest,
    StopOrderRequest,
    TakeProfitRequest,
)
from alpaca.trading.requests import OrderRequest as AlpacaOrderRequest

from desk.orders import OrderClass, OrderRequest, OrderType

__all__ = ["order_request"]


def order_request(request: OrderRequest) -> AlpacaOrderRequest:
    """What alpaca-py sends for `request`. Raises ValueError for what cannot be sent exactly as asked."""
    name = f"order {request.client_order_id} for {request.symbol}"
    fields: dict[str, Any] = {
        "symbol": request.symbol,
        "qty": int(request.quantity),
        "side": enums.OrderSide(request.side),
        "time_in_force": enums.TimeInForce(request.time_in_force),
        "client_order_id": request.client_order_id,
    }
    if request.order_class is not OrderClass.SIMPLE:
        fields["order_class"] = enums.OrderClass(request.order_class)
    if request.take_profit_price is not None:
        fields["take_profit"] = TakeProfitRequest(limit_price=_exact(name, request.take_profit_price))
    if request.stop_loss_price is not None:
        fields["stop_loss"] = StopLossRequest(stop_price=_exact(name, request.stop_loss_price))
    match request.order_type:
        case OrderType.MARKET:
            return MarketOrderRequest(**fields)
        case OrderType.LIMIT:
            return LimitOrderRequest(**fields, **_limit(name, request))
        case OrderType.STOP:
            return StopOrderRequest(**fields, stop_price=_exact(name, request.stop_price))
        case OrderType.STOP_LIMIT:
            return StopLimitOrderRequest(
                **fields,
                stop_price=_exact(name, request.stop_price),
                limit_price=_exact(name, request.limit_price),
            )
        case OrderType.TRAILING_STOP:
            raise ValueError(f"{name}: type trailing_stop; the monitor trails its stops itself, none is sent")


def _limit(name: str, request: OrderRequest) -> dict[str, float]:
    """An OCO's limit price is its take-profit, and is stated there alone."""
    if request.order_class is not OrderClass.OCO:
        return {"limit_price": _exact(name, request.limit_price)}
    if request.limit_price != request.take_profit_price:
        raise ValueError(
            f"{name}: limit price {request.limit_price}, an OCO's must be its take-profit {request.take_profit_price}"
        )
    return {}


def _exact(name: str, price: Decimal | None) -> float:
    """The float whose JSON form is this very price."""
    if price is None:
        raise ValueError(f"{name}: a price is missing")
    sent = float(price)
    if Decimal(repr(sent)) != price:
        raise ValueError(f"{name}: price {price} would go out as {sent!r}; round it to the tick first")
    return sent
