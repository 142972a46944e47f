"""One PostgreSQL, three databases: the ledger, Prefect's server and MLflow's registry."""

from __future__ import annotations

from dataclasses import dataclass, field

import psycopg
from psycopg import errors, sql
from sqlalchemy import make_url

from desk.errors import BadInput
from desk.ledger.connecting import connect_plainly, libpq_url, parse_url, place, with_database
from desk.ledger.embedded import start_embedded
from desk.settings import Settings

__all__ = ["DatabaseUrls", "database_urls", "ensure_databases", "recreate_database", "sibling_urls"]

DATABASES_LOCK = 0x6F6E6570  # advisory lock, in the maintenance database, of whoever makes or drops databases


@dataclass(frozen=True, slots=True)
class DatabaseUrls:
    """Where the three databases are. They carry the password: not shown by repr, never to be logged."""

    ledger: str = field(repr=False)  # postgresql://...
    prefect_async: str = field(repr=False)  # postgresql+asyncpg://..., for PREFECT_API_DATABASE_CONNECTION_URL
    mlflow: str = field(repr=False)  # postgresql+psycopg://..., for mlflow's tracking and registry URI


def database_urls(settings: Settings) -> DatabaseUrls:
    """The databases on the server in the settings; without one, on the embedded server, which is started.

    Raises BadInput for an unusable URL or when the embedded server does not start. Makes no database yet.
    """
    if settings.database_url is not None:
        return sibling_urls(settings.database_url.get_secret_value())
    return sibling_urls(start_embedded(settings.home))


def sibling_urls(url: str) -> DatabaseUrls:
    """`<name>`, `<name>_prefect` and `<name>_mlflow` of one server, each in its driver's form."""
    parsed = parse_url(url)
    name = parsed.database or ""
    # asyncpg takes neither libpq's sslmode nor its other options
    query = {key: value for key, value in parsed.query.items() if key in ("host", "port")}
    if "sslmode" in parsed.query:
        query["ssl"] = parsed.query["sslmode"]
    prefect = parsed.set(drivername="postgresql+asyncpg", database=f"{name}_prefect", query=query)
    mlflow = parsed.set(drivername="postgresql+psycopg", database=f"{name}_mlflow")
    return DatabaseUrls(
        ledger=libpq_url(url),
        prefect_async=prefect.render_as_string(hide_password=False),
        mlflow=mlflow.render_as_string(hide_password=False),
    )


def ensure_databases(urls: DatabaseUrls) -> None:
    """Make those of the three that are missing. Safe when several processes do it at once. Raises BadInput."""
    names = [make_url(url).database or "" for url in (urls.ledger, urls.prefect_async, urls.mlflow)]
    with _maintenance(urls.ledger) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (DATABASES_LOCK,))
        found = connection.execute("SELECT datname FROM pg_database WHERE datname = ANY(%s)", (names,))
        present = {row[0] for row in found}
        for name in names:
            if name not in present:
                _create(connection, urls.ledger, name)


def recreate_database(url: str, name: str) -> str:
    """Drop the database, with whoever is connected to it, and make it again, empty. Returns its URL.

    For replays, demos and tests only. Raises BadInput.
    """
    with _maintenance(url) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (DATABASES_LOCK,))
        try:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        except errors.InsufficientPrivilege as error:
            raise _not_allowed(url, name) from error
        _create(connection, url, name)
    return with_database(url, name)


def _maintenance(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """A connection from which databases can be made: to `postgres`, or to the ledger where that one is closed."""
    try:
        return connect_plainly(with_database(url, "postgres"))
    except BadInput:
        return connect_plainly(url)


def _create(connection: psycopg.Connection[tuple[object, ...]], url: str, name: str) -> None:
    try:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except (errors.DuplicateDatabase, errors.UniqueViolation):
        return  # someone without our lock was faster: it is there
    except errors.InsufficientPrivilege as error:
        raise _not_allowed(url, name) from error


def _not_allowed(url: str, name: str) -> BadInput:
    user = parse_url(url).username
    return BadInput(
        f"PostgreSQL {place(url)}: user {user} may not make database {name}; "
        f"make it by hand or ALTER ROLE {user} CREATEDB"
    )
