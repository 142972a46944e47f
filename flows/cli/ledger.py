"""`onepath db` and `onepath strategy`: the ledger's schema and server, and the numbers it trades by."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from desk.errors import BadInput
from desk.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from desk.strategy import Strategy

__all__ = ["database", "strategy"]

database = typer.Typer(help="The ledger's database: schema and embedded server.", no_args_is_help=True)
strategy = typer.Typer(help="The numbers that shape each trade.", no_args_is_help=True)

AccountOption = Annotated[
    str | None, typer.Option(help="Account number; by default ONEPATH_ACCOUNT, or the only account in the ledger.")
]


@database.command()
def upgrade(revision: Annotated[str, typer.Argument(help="Revision to reach.")] = "head") -> None:
    """Make missing databases and bring the ledger's schema up to date."""
    from desk.ledger import migrate
    from desk.ledger.connecting import place
    from desk.ledger.databases import database_urls, ensure_databases

    urls = database_urls(load_settings())
    ensure_databases(urls)
    before = migrate.current(urls.ledger)
    migrate.upgrade(urls.ledger, revision)
    typer.echo(f"ledger {place(urls.ledger)}: schema {before or 'none'} -> {migrate.current(urls.ledger)}")


@database.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="Revision to go back to; base removes everything.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take the ledger's schema back. What the removed tables hold is lost."""
    from desk.ledger import migrate
    from desk.ledger.connecting import place
    from desk.ledger.databases import database_urls

    url = database_urls(load_settings()).ledger
    before = migrate.current(url)
    if not yes:
        typer.confirm(f"ledger {place(url)}: go back from {before or 'none'} to {revision} and lose data?", abort=True)
    migrate.downgrade(url, revision)
    typer.echo(f"ledger {place(url)}: schema {before or 'none'} -> {migrate.current(url) or 'none'}")


@database.command()
def current() -> None:
    """Show the schema's revision. Exit code 1 unless it is the one this version needs."""
    from desk.ledger import migrate
    from desk.ledger.connecting import place
    from desk.ledger.databases import database_urls

    url = database_urls(load_settings()).ledger
    found = migrate.current(url)
    verdict = "up to date" if found == migrate.head() else f"this version needs {migrate.head()}"
    typer.echo(f"ledger {place(url)}: schema {found or 'none'}, {verdict}")
    if found != migrate.head():
        raise typer.Exit(1)


@database.command()
def start() -> None:
    """Start the embedded PostgreSQL, or find it running."""
    from desk.ledger.embedded import start_embedded

    typer.echo(start_embedded(_embedded_settings("start").home))


@database.command()
def stop() -> None:
    """Stop the embedded PostgreSQL and wait until it is gone."""
    from desk.ledger.embedded import is_running, stop_embedded

    home = _embedded_settings("stop").home
    was_running = is_running(home)
    stop_embedded(home)
    typer.echo(f"PostgreSQL under {home}: {'stopped' if was_running else 'was not running'}")


@database.command()
def url() -> None:
    """Show the ledger's URL, for psql; a password is not shown."""
    from desk.ledger.connecting import parse_url
    from desk.ledger.databases import database_urls

    found = parse_url(database_urls(load_settings()).ledger).set(drivername="postgresql")
    typer.echo(found.render_as_string(hide_password=True))


@strategy.command()
def apply(
    file: Annotated[Path, typer.Argument(help="Strategy TOML file.")],
    by: Annotated[str, typer.Option(help="Who applies it; kept with the version.")],
    account: AccountOption = None,
) -> None:
    """Check a strategy file and make its numbers the ones that hold from the next decision on."""
    from desk.ledger.strategies import apply_strategy, current_strategy
    from desk.strategy import load_strategy

    numbers = load_strategy(file)
    with _account(account) as (connection, number):
        held = current_strategy(connection, account=number, name=numbers.name)
        version = apply_strategy(connection, account=number, strategy=numbers, by=by)
    verdict = "already holds" if held is not None and held[1] == version else "holds now"
    typer.echo(
        f"strategy {numbers.name} version {version} {verdict} in account {number} (digest {numbers.digest[:12]})"
    )


@strategy.command()
def show(
    name: Annotated[str, typer.Option(help="Name of the strategy.")] = "default",
    version: Annotated[int | None, typer.Option(help="By default the version that holds.")] = None,
    default: Annotated[bool, typer.Option("--default", help="The built-in one, to begin a file with.")] = False,
    account: AccountOption = None,
) -> None:
    """Show a strategy as a TOML file that could be applied."""
    from desk.ledger.strategies import current_strategy, strategy_version
    from desk.strategy import Strategy

    if default:
        typer.echo(as_toml(Strategy()))
        return
    with _account(account) as (connection, number):
        held = current_strategy(connection, account=number, name=name)
        if held is None:
            raise BadInput(
                f"strategy {name}: none applied in account {number}; run onepath strategy apply FILE --by NAME"
            )
        numbers, shown = held
        if version is not None:
            found = strategy_version(connection, account=number, name=name, version=version)
            if found is None:
                raise BadInput(f"strategy {name}: no version {version} in account {number}; the newest is {held[1]}")
            numbers, shown = found, version
    typer.echo(f"# account {number}, version {shown} of {held[1]}, digest {numbers.digest[:12]}")
    typer.echo(as_toml(numbers))


def as_toml(numbers: Strategy) -> str:
    """The strategy as TOML. What is off (None) has no form in TOML and is left to a comment."""
    document = numbers.model_dump()
    tables = {key: value for key, value in document.items() if isinstance(value, dict)}
    plain = {key: value for key, value in document.items() if key not in tables}
    lines = [_line(key, value) for key, value in plain.items()]
    for table, values in tables.items():
        lines += ["", f"[{table}]", *(_line(key, value) for key, value in values.items())]
    return "\n".join(lines)


def _line(key: str, value: object) -> str:
    if value is None:
        return f"# {key} is off"
    return f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"


def _embedded_settings(verb: str) -> Settings:
    settings = load_settings()
    if settings.database_url is not None:
        raise BadInput(
            f"onepath db {verb}: ONEPATH_DATABASE_URL names a server of your own; {verb} that one, or unset it"
        )
    return settings


@contextmanager
def _account(given: str | None) -> Iterator[tuple[Connection, str]]:
    """A transaction of the ledger and the account meant."""
    from desk.ledger.accounts import known_accounts
    from desk.ledger.databases import database_urls
    from desk.ledger.engine import Ledger

    settings = load_settings()
    ledger = Ledger.connect(database_urls(settings).ledger, pool_size=1)
    try:
        with ledger.transaction() as connection:
            known = known_accounts(connection)
            wanted = given or settings.account or (known[0] if len(known) == 1 else None)
            if not known:
                raise BadInput("the ledger has no account yet; run onepath up once, which opens the broker's")
            if wanted not in known:
                raise BadInput(f"account {wanted or 'unnamed'}: choose --account from {', '.join(known)}")
            yield connection, wanted
    finally:
        ledger.close()
