"""`onepath up` on a machine of its own: everything answers, everything stops, a wrong port is named."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest
from prefect.client.orchestration import get_client

from desk.exchange.exchange import Exchange
from desk.exchange.server import ExchangeServer
from desk.exchange.synthetic import SyntheticMarket
from desk.ledger.embedded import is_running, stop_embedded
from desk.market import at_new_york
from flows.declared import declared
from flows.stack import Stack

pytestmark = pytest.mark.integration

PROBES = Path(__file__).parent / "probes"
WAIT_S_MAX = 120.0


def environment(home: Path, prefect_port: int, exchange_port: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ONEPATH_", "PREFECT_"))}
    return {
        **kept,
        "ONEPATH_HOME": str(home),
        "ONEPATH_PREFECT_PORT": str(prefect_port),
        "ONEPATH_EXCHANGE_URL": f"http://127.0.0.1:{exchange_port}",
        "PYTHONPATH": str(PROBES),
    }


def up_command() -> list[str]:
    code = "from flows.cli import main; main()"
    return [sys.executable, "-c", code, "up", "--file", str(PROBES / "prefect.yaml")]


def processes_of(home: Path) -> list[psutil.Process]:
    """Whatever runs with this home: by its environment, its working directory or its command line."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = (
                process.environ().get("ONEPATH_HOME") == str(home)
                or str(home) in f"{process.cwd()} {process.cmdline()}"
            )
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


@contextmanager
def onepath_up(home: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A running `onepath up` and its UI's address."""
    prefect_port, exchange_port = free_ports(2)
    output = home.parent / "up.out"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            up_command(),
            env=environment(home, prefect_port, exchange_port),
            stdout=sink,
            stderr=sink,
            cwd=home.parent,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + WAIT_S_MAX
        while "Up after" not in output.read_text(encoding="utf-8"):
            assert process.poll() is None and time.monotonic() < deadline, output.read_text(encoding="utf-8")
            time.sleep(0.1)
        yield process, f"http://127.0.0.1:{prefect_port}"
    finally:
        process.kill()
        process.wait()
        psutil.wait_procs(processes_of(home), timeout=0)
        stop_embedded(home)


def test_up_answers_and_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    home = tmp_path / "var"

    with onepath_up(home) as (process, ui):
        page = httpx.get(ui, timeout=30)
        health = httpx.get(f"{ui}/api/health", timeout=30)
        names = sorted(path.stem for path in (home / "run").glob("*.json"))
        process.send_signal(signal.SIGINT)
        exit_code = process.wait(timeout=WAIT_S_MAX)
        left = processes_of(home)

    assert page.is_success and "<title>Prefect" in page.text
    assert health.json() is True
    assert names == ["exchange", "prefect-server", "registry", "runner-daily", "runner-monitor", "watchdog"]
    assert exit_code == 0
    assert left == []
    assert not is_running(home)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_when_up_is_killed_its_children_end_and_the_next_up_starts(tmp_path: Path) -> None:
    home = tmp_path / "var"

    with onepath_up(home) as (process, _):
        process.kill()
        process.wait()
        ours = [p for p in processes_of(home) if not p.name().startswith("postgres")]
        _, alive = psutil.wait_procs(ours, timeout=30)

        assert alive == []

    with onepath_up(home) as (_, ui):
        assert httpx.get(f"{ui}/api/health", timeout=30).is_success


def test_a_port_in_use_is_named_before_anything_is_started(tmp_path: Path) -> None:
    home = tmp_path / "var"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        done = subprocess.run(
            up_command(), env=environment(home, port, free_ports(1)[0]), capture_output=True, text=True, check=False
        )

    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"onepath: port {port}: in use by another program; stop it or set ONEPATH_PREFECT_PORT to a free one"
    )
    assert not (home / "postgres").exists()


def refused_up(home: Path, exchange_port: int, **given: str) -> str:
    """What `onepath up` says when it does not start."""
    env = environment(home, free_ports(1)[0], exchange_port) | given
    done = subprocess.run(up_command(), env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert not (home / "postgres").exists() and processes_of(home) == []
    return done.stderr.strip()


def test_another_program_on_the_exchanges_port_is_not_taken_for_it(tmp_path: Path) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        port = other.server_address[1]

        said = refused_up(tmp_path / "var", port)

        other.shutdown()
    assert said == (
        f"onepath: simulated exchange at http://127.0.0.1:{port} does not answer: "
        "start it with `onepath exchange serve`, or set ONEPATH_EXCHANGE_URL"
    )


def test_keys_the_broker_refuses_are_named_before_anything_is_started(tmp_path: Path) -> None:
    market = SyntheticMarket(1, date(2024, 3, 5), date(2024, 3, 8), 20)
    exchange = Exchange(market, at_new_york(date(2024, 3, 5), "10:00"), keys=("ID", "SECRET"))
    with ExchangeServer(exchange) as server:
        said = refused_up(
            tmp_path / "var", server.port, ONEPATH_ALPACA_KEY_ID="ID", ONEPATH_ALPACA_SECRET_KEY="mistyped-secret"
        )

    assert said.startswith(f"onepath: keys refused by {server.url}: ONEPATH_ALPACA_KEY_ID")
    assert "mistyped-secret" not in said


def test_a_part_that_was_killed_comes_back(prefect_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.processes.RESTART_S", (0.0,))
    (server,) = prefect_stack.children
    first = server.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)

    deadline = time.monotonic() + WAIT_S_MAX
    while server.pid == first or not _answers(prefect_stack):
        prefect_stack.keep_up()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _answers(stack: Stack) -> bool:
    try:
        return httpx.get(f"{stack.prefect_api_url}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


def _registered() -> dict[str, tuple[object, ...]]:
    with get_client(sync_client=True) as client:
        return {
            deployment.name: (
                deployment.entrypoint,
                deployment.description,
                tuple(deployment.tags),
                deployment.work_pool_name,
                deployment.work_queue_name,
                deployment.parameters,
                sorted((s.schedule.cron, s.schedule.timezone, s.active) for s in deployment.schedules),
            )
            for deployment in client.read_deployments()
        }


def test_the_product_and_prefect_deploy_register_the_same(in_prefect: Stack) -> None:
    """Someone who knows Prefect finds what they expect."""
    command = [sys.executable, "-m", "flows.deployments"]
    subprocess.run(command, env=in_prefect.environment(), check=True, capture_output=True)
    ours = _registered()

    deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    root = Path(__file__).parents[2]
    subprocess.run(deploy, env=in_prefect.environment(), cwd=root, check=True, capture_output=True)

    assert _registered() == ours
    assert {d["name"] for d in declared()} <= set(ours)


def test_schedules_registered_asleep_wake_and_a_paused_one_stays_paused(in_prefect: Stack) -> None:
    def register(*options: str) -> None:
        command = [sys.executable, "-m", "flows.deployments", "--file", str(PROBES / "prefect.yaml"), *options]
        subprocess.run(command, env=in_prefect.environment(), check=True, capture_output=True)

    def minutely() -> list[bool]:
        with get_client(sync_client=True) as client:
            return [schedule.active for schedule in client.read_deployment_by_name("probe/minutely").schedules]

    register("--asleep")
    asleep = minutely()
    register()
    awake = minutely()
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name("probe/minutely")
        client.update_deployment_schedule(found.id, found.schedules[0].id, active=False)
    register()
    paused = minutely()
    register("--asleep")
    register()

    assert (asleep, awake, paused, minutely()) == ([False], [True], [False], [True])
