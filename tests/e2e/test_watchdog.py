"""A runner of the monitor that is stopped or killed: the page arrives within 180 s of session time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from alert_sink import Sink, alert_sink
from whole_stack import World, wait_until

pytestmark = pytest.mark.e2e


@contextmanager
def watchdog(on: World, sink: Sink) -> Iterator[None]:
    """As a process, looking twice a second of real time; the exchange's clock stands between our moves."""
    command = [sys.executable, "-c", "from flows.cli import main; main()", "watchdog", "--period", "0.5"]
    given = {"ONEPATH_ALERT_URLS": sink.url, "ONEPATH_DEADMAN_URL": f"http://127.0.0.1:{sink.port}/deadman-token"}
    environment = {**os.environ, **on.stack.environment(), **on.settings.environment(), **given}
    log = on.settings.home / "watchdog.log"
    with log.open("ab") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("blow", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_monitor_runner_stopped_or_killed_leads_to_a_page(today: World, blow: signal.Signals) -> None:
    today.set_clock("09:35")
    with today.runner_process() as runner, alert_sink() as sink:
        today.run_there("position-monitor")
        with watchdog(today, sink):
            wait_until(lambda: sink.pings, "the watchdog sees evidence")
            runner.send_signal(blow)
            began = today.now
            while not any("monitor.stale" in title for title in sink.titles):
                run = today.ask_for("position-monitor")  # as each minute; nobody is there to do it
                assert today.now - began < timedelta(minutes=4), sink.titles
                for _ in range(2):
                    today.set_moment(today.now + timedelta(seconds=30))
                    time.sleep(1.5)  # at least one look, and a second for the delivery

            paged_after = today.now - began
            assert paged_after <= timedelta(seconds=180)
            assert f"CRITICAL monitor.stale: position-monitor {today.day}" in sink.titles
            pings = sink.pings
            if blow is signal.SIGSTOP:
                runner.send_signal(signal.SIGCONT)
                today.until_ended(run)
                wait_until(lambda: sink.pings > pings, "evidence again")
