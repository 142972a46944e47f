"""The ledger's schema: Alembic migrations, run from code without an ini file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.pool import NullPool

from desk.errors import BadInput
from desk.ledger.connecting import CONNECT_S_MAX, parse_url, place, refusal

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["check_revision", "current", "downgrade", "head", "revision_of", "upgrade"]

MIGRATION_LOCK = 0x6D696772  # advisory lock of whoever migrates
REMEDY = "run onepath db upgrade"


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the schema to `revision`; all of it or, when a step fails, nothing. Several at once take turns.

    Raises BadInput when the server cannot be used or has no such revision.
    """
    from alembic import command  # heavy, and only needed here

    with _migrating(url) as config:
        command.upgrade(config, revision)


def downgrade(url: str, revision: str) -> None:
    """Take the schema back to `revision`; `base` leaves nothing, and with it all data are gone. Raises BadInput."""
    from alembic import command

    with _migrating(url) as config:
        command.downgrade(config, revision)
        if revision == "base":
            config.attributes["connection"].execute(text("DROP TABLE alembic_version"))


def current(url: str) -> str | None:
    """The revision the database is at; None before the first migration. Raises BadInput."""
    with _connected(url) as connection:
        return revision_of(connection)


def revision_of(connection: Connection) -> str | None:
    """The same, on an open connection."""
    if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar() is None:
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


@cache
def known_revisions() -> tuple[str, ...]:
    """All revisions of this code, oldest first. Files are named after their revision, `0001_first.py`."""
    return tuple(sorted(path.name.split("_", 1)[0] for path in (_scripts() / "versions").glob("[0-9]*_*.py")))


def head() -> str:
    """The revision this code needs."""
    return known_revisions()[-1]


def check_revision(found: str | None, *, place: str) -> None:
    """Raises BadInput unless the database is at the revision this code needs."""
    if found == head():
        return
    if found is None:
        raise BadInput(f"ledger {place}: the database has no schema yet; {REMEDY}")
    if found in known_revisions():
        raise BadInput(f"ledger {place}: schema {found} is behind this version, which needs {head()}; {REMEDY}")
    raise BadInput(
        f"ledger {place}: schema {found} is ahead of this version, which knows up to {head()}; install a newer onepath"
    )


@contextmanager
def _migrating(url: str) -> Iterator[Config]:
    """Alembic's configuration, bound to one transaction that holds the migration lock."""
    from alembic.config import Config
    from alembic.util import CommandError

    with _connected(url) as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        config = Config()
        config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
        config.attributes["connection"] = connection
        try:
            yield config
        except CommandError as error:
            raise BadInput(f"ledger {place(url)}: {error}") from error


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    engine = create_engine(parse_url(url), poolclass=NullPool, connect_args={"connect_timeout": CONNECT_S_MAX})
    try:
        connection = engine.connect()
    except OperationalError as error:
        raise refusal(url, error.orig or error) from error
    with connection, connection.begin():
        try:
            yield connection
        except ProgrammingError as error:
            if "permission denied" in str(error.orig):
                reason = " ".join(str(error.orig).split())
                raise BadInput(f"ledger {place(url)}: {reason}; grant this user CREATE on the schema") from error
            raise


def _scripts() -> Path:
    """The migrations: packed beside this module in a wheel, under deploy/ in a checkout."""
    packed = Path(__file__).parent / "migrations"
    return packed if packed.is_dir() else Path(__file__).parents[2] / "deploy" / "migrations"
