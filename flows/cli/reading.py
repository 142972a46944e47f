"""What the reading commands share: the ledger of a home, opened and left as it was found; JSON."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from desk.errors import BadInput
from desk.settings import load_settings

if TYPE_CHECKING:
    from desk.ledger.engine import Ledger
    from desk.settings import Settings

__all__ = [
    "REPLAY_DATABASE",
    "AccountOption",
    "DatabaseOption",
    "HomeOption",
    "as_json",
    "read_session",
    "reading",
    "serving",
    "settings_of",
]

REPLAY_DATABASE = "onepath_replay"

HomeOption = Annotated[
    Path | None, typer.Option(help="Where data, reports and logs are kept; default ONEPATH_HOME.", show_default=False)
]
DatabaseOption = Annotated[
    str | None, typer.Option(help="Another database of the same server.", metavar="NAME", show_default=False)
]
AccountOption = Annotated[
    str | None, typer.Option(help="Account number; by default ONEPATH_ACCOUNT, or the only account in the ledger.")
]


def settings_of(home: Path | None) -> Settings:
    """The settings, with another home when one is given. Raises BadInput."""
    return load_settings(**({"home": home} if home else {}))


@contextmanager
def reading(settings: Settings, database: str | None = None) -> Iterator[tuple[Ledger, bool]]:
    """The ledger, and whether its server was running. An embedded server started for this is stopped again.

    Raises BadInput when there is no server to ask, no such database or another schema.
    """
    from desk.ledger.engine import Ledger, with_database

    if settings.database_url is None and not (settings.home.expanduser() / "postgres").is_dir():
        raise BadInput(
            f"no ledger under {settings.home}: run onepath up or onepath demo first, or give its --home "
            "or ONEPATH_DATABASE_URL"
        )
    with serving(settings) as (url, was_running):
        if database and not _exists(url, database):
            raise BadInput(f"database {database}: not on this server; run onepath replay first, or name another")
        ledger = Ledger.connect(with_database(url, database) if database else url, pool_size=1)
        try:
            yield ledger, was_running
        finally:
            ledger.close()


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[str, bool]]:
    """The ledger's URL, and whether its server was running. An embedded server started for this is stopped again.

    Raises BadInput when there is no server, or none can be started.
    """
    from desk.ledger.databases import database_urls
    from desk.ledger.embedded import is_running, stop_embedded

    was_running = settings.database_url is not None or is_running(settings.home)
    try:
        yield database_urls(settings).ledger, was_running
    finally:
        if not was_running and is_running(settings.home) and not _is_used(settings):
            stop_embedded(settings.home)


def _exists(url: str, database: str) -> bool:
    from desk.ledger.connecting import connect_plainly
    from desk.ledger.engine import with_database

    with connect_plainly(with_database(url, "postgres")) as connection:
        return connection.execute("SELECT FROM pg_database WHERE datname = %s", (database,)).fetchone() is not None


def _is_used(settings: Settings) -> bool:
    """Whether someone else has connected meanwhile: an `onepath up` just starting finds the server and keeps it."""
    from desk.ledger.connecting import connect_plainly
    from desk.ledger.databases import database_urls
    from desk.ledger.engine import with_database

    with connect_plainly(with_database(database_urls(settings).ledger, "postgres")) as connection:
        others = "SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        return connection.execute(others).fetchone() is not None


def read_session(given: str | None) -> date | None:
    """A session as YYYY-MM-DD. Raises BadInput."""
    if given is None:
        return None
    try:
        return date.fromisoformat(given)
    except ValueError as error:
        raise BadInput(f"--session {given}: not a date; give it as YYYY-MM-DD, 2024-03-05") from error


def as_json(document: object) -> str:
    """Indented JSON of dataclasses; money and prices as text, so that no digit is lost."""
    return orjson.dumps(document, default=_plain, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    raise TypeError(f"{type(value).__name__} has no JSON form")
