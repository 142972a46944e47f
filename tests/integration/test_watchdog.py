"""The watchdog on real parts: it sees by itself what ledger, broker and machine say, and the page arrives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from alert_sink import Sink, alert_sink
from pydantic import SecretStr
from scripted_market import KEYS, MONDAY, at
from sqlalchemy import text
from trading_desk import Bench, bench

from desk.channels import LogChannel
from desk.exchange.server import ExchangeServer
from desk.ledger import migrate
from desk.ledger.accounts import open_account
from desk.ledger.alerts import raise_alert
from desk.ledger.databases import database_urls, ensure_databases
from desk.ledger.embedded import start_embedded, stop_embedded
from desk.ledger.engine import Ledger
from desk.ledger.records import Severity
from desk.ledger.runs import finish_run, start_run
from desk.settings import Settings
from desk.sight import Eyes, open_ledger
from desk.watch import has_evidence, judge
from flows.position_monitor import position_monitor
from flows.trading import execution
from flows.watchdog import Pager, watch
from tasks.office import in_office
from tasks.shift import timetable

pytestmark = pytest.mark.integration

WAIT_S_MAX = 60.0


@dataclass
class Scene:
    """Ten shares of ACME held under their bracket at 09:45, one cycle of the monitor told, everything answers."""

    bench: Bench
    settings: Settings
    sink: Sink

    def watch_positions(self) -> None:
        with in_office(self.bench.office):
            position_monitor()

    def remove_stops(self) -> None:
        for order in self.bench.orders():
            if order.leg.value in ("target", "stop"):
                self.bench.office.broker.cancel(str(order.broker_order_id))

    def rows(self, query: str) -> list[dict[str, object]]:
        return [dict(row) for row in self.bench.rows(query)]


@pytest.fixture
def sink() -> Iterator[Sink]:
    with alert_sink() as opened:
        yield opened


@pytest.fixture
def scene(ledger: Ledger, ledger_url: str, tmp_path: Path, sink: Sink) -> Iterator[Scene]:
    made = bench(ledger, tmp_path)
    with in_office(made.office):
        execution(MONDAY)
        made.exchange.set_clock(at("09:45"))
    for stage in ("premarket-screening", "trading"):
        with ledger.transaction() as connection:
            key = {"account": made.office.account, "session": MONDAY, "stage": stage, "at": at("09:41")}
            start_run(connection, **key)  # type: ignore[arg-type]
            finish_run(connection, **key, evidence={})  # type: ignore[arg-type]
    with ExchangeServer(made.exchange) as server:
        settings = Settings(
            home=tmp_path,
            database_url=SecretStr(ledger_url),
            exchange_url=server.url,
            alpaca_key_id=SecretStr(KEYS[0]),
            alpaca_secret_key=SecretStr(KEYS[1]),
            prefect_port=sink.port,
            alert_urls=SecretStr(sink.url),
            deadman_url=SecretStr(f"http://127.0.0.1:{sink.port}/deadman-token"),
        )
        ready = Scene(made, settings, sink)
        ready.watch_positions()
        yield ready


@pytest.fixture
def eyes(scene: Scene) -> Iterator[Eyes]:
    with closing(looking(scene.settings)) as made:
        yield made


def looking(settings: Settings, within_s: float = 10.0) -> Eyes:
    return Eyes(settings, timetable=timetable, wall=lambda: datetime.now(UTC), within_s=within_s)


def kinds(eyes: Eyes) -> list[str]:
    return [finding.kind for finding in judge(eyes.look())]


@contextmanager
def watchdog(settings: Settings, log: Path, *, period: float = 0.5) -> Iterator[subprocess.Popen[bytes]]:
    """The command, as a process of its own."""
    command = [sys.executable, "-c", "from flows.cli import main; main()", "watchdog", "--period", str(period)]
    environment = {**os.environ, **settings.environment()}
    if settings.database_url is None:
        environment.pop("ONEPATH_DATABASE_URL", None)
    with log.open("ab") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()


def pages(scene: Scene) -> list[str]:
    """What woke someone: the day's own information aside."""
    return [title for title in scene.sink.titles if not title.startswith("INFO")]


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline, f"not in {WAIT_S_MAX:g} s: {what}"
        time.sleep(0.05)


# -------------------------------------------------------------------------------------------------------------- looks


def test_a_quiet_session_gives_no_page(scene: Scene, eyes: Eyes) -> None:
    """From 09:45 to a minute past the close, a cycle each minute and a look each 30 s, 751 looks in all."""
    looks, found, unproven = 0, [], 0
    while scene.bench.exchange.now < at("16:01"):
        if scene.bench.exchange.now < at("16:00"):
            scene.watch_positions()
        for _ in range(2):
            scene.bench.exchange.advance(30)
            sight = eyes.look()
            findings = judge(sight)
            looks, found, unproven = looks + 1, found + findings, unproven + (not has_evidence(sight, findings))

    assert (found, unproven) == ([], 0)
    assert looks > 740


def test_a_monitor_that_stops_pages_within_180_s(scene: Scene, eyes: Eyes) -> None:
    last = scene.bench.exchange.now
    while not (found := kinds(eyes)):
        scene.bench.exchange.advance(30)

    assert found == ["monitor.stale"]
    assert scene.bench.exchange.now - last <= timedelta(seconds=180)


def test_a_stop_removed_at_the_broker_pages_within_180_s(scene: Scene, eyes: Eyes) -> None:
    """The monitor would put it back; here it goes on writing evidence, and is blind to it."""
    assert kinds(eyes) == []
    scene.remove_stops()
    found: list[str] = []
    for _ in range(6):
        scene.bench.exchange.advance(30)
        found = found or kinds(eyes)

    assert "position.uncovered" in found


def test_a_position_that_no_cycle_evaluated_pages(scene: Scene, eyes: Eyes) -> None:
    """The evidence says all is well with none; the broker holds one, and no fill since explains it."""
    scene.bench.exchange.advance(60)
    with scene.bench.office.ledger.transaction() as connection:
        connection.execute(
            text(
                "insert into monitor_cycles (account, cycle_at, session, verdict, positions_expected,"
                " positions_evaluated, stops_verified, exits, errors, next_due_at) select account, :at, session, 'OK',"
                " 0, 0, 0, '[]', '[]', :at from monitor_cycles limit 1"
            ),
            {"at": scene.bench.exchange.now},
        )
    scene.bench.exchange.advance(5)

    assert kinds(eyes) == ["monitor.unlike"]


def test_a_stage_that_never_begins_pages(scene: Scene, eyes: Eyes) -> None:
    scene.bench.exchange.set_clock(at("16:18"))

    found = judge(eyes.look())

    assert [(each.kind, each.stage) for each in found] == [("stage.overdue", "close-of-day")]


def test_a_broker_that_does_not_answer_pages_and_the_ledger_is_still_read(scene: Scene) -> None:
    away = scene.settings.model_copy(update={"exchange_url": "http://127.0.0.1:9"})
    with closing(looking(away)) as eyes:
        first, sight = eyes.look(), eyes.look()

    assert judge(first) == []  # once may be a hiccup
    assert [found.kind for found in judge(sight)] == ["broker.unreachable"]
    assert sight.ledger is not None and not has_evidence(sight, [])


def test_a_prefect_server_that_is_down_or_unwell_pages(scene: Scene) -> None:
    scene.sink.is_unhealthy = True
    with closing(looking(scene.settings)) as unwell:
        assert [kinds(unwell) for _ in range(3)] == [[], ["prefect.unreachable"], ["prefect.unreachable"]]
        scene.sink.is_unhealthy = False
        assert kinds(unwell) == []
    with closing(looking(scene.settings.model_copy(update={"prefect_port": 9}))) as down:
        assert [kinds(down) for _ in range(2)] == [[], ["prefect.unreachable"]]


def test_alerts_that_reach_nobody_page(scene: Scene) -> None:
    """Neither of two channels has it after six minutes; one that has it is enough."""
    names = ("json-1", "json-2")
    with scene.bench.office.ledger.transaction() as connection:
        raise_alert(
            connection, account=scene.bench.office.account, severity=Severity.CRITICAL, kind="books.differ",
            message="x", at=at("09:45"),
        )  # fmt: skip
    with closing(Eyes(scene.settings, timetable=timetable, wall=lambda: datetime.now(UTC), chain=names)) as eyes:
        sight = eyes.look()
        assert sight.ledger is not None and sight.ledger.undelivered_since is not None
        scene.bench.office.ledger.close()
        with scene.bench.office.ledger.transaction() as connection:
            connection.execute(
                text(
                    "insert into alert_deliveries (alert_id, channel, attempt, delivered)"
                    " select alert_id, 'json-2', 1, true from alerts"
                )
            )
        after = eyes.look()

    assert after.ledger is not None and after.ledger.undelivered_since is None


# --------------------------------------------------------------------------------------------------- the real process


def test_the_watchdog_imports_no_prefect(scene: Scene) -> None:
    code = (
        "import sys\nfrom flows.cli import app\nfrom typer.testing import CliRunner\n"
        "print(CliRunner().invoke(app, ['watchdog', '--once'], catch_exceptions=False).stdout)\n"
        "heavy = ('prefect', 'torch', 'mlflow', 'great_expectations')\n"
        "print('heavy:', [name for name in heavy if name in sys.modules])"
    )
    environment = {**os.environ, **scene.settings.environment()}

    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert "nothing to page on" in told.stdout
    assert "heavy: []" in told.stdout


def test_one_look_says_what_is_down(scene: Scene, tmp_path: Path) -> None:
    """It exits with 1, and pages nobody."""
    environment = {**os.environ, **scene.settings.environment(), "ONEPATH_PREFECT_PORT": "9"}
    command = [sys.executable, "-c", "from flows.cli import main; main()", "watchdog", "--once"]

    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert told.returncode == 1
    assert told.stdout.startswith("critical prefect.unreachable: Prefect's server does not answer: http://127.0.0.1:9")
    assert scene.sink.received == []


def test_a_page_arrives_from_the_process_and_two_of_them_page_once(scene: Scene, tmp_path: Path) -> None:
    with (
        watchdog(scene.settings, tmp_path / "one.log"),
        watchdog(scene.settings, tmp_path / "two.log"),
    ):
        wait_for(lambda: scene.sink.pings >= 4, "both ping on evidence")
        assert pages(scene) == []
        scene.bench.exchange.advance(170)
        wait_for(lambda: pages(scene), "a page")
        time.sleep(3)
        pings = scene.sink.pings
        time.sleep(2)
        assert scene.sink.pings == pings  # no evidence, no ping

    assert pages(scene) == [f"CRITICAL monitor.stale: position-monitor {MONDAY}"]
    assert "onepath status" in scene.sink.text
    assert len(scene.rows("select 1 from alerts where kind = 'monitor.stale'")) == 1


def test_postgresql_stopped_pages_and_the_broker_is_still_watched(scene: Scene, tmp_path: Path) -> None:
    """A server of its own is stopped under a running watchdog: the page comes without the outbox, and so does that of a
    stop removed meanwhile. Afterwards the ledger is told."""
    home = tmp_path / "h"
    settings = scene.settings.model_copy(update={"home": home, "database_url": None})
    start_embedded(home)
    try:
        urls = database_urls(settings)
        ensure_databases(urls)
        migrate.upgrade(urls.ledger)
        scene.bench.exchange.set_clock(at("16:00"))  # nothing is due in this ledger, which has seen no session
        with closing(Ledger.connect(urls.ledger, pool_size=1)) as ledger, ledger.transaction() as connection:
            open_account(connection, account=scene.bench.office.account, broker="simulated", venue="simulated")
        with watchdog(settings, tmp_path / "watchdog.log"):
            wait_for(lambda: scene.sink.pings, "a first look")
            stop_embedded(home)
            wait_for(lambda: "ledger.unreachable" in scene.sink.text, "the page")
            start_embedded(home)
            pings = scene.sink.pings
            wait_for(lambda: scene.sink.pings > pings, "evidence again")
            wait_for(lambda: "ledger.returned" in scene.sink.text, "word of its return")
    finally:
        stop_embedded(home)

    assert sum("ledger.unreachable" in title for title in scene.sink.titles) == 1


def test_without_a_ledger_a_missing_stop_is_paged_straight(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    nowhere = scene.settings.model_copy(update={"database_url": SecretStr("postgresql://x@127.0.0.1:9/x")})
    pager = Pager(lambda: open_ledger(nowhere), [LogChannel()])
    scene.remove_stops()
    with closing(looking(nowhere)) as eyes:
        for _ in range(3):
            scene.bench.exchange.advance(30)
            sight = eyes.look()
            pager.page(sight, judge(sight), account="SIM")

    told = [record.getMessage() for record in caplog.records if record.name == "onepath.alerts"]
    assert [line.split(":")[0] for line in told] == ["ledger.unreachable", "position.uncovered"]


def test_a_postgresql_that_hangs_pages_in_time(scene: Scene, tmp_path: Path) -> None:
    """Stopped in mid-air it accepts nothing and refuses nothing: only a deadline of our own ends the wait."""
    home = tmp_path / "h"
    settings = scene.settings.model_copy(update={"home": home, "database_url": None})
    start_embedded(home)
    frozen = []
    try:
        urls = database_urls(settings)
        ensure_databases(urls)
        migrate.upgrade(urls.ledger)
        with closing(looking(settings, within_s=2.0)) as eyes:
            assert "ledger.unreachable" not in kinds(eyes)
            frozen = [
                each
                for each in psutil.process_iter(["name", "cwd"])
                if str(each.info["name"]).startswith("postgres") and each.info["cwd"] == str(home / "postgres")
            ]
            for process in frozen:
                process.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            first, second = eyes.look(), eyes.look()
            took_s = time.monotonic() - began
            for process in frozen:
                process.send_signal(signal.SIGCONT)
            time.sleep(1)
            after = kinds(eyes)
    finally:
        for process in frozen:
            process.send_signal(signal.SIGCONT)
        stop_embedded(home)

    assert first.ledger_error == "ledger: no answer within 2 s"
    assert second.ledger_error is not None and second.broker is not None
    assert took_s < 10
    assert "ledger.unreachable" not in after


def test_what_was_found_is_raised_again_only_after_a_quarter_of_an_hour(scene: Scene) -> None:
    """The same state at each look, for a few seconds: one alert in the ledger."""
    scene.bench.exchange.advance(170)
    stop = threading.Event()
    thread = threading.Thread(target=watch, args=(scene.settings,), kwargs={"stop": stop, "period_s": 0.2})
    thread.start()
    try:
        wait_for(lambda: pages(scene), "a page")
        time.sleep(2)
    finally:
        stop.set()
        thread.join()

    assert [row["kind"] for row in scene.rows("select kind from alerts where kind like 'monitor.%'")] == [
        "monitor.stale"
    ]
