"""Everything of one machine: PostgreSQL, Prefect's server and UI, the simulated exchange, the runners.

`with Stack(settings) as stack:` returns when all of it answers, and leaves no process behind. `onepath up`, the demo
and the end-to-end tests stand on it. Start it from the main thread (see `flows.processes.Child`).
"""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx

from desk.broker.connect import connect
from desk.errors import BadInput, OnepathError, Transient
from desk.ledger import migrate
from desk.ledger.databases import DatabaseUrls, database_urls, ensure_databases
from desk.ledger.embedded import is_running, start_embedded, stop_embedded
from desk.settings import BrokerKind, Settings
from flows.declared import POOL
from flows.processes import Child, child_environment, only_one, sweep

__all__ = ["QUEUES", "Stack"]

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
QUEUES = ("daily", "monitor")
READY_S_MAX = 180.0
POLL_S = 0.1
REGISTRY = """
from desk.ledger.databases import database_urls
from desk.settings import load_settings
from models.registry import initialise_registry
initialise_registry(database_urls(load_settings()).mlflow)
"""
WATCH_S = 5.0  # how often the embedded PostgreSQL is looked at


class Stack:
    """The parts, started in `__enter__` and stopped in reverse order in `__exit__`.

    queues: one runner each; none for a caller who brings a `flows.runner.Runner` of its own.
    asleep: schedules are registered but start nothing.
    deployments: another prefect.yaml.
    exchange: arguments of `onepath exchange serve` if it is to be started; by default a synthetic market that runs
    with the wall clock, as the schedules do.
    watchdog: start one too. Not where the clock leaps: between two leaps the monitor looks dead.
    registry: initialise the model registry too, once everything is ready and without waiting for it.
    environment: more variables for all children.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        queues: Sequence[str] = QUEUES,
        asleep: bool = False,
        deployments: Path | None = None,
        exchange: Sequence[str] | None = None,
        watchdog: bool = False,
        registry: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings.model_copy(update={"home": settings.home.expanduser().resolve()})
        self.home = self.settings.home
        self.children: list[Child] = []
        self._queues, self._asleep, self._deployments = tuple(queues), asleep, deployments
        self._registry, self._exchange, self._given = registry, exchange, dict(environment or {})
        self._watchdog = watchdog
        self._open = ExitStack()
        self._urls: DatabaseUrls | None = None
        self._watch_at = 0.0  # monotonic
        self._started_at = 0.0  # seconds since the epoch

    # ------------------------------------------------------------------------------------------------ for callers

    @property
    def ui_url(self) -> str:
        return f"http://{HOST}:{self.settings.prefect_port}"

    @property
    def prefect_api_url(self) -> str:
        return f"{self.ui_url}/api"

    @property
    def urls(self) -> DatabaseUrls:
        """Where the databases are. Only inside the `with` block."""
        if self._urls is None:
            raise OnepathError("the stack is not up")
        return self._urls

    def environment(self) -> dict[str, str]:
        """Variables of this stack's processes, for one more of them. Contains secrets."""
        return child_environment(
            {
                **self.settings.environment(),
                "ONEPATH_DATABASE_URL": self.urls.ledger,
                "PREFECT_API_URL": self.prefect_api_url,
                "PREFECT_UI_URL": self.ui_url,
                "PREFECT_HOME": str(self.home / "prefect"),
                "PREFECT_LOGGING_COLORS": "false",
                "DO_NOT_TRACK": "1",
                **self._given,
            }
        )

    @contextmanager
    def prefect(self) -> Iterator[None]:
        """Point Prefect in this process at this stack's server, to run flows here or to ask about them."""
        from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: self.prefect_api_url, PREFECT_UI_URL: self.ui_url}):
            yield

    def keep_up(self) -> list[str]:
        """Start again what ended. Call it each second or so. Returns those that just failed too often in a row."""
        if self.settings.database_url is None and time.monotonic() >= self._watch_at:
            if not is_running(self.home):
                log.warning("postgres.ended", extra={"home": str(self.home)})
                start_embedded(self.home)
            self._watch_at = time.monotonic() + WATCH_S
        return [child.name for child in self.children if child.keep_up()]

    # ------------------------------------------------------------------------------------------------ start, stop

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._started_at = time.time()
            stack.enter_context(only_one(self.home))
            sweep(self.home)  # first: a predecessor's server may still hold the port
            self._check_ports()
            self._check_broker()
            self._start_postgres(stack)
            server = self._child(stack, "prefect-server", self._server_command, self.ui_url, self._server_environment())
            exchange = self._start_exchange(stack)
            register = Child("deployments", self._register_command, self.environment(), self.home)
            stack.callback(register.stop, within_s=5)
            register.start()
            migrate.upgrade(self.urls.ledger)
            runners = [self._start_runner(stack, queue) for queue in self._queues]
            for runner in runners:  # all are asked before the first is waited for
                stack.callback(runner.ask_to_stop)
            deadline = time.monotonic() + READY_S_MAX
            _until(
                lambda: _has_failed(register) or _answers(f"{self.prefect_api_url}/health"), "answer", server, deadline
            )
            self._until_registered(register, deadline)
            if exchange is not None:
                _until(lambda: _listens(self.settings.exchange_url), "listen", exchange, deadline)
            for runner in runners:
                _until(partial(self._is_online, runner.name), "report for work", runner, deadline)
            if self._watchdog:
                code = "from flows.cli import main; main()"
                self._child(stack, "watchdog", lambda: [sys.executable, "-c", code, "watchdog"], "", self.environment())
            if self._registry:
                self._child(
                    stack, "registry", lambda: [sys.executable, "-c", REGISTRY], "", self.environment(), once=True
                )
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _check_ports(self) -> None:
        if _is_taken(HOST, self.settings.prefect_port):
            raise BadInput(
                f"port {self.settings.prefect_port}: in use by another program; "
                "stop it or set ONEPATH_PREFECT_PORT to a free one"
            )

    def _check_broker(self) -> None:
        """Refuse wrong keys, another account, or another program at the exchange's address, before 04:00 finds out."""
        if self.settings.broker is BrokerKind.SIMULATED and not _listens(self.settings.exchange_url):
            return  # it is started below
        try:
            broker, market_data = connect(self.settings)
        except Transient as error:  # no answer just now is no reason to stay down: each stage asks again
            log.warning("broker.unreachable", extra={"broker": self.settings.broker.value, "error": str(error)})
            return
        broker.close()
        market_data.close()

    def _start_postgres(self, stack: ExitStack) -> None:
        if self.settings.database_url is None and not is_running(self.home):
            stack.callback(stop_embedded, self.home)
        self._urls = database_urls(self.settings)
        ensure_databases(self._urls)

    def _start_exchange(self, stack: ExitStack) -> Child | None:
        """The simulated exchange, unless it is not needed, runs already, or belongs on another machine."""
        address = urlsplit(self.settings.exchange_url)
        if self.settings.broker is not BrokerKind.SIMULATED or _listens(self.settings.exchange_url):
            return None
        if address.hostname not in (HOST, "localhost"):
            raise BadInput(
                f"exchange {self.settings.exchange_url}: no answer; start it there or correct ONEPATH_EXCHANGE_URL"
            )
        return self._child(stack, "exchange", self._exchange_command, self.settings.exchange_url, self.environment())

    def _exchange_command(self) -> list[str]:
        port = str(urlsplit(self.settings.exchange_url).port or 80)
        now = f"{datetime.fromtimestamp(time.time(), UTC):%Y-%m-%dT%H:%M:%SZ}"
        by_the_wall_clock = ("--synthetic", "--speed", "1", "--now", now)
        code = "from flows.cli import main; main()"
        return [sys.executable, "-c", code, "exchange", "serve", "--port", port, *(self._exchange or by_the_wall_clock)]

    def _start_runner(self, stack: ExitStack, queue: str) -> Child:
        name = f"runner-{queue}"
        argv = [sys.executable, "-m", "flows.serve", "--queue", queue, "--name", name, *self._file_option()]
        return self._child(stack, name, lambda: argv, f"queue {queue}", self.environment())

    def _child(
        self,
        stack: ExitStack,
        name: str,
        argv: Callable[[], Sequence[str]],
        address: str,
        environment: Mapping[str, str],
        *,
        once: bool = False,
    ) -> Child:
        child = Child(name, argv, environment, self.home, address, once=once)
        stack.callback(child.stop)
        child.start()
        self.children.append(child)
        stack.callback(self.children.remove, child)  # first, so that nobody keeps it up while it stops
        return child

    # ---------------------------------------------------------------------------------------------------- Prefect

    def _server_command(self) -> list[str]:
        port = str(self.settings.prefect_port)
        return [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", port]

    def _server_environment(self) -> dict[str, str]:
        return {
            **self.environment(),
            "PREFECT_API_DATABASE_CONNECTION_URL": self.urls.prefect_async,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        }

    def _register_command(self) -> list[str]:
        asleep = ["--asleep"] if self._asleep else []
        return [sys.executable, "-m", "flows.deployments", *asleep, *self._file_option()]

    def _file_option(self) -> list[str]:
        return ["--file", str(self._deployments)] if self._deployments else []

    def _until_registered(self, register: Child, deadline: float) -> None:
        while register.is_up:
            if time.monotonic() > deadline:
                raise OnepathError(f"deployments: not registered in {READY_S_MAX:g} s; see {register.log_file}")
            time.sleep(POLL_S)
        failed = _has_failed(register)
        register.stop()
        if failed:
            raise OnepathError(f"deployments: not registered ({register.last_line()}); see {register.log_file}")

    def _is_online(self, runner: str) -> bool:
        """A runner reports when its flows are imported and it starts to look for runs."""
        try:
            answer = httpx.post(f"{self.prefect_api_url}/work_pools/{POOL}/workers/filter", json={}, timeout=5)
            found = [worker for worker in answer.json() if worker["name"] == runner] if answer.is_success else []
        except httpx.HTTPError:
            return False
        heard = [datetime.fromisoformat(worker["last_heartbeat_time"]).timestamp() for worker in found]
        return any(at > self._started_at for at in heard)  # its predecessor of the same name may count as online


def _until(is_ready: Callable[[], bool], what: str, child: Child, deadline: float) -> None:
    while not is_ready():
        if not child.is_up:
            raise OnepathError(f"{child.name}: ended ({child.last_line()}); see {child.log_file}")
        if time.monotonic() > deadline:
            raise OnepathError(f"{child.name}: did not {what} in {READY_S_MAX:g} s; see {child.log_file}")
        time.sleep(POLL_S)


def _has_failed(child: Child) -> bool:
    return child.exit_code not in (None, 0)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def _listens(url: str) -> bool:
    address = urlsplit(url)
    try:
        with socket.create_connection((address.hostname or HOST, address.port or 80), timeout=2):
            return True
    except OSError:
        return False


def _is_taken(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port left in TIME_WAIT is free
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False
