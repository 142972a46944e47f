"""The simulated Alpaca as an ASGI application: REST and both streams on one base address."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response

from desk.exchange.exchange import Exchange
from desk.exchange.gateway import Answer, Gateway, RateLimit
from desk.exchange.routes import ROUTES
from desk.exchange.streams import add_streams

__all__ = ["create_app"]


def create_app(exchange: Exchange, *, rate_limit_per_minute: int | None = None) -> FastAPI:
    """Serve `exchange`. `rate_limit_per_minute` counts in wall-clock minutes (Alpaca: 200); None: no limit.

    Handlers run on the event loop: they take well under a millisecond and the exchange serves one at a time.
    """
    limit = None if rate_limit_per_minute is None else RateLimit(rate_limit_per_minute)
    gateway = Gateway(exchange, rate_limit=limit)
    app = FastAPI(title="Simulated Alpaca", description=f"Not a broker. Market: {exchange.market.label}.")

    async def serve(request: Request) -> Response:
        scope = request.scope
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        content = await request.body()
        return _response(gateway.handle(request.method, path, query, request.headers, content))

    for route in ROUTES.routes:
        app.add_api_route(
            route.path, serve, methods=[route.method], name=route.handler.__name__, summary=_summary(route.handler)
        )
    add_streams(app, exchange)
    # Last: what no route takes is still answered as the API answers it.
    app.add_api_route("/{path:path}", serve, methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    return app


def _summary(handler: object) -> str:
    return str(getattr(handler, "__name__", "")).replace("_", " ")


def _response(answer: Answer) -> Response:
    return Response(content=answer.content, status_code=answer.status, headers=answer.headers)
