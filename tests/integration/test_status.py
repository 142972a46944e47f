"""`onepath status`: what ran, what is due, and what is red, by the broker's clock."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from told_day import ACCOUNT, CLOSES, DAY, OPENS, STAGES, tell_a_day
from typer.testing import CliRunner, Result

from desk.exchange.exchange import Exchange
from desk.exchange.server import ExchangeServer
from desk.exchange.synthetic import SyntheticMarket
from desk.ledger import migrate
from desk.ledger.accounts import open_account
from desk.ledger.alerts import raise_alert
from desk.ledger.databases import database_urls, ensure_databases
from desk.ledger.deliveries import record_delivery, undelivered
from desk.ledger.embedded import is_running, stop_embedded
from desk.ledger.engine import Ledger
from desk.ledger.monitor import record_cycle
from desk.ledger.records import MonitorCycle, RunState, Severity, StateChange, TradingState, Verdict
from desk.ledger.runs import expect_runs, fail_run, record_session, start_run
from desk.ledger.standing import Plan, Standing, complaints, standing
from desk.ledger.story import choose_account
from desk.market import Session
from desk.settings import Settings
from flows.cli import app
from tasks.shift import timetable

pytestmark = pytest.mark.integration

EVENING = CLOSES + timedelta(hours=1)
WEDNESDAY = date(2024, 3, 6)


@pytest.fixture
def told(books: Ledger, ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A day that went well, its one alert delivered, in the ledger that the settings name."""
    tell_a_day(books)
    with books.transaction() as connection:
        for alert in undelivered(connection, account=ACCOUNT, channel="log"):
            record_delivery(connection, ids=[alert.alert_id], channel="log", delivered=True)
    monkeypatch.setenv("ONEPATH_DATABASE_URL", ledger_url)
    monkeypatch.setenv("ONEPATH_EXCHANGE_URL", "http://127.0.0.1:9")  # discard: nobody listens
    monkeypatch.setenv("ONEPATH_PREFECT_PORT", "9")
    return books


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch, told: Ledger) -> Iterator[Exchange]:
    """The broker of the day, standing at its evening."""
    simulated = Exchange(SyntheticMarket(7, DAY, WEDNESDAY, symbols=5), EVENING, account_number=ACCOUNT)
    with ExchangeServer(simulated) as server:
        monkeypatch.setenv("ONEPATH_EXCHANGE_URL", server.url)
        yield simulated


@pytest.fixture
def health(monkeypatch: pytest.MonkeyPatch, told: Ledger) -> Iterator[None]:
    """Something that answers as Prefect's health check does."""

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = HTTPServer(("127.0.0.1", 0), Healthy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("ONEPATH_PREFECT_PORT", str(server.server_port))
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def status(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["status", *arguments], env={"COLUMNS": "160"}, catch_exceptions=False)


def standing_at(ledger: Ledger, now: datetime, plan: Plan | None = None) -> Standing:
    with ledger.transaction() as connection:
        return standing(connection, account=choose_account(connection, None), now=now, clock="broker", plan=plan)


def test_a_day_that_went_well_is_well(exchange: Exchange, health: None) -> None:
    shown = status()

    assert shown.exit_code == 0
    for part in ("all is well", "simulated: synthetic, seed 7", "close-of-day", "1 trades: MSFT", "16:17:00"):
        assert part in shown.stdout
    assert [f"2024-03-06 {due}:00" in shown.stdout for due in ("04:00", "09:40", "09:30", "16:15")] == [True] * 4


def test_json_has_the_same_in_one_document(exchange: Exchange, health: None) -> None:
    document = json.loads(status("--json").stdout)

    assert document["reasons"] == []
    assert document["status"]["clock"] == "broker"
    assert [each["last"]["state"] for each in document["status"]["stages"]] == ["ran"] * len(STAGES)


def test_services_that_are_down_are_reasons_with_a_remedy(told: Ledger) -> None:
    shown = status()

    assert shown.exit_code == 1
    assert "Prefect: no answer at http://127.0.0.1:9; start it with onepath up" in shown.stdout
    assert "onepath exchange serve" in shown.stdout


def test_the_broker_of_another_account_is_a_reason(exchange: Exchange, health: None) -> None:
    exchange.account_number = "SIM-2"

    shown = status()

    assert shown.exit_code == 1
    assert "holds account SIM-2, the ledger shown is of SIM-1" in shown.stdout


def test_another_database_is_read_at_the_time_it_ended(
    told: Ledger, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay is over: no service belongs to it and nothing of it is overdue."""
    server, _, name = ledger_url.partition("?")[0].rpartition("/")
    monkeypatch.setenv("ONEPATH_DATABASE_URL", ledger_url.replace(f"/{name}", "/postgres", 1))

    shown = status("--database", name)

    assert server and shown.exit_code == 0
    assert "by the ledger's clock" in shown.stdout


def test_a_server_that_was_not_running_is_a_reason_and_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking changes nothing: the embedded PostgreSQL is started to be read, and stopped again."""
    for name, value in (("EXCHANGE_URL", "http://127.0.0.1:9"), ("PREFECT_PORT", "9")):
        monkeypatch.setenv(f"ONEPATH_{name}", value)
    monkeypatch.delenv("ONEPATH_DATABASE_URL", raising=False)
    urls = database_urls(Settings(home=tmp_path))
    ensure_databases(urls)
    migrate.upgrade(urls.ledger)
    ledger = Ledger.connect(urls.ledger, pool_size=1)
    with ledger.transaction() as connection:
        open_account(connection, account=ACCOUNT, broker="simulated", venue="simulated: synthetic, seed 7")
    ledger.close()
    stop_embedded(tmp_path)

    shown = status("--home", str(tmp_path))

    assert shown.exit_code == 1
    assert "PostgreSQL: was not running; start it with onepath up" in shown.stdout
    assert not is_running(tmp_path)


def test_what_was_due_and_never_began_is_overdue(told: Ledger) -> None:
    tomorrow = [(stage, due + timedelta(days=1), end + timedelta(days=1)) for stage, due, end in STAGES]
    with told.transaction() as connection:
        expect_runs(connection, account=ACCOUNT, session=WEDNESDAY, runs=tomorrow, at=EVENING)

    before, after = standing_at(told, EVENING), standing_at(told, OPENS + timedelta(days=1, minutes=30))

    assert complaints(before) == []
    assert before.stages[0].next_due_at == OPENS + timedelta(hours=19)
    assert [each.split(":")[0] for each in complaints(after)] == [
        "premarket-screening of 2024-03-06",
        "trading of 2024-03-06",
        "position-monitor of 2024-03-06",
    ]


def test_a_session_of_which_nothing_ever_began_is_overdue(told: Ledger) -> None:
    """No stage ran, so the ledger has not heard of the day: the broker's calendar has."""
    opens = OPENS + timedelta(days=1)
    session = Session(WEDNESDAY, opens, opens + timedelta(hours=6.5))
    plan = {session: timetable(session)}

    quiet = standing_at(told, opens + timedelta(hours=1))
    found = standing_at(told, opens + timedelta(hours=1), plan)

    assert complaints(quiet) == []
    assert [text.split(",")[0] for text in complaints(found)] == [
        "premarket-screening of 2024-03-06: overdue by 6 h",
        "trading of 2024-03-06: overdue by 50 min",
        "position-monitor of 2024-03-06: overdue by 60 min",
        "monitor: no cycle since the open at 09:30:00",
    ]


def test_the_next_due_time_comes_from_the_calendar_and_in_session_from_the_monitor_itself(told: Ledger) -> None:
    opens = OPENS + timedelta(days=1)
    session = Session(WEDNESDAY, opens, opens + timedelta(hours=6.5))
    plan = {session: timetable(session)}
    evening = {each.stage: each.next_due_at for each in standing_at(told, EVENING, plan).stages}
    at = opens + timedelta(minutes=5)
    with told.transaction() as connection:
        record_session(connection, account=ACCOUNT, session=session)
        record_cycle(connection, account=ACCOUNT, cycle=replace(cycle(at), session=WEDNESDAY))
    watching = {each.stage: each.next_due_at for each in standing_at(told, at, plan).stages}

    assert evening["trading"] == opens + timedelta(minutes=10)
    assert evening["close-of-day"] == session.closes + timedelta(minutes=15)
    assert watching["position-monitor"] == at + timedelta(minutes=1)


def test_a_stage_that_failed_is_red_with_its_reason(told: Ledger) -> None:
    key = {"account": ACCOUNT, "session": WEDNESDAY, "stage": "trading"}
    with told.transaction() as connection:
        expect_runs(connection, account=ACCOUNT, session=WEDNESDAY, runs=[("trading", EVENING, EVENING)], at=EVENING)
        start_run(connection, **key, at=EVENING)
        fail_run(connection, **key, at=EVENING, reason="gate bars: 3 rows")

    assert complaints(standing_at(told, EVENING)) == ["trading of 2024-03-06: failed (gate bars: 3 rows)"]


def test_a_critical_alert_and_one_nobody_got_are_red(told: Ledger) -> None:
    with told.transaction() as connection:
        raise_alert(
            connection, account=ACCOUNT, severity=Severity.CRITICAL, kind="stage.failed", message="trading failed: why",
            at=EVENING, session=DAY,
        )  # fmt: skip

    found = standing_at(told, EVENING)

    assert found.undelivered == 1
    assert [each.split(" at ")[0] for each in complaints(found)] == ["critical alert stage.failed"]
    late = complaints(replace(found, critical=(), undelivered_age_s=900.0))
    assert late == ["1 alerts undelivered, the oldest for 15 min"]


def cycle(at: datetime, verdict: Verdict = Verdict.OK) -> MonitorCycle:
    errors = () if verdict is Verdict.OK else ("positions unread",)
    return MonitorCycle(at, DAY, verdict, 1, 1, None, 1.0, 1, (), errors, at + timedelta(minutes=1))


@pytest.mark.parametrize(
    ("minutes_after_open", "last", "expected"),
    [
        (1, None, None),
        (4, None, "monitor: no cycle since the open at 09:30:00"),
        (62, cycle(OPENS + timedelta(minutes=60)), None),
        (64, cycle(OPENS + timedelta(minutes=60)), "monitor: last cycle 4 min ago, was due again 10:31:00"),
        (61, cycle(OPENS + timedelta(minutes=60), Verdict.RED), "monitor: last cycle RED at 2024-03-05 10:30:00"),
        (500, cycle(OPENS + timedelta(minutes=389)), None),
    ],
)
def test_a_monitor_is_judged_by_its_evidence_while_the_market_is_open(
    told: Ledger, minutes_after_open: int, last: MonitorCycle | None, expected: str | None
) -> None:
    now = OPENS + timedelta(minutes=minutes_after_open)
    age = None if last is None else (now - last.cycle_at).total_seconds()

    found = complaints(replace(standing_at(told, EVENING), as_of=now, cycle=last, cycle_age_s=age))

    assert [each.split(" (")[0] for each in found] == ([] if expected is None else [expected])


def test_a_halt_is_red_and_says_who_and_why(told: Ledger) -> None:
    halted = StateChange(1, TradingState.HALTED, "daily loss 4.2 %", "control loss", EVENING)

    found = complaints(replace(standing_at(told, EVENING), trading_state=halted))

    assert found == ["trading is HALTED: daily loss 4.2 % (set by control loss)"]


def test_a_stage_that_never_ends_is_red(told: Ledger) -> None:
    calm = standing_at(told, EVENING)
    first = calm.stages[0]
    assert first.last is not None
    hung = replace(first, last=replace(first.last, state=RunState.RUNNING, started_at=EVENING - timedelta(hours=3)))

    found = complaints(replace(calm, stages=(hung, *calm.stages[1:])))

    assert found == ["premarket-screening of 2024-03-05: has been running for 3 h"]


def test_positions_at_the_broker_are_shown_beside_the_trades(exchange: Exchange, health: None) -> None:
    assert "0 positions at the broker" in status().stdout
    assert Decimal(json.loads(status("--json").stdout)["status"]["open_trades"][0]["quantity"]) == 20
