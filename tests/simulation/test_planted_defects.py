"""The simulation is tested itself: each planted defect is found, by the seed that is named beside it."""

from __future__ import annotations

import pytest
from planted_defects import DEFECTS
from typer.testing import CliRunner

from flows.cli import app
from flows.simulation import Simulator

pytestmark = pytest.mark.integration

# The family it is looked for with, the first seed that finds it, and the invariant violated.
FOUND_BY = {
    "new id on retry": ("network", 5, 2),
    "UNKNOWN is rejected": ("broker", 1, 3),
    "fill applied twice": ("broker", 2, 3),
    "sent before written down": ("broker", 0, 2),
    "stop coverage assumed": ("broker", 3, 7),
    "connection held during a call": ("broker", 0, 9),
    "fallback untold": ("clock", 0, 11),
}
_DATABASE = "planted"


@pytest.mark.parametrize("name", FOUND_BY)
def test_a_planted_defect_is_found(name: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family, seed, invariant = FOUND_BY[name]
    simulator = Simulator(postgres_url, _DATABASE, families=[family])
    DEFECTS[name](monkeypatch)

    outcome = simulator.run(seed)

    assert invariant in {violation.invariant for violation in outcome.violations}, outcome.violations


def test_the_same_seeds_violate_nothing_without_a_defect(postgres_url: str) -> None:
    for family in sorted({family for family, _, _ in FOUND_BY.values()}):
        simulator = Simulator(postgres_url, _DATABASE, families=[family])
        for seed in sorted({seed for of, seed, _ in FOUND_BY.values() if of == family}):
            assert simulator.run(seed).violations == (), (family, seed)


def test_a_failing_seed_prints_the_command_that_replays_it(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, each violation by its number, and what to type."""
    monkeypatch.setenv("ONEPATH_DATABASE_URL", postgres_url)
    family, seed, _ = FOUND_BY["fallback untold"]
    DEFECTS["fallback untold"](monkeypatch)

    done = CliRunner().invoke(app, ["simulate", "--seeds", f"{seed}:{seed + 1}", "--faults", family])

    assert done.exit_code == 1
    assert f"seed {seed}: invariant 11" in done.output
    assert f"onepath simulate --seeds {seed}:{seed + 1} --faults {family} --weeks 1 --trace" in done.output


def test_all_defects_have_a_seed() -> None:
    assert set(FOUND_BY) == set(DEFECTS)
