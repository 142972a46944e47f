"""`onepath exchange`: the simulated Alpaca on its own."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from desk.errors import BadInput

if TYPE_CHECKING:
    from desk.exchange.market import Market
    from desk.exchange.options import ExchangeOptions

__all__ = ["exchange"]

exchange = typer.Typer(help="The simulated Alpaca: REST and both streams on one address.", no_args_is_help=True)


@exchange.command()
def serve(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")],
    now: Annotated[str, typer.Option(help="Virtual time to begin at, with its zone: 2024-03-05T14:35:00Z.")],
    synthetic: Annotated[bool, typer.Option("--synthetic", help="A seeded market that never was.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the market, or of the paths through recorded bars.")] = 7,
    symbols: Annotated[int | None, typer.Option(help="Symbols of the synthetic market, 500 by default.")] = None,
    bars: Annotated[Path | None, typer.Option(help="Parquet file of daily or intraday bars to replay.")] = None,
    keys: Annotated[str | None, typer.Option(help="API key id and secret to accept, KEY:SECRET.")] = None,
    cash: Annotated[str, typer.Option(help="USD in the account.")] = "100000",
    speed: Annotated[float, typer.Option(help="Virtual seconds per second; 0: the clock stands still.")] = 0.0,
    host: Annotated[str, typer.Option(help="Address to listen on. The admin API asks for no keys.")] = "127.0.0.1",
    option: Annotated[
        list[str] | None, typer.Option(help="A choice of the simulation, NAME=VALUE, as shorting=true; repeatable.")
    ] = None,
) -> None:
    """Serve it until Ctrl-C. The clock stands still unless advanced (POST /admin/clock) or --speed lets it run.
    Faults are set with POST /admin/faults."""
    began = read_now(now)
    options = read_options(option or [])
    accepted = read_keys(keys)
    funds = read_cash(cash)
    if not 0 <= port <= 65535:
        raise BadInput(f"--port {port}: give 0 to 65535")
    if not 0 <= speed <= 86_400:
        raise BadInput(f"--speed {speed}: give 0 (standing still) to 86400 virtual seconds per second")
    if synthetic == (bars is not None):
        given = "both are" if synthetic else "neither is"
        raise BadInput(f"--synthetic and --bars: {given} given; choose one market")
    if symbols is not None and not synthetic:
        raise BadInput("--symbols: it belongs to --synthetic; a file has the symbols it has")

    from desk.exchange.exchange import Exchange
    from desk.exchange.server import ExchangeServer

    market = synthetic_market(seed, began, symbols or 500) if bars is None else recorded_market(bars, seed)
    within_market(began, market)
    if accepted is None:
        simulated = Exchange(market, began, cash=funds, options=options)
    else:
        simulated = Exchange(market, began, cash=funds, keys=accepted, options=options)
    server = ExchangeServer(simulated, host=host, port=port, speed=speed)

    def ready() -> None:
        pace = f"{speed:g} virtual seconds a second" if speed else "clock stands still"
        typer.echo(f"simulated Alpaca at {server.url} | market: {market.label} | now {began.isoformat()} | {pace}")

    server.run(ready)


def read_now(text: str) -> datetime:
    try:
        now = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"--now {text}: not a time; give one with its zone, as 2024-03-05T14:35:00Z") from error
    if now.utcoffset() is None:
        raise BadInput(f"--now {text}: it has no zone; add Z for UTC, as {text}Z")
    return now.astimezone(UTC)


def read_keys(text: str | None) -> tuple[str, str] | None:
    """Key id and secret; None when none are given. The message does not show them: it may be logged."""
    if text is None:
        return None
    key, colon, secret = text.partition(":")
    if not (key and colon and secret) or any(letter.isspace() for letter in text):
        raise BadInput("--keys: a key id, a colon and a secret are needed, KEY:SECRET, without spaces")
    return key, secret


def read_cash(text: str) -> Decimal:
    try:
        cash = Decimal(text)
    except InvalidOperation as error:
        raise BadInput(f"--cash {text}: not an amount; give USD, as 100000") from error
    if not cash.is_finite() or cash < 0:
        raise BadInput(f"--cash {text}: give USD from 0")
    return cash


def read_options(texts: list[str]) -> ExchangeOptions:
    """NAME=VALUE each. Raises BadInput naming the options there are, or the values one may have."""
    from pydantic import TypeAdapter, ValidationError

    from desk.exchange.options import ExchangeOptions

    known = {field.name for field in fields(ExchangeOptions)}
    chosen: dict[str, str | int | None] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise BadInput(f"--option {text}: NAME=VALUE with one of {', '.join(sorted(known))} is needed")
        chosen[name] = None if value == "none" else int(value) if value.isdecimal() else value
    try:
        return TypeAdapter(ExchangeOptions).validate_python(chosen)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise BadInput(f"--option {first['msg'].removeprefix('Value error, ')}") from error
        raise BadInput(f"--option {first['loc'][0]}={first['input']}: {first['msg'].lower()}") from error


def synthetic_market(seed: int, now: datetime, symbols: int) -> Market:
    """From the day of `now` to the end of the next year."""
    from desk.exchange.synthetic import SyntheticMarket
    from desk.market import NEW_YORK

    today = now.astimezone(NEW_YORK).date()
    return SyntheticMarket(seed, today, date(today.year + 1, 12, 31), symbols)


def recorded_market(bars: Path, seed: int) -> Market:
    """The file as a market; what was repaired or left out is said on stderr."""
    from desk.exchange.recorded import RecordedMarket

    market = RecordedMarket(bars, seed=seed)
    for line in market.notes.sentences:
        typer.echo(f"onepath: {bars.name}: {line}", err=True)
    return market


def within_market(now: datetime, market: Market) -> None:
    """Refuse a time on which this market has no day to show."""
    from desk.market import NEW_YORK

    sessions = market.sessions()
    first, last = sessions[0], sessions[-1]
    if not (first.day <= now.astimezone(NEW_YORK).date() and now < last.closes):
        raise BadInput(
            f"--now {now.isoformat()}: outside of {market.label}, which has sessions from {first.day} to {last.day}"
        )
