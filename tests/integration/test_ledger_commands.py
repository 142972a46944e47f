"""`onepath db` and `onepath strategy`, as typed."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from desk.errors import BadInput
from desk.ledger import accounts, migrate
from desk.ledger.connecting import connect_plainly, with_database
from desk.ledger.engine import Ledger
from desk.strategy import Strategy, load_strategy
from flows.cli import app
from flows.cli.ledger import as_toml

pytestmark = pytest.mark.integration

Run = Callable[..., str]


@pytest.fixture
def run() -> Run:
    """Run a command; returns its output, raises what it raised, fails on another exit code."""

    def typed(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    return typed


@pytest.fixture
def empty_server(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ONEPATH_DATABASE_URL", empty_url)
    return empty_url


@pytest.fixture
def opened(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A ledger with one account, the one the settings name the database of."""
    monkeypatch.setenv("ONEPATH_DATABASE_URL", ledger.url)
    monkeypatch.delenv("ONEPATH_ACCOUNT", raising=False)
    with ledger.transaction() as connection:
        accounts.open_account(connection, account="SIM-1", broker="simulated", venue="simulated: synthetic, seed 7")
    return ledger


def test_the_schema_goes_up_and_down_and_says_where_it_is(run: Run, empty_server: str) -> None:
    assert "schema none, this version needs" in run("db", "current", code=1)
    assert f"schema none -> {migrate.head()}" in run("db", "upgrade")
    assert f"schema {migrate.head()}, up to date" in run("db", "current")
    assert f"schema {migrate.head()} -> none" in run("db", "downgrade", "base", "--yes")

    with connect_plainly(with_database(empty_server, "postgres")) as connection:  # upgrade made the neighbours too
        for suffix in ("_prefect", "_mlflow"):
            connection.execute(f'DROP DATABASE "{empty_server.split("/")[3].split("?")[0]}{suffix}"')  # type: ignore[arg-type]


def test_a_downgrade_asks_first(run: Run, opened: Ledger) -> None:
    assert "lose data?" in run("db", "downgrade", "base", code=1)
    assert migrate.current(opened.url) == migrate.head()


def test_the_url_is_shown_without_its_password(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEPATH_DATABASE_URL", "postgresql://ada:s3cret@db.example/desk")

    assert run("db", "url") == "postgresql://ada:***@db.example/desk\n"


@pytest.mark.parametrize("verb", ["start", "stop"])
def test_a_server_of_ones_own_is_neither_started_nor_stopped(
    run: Run, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("ONEPATH_DATABASE_URL", "postgresql://db.example/desk")

    with pytest.raises(BadInput, match=f"onepath db {verb}: ONEPATH_DATABASE_URL names a server of your own"):
        run("db", verb)


def test_the_embedded_server_starts_and_stops(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ONEPATH_DATABASE_URL", raising=False)
    monkeypatch.setenv("ONEPATH_HOME", str(tmp_path))

    assert run("db", "start").startswith("postgresql://postgres@/onepath?host=")
    assert run("db", "stop").endswith(": stopped\n")
    assert run("db", "stop").endswith(": was not running\n")


def test_a_strategy_file_is_applied_once(run: Run, opened: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "bold.toml"
    file.write_text('name = "bold"\nstop_loss_pct = 3.5\n')

    assert "strategy bold version 1 holds now in account SIM-1" in run("strategy", "apply", str(file), "--by", "Ada")
    assert "version 1 already holds" in run("strategy", "apply", str(file), "--by", "Ada")
    assert "stop_loss_pct = 3.5" in run("strategy", "show", "--name", "bold")


def test_what_is_shown_can_be_applied_again(tmp_path: Path) -> None:
    numbers = Strategy(name="bold", stop_loss_pct=Decimal("3.25"), positions_max=7)
    file = tmp_path / "shown.toml"
    file.write_text(as_toml(numbers))

    assert load_strategy(file) == numbers
    assert tomllib.loads(file.read_text())["positions_max"] == 7


def test_a_bad_strategy_leaves_the_ledger_as_it_was(run: Run, opened: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text("stop_loss_pct = -1\n")

    with pytest.raises(BadInput, match=r"wrong\.toml: stop_loss_pct: .*found -1"):
        run("strategy", "apply", str(file), "--by", "Ada")
    with pytest.raises(BadInput, match="strategy default: none applied in account SIM-1"):
        run("strategy", "show")


def test_an_account_must_be_chosen_among_several(run: Run, opened: Ledger) -> None:
    with opened.transaction() as connection:
        accounts.open_account(connection, account="SIM-2", broker="simulated", venue="simulated: synthetic, seed 8")

    with pytest.raises(BadInput, match="choose --account from SIM-1, SIM-2"):
        run("strategy", "show")
    with pytest.raises(BadInput, match="account X: choose"):
        run("strategy", "show", "--account", "X")
    with pytest.raises(BadInput, match="none applied in account SIM-2"):
        run("strategy", "show", "--account", "SIM-2")


def test_a_ledger_without_an_account_says_how_to_get_one(
    run: Run, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEPATH_DATABASE_URL", ledger_url)

    with pytest.raises(BadInput, match="no account yet; run onepath up"):
        run("strategy", "show")
