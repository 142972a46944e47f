"""Every REST endpoint of the simulated Alpaca, in one table."""

from __future__ import annotations

from desk.exchange.account_api import ACCOUNT_ROUTES
from desk.exchange.actions_api import ACTION_ROUTES
from desk.exchange.admin_api import ADMIN_ROUTES
from desk.exchange.data_api import DATA_ROUTES
from desk.exchange.orders_api import ORDER_ROUTES
from desk.exchange.portfolio import PORTFOLIO_ROUTES
from desk.exchange.positions_api import POSITION_ROUTES
from desk.exchange.routing import RouteTable
from desk.exchange.screener_api import SCREENER_ROUTES

__all__ = ["ROUTES"]

ROUTES = RouteTable(
    (
        *ACCOUNT_ROUTES,
        *PORTFOLIO_ROUTES,
        *POSITION_ROUTES,
        *ORDER_ROUTES,
        *DATA_ROUTES,
        *SCREENER_ROUTES,
        *ACTION_ROUTES,
        *ADMIN_ROUTES,
    )
)
