"""Alerts leave the ledger's outbox through channels. Delivery is recorded; what was not delivered stays open.

`deliver` is called at the end of stages and, every second, by the watchdog. Each channel is served by one process at a
time. No connection is held while a channel is called, so a kill between sending and recording sends that one message
again: at least once, never not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from desk.errors import OnepathError
from desk.guard import assert_no_connection_held
from desk.ledger.alerts import alerts_numbered, raise_alert
from desk.ledger.deliveries import database_now, heaps, line_of, paged_since, record_delivery, undelivered
from desk.ledger.engine import Ledger
from desk.ledger.records import Alert, Severity
from desk.paging import FAILURES_TO_ESCALATE, SUM_UP, Draft, Line, drafts
from desk.report.words import clock_time

__all__ = ["KINDS", "AlertChannel", "Kind", "Message", "deliver", "deliver_by", "kind_of"]

SAMPLES_MAX = 5  # alerts quoted in one message
STAGE_S_MAX = 15.0  # a stage does not wait longer for channels; the watchdog goes on

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Kind:
    """What the system did about it, and what a person types next; {session}, {symbol}, {stage}, {id} are filled in."""

    did: str
    remedy: str


KINDS: dict[str, Kind] = {
    "alert.canary": Kind("sent it to see that alerts arrive", "onepath alerts ack {id} --by YOUR-NAME"),
    "alerts.undelivered": Kind("keeps trying, and raised this on every channel", "onepath alerts --open"),
    "bars.suspect": Kind(
        "left these symbols out of the session", "onepath data audit FILE, or look at the stage's log"
    ),
    "books.differ": Kind("closed the books with the differences written down", "onepath status"),
    "broker.unreachable": Kind("keeps asking; stops at the broker stay in force", "onepath status"),
    "broker.unlike": Kind("goes on watching; nothing is healed by a guess", "onepath status"),
    "channel.failing": Kind("sends through the next channel, and keeps trying this one", "onepath alerts --open"),
    "clock.skewed": Kind("goes on by the broker's clock", "timedatectl status"),
    "control.denied": Kind("sent no order in {symbol}, and went on with the rest", "onepath why {symbol}"),
    "decider.fallback": Kind("let the fallback rule decide", "onepath why SYMBOL --session {session}"),
    "disk.filling": Kind("nothing: it removes no data by itself", "df -h; du -sh var/*"),
    "fill.slipped": Kind("kept the position and its stop", "onepath why {symbol}"),
    "foreign.order": Kind("stopped entries in {symbol}", "onepath alerts ack {id} --by YOUR-NAME"),
    "foreign.sold": Kind("took the sale into the books and stopped entries in {symbol}", "onepath why {symbol}"),
    "ledger.returned": Kind("paged without the outbox while it was away", "onepath status"),
    "ledger.unreachable": Kind("pages without the outbox; nothing is traded without a ledger", "onepath status"),
    "monitor.red": Kind("tries again in its next cycle, within a minute", "onepath status"),
    "monitor.stale": Kind("stops at the broker stay in force; trailing and time exits wait", "onepath status"),
    "monitor.unlike": Kind("stops at the broker stay in force", "onepath status"),
    "order.lapsed": Kind("proved that it never arrived, and released its money", "onepath why {symbol}"),
    "order.quarantined": Kind("halted trading; protective stops are kept", "onepath why {symbol}"),
    "order.rejected": Kind("released its money and went on with the rest", "onepath why {symbol}"),
    "position.uncovered": Kind("the monitor sends a stop in its next cycle", "onepath why {symbol}"),
    "prefect.unreachable": Kind("keeps asking; no stage starts without it", "onepath status; onepath up"),
    "process.ended": Kind("goes on starting it again, every few minutes", "onepath status; the log is under var/logs"),
    "quote.unusable": Kind("did not use the quote", "onepath why {symbol}"),
    "stage.cancelled": Kind("stopped the run", "start it again in the Prefect UI, or onepath status"),
    "stage.crashed": Kind("stopped; a rerun finds what was already done", "start it again in the Prefect UI"),
    "stage.failed": Kind("stopped the stage; nothing after it trades", "start it again in the Prefect UI"),
    "stage.hanging": Kind("lets it run on", "look at its log in the Prefect UI, and cancel the run there"),
    "stage.missed": Kind("left it out: too late to trade", "onepath status"),
    "stage.overdue": Kind("nothing yet: it has not begun", "onepath status; onepath up"),
    "stage.skipped": Kind("left the late runs out", "onepath status"),
    "trading.halted": Kind("cancelled entries, kept exits and stops", "onepath status; onepath resume --by NAME"),
    "trading.reducing": Kind("stopped entries, kept exits and stops", "onepath status; onepath resume --by NAME"),
}
_OTHER = Kind("wrote it down", "onepath status")


def kind_of(name: str) -> Kind:
    """What is known of a kind of alert. One missing from the table is still told, with the general remedy."""
    return KINDS.get(name, _OTHER)


@dataclass(frozen=True, slots=True)
class Message:
    """What a channel carries: alerts of one fingerprint, at the highest of their severities."""

    severity: Severity
    alerts: tuple[Alert, ...]  # the newest of them, oldest first
    count: int
    is_repeat: bool = False

    @property
    def newest(self) -> Alert:
        return self.alerts[-1]

    @property
    def title(self) -> str:
        about = " ".join(str(part) for part in (self.newest.symbol, self.newest.stage, self.newest.session) if part)
        more = f"{self.count} more: " if self.is_repeat else f"{self.count} times: " if self.count > 1 else ""
        return f"{self.severity.value.upper()} {more}{self.newest.kind}{f': {about}' if about else ''}"

    @property
    def body(self) -> str:
        """What happened, to what, what the system did, and what to type next."""
        newest, kind = self.newest, kind_of(self.newest.kind)
        told = [newest.message]
        if self.count > 1:
            told = [f"{clock_time(alert.at)} {alert.message}" for alert in self.alerts]
            if self.count > len(self.alerts):
                told.insert(0, f"{self.count} alerts, the newest of them:")
        where = {
            "account": newest.account,
            "session": newest.session,
            "stage": newest.stage,
            "symbol": newest.symbol,
            "link": newest.detail.get("link"),
        }
        return "\n".join(
            [
                *told,
                ", ".join(f"{name} {value}" for name, value in where.items() if value),
                f"The system: {_filled(kind.did, newest)}.",
                f"Next: {_filled(kind.remedy, newest)}",
                *([f"Then: onepath alerts ack {newest.alert_id} --by YOUR-NAME"] if newest.alert_id else []),
            ]
        )


class AlertChannel(Protocol):
    """A way to reach a person, or a place where alerts are written down."""

    @property
    def name(self) -> str:
        """Under which deliveries are recorded; the same from run to run, and no secret."""
        ...

    @property
    def pages(self) -> bool:
        """Whether it disturbs someone: then repeats are summed up. Otherwise it gets each alert by itself, at once."""
        ...

    def send(self, message: Message) -> None:
        """Deliver one message. Raises Transient or Refused when it did not get through."""
        ...


def deliver(
    ledger: Ledger,
    *,
    account: str,
    channels: Sequence[AlertChannel],
    now: Clock | None = None,
    seconds_max: float = STAGE_S_MAX,
) -> int:
    """Send what is due on each channel, and record each attempt. Returns how many attempts failed.

    `now`: the clock of repeats and waits; by default the database's.
    """
    chain = [channel.name for channel in channels if channel.pages]
    until = time.monotonic() + seconds_max
    return sum(deliver_by(ledger, channel, account=account, chain=chain, now=now, until=until) for channel in channels)


def deliver_by(
    ledger: Ledger,
    channel: AlertChannel,
    *,
    account: str,
    chain: Sequence[str],
    now: Clock | None = None,
    until: float | None = None,
) -> int:
    """The same for one channel. `chain`: the names of all that page, first choice first."""
    assert_no_connection_held("desk.alerts.deliver")
    owed = _pages if channel.pages else _lines
    if not owed(ledger, channel, account, chain, now):
        return 0
    with ledger.try_lock(f"alerts:{channel.name}") as is_ours:
        if not is_ours:
            return 0  # another process is at it
        for draft in owed(ledger, channel, account, chain, now):
            if not _send(ledger, channel, draft, now):
                return 1  # what refused one gets the next after a pause
            if until is not None and time.monotonic() > until:
                break
    return 0


def _lines(
    ledger: Ledger, channel: AlertChannel, account: str, _chain: Sequence[str], now: Clock | None
) -> list[Draft | Alert]:
    """For a channel that writes down: each alert alone."""
    with ledger.transaction() as connection:
        waiting = undelivered(connection, account=account, channel=channel.name)
        if not waiting or line_of(connection, channel.name).rests(now() if now else database_now(connection)):
            return []
    return list(waiting)


def _pages(
    ledger: Ledger, channel: AlertChannel, account: str, chain: Sequence[str], now: Clock | None
) -> list[Draft | Alert]:
    with ledger.transaction() as connection:
        waiting = heaps(connection, account=account, channel=channel.name, chain=chain)
        if not waiting:
            return []
        at = now() if now else database_now(connection)
        place = list(chain).index(channel.name)
        return list(
            drafts(
                waiting,
                paged_since(connection, channel=channel.name, since=at - 2 * SUM_UP),
                line=line_of(connection, channel.name),
                before=line_of(connection, chain[place - 1]) if place else None,
                now=at,
            )
        )


def _send(ledger: Ledger, channel: AlertChannel, owed: Draft | Alert, now: Clock | None) -> bool:
    message, ids = _message(ledger, owed)
    error: str | None = None
    try:
        channel.send(message)
    except OnepathError as refused:
        error = f"{type(refused).__name__}: {refused}"
    with ledger.transaction() as connection:
        at = now() if now else database_now(connection)
        # A refused message leaves its row on the oldest of its alerts alone: a storm on a dead channel stays small.
        record_delivery(
            connection,
            ids=ids if error is None else ids[:1],
            channel=channel.name,
            delivered=error is None,
            error=error,
            together=len(ids),
            at=at,
        )
        line = Line() if error is None else line_of(connection, channel.name)
        if line.failures == FAILURES_TO_ESCALATE:
            raise_alert(
                connection,
                account=message.newest.account,
                severity=Severity.CRITICAL,
                kind="channel.failing",
                message=f"alert channel {channel.name} failed {line.failures} times in a row, last with {error}",
                at=at,
            )
    return error is None


def _message(ledger: Ledger, owed: Draft | Alert) -> tuple[Message, Sequence[int]]:
    if isinstance(owed, Alert):
        return Message(owed.severity, (owed,), 1), (owed.alert_id,)
    with ledger.transaction() as connection:
        newest = alerts_numbered(connection, owed.ids[-SAMPLES_MAX:])
    return Message(owed.severity, tuple(newest), len(owed.ids), owed.is_repeat), owed.ids


def _filled(template: str, alert: Alert) -> str:
    values = {"session": alert.session or "DAY", "symbol": alert.symbol or "SYMBOL", "stage": alert.stage or "STAGE"}
    return template.format(**values, id=alert.alert_id)
