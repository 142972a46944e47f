"""A trading day through the real thing: Prefect's server, the deployments, the exchange over HTTP, the ledger.

One stack serves all end-to-end tests. What must not be shared is each test's own: the ledger (a database), the home
with its bars and reports, and the account (the exchange is reset). The exchange's clock stands still unless moved.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Scheduled
from pydantic import SecretStr
from sqlalchemy import text

from desk.ledger.records import Run
from desk.ledger.runs import run_of
from desk.ledger.trades import Trade, open_trades
from desk.market import at_new_york
from desk.orders import OUR_PREFIX, BrokerOrder
from desk.settings import Settings
from flows.claims import UNFINISHED
from flows.runner import Runner, wall_clock
from flows.stack import Stack
from tasks.office import Office, in_office, open_office

__all__ = ["CASH", "World", "wait_until", "world"]

CASH = Decimal(100_000)
WAIT_S_MAX = 90.0
LAUNCHER = Path(__file__).parents[1] / "e2e" / "probes" / "launch.py"
IN_DOUBT = ("reserved", "sending", "unknown", "quarantined")


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline, f"not in {WAIT_S_MAX} s: {what}"
        time.sleep(0.05)


@dataclass
class World:
    """What a test holds in its hands: the clock, the runs, and the two books to compare."""

    stack: Stack
    settings: Settings
    office: Office
    client: SyncPrefectClient
    day: date
    _open: ExitStack = field(default_factory=ExitStack)
    _runner: Runner | None = None

    # ------------------------------------------------------------------------------------------- exchange

    def admin(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        url = f"{self.settings.exchange_url}/admin/{path}"
        answer = httpx.get(url) if body is None else httpx.post(url, json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def set_clock(self, hhmm: str, day: date | None = None) -> None:
        """The exchange's time, in New York's hours."""
        self.set_moment(at_new_york(day or self.day, hhmm))

    def set_moment(self, at: datetime) -> None:
        """The exchange's time. Waiting may have moved the clock past it already."""
        self.admin("clock", {"now": max(at, self.now).isoformat()})
        self.day = self.office.broker.clock().today

    @property
    def now(self) -> datetime:
        return self.office.broker.clock().now

    def quote(self, symbol: str, price: Decimal) -> None:
        """Everything trades at this price, to the cent, until the clock moves."""
        cent = Decimal("0.01")
        bid = price.quantize(cent)
        self.admin(f"market/{symbol}", {"bid": str(bid), "ask": str(bid + cent), "last": str(bid)})

    # ------------------------------------------------------------------------------------------------ runs

    @property
    def runner(self) -> Runner:
        """A runner in this process. Each test has its own, as each process has."""
        return self._runner or self.next_runner()

    def next_runner(self) -> Runner:
        """One that has just started, and so looks at once for what a dead one left."""
        self._runner = self._open.enter_context(Runner(("daily", "monitor"), name="e2e"))
        return self._runner

    def run(self, stage: str, session: date | None = None) -> FlowRun:
        """A run of the stage's deployment, executed here; it must complete. Without a session, as the schedule does."""
        run = self.runner.run_now(f"{stage}/{stage}", _parameters(session))
        assert run.state is not None and run.state.is_completed(), f"{stage}: {run.state}"
        return run

    def ask_for(self, stage: str) -> FlowRun:
        """What the UI's "Quick run" does: whoever serves the queue executes it."""
        found = self.client.read_deployment_by_name(f"{stage}/{stage}")
        return self.client.create_flow_run_from_deployment(found.id, parameters=_parameters(None))

    def run_there(self, stage: str) -> FlowRun:
        """The same, executed by a runner process; it must complete."""
        run = self.until_ended(self.ask_for(stage))
        assert run.state is not None and run.state.is_completed(), f"{stage}: {run.state}"
        return run

    def ask_again(self, run: FlowRun) -> None:
        """What the UI's "Retry" does: the same flow run is scheduled once more."""
        again = Scheduled(name="AwaitingRetry", scheduled_time=wall_clock())
        self.client.set_flow_run_state(run.id, again, force=True)

    def rerun(self, run: FlowRun) -> FlowRun:
        """The same flow run once more, executed here; it must complete."""
        self.ask_again(run)
        assert self.runner.run_due() == 1
        ended = self.read(run)
        assert ended.state is not None and ended.state.is_completed(), f"{ended.name}: {ended.state}"
        assert ended.run_count == run.run_count + 1
        return ended

    def read(self, run: FlowRun) -> FlowRun:
        return self.client.read_flow_run(run.id)

    def until_ended(self, run: FlowRun) -> FlowRun:
        def is_final() -> bool:
            state = self.read(run).state
            return state is not None and state.is_final()

        wait_until(is_final, f"{run.name} ends")
        return self.read(run)

    def tasks_of(self, run: FlowRun) -> Counter[tuple[str, str]]:
        """How many task runs of this run and its child runs are there, by name of the step and state."""
        children = self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate({"parent_flow_run_id": {"any_": [run.id]}})
        )
        ids = [run.id, *(child.id for child in children)]
        tasks = self.client.read_task_runs(
            task_run_filter=TaskRunFilter.model_validate({"flow_run_id": {"any_": ids}}), limit=200
        )
        return Counter((task.name.rsplit("-", 1)[0], task.state.name) for task in tasks if task.state)

    # ----------------------------------------------------------------------------------------- processes

    @contextmanager
    def runner_process(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """A runner of both queues on this world's ledger. With options, the launcher starts it: it may die midway."""
        start = [str(LAUNCHER), *options, "--"] if options else ["-m", "flows.serve"]
        command = [sys.executable, *start, "--queue", "daily", "--queue", "monitor"]
        log = self.settings.home / "runner.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**self.stack.environment(), **self.settings.environment()}
        with log.open("ab") as sink:
            process = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink, cwd=self.settings.home)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    # --------------------------------------------------------------------------------------- the two books

    def rows(self, query: str, **values: object) -> list[Any]:
        with self.office.ledger.transaction() as connection:
            return [row._mapping for row in connection.execute(text(query), values)]

    def told(self, stage: str) -> Run:
        """What the ledger says of the stage of this day."""
        with self.office.ledger.transaction() as connection:
            found = run_of(connection, account=self.office.account, session=self.day, stage=stage)
        assert found is not None, f"{stage} of {self.day}: not in the ledger"
        return found

    def trades(self) -> list[Trade]:
        """The open ones."""
        with self.office.ledger.transaction() as connection:
            return open_trades(connection, account=self.office.account)

    def broker_orders(self) -> list[BrokerOrder]:
        """All there are, legs beside their parents."""
        listed = self.office.broker.orders(status="all", after=self.now - timedelta(days=300))
        return [order for parent in listed for order in (parent, *parent.legs)]

    def assert_books_agree(self) -> None:
        """Ledger = broker: positions, cash, fills and orders; nothing in doubt; each intent one order."""
        held = {position.symbol: position.quantity for position in self.office.broker.positions()}
        assert {trade.symbol: trade.remaining for trade in self.trades()} == held
        flow = "sum(case side when 'sell' then quantity * price else -quantity * price end)"
        (cash,) = self.rows(f"select coalesce({flow}, 0) as cash from fills")
        assert CASH + cash["cash"] == self.office.broker.account().cash
        ours = {fill["activity_id"] for fill in self.rows("select activity_id from fills")}
        assert ours == {fill.activity_id for fill in self.office.broker.fills(self.now - timedelta(days=300))}
        self._assert_one_order_each()

    def _assert_one_order_each(self) -> None:
        known = {row["client_order_id"]: row for row in self.rows("select client_order_id, state, side from orders")}
        assert [order for order, row in known.items() if row["state"] in IN_DOUBT] == []
        at_broker = self.broker_orders()
        ids = Counter(order.client_order_id for order in at_broker)
        assert set(ids.values()) <= {1}, ids
        assert ids.keys() <= known.keys()
        sent = {each for each, row in known.items() if row["state"] not in ("rejected", "lapsed")}
        assert sent == ids.keys()
        bought = Counter((order.symbol, order.submitted_at.date()) for order in at_broker if order.side == "buy")
        assert set(bought.values()) <= {1}, bought
        assert all(order.startswith(OUR_PREFIX) for order, row in known.items() if row["side"] == "buy")

    def sent(self) -> Counter[tuple[str, str]]:
        """How many orders the exchange itself noted as received, by symbol and side: not our word for it."""
        log = self.admin("log?limit=10000")
        return Counter((entry["symbol"], entry["side"]) for entry in log if entry["event"] == "order.pending_new")


def _forget_unfinished(client: SyncPrefectClient) -> None:
    """A test that failed halfway leaves runs, which the runners of the next one would find."""
    for run in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate({"state": UNFINISHED})):
        client.set_flow_run_state(run.id, Cancelled(message="left by an earlier test"), force=True)


def _parameters(session: date | None) -> dict[str, Any]:
    return {"session": None if session is None else session.isoformat()}


@contextmanager
def world(stack: Stack, *, home: Path, ledger_url: str, day: date, hhmm: str = "03:55") -> Iterator[World]:
    """A new life on the shared stack: an empty ledger, an account full of cash, five to four in the morning."""
    settings = stack.settings.model_copy(update={"home": home, "database_url": SecretStr(ledger_url)})
    body = {"now": at_new_york(day, hhmm).isoformat(), "cash": str(CASH)}
    assert httpx.post(f"{settings.exchange_url}/admin/reset", json=body, timeout=60).status_code == 200
    with ExitStack() as cleanup:
        cleanup.enter_context(stack.prefect())
        office = cleanup.enter_context(in_office(open_office(settings)))
        cleanup.callback(office.ledger.close)
        client = cleanup.enter_context(get_client(sync_client=True))
        _forget_unfinished(client)
        yield World(stack, settings, office, client, day, _open=cleanup)
