"""`onepath why SYMBOL`: the story of each trade, from bars and scores to the close reason, on one screen."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.reading import (
    REPLAY_DATABASE,
    AccountOption,
    DatabaseOption,
    HomeOption,
    as_json,
    read_session,
    reading,
    settings_of,
)

__all__ = ["why"]


def why(
    symbol: Annotated[str, typer.Argument(help="Symbol, as the broker writes it: AAPL, BRK.B.")],
    session: Annotated[
        str | None, typer.Option(help="What was going on with it in this session, YYYY-MM-DD.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every trade and decision, newest first.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document instead of a screen.")] = False,
    replay: Annotated[bool, typer.Option("--replay", help="Of the last onepath replay.")] = False,
    account: AccountOption = None,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Why a symbol was bought, held, closed, or left alone. The newest trade or decision, unless a session is given."""
    from desk.ledger.story import chapters, choose_account, tell

    wanted, day, settings = symbol.strip().upper(), read_session(session), settings_of(home)
    name = REPLAY_DATABASE if replay and not database else database
    with reading(settings, name) as (ledger, _), ledger.transaction() as connection:
        known = choose_account(connection, account or settings.account)
        found = chapters(connection, account=known.account, symbol=wanted, session=day)
        shown = found if every or day is not None else found[:1]
        stories = [tell(connection, account=known, chapter=chapter) for chapter in shown]
        earlier = [chapter.first for chapter in found[len(shown) :]]

    if json:
        typer.echo(as_json({"symbol": wanted, "stories": stories, "earlier_sessions": earlier}))
        return

    from rich.console import Console

    from flows.cli.storyview import story_view

    console = Console(soft_wrap=False, highlight=False)
    for story in stories:
        console.print(story_view(story))
    if earlier:
        console.print(
            f"{len(earlier)} earlier: {', '.join(str(day) for day in earlier[:5])}"
            f"{', ...' if len(earlier) > 5 else ''}; show one with --session, or all with --all",
            style="dim",
        )
