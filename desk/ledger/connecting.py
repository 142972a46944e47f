"""Database URLs, and what a failed connection means for the person who gave one."""

from __future__ import annotations

import psycopg
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from desk.errors import BadInput

__all__ = ["CONNECT_S_MAX", "connect_plainly", "libpq_url", "parse_url", "place", "refusal", "with_database"]

CONNECT_S_MAX = 5
SERVER_VERSION_MIN = 14
SETTING = "ONEPATH_DATABASE_URL"


def parse_url(url: str) -> URL:
    """The parts of a `postgresql://user:password@host:port/name` URL. Raises BadInput, never showing the password."""
    form = "postgresql://user:password@host:port/name is needed"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise BadInput(f"{SETTING}: not a database URL; {form}") from error.with_traceback(None)
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise BadInput(f"{SETTING}: found a {parsed.get_backend_name()} URL; {form}")
    if not parsed.database:
        raise BadInput(f"{SETTING}: no database name in {place(url)}; {form}")
    return parsed.set(drivername="postgresql+psycopg")


def libpq_url(url: str) -> str:
    """The same URL as libpq, psql and psycopg read it, password included."""
    rendered = parse_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    address, mark, options = rendered.partition("?")
    return address + mark + options.replace("+", "%20")  # libpq takes a plus sign as it is


def with_database(url: str, name: str) -> str:
    """The same server, another database. The driver in the URL is kept."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def place(url: str) -> str:
    """Which database this is, for people: host, port and name, no user and no password."""
    parsed = make_url(url)
    host = parsed.host or parsed.query.get("host", "local socket")
    port = parsed.port or (None if parsed.host is None else 5432)
    return f"{host}{f':{port}' if port else ''}/{parsed.database or ''}"


def connect_plainly(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """A connection of its own in autocommit, for locks and for work on whole databases. Raises BadInput."""
    try:
        return psycopg.connect(
            libpq_url(url),
            autocommit=True,
            connect_timeout=CONNECT_S_MAX,
            keepalives_idle=30,  # a lock's holder that lost its network gives the lock up within minutes
            application_name="onepath",
        )
    except psycopg.Error as error:
        raise refusal(url, error) from error


def check_server_version(url: str, version_num: int) -> None:
    """`version_num` as PostgreSQL gives it, 180006 for 18.6."""
    if version_num // 10000 < SERVER_VERSION_MIN:
        raise BadInput(
            f"PostgreSQL {place(url)}: version {version_num // 10000}, at least {SERVER_VERSION_MIN} is needed; "
            f"upgrade the server, or unset {SETTING} to use the embedded one"
        )


def refusal(url: str, error: BaseException) -> BadInput:
    """Why the server let nobody in, in one line with the remedy and without the password."""
    parsed = make_url(url)
    text = " ".join(str(error).split())
    if parsed.password:
        text = text.replace(str(parsed.password), "***")
    where = f"PostgreSQL {place(url)}"
    for sign, explanation in (
        ("password authentication failed", f"password of user {parsed.username} not accepted; correct {SETTING}"),
        ("no password supplied", f"user {parsed.username} needs a password; add it to {SETTING}"),
        ("role ", f"user {parsed.username} does not exist; correct {SETTING}"),
        ("database ", "the database does not exist; run onepath db upgrade"),
    ):
        if sign in text and ("does not exist" in text or "password" in sign):
            return BadInput(f"{where}: {explanation}")
    reason = text.rsplit("failed: ", 1)[-1].split(" Is the server running")[0]
    return BadInput(f"{where}: cannot be reached ({reason}); start the server or correct {SETTING}")
