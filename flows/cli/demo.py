"""`onepath demo`: whole sessions through Prefect on the simulated exchange, then a look around."""

from __future__ import annotations

import logging
import select
import signal
import sys
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from desk.errors import BadInput
from desk.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from flows.demo import Demo

__all__ = ["demo"]

LOOK_S = 1.0
SEED = 59  # a bad day: stops and a trailing stop are reached, so that the exits are seen at work


def demo(
    sessions: Annotated[int, typer.Option(help="How many sessions to play.")] = 1,
    seed: Annotated[
        int, typer.Option(help="Seed of the synthetic market, or of the paths through recorded bars.")
    ] = SEED,
    bars: Annotated[
        Path | None, typer.Option(help="Parquet file of recorded bars; default: a synthetic market.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="First session, YYYY-MM-DD; by default the first with enough history.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="Where the demo keeps its data, wiped at each start; default ONEPATH_HOME/demo.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of Prefect's UI; default: a free one.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the UI up until Ctrl-C, also without a terminal.")] = False,
) -> None:
    """Play trading sessions: screening, decisions, orders, a monitor run each minute, closed books; a few minutes."""
    first = _read_start(start)
    settings = load_settings()
    if port is not None and not 1 <= port <= 65535:
        raise BadInput(f"--port {port}: give 1 to 65535")

    from rich.console import Console

    from flows.cli.up import STOP_SIGNALS, stop_once

    console = Console(highlight=False)
    for number in STOP_SIGNALS:
        signal.signal(number, stop_once)
    console.print("Starting PostgreSQL, Prefect and the simulated exchange ...", style="dim")

    from flows.cli.demoview import Playing, further, summary
    from flows.demo import DemoPlan, demo_settings, running_demo

    plan = DemoPlan(home or settings.home / "demo", sessions, seed, bars, first, port)
    began = time.monotonic()
    failures: list[str] = []
    try:
        own = demo_settings(plan, settings)
        _log_quietly()
        with running_demo(plan, own) as running:
            _log_to_file(running)
            console.print(f"Up after {time.monotonic() - began:.0f} s.  Market: [bold]{running.market}[/]")
            console.print(f"Prefect UI: {running.stack.ui_url}")
            with Playing(console) as playing:
                for session in running.days:
                    for beat in running.play(session):
                        playing.show(beat)
            reports = [running.report(session) for session in running.days]
            for part in summary(reports, running):
                console.print(part)
            for line in further(reports, running):
                console.print(line, soft_wrap=True)
            console.print(f"{sessions} session(s) in {time.monotonic() - began:.0f} s, installation not counted.")
            failures = running.failures
            for failure in failures[:5]:
                console.print(f"failed: {failure}", style="red")
            _look_around(console, running, keep=keep)
    except KeyboardInterrupt:
        console.print("Stopped; nothing is left running.")
    if failures:
        raise typer.Exit(1)


def _look_around(console: Console, running: Demo, *, keep: bool) -> None:
    """Serve until Enter or Ctrl-C where there is someone to press it."""
    is_asked = sys.stdin is not None and sys.stdin.isatty() and not keep
    if not (keep or is_asked):
        return
    how = "Enter or Ctrl-C" if is_asked else "Ctrl-C"
    console.print(f"The UI stays up at {running.stack.ui_url} until {how}.", style="bold")
    while True:
        running.serve_once()
        if not is_asked:
            time.sleep(LOOK_S)
        elif select.select([sys.stdin], [], [], LOOK_S)[0]:
            return


def _read_start(given: str | None) -> date | None:
    if given is None:
        return None
    try:
        return date.fromisoformat(given)
    except ValueError as error:
        raise BadInput(f"--start {given}: not a date; give it as YYYY-MM-DD, 2024-03-05") from error


def _log_quietly() -> None:
    """Prefect's own lines stay in the UI: the screen belongs to the demo."""
    from prefect.logging.handlers import PrefectConsoleHandler

    for name in ("prefect", "prefect.flow_runs", "prefect.task_runs", "prefect.extra", None):
        logger = logging.getLogger(name)
        logger.handlers = [each for each in logger.handlers if not isinstance(each, PrefectConsoleHandler)]


def _log_to_file(running: Demo) -> None:
    from flows.logs import log_to, run_log_handler

    log_to(logging.FileHandler(running.stack.home / "logs" / "demo.log"), run_log_handler())
