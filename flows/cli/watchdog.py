"""`onepath watchdog`: a process of its own that sees what the others cannot tell, and delivers alerts."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Annotated

import typer

from flows.cli.reading import HomeOption, settings_of

__all__ = ["watchdog"]


def watchdog(
    period: Annotated[float, typer.Option(min=0.1, help="Seconds from one look to the next.")] = 30.0,
    once: Annotated[
        bool, typer.Option("--once", help="Look once, print what is found, page nobody; exit code 1 if there is any.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Read ledger and broker every 30 s, page on what is wrong, deliver alerts; also without Prefect or PostgreSQL."""
    settings = settings_of(home)

    from flows.logs import log_to
    from flows.watchdog import look_once, watch

    if once:
        found = look_once(settings)
        for finding in found:
            typer.echo(f"{finding.severity.value} {finding.kind}: {finding.message}")
        if found:
            raise typer.Exit(1)
        typer.echo("nothing to page on")
        return
    log_to(logging.StreamHandler())
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    watch(settings, stop=stop, period_s=period)
