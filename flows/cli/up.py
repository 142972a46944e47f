"""`onepath up`: everything of one machine, started and kept up until Ctrl-C."""

from __future__ import annotations

import logging
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from desk.settings import load_settings

if TYPE_CHECKING:
    from types import FrameType

    from flows.stack import Stack

__all__ = ["STOP_SIGNALS", "stop_once", "up"]

CHECK_S = 1.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(
    home: Annotated[
        Path | None, typer.Option(help="Where data, reports and logs are kept; default ONEPATH_HOME.")
    ] = None,
    asleep: Annotated[
        bool, typer.Option("--asleep", help="Schedules start nothing; runs are started by hand.")
    ] = False,
    file: Annotated[Path | None, typer.Option(help="Deployments; default: the prefect.yaml of this version.")] = None,
) -> None:
    """Start PostgreSQL, Prefect's server and UI, the simulated exchange, runners and watchdog, and keep them up."""
    from flows.logs import FactFormatter, log_to
    from flows.stack import Stack

    settings = load_settings(**({"home": home} if home else {}))
    console = Console()
    on_screen = logging.StreamHandler()
    on_screen.setLevel(logging.WARNING)
    on_screen.setFormatter(FactFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    log_to(on_screen)
    for number in STOP_SIGNALS:
        signal.signal(number, stop_once)
    began = time.monotonic()
    try:
        with Stack(settings, asleep=asleep, deployments=file, watchdog=not asleep) as stack:
            in_file = logging.FileHandler(stack.home / "logs" / "up.log")
            log_to(on_screen, in_file)
            console.print(_table(stack))
            console.print(
                f"Up after {time.monotonic() - began:.0f} s: {stack.ui_url}   Ctrl-C stops it.", highlight=False
            )
            _keep_up(stack)
    except KeyboardInterrupt:
        console.print("Stopped; nothing is left running.")


def _keep_up(stack: Stack) -> None:
    from tasks.alerting import alert_ended_process

    while True:
        failing = stack.keep_up()
        for child in (child for child in stack.children if child.name in failing):
            alert_ended_process(
                child.name,
                failures=child.failures,
                last_words=child.last_line(),
                settings=stack.settings,
                now=datetime.fromtimestamp(time.time(), UTC),  # a fact about this machine, by its clock
            )
        time.sleep(CHECK_S)


def stop_once(number: int, _frame: FrameType | None) -> None:
    """The first signal ends it; later ones change nothing, so that nothing is left half-stopped."""
    for other in STOP_SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt


def _table(stack: Stack) -> Table:
    from desk.ledger.connecting import place

    table = Table(box=None, pad_edge=False)
    for heading in ("part", "where", "process"):
        table.add_column(heading, overflow="fold")
    table.add_row("postgres", place(stack.urls.ledger), "")
    for child in stack.children:
        table.add_row(child.name, child.address, str(child.pid))
    table.add_row("logs", str(stack.home / "logs"), "")
    return table
