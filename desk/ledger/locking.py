"""Advisory locks on connections of their own, kept open from one block to the next."""

from __future__ import annotations

import logging
from hashlib import sha256

import psycopg

from desk.ledger.connecting import connect_plainly

__all__ = ["LockConnections", "lock_key"]

log = logging.getLogger(__name__)

_Plain = psycopg.Connection[tuple[object, ...]]


class LockConnections:
    """Connections for locks: one for each lock held, kept for the next. Safe to use from several threads.

    A lock belongs to its connection, and a connection to one holder at a time: PostgreSQL would grant the same
    name twice on one connection.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._free: list[_Plain] = []

    def take(self, name: str) -> _Plain | None:
        """A connection that now holds the lock, or None when another one does. Raises BadInput."""
        while True:
            connection, is_kept = self._checked_out()
            try:
                row = connection.execute("SELECT pg_try_advisory_lock(%s)", (lock_key(name),)).fetchone()
            except psycopg.OperationalError:
                connection.close()
                if not is_kept:
                    raise
                continue  # lost since its last use: with it went no lock, so another may ask
            if row is not None and row[0]:
                return connection
            self._free.append(connection)
            return None

    def give_back(self, connection: _Plain, name: str) -> None:
        """Release the lock and keep the connection."""
        try:
            connection.execute("SELECT pg_advisory_unlock(%s)", (lock_key(name),))
        except psycopg.OperationalError as error:
            # Released by the server when the connection broke; since then another may have run beside us.
            log.warning("ledger.lock_lost", extra={"lock": name, "cause": str(error)})
            connection.close()
        else:
            self._free.append(connection)

    def close(self) -> None:
        """Close those no lock is held on."""
        while self._free:
            self._free.pop().close()

    def _checked_out(self) -> tuple[_Plain, bool]:
        try:
            return self._free.pop(), True
        except IndexError:
            return connect_plainly(self._url), False


def lock_key(name: str) -> int:
    """A name as PostgreSQL's 64-bit advisory lock number."""
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big", signed=True)
