"""`onepath data audit` as a process: a report ends well, bad input is one line and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from clean_bars import clean_bars

pytestmark = pytest.mark.integration


def onepath(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", "data", "audit", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_defects_are_no_failure(tmp_path: Path) -> None:
    bars = clean_bars()
    bars["high"][70, 6] *= 2
    path = bars.write(tmp_path / "bars.parquet")

    done = onepath(path, "--json")

    document = orjson.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert [(each["kind"], each["symbol"], each["date"]) for each in document["findings"]] == [
        ("extreme_wick", "S006", bars.day(70).isoformat())
    ]


def test_a_clean_file_is_told_so(tmp_path: Path) -> None:
    done = onepath(clean_bars().write(tmp_path / "bars.parquet"))

    assert done.returncode == 0
    assert "0 flags, 0.00 per 100,000 rows" in done.stdout


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, option: tuple[str, ...]) -> None:
    path = tmp_path / "bars.parquet"
    path.write_text("no parquet")

    done = onepath(path, *option)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"onepath: {path}: not a readable Parquet file")


def test_a_list_of_known_defects_that_is_none_is_bad_input(tmp_path: Path) -> None:
    path = clean_bars(symbols=3, sessions=20).write(tmp_path / "bars.parquet")

    done = onepath(path, "--known", path)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
