"""Parquet files that are replaced whole: atomic writes, checked reads with a cache, and a lock.

The mechanics under `desk.barstore`. A reader sees the old file or the new one, never a part of one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from desk.errors import BadInput, Transient

__all__ = ["ParquetFolder", "locked"]

_POLL_S = 0.05


@contextmanager
def locked(path: Path, *, exclusive: bool, wait_s_max: float) -> Iterator[None]:
    """Hold an advisory lock on `path`; the kernel lets go of it when the process dies, however it dies.

    Raises Transient when another holder keeps it for longer than `wait_s_max`.
    """
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    give_up = time.monotonic() + wait_s_max
    with path.open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                if time.monotonic() >= give_up:
                    raise Transient(f"{path}: held by another process for more than {wait_s_max:g} s") from error
            time.sleep(_POLL_S)
        yield  # closing the file lets go


class ParquetFolder:
    """Parquet files of known schemas in one folder, each kept in memory as long as it is unchanged on disk."""

    def __init__(self, folder: Path, *, remedy: str) -> None:
        self.folder = folder
        self._remedy = remedy
        self._cache: dict[str, tuple[tuple[int, int, int], pa.Table]] = {}

    def names(self) -> list[str]:
        """Names of the files here, without the suffix, in order."""
        return sorted(path.stem for path in self.folder.glob("*.parquet"))

    def read(self, name: str, schema: pa.Schema) -> pa.Table | None:
        """The whole file, or None when there is none. Raises BadInput when it is damaged or not of the schema."""
        path = self._path(name)
        stamp = _stamp(path)
        if stamp is None:
            self._cache.pop(name, None)
            return None
        known = self._cache.get(name)
        if known is not None and known[0] == stamp:
            return known[1]
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            cause = str(error).splitlines()[0]
            raise BadInput(f"{path}: not a readable Parquet file ({cause}); {self._remedy}") from error
        if not table.schema.equals(schema):
            found = ", ".join(f"{field.name} {field.type}" for field in table.schema)
            raise BadInput(f"{path}: unexpected columns ({found}); {self._remedy}")
        self._cache[name] = (stamp, table)
        return table

    def write(self, name: str, table: pa.Table) -> None:
        """Replace the file: a temporary neighbour is written, flushed to the disk and renamed over it."""
        path = self._path(name)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as handle:
            pq.write_table(table, handle, compression="zstd")
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
        stamp = _stamp(path)
        if stamp is not None:
            self._cache[name] = (stamp, table)

    def sweep(self) -> None:
        """Remove what killed writers left. Only for the holder of the exclusive lock."""
        for leftover in self.folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
