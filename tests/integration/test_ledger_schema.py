"""The schema: migrations and tables agree, both ways work, and the database itself refuses what must not be."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from desk.errors import BadInput
from desk.ledger import migrate
from desk.ledger.connecting import connect_plainly, parse_url
from desk.ledger.databases import recreate_database
from desk.ledger.engine import Ledger
from desk.ledger.tables import APPEND_ONLY, metadata

pytestmark = pytest.mark.integration

CHECKS = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE contype IN ('c', 'p', 'u', 'f') AND connamespace = 'public'::regnamespace
    AND conrelid::regclass::text <> 'alembic_version' ORDER BY 1, 2
"""


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    with create_engine(parse_url(url), poolclass=NullPool).connect() as connection:
        yield connection


def relations(url: str) -> list[object]:
    with connect_plainly(url) as connection:
        kinds = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        functions = "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        return [row[0] for query in (kinds, functions) for row in connection.execute(query)]


def test_migrations_and_tables_describe_the_same_schema(ledger_url: str) -> None:
    with connected(ledger_url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})

        assert compare_metadata(context, metadata) == []


def test_migrations_and_tables_have_the_same_constraints(ledger_url: str, empty_url: str) -> None:
    """Alembic's comparison does not look at check constraints; the database's own list does."""
    with connected(empty_url) as connection, connection.begin():
        metadata.create_all(connection)

    with connect_plainly(ledger_url) as migrated, connect_plainly(empty_url) as described:
        assert migrated.execute(CHECKS).fetchall() == described.execute(CHECKS).fetchall()


def test_a_downgrade_leaves_nothing_and_an_upgrade_brings_it_back(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    migrate.downgrade(empty_url, "base")

    assert relations(empty_url) == []
    assert migrate.current(empty_url) is None

    migrate.upgrade(empty_url)

    assert migrate.current(empty_url) == migrate.head()


def test_each_revision_can_be_taken_back_alone(empty_url: str) -> None:
    for revision in migrate.known_revisions():
        migrate.upgrade(empty_url, revision)
        before = relations(empty_url)
        migrate.downgrade(empty_url, "-1")
        migrate.upgrade(empty_url, revision)

        assert sorted(map(str, relations(empty_url))) == sorted(map(str, before))


def test_two_processes_may_upgrade_at_once(empty_url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=migrate.upgrade, args=(empty_url,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)

    assert [process.exitcode for process in processes] == [0, 0]
    assert migrate.current(empty_url) == migrate.head()


def test_an_unknown_revision_is_named(empty_url: str) -> None:
    with pytest.raises(BadInput, match="9999"):
        migrate.upgrade(empty_url, "9999")


def test_a_missing_schema_names_the_remedy(empty_url: str) -> None:
    with pytest.raises(BadInput, match="no schema yet; run onepath db upgrade"):
        Ledger.connect(empty_url)


def test_a_schema_behind_names_the_remedy(empty_url: str) -> None:
    migrate.upgrade(empty_url, "0001")

    with pytest.raises(BadInput, match=r"schema 0001 is behind .*run onepath db upgrade"):
        Ledger.connect(empty_url)


def test_a_schema_ahead_asks_for_a_newer_product(ledger_url: str) -> None:
    with connect_plainly(ledger_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9000'")

    with pytest.raises(BadInput, match=r"schema 9000 is ahead .*install a newer onepath"):
        Ledger.connect(ledger_url)


@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize("statement", ["UPDATE {} SET recorded_at = now()", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_append_only_tables_refuse_to_be_edited(template_url: str, table: str, statement: str) -> None:
    """Also an empty one, also by the superuser: the trigger stands in front of the statement."""
    verb = statement.split(" ", 1)[0]

    with (
        connect_plainly(template_url) as connection,
        pytest.raises(Exception, match=f"{verb} on .* refused") as refused,
    ):
        connection.execute(statement.format(table))  # type: ignore[call-overload]  # composed of constants

    assert verb == "TRUNCATE" or table in str(refused.value)
    assert refused.value.sqlstate == "23000"


def test_a_database_is_made_again_under_those_connected_to_it(postgres_url: str) -> None:
    first = recreate_database(postgres_url, "again")
    with connect_plainly(first) as old:
        again = recreate_database(postgres_url, "again")

        assert again == first
        with pytest.raises(Exception, match=r"terminating connection|closed"):
            old.execute("SELECT 1")
