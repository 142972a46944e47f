"""A real Prefect server for the tests that need one: started once, on the PostgreSQL of this test run."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from desk.exchange.exchange import Exchange
from desk.exchange.server import ExchangeServer
from desk.exchange.synthetic import SyntheticMarket
from desk.ledger.engine import Ledger, with_database
from desk.market import at_new_york
from desk.settings import Settings
from flows.stack import Stack

PROBES = Path(__file__).parent / "probes"


@pytest.fixture
def free_port() -> int:
    return _free_port()


@pytest.fixture(scope="session")
def prefect_stack(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Prefect server with the probe deployments and no runner. Its ledger is migrated.

    Nothing here trades; the exchange is there because a stack asks its broker who it is before it starts.
    """
    day = date(2024, 3, 5)
    exchange = Exchange(SyntheticMarket(1, day, day + timedelta(days=3), 20), at_new_york(day, "10:00"))
    settings = Settings(
        home=tmp_path_factory.mktemp("stack"),
        database_url=with_database(postgres_url, "stack"),
        prefect_port=_free_port(),
    )
    with ExchangeServer(exchange) as server:
        stack = Stack(
            settings.model_copy(update={"exchange_url": server.url}),
            queues=(),
            deployments=PROBES / "prefect.yaml",
            registry=False,
            environment={"PYTHONPATH": str(PROBES)},
        )
        with stack:
            yield stack


@pytest.fixture
def in_prefect(prefect_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """The same, with this process pointed at it: Prefect's clients, our settings, the probe flows."""
    for name, value in prefect_stack.environment().items():
        if name.startswith("ONEPATH_"):
            monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(PROBES))
    with prefect_stack.prefect():
        yield prefect_stack
    sys.modules.pop("onepath_probes", None)


@pytest.fixture
def stack_ledger(prefect_stack: Stack) -> Iterator[Ledger]:
    ledger = Ledger.connect(prefect_stack.urls.ledger, pool_size=1)
    yield ledger
    ledger.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
