"""Rules of the house that no single room can keep alone: imports that do nothing, one environment reader, one clock."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from desk.settings import BrokerKind, Settings

HOUSE = Path(__file__).resolve().parents[2]
ROOMS = ("desk", "expectations", "flows", "models", "tasks")

# Who touches the process's environment beside the settings, and why.
ENVIRONMENT_USERS = {
    "desk/settings.py": "the one reader",
    "flows/processes.py:child_environment": "a child gets PATH and the like from its parent, our settings explicitly",
    "models/registry.py:_quiet": "MLflow takes these switches from nowhere else; nothing is read",
}

# Trading time is the broker's. These are about this machine: its processes and Prefect's schedule.
WALL_CLOCK_USERS = {
    "desk/exchange/gateway.py:__init__",  # a rate limit counts real minutes; the default of an argument
    "flows/cli/up.py:_keep_up",
    "flows/runner.py:wall_clock",
    "flows/stack.py:__enter__",
    "flows/stack.py:_exchange_command",
    "flows/watchdog.py:_wall_clock",  # it measures the machine's clock against the broker's
}

# Imports everything and reports each effect that our own code had. What a library does while it is imported is its
# own affair: such an event has an import between itself and the nearest line of ours.
IMPORT_ALL = """
import importlib, json, os, pkgutil, sys

house, rooms = sys.argv[1], sys.argv[2:]
acts = {"socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.fork", "os.posix_spawn", "os.exec",
        "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.putenv", "os.unsetenv", "tempfile.mkstemp",
        "tempfile.mkdtemp", "signal.pthread_kill", "os.kill", "_thread.start_new_thread", "sqlite3.connect"}
writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
effects, modules = [], []

def ours():
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if any(name.startswith(f"{house}/{room}/") for room in rooms):
            return f"{name}:{frame.f_lineno}"
        if name.startswith("<frozen importlib"):
            return None
        frame = frame.f_back
    return None

def watch(event, arguments):
    if event in acts or (event == "open" and isinstance(arguments[2], int) and arguments[2] & writes):
        where = ours()
        if where:
            effects.append(f"{where} {event} {arguments!r:.200}")

before = dict(os.environ)
sys.addaudithook(watch)
for room in rooms:
    for module in pkgutil.walk_packages(importlib.import_module(room).__path__, room + "."):
        importlib.import_module(module.name)
        modules.append(module.name)
print(json.dumps({"modules": modules, "effects": effects, "environment_same": dict(os.environ) == before}))
"""


def test_importing_every_module_has_no_effect(tmp_path: Path) -> None:
    """No file, connection, process, thread or environment variable comes from an import, on a bare environment."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()

    done = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_ALL, str(HOUSE), *ROOMS],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        cwd=here,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    seen = json.loads(done.stdout)
    assert seen["effects"] == []
    assert seen["environment_same"]
    assert list(here.iterdir()) == []
    assert {name.split(".")[0] for name in seen["modules"]} == set(ROOMS)


def test_the_watch_on_imports_sees_an_effect(tmp_path: Path) -> None:
    """The check above can fail: a module that writes a file while it is imported is reported."""
    room = tmp_path / "noisy"
    room.mkdir()
    (room / "__init__.py").touch()
    (room / "acts.py").write_text("from pathlib import Path\nPath('trace').write_text('x')\n")

    done = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_ALL, str(tmp_path), "noisy"],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert ["acts.py:2 open" in effect for effect in json.loads(done.stdout)["effects"]] == [True]


def test_only_the_settings_read_the_environment() -> None:
    """Whoever looks for a setting finds it in one place."""
    used = {place for place, name in _names_used() if name in ENVIRONMENT_NAMES}

    assert {place for place in used if not _is_among(place, ENVIRONMENT_USERS)} == set()


def test_time_comes_in_as_an_argument() -> None:
    """Nobody asks this machine what time it is, except about this machine."""
    used = {place for place, name in _names_used() if name in WALL_CLOCK_NAMES}

    assert {place for place in used if not _is_among(place, WALL_CLOCK_USERS)} == set()


@pytest.mark.parametrize("show", [repr, str, Settings.model_dump_json, lambda s: f"{s!r:>10} {s.model_dump()}"])
def test_secrets_do_not_show_in_the_settings(show: object) -> None:
    """However the settings are shown, the password and the keys are not in it."""
    settings = Settings(
        broker=BrokerKind.PAPER,
        database_url=SecretStr("postgresql://me:hidden-password@db.example:5432/onepath"),
        alpaca_key_id=SecretStr("hidden-key"),
        alpaca_secret_key=SecretStr("hidden-secret"),
    )

    shown = show(settings)  # type: ignore[operator]

    assert "hidden" not in shown
    assert "paper" in shown


def test_a_child_process_is_given_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `environment()` says, the reader reads back, secrets included."""
    settings = Settings(
        home=Path("elsewhere"),
        broker=BrokerKind.LIVE,
        account="123456789",
        alpaca_key_id=SecretStr("key"),
        alpaca_secret_key=SecretStr("secret"),
        watchlist_size=7,
    )

    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)

    assert Settings() == settings


ENVIRONMENT_NAMES = {"os.environ", "os.environb", "os.getenv", "os.putenv", "dotenv.load_dotenv"}
WALL_CLOCK_NAMES = {
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
    "time.time",
    "time.time_ns",
    "time.localtime",
    "time.gmtime",
    "pandas.Timestamp.now",
    "pandas.Timestamp.utcnow",
    "pandas.Timestamp.today",
}


def _is_among(place: str, allowed: dict[str, str] | set[str]) -> bool:
    """A place is `file:function`; a whole file may be allowed."""
    return place in allowed or place.partition(":")[0] in allowed


def _names_used() -> Iterator[tuple[str, str]]:
    """(file:function, full dotted name) of each imported name that the product's code uses."""
    for room in ROOMS:
        for path in sorted((HOUSE / room).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            file = path.relative_to(HOUSE).as_posix()
            imported = dict(_imports(tree))
            yield from ((f"{file}:{function}", name) for function, name in _uses(tree, imported, "<module>"))


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(local name, full name) of each import in a module, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _uses(node: ast.AST, imported: dict[str, str], function: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Attribute | ast.Name):
            head, _, tail = ast.unparse(child).partition(".")
            if head in imported:
                yield function, f"{imported[head]}.{tail}".rstrip(".")
        inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        yield from _uses(child, imported, inner)
