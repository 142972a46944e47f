"""Child processes that are kept up, and of which none is left behind."""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from desk.errors import BadInput

__all__ = ["Child", "child_environment", "only_one", "sweep"]

log = logging.getLogger(__name__)

STOP_S_MAX = 75.0  # a runner lets its run end for 60 s
RESTART_S = (1.0, 2.0, 5.0, 15.0, 60.0, 300.0)  # waits before each restart in a row; the last one repeats
FAILURES_TO_ALERT = 5
STEADY_S = 120.0  # up this long, and earlier failures are forgotten
LOG_BYTES_MAX = 16 << 20  # one older log is kept beside the current one
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(slots=True)
class Child:
    """One command, in a process group of its own.

    On Linux it gets SIGTERM when the thread that started it ends, be it by kill -9: start children from the main
    thread. Elsewhere `sweep` finds them at the next start.
    """

    name: str
    argv: Callable[[], Sequence[str]]  # asked at each start
    environment: Mapping[str, str] = field(repr=False)
    home: Path
    address: str = ""
    once: bool = False  # its work ends: it is started again only when it failed
    failures: int = 0  # in a row
    _process: subprocess.Popen[bytes] | None = None
    _started_at: float = 0.0  # monotonic
    _restart_at: float = 0.0  # monotonic; 0: not waiting

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll() if self._process else None

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log_file(self) -> Path:
        return self.home / "logs" / f"{self.name}.log"

    def start(self) -> None:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_BYTES_MAX:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        with self.log_file.open("ab") as sink:
            self._process = subprocess.Popen(
                self.argv(),
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent if _libc else None,  # noqa: PLW1509  # one call into libc, no lock taken
            )
        self._started_at, self._restart_at = time.monotonic(), 0.0
        process = psutil.Process(self._process.pid)
        record = {"pid": process.pid, "started_ms": round(process.create_time() * 1000)}
        _record(self.home, self.name).write_text(json.dumps(record), encoding="utf-8")
        log.info("process.started", extra={"child": self.name, "pid": process.pid})

    def keep_up(self) -> bool:
        """Start again what ended, after a wait that grows. Returns True when it just failed too often in a row."""
        if self.is_up:
            if self.failures and time.monotonic() - self._started_at > STEADY_S:
                self.failures = 0
            return False
        if self.once and self.exit_code == 0:
            return False
        if self._restart_at == 0.0:
            wait_s = RESTART_S[min(self.failures, len(RESTART_S) - 1)]
            self._restart_at = time.monotonic() + wait_s
            self.failures += 1
            ended = {"child": self.name, "exit_code": self.exit_code, "again_in_s": wait_s, "last": self.last_line()}
            log.warning("process.ended", extra=ended)
            return self.failures == FAILURES_TO_ALERT
        if time.monotonic() >= self._restart_at:
            self.start()
        return False

    def ask_to_stop(self) -> None:
        if self._process is not None and self.is_up:
            self._process.terminate()

    def stop(self, within_s: float = STOP_S_MAX) -> None:
        """SIGTERM, then SIGKILL to whatever is left of its group. Returns when nothing of it runs."""
        if self._process is None:
            return
        if self.is_up:
            self.ask_to_stop()
            try:
                self._process.wait(within_s)
            except subprocess.TimeoutExpired:
                log.warning("process.killed", extra={"child": self.name, "after_s": within_s})
        _kill_group(self._process.pid)
        self._process.wait()
        _record(self.home, self.name).unlink(missing_ok=True)
        log.info("process.stopped", extra={"child": self.name, "exit_code": self._process.returncode})

    def last_line(self) -> str:
        """The last words of its log, for people."""
        try:
            with self.log_file.open("rb") as stream:
                stream.seek(max(0, self.log_file.stat().st_size - 4096))
                lines = stream.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def child_environment(given: Mapping[str, str]) -> dict[str, str]:
    """This process's environment for a child, without what someone set for another Prefect, and with `given`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "ONEPATH_"))}
    return {**inherited, "PYTHONUNBUFFERED": "1", **given}


def sweep(home: Path) -> list[str]:
    """Stop children that a killed predecessor under `home` left behind. Returns their names."""
    swept = []
    for path in sorted(_record(home, "x").parent.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            process = psutil.Process(record["pid"])
            if round(process.create_time() * 1000) == record["started_ms"]:
                process.terminate()
                _, left = psutil.wait_procs([process], timeout=STOP_S_MAX)
                _kill_group(process.pid) if left else None
                swept.append(path.stem)
        except (psutil.NoSuchProcess, ValueError, KeyError):
            log.debug("process.gone", extra={"child": path.stem})
        path.unlink(missing_ok=True)
    if swept:
        log.warning("process.swept", extra={"processes": swept})
    return swept


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold `home` alone. The lock is the kernel's: a killed holder loses it. Raises BadInput."""
    path = home / "up.lock"
    try:
        home.mkdir(parents=True, exist_ok=True)
        handle = path.open("a+")
    except OSError as error:
        raise BadInput(f"home {home}: cannot be written ({error.strerror}); set ONEPATH_HOME elsewhere") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise BadInput(
                f"home {home}: process {holder} runs a stack there; stop it or set ONEPATH_HOME elsewhere"
            ) from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def _record(home: Path, name: str) -> Path:
    folder = home / "run"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.json"


def _kill_group(pgid: int) -> None:
    try:
        os.killpg(pgid, signal.SIGKILL)
    except ProcessLookupError:
        return  # nothing left of it


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # type: ignore[union-attr]  # only called where it was loaded
