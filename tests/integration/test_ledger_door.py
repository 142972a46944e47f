"""The door to the ledger: short transactions, one connection, locks by name, typed errors, one-line refusals."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import pytest
from sqlalchemy import Executable, literal, make_url, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import InternalError

from desk.errors import Ambiguous, BadInput, Transient
from desk.guard import assert_no_connection_held
from desk.ledger import engine
from desk.ledger.connecting import check_server_version, connect_plainly, with_database
from desk.ledger.engine import Ledger, lock_key, xact_lock
from desk.orders import Side

pytestmark = pytest.mark.integration

END_OTHERS = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
def rival(ledger_url: str) -> Iterator[Ledger]:
    """Another process's ledger on the same database."""
    opened = Ledger.connect(ledger_url, pool_size=1)
    yield opened
    opened.close()


def setting(ledger: Ledger, name: str) -> object:
    with ledger.transaction() as connection:
        return connection.execute(text(f"SHOW {name}")).scalar()


# ------------------------------------------------------------------------------------------------------ transactions


def test_a_transaction_is_kept_when_it_ends_and_undone_when_it_raises(ledger: Ledger) -> None:
    with ledger.transaction() as connection:
        connection.execute(text("INSERT INTO accounts (account, broker, venue) VALUES ('kept', 'paper', 'v')"))
    with pytest.raises(ValueError, match="changed my mind"), ledger.transaction() as connection:
        connection.execute(text("INSERT INTO accounts (account, broker, venue) VALUES ('lost', 'paper', 'v')"))
        raise ValueError("changed my mind")

    with ledger.transaction() as connection:
        assert connection.execute(text("SELECT account FROM accounts")).scalars().all() == ["kept"]


def test_nothing_outside_may_be_called_inside_a_transaction(ledger: Ledger) -> None:
    with ledger.transaction(), pytest.raises(RuntimeError, match="submit: a database connection is checked out"):
        assert_no_connection_held("submit")

    assert_no_connection_held("submit")


def test_the_guard_is_lifted_when_a_transaction_fails(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="no"), ledger.transaction():
        raise ValueError("no")

    assert_no_connection_held("submit")


def test_a_transaction_inside_another_is_refused_rather_than_waiting_for_itself(ledger: Ledger) -> None:
    with ledger.transaction(), pytest.raises(RuntimeError, match=r"ledger\.transaction"), ledger.transaction():
        pass


def test_limits_are_set_and_times_are_utc(ledger: Ledger) -> None:
    assert setting(ledger, "idle_in_transaction_session_timeout") == "5s"
    assert setting(ledger, "statement_timeout") == "30s"
    assert setting(ledger, "lock_timeout") == "20s"
    assert setting(ledger, "timezone") == "UTC"
    assert setting(ledger, "synchronous_commit") == "on"


def test_a_replays_ledger_does_not_wait_for_the_disk(ledger_url: str) -> None:
    quick = Ledger.connect(ledger_url, durable=False)

    assert setting(quick, "synchronous_commit") == "off"
    quick.close()


def test_options_in_the_url_are_kept_beside_ours(ledger_url: str) -> None:
    url = make_url(ledger_url).update_query_dict({"options": "-c work_mem=3MB"}).render_as_string(hide_password=False)
    tuned = Ledger.connect(url)

    assert setting(tuned, "work_mem") == "3MB"
    assert setting(tuned, "lock_timeout") == "20s"
    tuned.close()


def test_a_server_that_dropped_its_connections_is_met_with_new_ones(ledger: Ledger) -> None:
    with connect_plainly(ledger.url) as other:
        other.execute(END_OTHERS)

    assert setting(ledger, "timezone") == "UTC"


def test_a_connection_lost_before_the_commit_is_transient(ledger: Ledger) -> None:
    with pytest.raises(Transient, match="terminating connection"), ledger.transaction() as connection:
        connection.execute(text("SELECT 1"))
        with connect_plainly(ledger.url) as other:
            other.execute(END_OTHERS)
        connection.execute(text("SELECT 1"))

    assert_no_connection_held("submit")
    assert setting(ledger, "timezone") == "UTC"


def test_a_connection_lost_in_the_commit_leaves_the_outcome_open(ledger: Ledger) -> None:
    with pytest.raises(Ambiguous, match="outcome unknown"), ledger.transaction() as connection:
        driver = connection.connection.dbapi_connection
        connection.execute(text("SELECT 1"))
        with socket.socket(fileno=os.dup(driver.fileno())) as wire:  # type: ignore[union-attr]
            wire.shutdown(socket.SHUT_RDWR)


def test_a_deadlock_is_transient(ledger: Ledger, rival: Ledger) -> None:
    """The database ends one of the two; that one may try again."""
    both_hold = threading.Barrier(2)
    ended: list[type[BaseException] | None] = []

    def cross(mine: Ledger, first: str, second: str) -> None:
        try:
            with mine.transaction() as connection:
                xact_lock(connection, first)
                both_hold.wait(20)
                xact_lock(connection, second)
            ended.append(None)
        except Transient:
            ended.append(Transient)

    threads = [
        threading.Thread(target=cross, args=(ledger, "a", "b")),
        threading.Thread(target=cross, args=(rival, "b", "a")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(ended, key=str) == sorted([None, Transient], key=str)


def test_a_transaction_left_idle_is_our_defect_and_not_tried_again(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "IDLE_IN_TRANSACTION_S_MAX", 0.05)
    hasty = Ledger.connect(with_database(ledger_url, make_url(ledger_url).database or ""))
    with pytest.raises(InternalError, match="idle-in-transaction"), hasty.transaction() as connection:
        connection.execute(text("SELECT 1"))
        threading.Event().wait(0.5)
        connection.execute(text("SELECT 1"))
    hasty.close()


def test_what_json_lacks_is_stored_as_text(ledger: Ledger) -> None:
    given = {"price": Decimal("1.50"), "nan": float("nan"), "day": date(2024, 3, 5), "both": (Side.BUY, None)}

    stored = ask(ledger, select(literal(given, JSONB)))

    assert stored == {"price": "1.50", "nan": "nan", "day": "2024-03-05", "both": ["buy", None]}


# ------------------------------------------------------------------------------------------------------------- locks


def test_only_one_holds_a_name(ledger: Ledger, rival: Ledger) -> None:
    with (
        ledger.try_lock("monitor") as first,
        rival.try_lock("monitor") as second,
        rival.try_lock("another") as other,
    ):
        assert (first, second, other) == (True, False, True)
    with rival.try_lock("monitor") as again:
        assert again


def test_a_lock_leaves_the_pool_and_the_guard_alone(ledger: Ledger) -> None:
    """Brokers are called under it, and the pool of one serves transactions meanwhile."""
    with ledger.try_lock("monitor"):
        assert_no_connection_held("submit")
        assert setting(ledger, "timezone") == "UTC"


def test_a_lock_is_released_when_its_block_raises(ledger: Ledger, rival: Ledger) -> None:
    with pytest.raises(ValueError, match="no"), ledger.try_lock("monitor"):
        raise ValueError("no")

    with rival.try_lock("monitor") as ours:
        assert ours


def test_a_lock_whose_connection_was_cut_is_reported(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    with ledger.try_lock("monitor"), connect_plainly(ledger.url) as other:
        other.execute(END_OTHERS)

    assert [record.message for record in caplog.records] == ["ledger.lock_lost"]


def hold(url: str, ready: Pipe) -> None:
    with Ledger.connect(url).try_lock("monitor") as ours:
        ready.send(ours)
        signal.pause()


def test_a_killed_process_loses_its_lock(ledger: Ledger) -> None:
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=hold, args=(ledger.url, there))
    process.start()
    assert here.recv() is True
    with ledger.try_lock("monitor") as ours:
        assert not ours

    process.kill()
    process.join(20)

    for _ in range(200):  # the server notices the closed socket at its own pace
        with ledger.try_lock("monitor") as ours:
            if ours:
                break
        threading.Event().wait(0.05)
    assert ours


def test_a_lock_of_a_transaction_ends_with_it(ledger: Ledger, rival: Ledger) -> None:
    free = text("SELECT pg_try_advisory_xact_lock(:key)").bindparams(key=lock_key("account"))
    with ledger.transaction() as connection:
        xact_lock(connection, "account")
        answers: list[object] = []
        thread = threading.Thread(target=lambda: answers.append(ask(rival, free)))
        thread.start()
        thread.join(20)
    assert answers == [False]
    assert ask(rival, free) is True


def ask(ledger: Ledger, query: Executable) -> object:
    with ledger.transaction() as connection:
        return connection.execute(query).scalar()


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://ada:s3cret@127.0.0.1:1/desk", r"127\.0\.0\.1:1/desk: cannot be reached \(Connection refused\)"),
        ("postgresql://ada:s3cret@nowhere.invalid/desk", r"nowhere\.invalid:5432/desk: cannot be reached"),
        ("sqlite:///desk.db", r"found a sqlite URL; postgresql://"),
        ("postgresql://ada:s3cret@127.0.0.1:5432", r"no database name in"),
        ("ada:s3cret@127.0.0.1", r"not a database URL"),
        ("postgresql://ada:s3cret@127.0.0.1:port/desk", r"not a database URL"),
    ],
)
def test_a_url_that_cannot_be_used_is_named_in_one_line(url: str, told: str) -> None:
    with pytest.raises(BadInput, match=told) as refused:
        Ledger.connect(url)

    assert "\n" not in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_missing_database_names_the_command_that_makes_it(postgres_url: str) -> None:
    with pytest.raises(BadInput, match=r"/nothing: the database does not exist; run onepath db upgrade"):
        Ledger.connect(with_database(postgres_url, "nothing"))


def test_a_missing_user_is_named(postgres_url: str) -> None:
    url = make_url(postgres_url).set(username="nobody_here").render_as_string()

    with pytest.raises(BadInput, match="user nobody_here does not exist; correct ONEPATH_DATABASE_URL"):
        Ledger.connect(url)


def test_a_wrong_password_is_named_but_not_shown(postgres_url: str) -> None:
    admin = with_database(postgres_url, "postgres")
    with connect_plainly(admin) as connection:
        connection.execute("CREATE ROLE ada LOGIN PASSWORD 'right'")
        row = connection.execute("SHOW hba_file").fetchone()
        assert row is not None
        rules = Path(str(row[0]))
        before = rules.read_text()
        rules.write_text(f"local all ada scram-sha-256\n{before}")
        connection.execute("SELECT pg_reload_conf()")
    try:
        for password, told in (("wr0ng", "password of user ada not accepted"), (None, "user ada needs a password")):
            url = make_url(admin).set(username="ada", password=password).render_as_string(hide_password=False)
            with pytest.raises(BadInput, match=f"{told}.*ONEPATH_DATABASE_URL") as refused:
                Ledger.connect(url)
            assert "wr0ng" not in str(refused.value)
    finally:
        with connect_plainly(admin) as connection:
            rules.write_text(before)
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("DROP ROLE ada")


def test_a_server_too_old_is_named() -> None:
    with pytest.raises(BadInput, match="version 13, at least 14 is needed; upgrade the server"):
        check_server_version("postgresql://h/d", 130011)
