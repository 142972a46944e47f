"""The door to the ledger: short transactions, locks by name, and typed errors when the database hiccups."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from enum import Enum
from select import POLLERR, POLLHUP, POLLIN, poll
from typing import Any, Self

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from desk.errors import Ambiguous, BadInput, Transient
from desk.guard import assert_no_connection_held, connection_held
from desk.ledger import migrate
from desk.ledger.connecting import (
    CONNECT_S_MAX,
    check_server_version,
    connect_plainly,
    parse_url,
    place,
    refusal,
    with_database,
)
from desk.ledger.databases import DatabaseUrls, database_urls, ensure_databases, recreate_database
from desk.ledger.locking import LockConnections, lock_key

__all__ = [
    "DatabaseUrls",
    "Ledger",
    "database_urls",
    "ensure_databases",
    "lock_key",
    "recreate_database",
    "with_database",
    "xact_lock",
]

IDLE_IN_TRANSACTION_S_MAX = 5
STATEMENT_S_MAX = 30
LOCK_S_MAX = 20
POOL_WAIT_S_MAX = 30

# Nothing was committed and the same again may succeed: serialization failure, deadlock, lock timeout,
# server shutting down or starting up, no connection left, disk or memory full.
_TRANSIENT_STATES = ("40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53")
_IDLE_IN_TRANSACTION = "25P03"  # our own defect, never retried


class Ledger:
    """One ledger database. Share one between threads; make one per process."""

    def __init__(self, engine: Engine, url: str) -> None:
        self._engine = engine
        self._at_once = engine.execution_options(isolation_level="AUTOCOMMIT")  # the same pool
        self._locks = LockConnections(url)
        self._url = url

    @classmethod
    def connect(cls, url: str, *, pool_size: int = 5, durable: bool = True) -> Self:
        """Open the ledger at a `postgresql://` URL and prove it usable.

        `durable=False` lets commits return before they are on disk: for replays, whose ledger can be made again.
        Raises BadInput, one line with the remedy: unreachable, wrong password, no such database, server too
        old, schema behind or ahead of this code.
        """
        options = {
            "timezone": "UTC",
            "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_S_MAX}s",
            "statement_timeout": f"{STATEMENT_S_MAX}s",
            "lock_timeout": f"{LOCK_S_MAX}s",
            "synchronous_commit": "on" if durable else "off",
        }
        parsed = parse_url(url)
        given = parsed.query.get("options", "")
        flags = " ".join([str(given), *(f"-c {name}={value}" for name, value in options.items())]).strip()
        engine = create_engine(
            parsed,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_WAIT_S_MAX,
            pool_use_lifo=True,
            json_serializer=_json,
            hide_parameters=True,  # what a failing statement carried stays out of logs
            connect_args={
                "options": flags,
                "connect_timeout": CONNECT_S_MAX,
                "keepalives_idle": 30,
                "application_name": "onepath",
            },
        )
        event.listen(engine, "checkout", _refuse_broken)
        ledger = cls(engine, url)
        try:
            ledger._prove_usable()
        except BadInput:
            engine.dispose()
            raise
        return ledger

    @property
    def url(self) -> str:
        """As given, password included: for handing on, never for showing."""
        return self._url

    @property
    def place(self) -> str:
        """Host and name of the database, for people."""
        return place(self._url)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One short transaction: committed when the block ends, rolled back when it raises.

        The context counts as holding a connection, so that calls of brokers and the like refuse to run inside,
        and so does a second transaction, which would wait for the first for ever with a pool of one.
        Raises Transient when nothing was committed and trying again may help, Ambiguous when the connection
        broke during the commit.
        """
        assert_no_connection_held("ledger.transaction")
        body_is_done = False
        with (
            self._typed_errors(lambda: body_is_done),
            connection_held(),
            self._engine.connect() as connection,
            connection.begin(),
        ):
            yield connection
            body_is_done = True

    @contextmanager
    def at_once(self, *, writes: bool = False) -> Iterator[Connection]:
        """For a single statement: a transaction of its own on the server, without the two round trips around it.

        Give `writes` when the statement does: a connection lost then leaves the outcome open (Ambiguous). Otherwise
        like `transaction`.
        """
        assert_no_connection_held("ledger.at_once")
        with self._typed_errors(lambda: writes), connection_held(), self._at_once.connect() as connection:
            yield connection

    @contextmanager
    def try_lock(self, name: str) -> Iterator[bool]:
        """Never two at once: yields whether this block alone holds the lock called `name` in this database.

        The lock belongs to a connection of its own, outside the pool, idle until the block ends and then kept for
        the next lock. A killed process loses its connection and with it the lock. It does not count for the guard:
        it carries no transaction, holds no row and takes no place in the pool, and the block is meant to call
        the broker. Raises BadInput when the server cannot be reached.
        """
        connection = self._locks.take(name)
        try:
            yield connection is not None
        finally:
            if connection is not None:
                self._locks.give_back(connection, name)

    def close(self) -> None:
        """Give all connections back. The ledger opens new ones when used again."""
        self._engine.dispose()
        self._locks.close()

    @contextmanager
    def _typed_errors(self, is_committing: Callable[[], bool]) -> Iterator[None]:
        try:
            yield
        except PoolTimeoutError as error:
            raise Transient(f"ledger {self.place}: no free connection within {POOL_WAIT_S_MAX} s") from error
        except DBAPIError as error:
            if (typed := self._typed(error, committing=is_committing())) is None:
                raise
            raise typed from error

    def _prove_usable(self) -> None:
        try:
            with self._engine.connect() as connection:
                driver = connection.connection.dbapi_connection
                if isinstance(driver, psycopg.Connection):
                    check_server_version(self._url, driver.info.server_version)
                found = migrate.revision_of(connection)
        except OperationalError as error:
            raise refusal(self._url, error.orig or error) from error
        migrate.check_revision(found, place=self.place)

    def _typed(self, error: DBAPIError, *, committing: bool) -> Transient | Ambiguous | None:
        state = getattr(error.orig, "sqlstate", None) or ""
        reason = " ".join(str(error.orig).split())
        if state == _IDLE_IN_TRANSACTION or "idle-in-transaction" in reason:
            return None
        if state.startswith(_TRANSIENT_STATES):
            return Transient(f"ledger {self.place}: {reason}")
        if error.connection_invalidated or (isinstance(error, OperationalError) and not state):
            if committing:
                return Ambiguous(f"ledger {self.place}: connection lost during commit, outcome unknown ({reason})")
            return Transient(f"ledger {self.place}: connection lost, nothing committed ({reason})")
        return None


def xact_lock(connection: Connection, name: str) -> None:
    """Wait for the lock called `name` and hold it until this transaction ends.

    Raises DBAPIError, Transient outside of `Ledger.transaction`, when it is not free within 20 s.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": lock_key(name)})


@contextmanager
def exclusively(url: str, name: str) -> Iterator[None]:
    """Wait, without limit, for the lock called `name`; for set-up that several processes may begin at once."""
    with connect_plainly(url) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (lock_key(name),))
        yield


def _refuse_broken(driver: Any, _record: object, _proxy: object) -> None:
    """A server restarted since the last transaction is met with a new connection.

    On an idle connection nothing arrives but its end, or a word about a changed setting: only then it is asked, and
    all others are spared the round trip.
    """
    waiting = poll()
    waiting.register(driver.fileno(), POLLIN | POLLERR | POLLHUP)
    if not waiting.poll(0):
        return
    try:
        driver.execute("SELECT 1")
        driver.rollback()
    except psycopg.OperationalError as error:
        raise DisconnectionError("the server ended this connection") from error


def _json(value: object) -> str:
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: object) -> object:
    """JSON types only: decimals as text, so that no digit is lost; NaN and infinities by name, which JSON lacks."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, date):  # and datetime
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_plain(item) for item in items]
    if hasattr(value, "item"):  # a NumPy scalar
        return _plain(value.item())
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")
