"""What the acting commands share: an office with broker and ledger, opened and closed again; who acts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from desk.errors import BadInput
from flows.cli.reading import serving

if TYPE_CHECKING:
    from desk.settings import Settings
    from tasks.office import Office

__all__ = ["ByOption", "at_desk", "named", "whoever"]

ByOption = Annotated[
    str | None, typer.Option(help="Who does it; by default the user of this machine.", show_default=False)
]


@contextmanager
def at_desk(settings: Settings) -> Iterator[Office]:
    """The settings' account with its broker. Raises BadInput when either cannot be used."""
    from tasks.office import open_office

    with serving(settings):
        desk = open_office(settings)
        try:
            desk.sessions(desk.broker.clock().today)  # holding times are counted in the broker's sessions
            yield desk
        finally:
            for part in (desk.broker, desk.market_data, desk.ledger):
                part.close()  # type: ignore[union-attr]  # the ports need no closing, their adapters do


def whoever(by: str | None) -> str:
    """The name given, or who is logged in."""
    from getpass import getuser

    return getuser() if by is None else named(by)


def named(by: str) -> str:
    if not by.strip():
        raise BadInput("--by: empty; give the name of who does it")
    return by.strip()
