"""Prefect's server and MLflow's registry live in databases of the same PostgreSQL."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import requests
from sqlalchemy import make_url

from desk.errors import BadInput
from desk.ledger.connecting import connect_plainly, place, with_database
from desk.ledger.databases import database_urls, ensure_databases, recreate_database, sibling_urls
from desk.settings import Settings
from models.registry import initialise_registry, registry_client

pytestmark = pytest.mark.integration


@pytest.fixture
def prefix(postgres_url: str) -> Iterator[str]:
    """A URL whose three databases are this test's own and gone after it."""
    name = f"neighbours_{os.getpid()}_{time.monotonic_ns()}"
    url = with_database(postgres_url, name)
    yield url
    with connect_plainly(with_database(postgres_url, "postgres")) as connection:
        for suffix in ("", "_prefect", "_mlflow"):
            connection.execute(f'DROP DATABASE IF EXISTS "{name}{suffix}" WITH (FORCE)')  # type: ignore[arg-type]


def test_three_databases_are_made_once_also_by_two_processes(prefix: str) -> None:
    urls = sibling_urls(prefix)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(ensure_databases, [urls, urls])
    ensure_databases(urls)

    for url in (urls.ledger, urls.prefect_async, urls.mlflow):
        with connect_plainly(url) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == (make_url(url).database,)


def test_without_a_url_the_embedded_server_is_started(tmp_path: Path) -> None:
    from desk.ledger.embedded import is_running, stop_embedded

    try:
        urls = database_urls(Settings(home=tmp_path))

        assert is_running(tmp_path)
        assert make_url(urls.ledger).database == "onepath"
        assert make_url(urls.prefect_async).drivername == "postgresql+asyncpg"
    finally:
        stop_embedded(tmp_path)


def test_with_a_url_that_server_is_used(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url="postgres://ada:s%40cret@db.example:6432/desk?sslmode=require")
    urls = database_urls(settings)

    assert urls.ledger == "postgresql://ada:s%40cret@db.example:6432/desk?sslmode=require"
    assert urls.prefect_async == "postgresql+asyncpg://ada:s%40cret@db.example:6432/desk_prefect?ssl=require"
    assert urls.mlflow == "postgresql+psycopg://ada:s%40cret@db.example:6432/desk_mlflow?sslmode=require"
    assert "cret" not in repr(urls)
    assert not list(tmp_path.iterdir())


def test_a_user_who_may_not_make_databases_is_told_what_to_grant(postgres_url: str) -> None:
    admin = with_database(postgres_url, "postgres")
    with connect_plainly(admin) as connection:
        connection.execute("CREATE ROLE modest LOGIN")
    modest = make_url(admin).set(username="modest").render_as_string()
    try:
        with pytest.raises(BadInput, match=r"user modest may not make database x; make it by hand or ALTER ROLE"):
            recreate_database(modest, "x")
    finally:
        with connect_plainly(admin) as connection:
            connection.execute("DROP ROLE modest")


def test_prefects_server_starts_on_its_database(prefix: str, tmp_path: Path) -> None:
    """The wheel must ship pg_trgm, and asyncpg must find the socket in the URL's query."""
    urls = sibling_urls(prefix)
    ensure_databases(urls)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PREFECT_HOME": str(tmp_path),
        "PREFECT_API_DATABASE_CONNECTION_URL": urls.prefect_async,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}/api"
            wait_healthy(server, f"{address}/health", tmp_path / "server.log")
            made = requests.post(f"{address}/flows/", json={"name": "trading"}, timeout=10)

            assert made.status_code == 201
            with psycopg.connect(
                make_url(urls.ledger)
                .set(database=make_url(urls.prefect_async).database, drivername="postgresql")
                .render_as_string(hide_password=False)
            ) as connection:
                assert connection.execute("SELECT name FROM flow").fetchall() == [("trading",)]
        finally:
            server.terminate()
            server.wait(30)


def wait_healthy(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            if requests.get(url, timeout=2).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.2)


def test_the_registry_is_initialised_by_several_at_once_and_works(prefix: str, tmp_path: Path) -> None:
    urls = sibling_urls(prefix)
    ensure_databases(urls)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(initialise_registry, [urls.mlflow] * 2)

    client = registry_client(urls.mlflow)
    client.create_registered_model("onepath-policy")
    (tmp_path / "policy.onnx").write_bytes(b"weights")
    version = client.create_model_version("onepath-policy", source=tmp_path.as_uri())
    client.set_registered_model_alias("onepath-policy", "champion", version.version)

    assert client.get_model_version_by_alias("onepath-policy", "champion").version == version.version


def test_a_registry_that_cannot_be_reached_is_named_without_its_password() -> None:
    with pytest.raises(BadInput, match=r"PostgreSQL 127\.0\.0\.1:1/desk_mlflow: cannot be reached") as refused:
        initialise_registry("postgresql+psycopg://ada:s3cret@127.0.0.1:1/desk_mlflow")

    assert "s3cret" not in str(refused.value)
    assert place("postgresql://ada:s3cret@h/d") == "h:5432/d"
