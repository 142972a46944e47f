"""The watchdog: looks every 30 s, pages on what is wrong, pings the dead-man's URL on evidence, delivers alerts.

It imports no Prefect and needs neither Prefect nor the database: without the ledger, and with it the outbox, it pages
straight through the channels. Any number may run beside each other: a finding is raised once, under a lock, and each
channel is served by one of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime

import httpx

from desk.alerts import AlertChannel, Message
from desk.channels import channels_of
from desk.delivery import DeliveryLoop
from desk.errors import OnepathError
from desk.ledger.alerts import UNKNOWN_ACCOUNT, raise_alert, raise_unless_known
from desk.ledger.engine import Ledger
from desk.ledger.records import Alert, Severity
from desk.paging import SUM_UP
from desk.settings import Settings
from desk.sight import LOOK_S_MAX, Eyes, Source, open_ledger
from desk.watch import DELIVERY_STUCK_S_MAX, Finding, Sight, has_evidence, judge
from tasks.shift import timetable

__all__ = ["PERIOD_S", "Pager", "look_once", "watch"]

log = logging.getLogger(__name__)

PERIOD_S = 30.0
PING_S_MAX = 5.0


def watch(settings: Settings, *, stop: threading.Event, period_s: float = PERIOD_S) -> None:
    """Until `stop` is set."""
    channels = channels_of(settings)
    eyes = _eyes(settings, channels)
    pager = Pager(lambda: open_ledger(settings, pool_size=1), channels)

    def connect() -> Ledger:
        return open_ledger(settings, pool_size=1)

    log.info("watchdog.started", extra={"channels": [channel.name for channel in channels], "period_s": period_s})
    with DeliveryLoop(connect, account=lambda: eyes.account, channels=channels) as loop:
        while not stop.is_set():
            began = time.monotonic()
            sight = eyes.look(stuck_channels=loop.stuck(for_s=DELIVERY_STUCK_S_MAX))
            findings = judge(sight)
            pager.page(sight, findings, account=eyes.account or UNKNOWN_ACCOUNT)
            if settings.deadman_url is not None and has_evidence(sight, findings):
                _ping(settings.deadman_url.get_secret_value())
            stop.wait(max(0.0, began + period_s - time.monotonic()))
    eyes.close()
    pager.close()


def look_once(settings: Settings) -> list[Finding]:
    """What is found now. Pages nobody. What seems down is looked at once more: it may have been a hiccup."""
    with closing(_eyes(settings, channels_of(settings))) as eyes:
        sight = eyes.look()
        return judge(eyes.look() if sight.new_failures else sight)


class Pager:
    """Puts findings into the outbox; without a ledger, or when delivery itself hangs, straight onto the channels."""

    def __init__(
        self, connect: Callable[[], Ledger], channels: Sequence[AlertChannel], *, within_s: float = LOOK_S_MAX
    ) -> None:
        self._connect, self._channels = connect, channels
        self._ledger: Ledger | None = None
        self._writes: Source[int] = Source("outbox", within_s=within_s)
        self._told: dict[tuple[str, str | None, str | None], float] = {}  # straight pages, by monotonic time
        self._away_since: datetime | None = None

    def close(self) -> None:
        held, self._ledger = self._ledger, None
        if held is not None:
            held.close()

    def page(self, sight: Sight, findings: Sequence[Finding], *, account: str) -> None:
        for finding in findings:
            log.warning("watch.found: %s", finding.message, extra={"kind": finding.kind})
        if sight.ledger is None:
            self._away_since = self._away_since or sight.at
            self._page_straight(sight, findings, account)
            return
        if sight.stuck_channels:
            self._page_straight(sight, findings, account)
        if not findings and self._away_since is None:
            return
        try:
            self._writes.ask(lambda: self._write(sight, findings, account))
            self._away_since = None
        except OnepathError as error:
            self.close()
            log.warning("watch.not_in_ledger: %s", error)
            self._page_straight(sight, findings, account)

    def _write(self, sight: Sight, findings: Sequence[Finding], account: str) -> int:
        if self._ledger is None:
            self._ledger = self._connect()
        with self._ledger.transaction() as connection:
            if self._away_since is not None:
                raise_alert(
                    connection,
                    account=account,
                    severity=Severity.INFO,
                    kind="ledger.returned",
                    message=f"the ledger is back; it could not be read since {self._away_since:%Y-%m-%d %H:%M:%S} UTC",
                    at=sight.at,
                    session=sight.day,
                )
            raised = [
                raise_unless_known(
                    connection,
                    account=account,
                    severity=finding.severity,
                    kind=finding.kind,
                    message=finding.message,
                    at=sight.at,
                    session=finding.session,
                    stage=finding.stage,
                    symbol=finding.symbol,
                    detail={"seen_by": "watchdog"},
                    quiet=SUM_UP,
                )
                for finding in findings
            ]
        return sum(number is not None for number in raised)

    def _page_straight(self, sight: Sight, findings: Sequence[Finding], account: str) -> None:
        """On every channel, each finding once in 15 minutes. Told is what one channel took that reaches a person."""
        for finding in findings:
            key = (finding.kind, finding.stage, finding.symbol)
            if time.monotonic() - self._told.get(key, float("-inf")) < SUM_UP.total_seconds():
                continue
            alert = Alert(
                alert_id=0,
                account=account,
                session=finding.session,
                stage=finding.stage,
                symbol=finding.symbol,
                severity=finding.severity,
                kind=finding.kind,
                message=finding.message,
                detail={"seen_by": "watchdog"},
                at=sight.at,
            )
            message = Message(finding.severity, (alert,), 1)
            taken = [channel for channel in self._channels if _got_through(channel, message)]
            if any(channel.pages for channel in taken) or not any(channel.pages for channel in self._channels):
                self._told[key] = time.monotonic()


def _got_through(channel: AlertChannel, message: Message) -> bool:
    try:
        channel.send(message)
    except OnepathError as error:
        log.warning("alert.not_sent: %s", error, extra={"channel": channel.name})
        return False
    return True


def _ping(url: str) -> None:
    try:
        httpx.get(url, timeout=PING_S_MAX).raise_for_status()
    except httpx.HTTPError as error:  # its silence is what the other end waits for; the URL is a secret
        log.warning("deadman.not_reached", extra={"cause": type(error).__name__})


def _eyes(settings: Settings, channels: Sequence[AlertChannel]) -> Eyes:
    return Eyes(
        settings,
        timetable=timetable,
        wall=_wall_clock,
        chain=[channel.name for channel in channels if channel.pages],
    )


def _wall_clock() -> datetime:
    """For the skew against the broker, and for a page when neither broker nor ledger tells the time."""
    return datetime.fromtimestamp(time.time(), UTC)
