"""The embedded PostgreSQL: started by whoever needs it, never lost, stopped by its owner alone."""

from __future__ import annotations

import multiprocessing
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from stat import S_IMODE

import psutil
import psycopg
import pytest

from desk.errors import BadInput
from desk.ledger import embedded
from desk.ledger.connecting import connect_plainly, with_database
from desk.ledger.embedded import is_running, start_embedded, stop_embedded

pytestmark = pytest.mark.integration


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home of this test's own, with a space in its name, whose server does not outlive the test."""
    home = tmp_path / "one path"
    yield home
    if (home / "postgres" / "PG_VERSION").exists():
        stop_embedded(home)


def processes_of(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == home / "postgres":
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def postmaster(home: Path) -> int:
    return int((home / "postgres" / "postmaster.pid").read_text().split()[0])


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    return connect_plainly(with_database(url, "postgres"))


def remember(url: str) -> None:
    with connect(url) as connection:
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('still here')")


def recalled(url: str) -> object:
    with connect(url) as connection:
        row = connection.execute("SELECT word FROM kept").fetchone()
        assert row is not None
        return row[0]


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} does not end"
        time.sleep(0.01)


def test_starting_again_attaches_and_stopping_leaves_no_process(home: Path) -> None:
    first = start_embedded(home)
    pid = postmaster(home)

    assert start_embedded(home) == first
    assert postmaster(home) == pid
    assert is_running(home)

    stop_embedded(home)

    assert processes_of(home) == []
    assert not is_running(home)
    stop_embedded(home)


def test_data_outlive_a_stop(home: Path) -> None:
    remember(start_embedded(home))
    stop_embedded(home)

    assert recalled(start_embedded(home)) == "still here"


def test_data_outlive_a_killed_server(home: Path) -> None:
    remember(start_embedded(home))
    pid = postmaster(home)
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)

    assert not is_running(home)
    stop_embedded(home)
    assert recalled(start_embedded(home)) == "still here"
    assert postmaster(home) != pid


def test_a_server_killed_under_its_clients_starts_again(home: Path) -> None:
    """Backends of a dead server linger until they notice; the new one waits for them."""
    url = start_embedded(home)
    remember(url)
    with connect(url) as client:
        client.execute("BEGIN")
        os.kill(postmaster(home), signal.SIGKILL)

        assert recalled(start_embedded(home)) == "still here"
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")


def test_a_stale_pid_that_now_belongs_to_something_else_is_not_a_server(home: Path) -> None:
    """After a reboot the recorded number may be anyone's, ours included."""
    remember(start_embedded(home))
    lock = home / "postgres" / "postmaster.pid"
    lines = lock.read_text().split("\n")
    owner = lock.stat()
    os.kill(int(lines[0]), signal.SIGKILL)
    wait_gone(int(lines[0]))
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    os.chown(lock, owner.st_uid, owner.st_gid)

    assert not is_running(home)
    assert recalled(start_embedded(home)) == "still here"


def test_the_server_outlives_the_process_that_started_it(home: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from desk.ledger.embedded import start_embedded; "
        "start_embedded(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(home)], check=False, timeout=120)
    pid = postmaster(home)

    assert killed.returncode == -signal.SIGKILL
    with connect(start_embedded(home)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert postmaster(home) == pid


def test_a_kill_while_the_data_directory_is_made_leaves_nothing_half_made(home: Path) -> None:
    unfinished = home / "postgres.unfinished" / "base"
    unfinished.mkdir(parents=True)
    (unfinished / "1").write_text("half")

    with connect(start_embedded(home)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not unfinished.exists()


def test_several_processes_may_start_it_at_once(home: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        urls = pool.map(start_embedded, [home] * 3)

    assert len(set(urls)) == 1
    assert len([process for process in processes_of(home) if "-D" in process.cmdline()]) == 1


def test_a_home_too_deep_for_a_socket_gets_a_private_short_one(home: Path) -> None:
    deep = home.joinpath(*["long" * 10] * 3)
    url = start_embedded(deep)
    try:
        folder = Path(psycopg.conninfo.conninfo_to_dict(url)["host"])  # type: ignore[arg-type]

        with connect(url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert not folder.is_relative_to(deep)
        assert S_IMODE(folder.stat().st_mode) == 0o700
        assert start_embedded(deep) == url
    finally:
        stop_embedded(deep)


def test_nobody_else_may_enter_the_data_directory(home: Path) -> None:
    """The socket lies there, and whoever reaches it is superuser."""
    start_embedded(home)

    assert S_IMODE((home / "postgres").stat().st_mode) == 0o700


def test_a_data_directory_of_another_major_version_is_named(home: Path) -> None:
    start_embedded(home)
    stop_embedded(home)
    (home / "postgres" / "PG_VERSION").write_text("13\n")

    with pytest.raises(BadInput, match=r"made by version 13, the installed wheel has \d+; install") as refused:
        start_embedded(home)

    assert "\n" not in str(refused.value)


def test_a_folder_that_is_something_else_is_left_alone(home: Path) -> None:
    other = home / "postgres" / "letter.txt"
    other.parent.mkdir(parents=True)
    other.write_text("dear")

    with pytest.raises(BadInput, match="not a PostgreSQL data directory and not empty"):
        start_embedded(home)

    assert other.read_text() == "dear"


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(BadInput, match=r"file/home: cannot be written \(Not a directory\); set ONEPATH_HOME"):
        start_embedded(tmp_path / "file" / "home")


def test_a_broken_configuration_is_quoted_from_the_log(home: Path) -> None:
    start_embedded(home)
    stop_embedded(home)
    with (home / "postgres" / "postgresql.conf").open("a") as configuration:
        configuration.write("no_such_setting = 1\n")

    with pytest.raises(BadInput, match=r"did not start \(.*configuration file .* contains errors"):
        start_embedded(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_runs_it_as_a_user_without_rights_and_opens_the_way_no_further_than_needed(home: Path) -> None:
    home.mkdir(mode=0o700)
    start_embedded(home)

    assert {process.uids().effective for process in processes_of(home)} != {0}
    assert all(process.uids().effective != 0 for process in processes_of(home))
    assert S_IMODE(home.stat().st_mode) == 0o701


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to play two users")
def test_root_leaves_an_ordinary_users_data_to_that_user(home: Path) -> None:
    """A directory once made by an ordinary user is run as that user, so that both can go on using it."""
    start_embedded(home)
    stop_embedded(home)
    for path in (home, *home.rglob("*")):
        os.chown(path, 12345, 12345)
    start_embedded(home)

    assert {process.uids().effective for process in processes_of(home)} == {12345}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to play another user")
def test_another_users_data_are_refused(home: Path) -> None:
    start_embedded(home)
    stop_embedded(home)
    home.chmod(0o777)
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(12345)
    os.seteuid(12345)
    try:
        with pytest.raises(BadInput, match="belongs to onepath_postgres; run as onepath_postgres or set ONEPATH_HOME"):
            start_embedded(home)
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def as_nobody(home: Path) -> None:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    with connect(start_embedded(home)) as connection:
        connection.execute("SELECT 1")
    stop_embedded(home)
    os._exit(0)  # what other tests left to clean up at exit is root's, and not this user's to remove


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become an ordinary user")
def test_an_ordinary_user_runs_it_as_themselves(home: Path) -> None:
    home.mkdir(mode=0o700)
    os.chown(home, 65534, 65534)
    for folder in home.parents:
        folder.chmod(folder.stat().st_mode | 0o001)
    process = multiprocessing.get_context("fork").Process(target=as_nobody, args=(home,))
    process.start()
    process.join(60)

    assert process.exitcode == 0
    assert (home / "postgres" / "PG_VERSION").stat().st_uid == 65534
    assert processes_of(home) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become a user without a name")
def test_a_data_directory_that_cannot_be_made_is_explained_and_leaves_nothing(home: Path) -> None:
    """initdb wants its user to have a name; a full disk goes the same way."""
    home.mkdir(parents=True)
    (home / "postgres.unfinished").mkdir()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "_server_user", nameless)
        with pytest.raises(BadInput, match=r"cannot be initialised .*user does not exist.*; set ONEPATH_HOME"):
            start_embedded(home)

    assert [path.name for path in home.iterdir()] == ["postgres.lock"]


def nameless() -> pwd.struct_passwd:
    return pwd.struct_passwd(("nameless", "x", 12345, 12345, "", "/", "/bin/false"))
