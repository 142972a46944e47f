"""Children are kept up, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from desk.errors import BadInput
from flows.processes import Child, child_environment, only_one, sweep

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
PARENT = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {DEAF!r}]); time.sleep(600)"


def child(home: Path, code: str, **options: object) -> Child:
    return Child("sleeper", lambda: [sys.executable, "-c", code], child_environment({}), home, **options)  # type: ignore[arg-type]


def wait_for_line(kept: Child, line: str) -> None:
    deadline = time.monotonic() + 30
    while kept.last_line() != line:
        assert time.monotonic() < deadline, kept.last_line()
        time.sleep(0.01)


def test_a_stopped_child_is_gone_and_forgotten(tmp_path: Path) -> None:
    kept = child(tmp_path, SLEEPER)
    kept.start()
    pid = kept.pid

    kept.stop()

    assert pid is not None and not psutil.pid_exists(pid)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(tmp_path: Path) -> None:
    kept = child(tmp_path, PARENT)
    kept.start()
    wait_for_line(kept, "up")
    assert kept.pid is not None
    family = psutil.Process(kept.pid).children(recursive=True)

    kept.stop(within_s=0.2)

    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


def test_a_child_that_ended_is_started_again_after_a_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.processes.RESTART_S", (0.0,))
    kept = child(tmp_path, SLEEPER)
    kept.start()
    first = kept.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(first)], timeout=10) if psutil.pid_exists(first) else None

    while kept.is_up:
        time.sleep(0.01)
    assert kept.keep_up() is False  # notes it
    assert kept.keep_up() is False  # starts it

    assert kept.is_up and kept.pid != first
    kept.stop()


def test_one_that_does_not_stay_up_is_reported_once_and_still_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.processes.RESTART_S", (0.0,))
    kept = child(tmp_path, "raise SystemExit('no disk')")
    kept.start()
    reports = []

    while kept.failures < 7:
        while kept.is_up:
            time.sleep(0.005)
        reports.append(kept.keep_up())

    assert reports.count(True) == 1
    assert kept.last_line() == "no disk"
    kept.stop()


def test_a_child_whose_work_is_done_is_not_started_again(tmp_path: Path) -> None:
    kept = child(tmp_path, "pass", once=True)
    kept.start()
    while kept.is_up:
        time.sleep(0.01)

    assert kept.keep_up() is False
    assert kept.failures == 0
    kept.stop()


def test_children_of_a_killed_process_are_swept_at_the_next_start(tmp_path: Path) -> None:
    kept = child(tmp_path, SLEEPER)
    kept.start()
    assert kept.pid is not None
    left = psutil.Process(kept.pid)

    assert sweep(tmp_path) == ["sleeper"]

    psutil.wait_procs([left], timeout=10)
    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE
    kept.stop()


def test_a_number_that_now_belongs_to_someone_else_is_not_swept(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "server.json").write_text(f'{{"pid": {os.getpid()}, "started_ms": 1}}', encoding="utf-8")

    assert sweep(tmp_path) == []

    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from flows.processes import Child, child_environment
kept = Child("sleeper", lambda: [sys.executable, "-c", {SLEEPER!r}], child_environment({{}}), Path({str(tmp_path)!r}))
kept.start()
print(kept.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        grandchild = psutil.Process(int(parent.stdout.readline()))
        parent.kill()

    psutil.wait_procs([grandchild], timeout=10)
    assert not grandchild.is_running()


def test_a_home_has_one_stack_at_a_time(tmp_path: Path) -> None:
    with (
        only_one(tmp_path),
        pytest.raises(BadInput, match=rf"process {os.getpid()} runs a stack there"),
        only_one(tmp_path),
    ):
        pass

    with only_one(tmp_path):
        pass


def test_a_child_does_not_inherit_settings_meant_for_another_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    monkeypatch.setenv("ONEPATH_BROKER", "live")

    environment = child_environment({"ONEPATH_BROKER": "simulated"})

    assert "PREFECT_API_KEY" not in environment
    assert environment["ONEPATH_BROKER"] == "simulated"
    assert environment["PATH"] == os.environ["PATH"]
