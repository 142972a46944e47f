"""A replay with up to twenty positions: sessions a second, and the memory it takes."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

BARS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "sp500_daily_2016_2020.parquet"
# The default thresholds leave half of the twenty places empty.
TWENTY_POSITIONS = "buy_probability_min = 0.3\nsell_probability_max = 0.5\npositions_max = 20\n"


def test_a_quarter_of_recorded_sessions(tmp_path: Path) -> None:
    if not BARS.is_file():
        pytest.skip(f"no {BARS.name} beside the repository")
    strategy = tmp_path / "twenty.toml"
    strategy.write_text(TWENTY_POSITIONS, encoding="utf-8")
    dates = ["--start", "2019-01-02", "--end", "2019-03-29"]
    command = ["replay", "--bars", str(BARS), *dates, "--strategy", str(strategy), "--home", str(tmp_path)]

    done = subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", *command],
        capture_output=True,
        text=True,
        check=True,
    )

    took = re.search(r"took +(.*)", done.stdout)
    memory_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"\n61 sessions, minute by minute: {took and took[1].strip()}; {memory_gib:.2f} GiB at most")
    assert memory_gib < 2
