"""Small flows for the tests of runner and stack. What they did is read from files, as they run in other processes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from desk.errors import Refused, Transient
from flows.agenda import agenda
from tasks.step import step


@step
def note(folder: str, line: str) -> None:
    with (Path(folder) / "notes").open("a", encoding="utf-8") as notes:
        notes.write(f"{line}\n")


@step
def sleep_s(seconds: float) -> None:
    time.sleep(seconds)


@step
def refuse() -> None:
    raise Refused("asset X is not tradable", status=422)


@step(retries=2, retry_delay_seconds=[0.01, 0.01])
def hiccup(folder: str, times: int) -> int:
    """Fails `times` times, then says how often it was called."""
    note(folder, "hiccup")
    calls = (Path(folder) / "notes").read_text(encoding="utf-8").split().count("hiccup")
    if calls <= times:
        raise Transient("502 from the broker")
    return calls


@agenda("probe")
def probe(session: date | None = None, folder: str = ".", seconds: float = 0.0) -> None:
    """Notes begin and end."""
    note(folder, f"begin {session}")
    sleep_s(seconds)
    note(folder, f"end {session}")


@agenda("shaky")
def shaky(session: date | None = None, folder: str = ".", times: int = 0) -> None:
    """Succeeds when the world hiccups at most twice."""
    hiccup(folder, times)


@agenda("inner")
def inner(session: date | None = None, folder: str = ".", fails: bool = False, seconds: float = 0.0) -> None:
    note(folder, "inner")
    sleep_s(seconds)
    if fails:
        refuse()


@agenda("outer")
def outer(session: date | None = None, folder: str = ".", fails: bool = False, seconds: float = 0.0) -> None:
    """Two agendas in one, as trading is."""
    note(folder, "outer")
    inner(session, folder, fails, seconds)


@agenda("idle")
def idle(session: date | None = None) -> Mapping[str, object]:
    """A stage that finds nothing to do."""
    return {"stage": "idle", "skipped": f"no session on {session}: the exchange is closed"}
