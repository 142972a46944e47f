"""A fixed set of simulated weeks: nothing is violated, everything fires, and the same seed tells the same story."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from desk.errors import BadInput
from flows.simulated_faults import DEFAULT_FAMILIES, FAMILIES, read_families
from flows.simulation import Outcome, Simulator
from flows.simulation_pool import read_seeds, simulate

pytestmark = pytest.mark.integration

SEEDS = range(0, 12)
RETOLD = 5


@pytest.fixture(scope="module")
def outcomes(postgres_url: str) -> Iterator[dict[int, Outcome]]:
    """The fixed seeds on two workers, each a process with another hash seed."""
    found = simulate(postgres_url, SEEDS, families=DEFAULT_FAMILIES, weeks=1, workers=2, traced=True)
    yield {outcome.seed: outcome for outcome in found}


def test_no_fixed_seed_violates_an_invariant(outcomes: dict[int, Outcome]) -> None:
    """Twelve weeks with faults of every family, orders sent in most of them, and all invariants hold."""
    assert sorted(outcomes) == list(SEEDS)
    assert {seed: list(map(str, each.violations)) for seed, each in outcomes.items() if each.violations} == {}
    assert sum(each.orders for each in outcomes.values()) > 100


def test_each_family_fires_in_a_tenth_of_the_seeds_at_least(outcomes: dict[int, Outcome]) -> None:
    for family in DEFAULT_FAMILIES:
        fired = [seed for seed, each in outcomes.items() if each.fired.get(family)]
        assert len(fired) >= len(SEEDS) / 10, family


def test_a_seed_tells_the_same_story_to_the_byte(outcomes: dict[int, Outcome], postgres_url: str) -> None:
    """Told again by another process, in another database, after nothing instead of after other seeds."""
    simulator = Simulator(postgres_url, "retold", families=DEFAULT_FAMILIES)

    again = simulator.run(RETOLD, traced=True)

    assert again.trace == outcomes[RETOLD].trace
    assert "stage   trading: ran True" in again.trace


def test_families_are_taken_in_their_own_order() -> None:
    """The order they are typed in changes no story."""
    assert read_families("person, broker") == read_families("broker,person") == ("broker", "person")
    assert read_families(None) == DEFAULT_FAMILIES


@pytest.mark.parametrize("text", ["", "5", "5:5", "9:3", "a:b", "-3:4", "0:9999999", "1:2:3"])
def test_a_seed_range_that_is_none_is_bad_input(text: str) -> None:
    with pytest.raises(BadInput, match="--seeds"):
        read_seeds(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seeds", "5:5"), "--seeds 5:5"),
        (("--seeds", "0:2", "--faults", "weather"), "unknown family 'weather'; known are " + ", ".join(FAMILIES)),
        (("--seeds", "0:2", "--workers", "0"), "--workers 0: give 1 to 64"),
        (("--seeds", "0:2", "--weeks", "0"), "--weeks 0: give 1 to 50"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = onepath(tmp_path, *arguments)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr


def onepath(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", "simulate", *arguments, "--home", str(home)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
