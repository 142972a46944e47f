"""Real parts for every test: one PostgreSQL per run, one freshly migrated database per test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from desk.ledger import migrate
from desk.ledger.accounts import open_account
from desk.ledger.connecting import connect_plainly, libpq_url
from desk.ledger.databases import recreate_database
from desk.ledger.embedded import start_embedded, stop_embedded
from desk.ledger.engine import Ledger, with_database
from desk.ledger.runs import record_session
from desk.ledger.strategies import apply_strategy
from desk.market import Session
from desk.strategy import Strategy

TEMPLATE = "migrated_template"
_numbers = count(1)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL of this test run alone, on a socket; its database `onepath` is not there yet."""
    # Not under pytest's own folder: as root the server runs as another user, and a second pytest run closes it to them.
    home = Path(tempfile.mkdtemp(prefix="onepath-postgres-"))
    url = start_embedded(home)
    with psycopg.connect(libpq_url(with_database(url, "postgres")), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")  # nothing here has to outlive a power cut
        connection.execute("SELECT pg_reload_conf()")
    yield url
    stop_embedded(home)
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def template_url(postgres_url: str) -> str:
    """The migrated, empty database that each test's own is copied from. Nobody may stay connected to it."""
    url = recreate_database(postgres_url, TEMPLATE)
    migrate.upgrade(url)
    return url


@pytest.fixture
def empty_url(postgres_url: str) -> Iterator[str]:
    """A database of this test's own, without a schema."""
    name = f"empty_{next(_numbers)}"
    yield recreate_database(postgres_url, name)
    _drop(postgres_url, name)


@pytest.fixture
def ledger_url(postgres_url: str, template_url: str) -> Iterator[str]:
    """A migrated, empty ledger database of this test's own."""
    name = f"ledger_{next(_numbers)}"
    with connect_plainly(with_database(postgres_url, "postgres")) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(TEMPLATE))
        )
    yield with_database(postgres_url, name)
    _drop(postgres_url, name)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """The same, opened with the smallest pool: whoever needs two connections at once is found out."""
    opened = Ledger.connect(ledger_url, pool_size=1)
    yield opened
    opened.close()


@pytest.fixture
def books(ledger: Ledger) -> Ledger:
    """A ledger with the account SIM-1, version 1 of the default strategy, and the session of 2024-03-05."""
    session = Session(
        day=date(2024, 3, 5),
        opens=datetime(2024, 3, 5, 14, 30, tzinfo=UTC),
        closes=datetime(2024, 3, 5, 21, 0, tzinfo=UTC),
    )
    with ledger.transaction() as connection:
        open_account(connection, account="SIM-1", broker="simulated", venue="simulated: synthetic, seed 7")
        record_session(connection, account="SIM-1", session=session)
        apply_strategy(connection, account="SIM-1", strategy=Strategy(), by="test")
    return ledger


def _drop(url: str, name: str) -> None:
    with connect_plainly(with_database(url, "postgres")) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
