"""One stack for all end-to-end tests, and a world of its own on it for each."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from whole_stack import World, world

from desk.ledger.engine import with_database
from desk.settings import BrokerKind, Settings
from flows.stack import Stack

TUESDAY = date(2024, 3, 5)


@pytest.fixture(scope="session")
def whole_stack(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Prefect's server with the deployments of prefect.yaml, and the exchange with a small synthetic market."""
    home = tmp_path_factory.mktemp("whole")
    strategy = home / "strategy.toml"
    # Whoever leads the list is bought, up to four: few orders, and some in any session of a market of sixty symbols.
    strategy.write_text("positions_max = 4\nbuy_probability_min = 0.2\n", encoding="utf-8")
    settings = Settings(
        home=home,
        database_url=with_database(postgres_url, "whole"),
        broker=BrokerKind.SIMULATED,
        exchange_url=f"http://127.0.0.1:{_free_port()}",
        exchange_clock_driven=True,
        prefect_port=_free_port(),
        strategy=strategy,
        watchlist_size=20,
    )
    market = ["--synthetic", "--symbols", "60", "--seed", "7", "--now", "2024-03-05T08:55:00Z"]
    with Stack(settings, queues=(), asleep=True, registry=False, exchange=market) as stack:
        yield stack


@pytest.fixture
def today(whole_stack: Stack, ledger_url: str, tmp_path: Path) -> Iterator[World]:
    """Tuesday, 2024-03-05, five to four in the morning: nothing has run yet."""
    with world(whole_stack, home=tmp_path, ledger_url=ledger_url, day=TUESDAY) as made:
        yield made


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
