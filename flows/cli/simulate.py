"""`onepath simulate`: weeks on a simulated market where things go wrong, and the invariants after each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from desk.errors import BadInput
from flows.cli.reading import HomeOption, serving, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flows.simulation import Outcome

__all__ = ["simulate"]

_WORKERS_MAX = 64
_WEEKS_MAX = 50
_VIOLATIONS_SHOWN = 5  # of a seed; its trace has them all
_SEEDS_SHOWN = 20


def simulate(
    seeds: Annotated[str, typer.Option(help="First seed and the one after the last: 0:100.", metavar="A:B")],
    faults: Annotated[
        str | None,
        typer.Option(
            help="Families of faults, separated by commas: broker, network, data, clock, orchestration, person. "
            "Default: all.",
            metavar="FAMILY,...",
            show_default=False,
        ),
    ] = None,
    weeks: Annotated[int, typer.Option(help="Weeks of sessions each seed lives through.")] = 1,
    workers: Annotated[int, typer.Option(help="Processes at work, each with a database of its own.")] = 1,
    trace: Annotated[bool, typer.Option("--trace", help="Print the story of each seed.")] = False,
    home: HomeOption = None,
) -> None:
    """Break it, on purpose: each seed is a week of sessions on a small synthetic market with seeded faults.

    The real stages and the real adapter run on a virtual clock with a real PostgreSQL; then the faults end and the
    invariants are checked. A stage that fails is no violation. Exit code 1 when an invariant was violated. The same
    seed, families, weeks and commit give the same story. The monitor runs each minute in the first twenty of a session
    and while the books come to rest, else each half hour.
    """
    from flows.simulated_faults import read_families
    from flows.simulation_pool import read_seeds
    from flows.simulation_pool import simulate as run

    chosen, families = read_seeds(seeds), read_families(faults)
    if not 1 <= workers <= _WORKERS_MAX:
        raise BadInput(f"--workers {workers}: give 1 to {_WORKERS_MAX}")
    if not 1 <= weeks <= _WEEKS_MAX:
        raise BadInput(f"--weeks {weeks}: give 1 to {_WEEKS_MAX}")
    settings = settings_of(home)
    tally = _Tally(families, weeks)
    began = time.perf_counter()
    with serving(settings) as (url, _):
        outcomes = run(url, chosen, families=families, weeks=weeks, workers=min(workers, len(chosen)), traced=trace)
        tally.follow(outcomes, len(chosen))
    tally.tell(time.perf_counter() - began)
    if tally.violated:
        raise typer.Exit(1)


class _Tally:
    def __init__(self, families: Sequence[str], weeks: int) -> None:
        self.families, self.weeks = families, weeks
        self.seeds = self.failed = self.orders = 0
        self.violated: list[int] = []
        self.fired = dict.fromkeys(families, 0)
        self.fired_in = dict.fromkeys(families, 0)

    def follow(self, outcomes: Iterable[Outcome], count: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        began = time.perf_counter()
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("simulate", total=count)
            for outcome in outcomes:
                self._add(outcome)
                pace = self.seeds / (time.perf_counter() - began)
                progress.update(bar, advance=1, description=f"{pace:.2f} seeds a second, {len(self.violated)} violated")

    def _add(self, outcome: Outcome) -> None:
        from flows.simulation import replay_command

        self.seeds += 1
        self.failed += outcome.failed
        self.orders += outcome.orders
        for family, times in outcome.fired.items():
            self.fired[family] += times
            self.fired_in[family] += 1
        if outcome.trace:
            typer.echo(f"seed {outcome.seed}\n{outcome.trace}", nl=False)
        if not outcome.violations:
            return
        self.violated.append(outcome.seed)
        if len(self.violated) <= _SEEDS_SHOWN:
            for violation in outcome.violations[:_VIOLATIONS_SHOWN]:
                typer.echo(f"seed {outcome.seed}: {violation}")
            typer.echo(f"  {replay_command(outcome.seed, self.families, self.weeks)}")

    def tell(self, took_s: float) -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_row("seeds", f"{self.seeds}, {self.seeds / took_s:.2f} a second, {took_s:.1f} s")
        table.add_row("orders sent", f"{self.orders}")
        table.add_row("stages failed", f"{self.failed}")
        for family in self.families:
            table.add_row(f"faults fired, {family}", f"{self.fired[family]}, in {self.fired_in[family]} seeds")
        seeds = ", ".join(map(str, sorted(self.violated)[:_SEEDS_SHOWN]))
        table.add_row("violated", f"{len(self.violated)} seeds: {seeds}" if self.violated else "none")
        Console(soft_wrap=True, highlight=False, stderr=True).print(table)
