"""A real Prefect server for the tests that need one: started once, on the PostgreSQL of this test run."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from desk.ledger.engine import Ledger, with_database
from desk.settings import BrokerKind, Settings
from flows.stack import Stack

PROBES = Path(__file__).parent / "probes"


@pytest.fixture
def free_port() -> int:
    return _free_port()


@pytest.fixture(scope="session")
def prefect_stack(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Prefect server with the probe deployments and no runner. Its ledger is migrated."""
    settings = Settings(
        home=tmp_path_factory.mktemp("stack"),
        database_url=with_database(postgres_url, "stack"),
        broker=BrokerKind.PAPER,  # nothing here talks to a broker: no exchange has to be started
        alpaca_key_id="unused",
        alpaca_secret_key="unused",
        prefect_port=_free_port(),
    )
    stack = Stack(
        settings,
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
