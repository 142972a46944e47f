"""What faults do to the world around the account: halts, leaps, early closes, corporate actions, orders of others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from desk.exchange.amounts import money
from desk.exchange.routing import ApiError

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange
    from desk.exchange.faults import Armed

__all__ = ["happen", "plan"]


def plan(exchange: Exchange, armed: Armed) -> None:
    """A fault that waits for no call happens at its time: now, unless it names a later one."""
    if not armed.on_its_own:
        return
    if armed.after is None or armed.after <= exchange.now:
        _strike(exchange, armed)
    else:
        exchange.at(armed.after.timestamp(), lambda: _strike(exchange, armed))


def happen(exchange: Exchange, operation: str) -> None:
    """A request has come: faults of the world that wait for one may fire."""
    for armed in exchange.faults.armed:
        if armed.kind.place == "world" and not armed.on_its_own and armed.strikes(exchange.now, operation, ()):
            _strike(exchange, armed)


def _strike(exchange: Exchange, armed: Armed) -> None:
    if armed not in exchange.faults.armed:
        return  # cleared before its time
    symbols = sorted(armed.symbols or ())
    exchange.faults.log(armed, None, symbols)
    for symbol in symbols or [""]:
        try:
            _DEEDS[armed.kind.name](exchange, armed, symbol)
        except ApiError as refusal:
            exchange.journal.note(exchange.now, "fault.void", fault=armed.kind.name, reason=refusal.message)


def _halt(exchange: Exchange, armed: Armed, symbol: str) -> None:
    exchange.halt(symbol)
    if armed["for_s"] is not None:
        exchange.at(exchange.now_s + armed["for_s"], lambda: exchange.resume(symbol))


def _gap(exchange: Exchange, armed: Armed, symbol: str) -> None:
    exchange.bend(symbol, exchange.now_s, 1 + armed["percent"] / 100)


def _early_close(exchange: Exchange, armed: Armed, _symbol: str) -> None:
    session = exchange.session
    closes = exchange.now + timedelta(seconds=max(armed["in_s"], 1.0))
    if session is None or closes >= session.closes:
        raise ApiError(422, None, "no session runs that could close earlier")
    exchange.close_early(closes)


def _split(exchange: Exchange, armed: Armed, symbol: str) -> None:
    exchange.add_action(symbol, "split", Decimal(str(armed["ratio"])))


def _dividend(exchange: Exchange, armed: Armed, symbol: str) -> None:
    exchange.add_action(symbol, "dividend", Decimal(str(armed["usd"])))


def _foreign_order(exchange: Exchange, armed: Armed, symbol: str) -> None:
    limit = armed["limit_price"]
    exchange.submit(
        {
            "symbol": symbol,
            "qty": Decimal(str(armed["qty"])),
            "side": armed["side"],
            "type": "market" if limit is None else "limit",
            "limit_price": None if limit is None else Decimal(str(limit)),
            "time_in_force": "day",
        }
    )


def _liquidate(exchange: Exchange, _armed: Armed, symbol: str) -> None:
    floor, asset = exchange.floor, exchange.asset(symbol)
    held, tick = exchange.account.shares(symbol), exchange.quote(symbol)
    if asset is None or tick is None or not held:
        raise ApiError(422, None, f"no position in {symbol} to liquidate")
    floor.cancel_symbol(symbol)
    price = (tick.bid if held > 0 else tick.ask) or tick.last
    floor.force_close(symbol, asset, money(price))


_DEEDS: dict[str, Callable[[Exchange, Armed, str], None]] = {
    "halt": _halt,
    "gap": _gap,
    "early_close": _early_close,
    "split": _split,
    "dividend": _dividend,
    "foreign_order": _foreign_order,
    "forced_liquidation": _liquidate,
}
