"""`onepath`: the command line. Each command lives in a module of its own; heavy imports wait until it runs."""

from __future__ import annotations

import sys

import typer

from desk.errors import BadInput, OnepathError
from flows.cli import (
    alerts,
    data,
    demo,
    exchange,
    ledger,
    positions,
    replay,
    simulate,
    state,
    status,
    up,
    verify,
    watchdog,
    why,
)

__all__ = ["app", "main"]

app = typer.Typer(
    name="onepath",
    help="One trading day, one path through it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(alerts.alerts, name="alerts")
app.add_typer(data.data, name="data")
app.add_typer(exchange.exchange, name="exchange")
app.add_typer(ledger.database, name="db")
app.add_typer(ledger.strategy, name="strategy")
app.command()(demo.demo)
app.command()(up.up)
app.command()(replay.replay)
app.command()(simulate.simulate)
app.command()(status.status)
app.command()(watchdog.watchdog)
app.command()(why.why)
app.command()(state.halt)
app.command()(state.resume)
app.command()(positions.flatten)
app.command()(positions.reconcile)
app.command()(verify.verify)


def main() -> None:
    """Entry point. A user's mistake is one line on stderr and exit code 2; our own failure is exit code 1."""
    try:
        app()
    except BadInput as error:
        sys.stderr.write(f"onepath: {error}\n")
        sys.exit(2)
    except OnepathError as error:
        sys.stderr.write(f"onepath: {type(error).__name__}: {error}\n")
        sys.exit(1)
