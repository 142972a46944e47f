"""Alerts leave the ledger's outbox through channels. Delivery is recorded; what was not delivered stays open."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from desk.errors import OnepathError
from desk.guard import assert_no_connection_held
from desk.ledger.alerts import record_delivery, undelivered
from desk.ledger.engine import Ledger
from desk.ledger.records import Alert, Severity

__all__ = ["AlertChannel", "LogChannel", "deliver"]

_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.CRITICAL}


class AlertChannel(Protocol):
    """A way to reach a person."""

    @property
    def name(self) -> str:
        """Under which deliveries are recorded; the same from run to run."""
        ...

    def send(self, alert: Alert) -> None:
        """Deliver one alert. Raises Transient or Refused when it did not get through."""
        ...


class LogChannel:
    """One structured log line an alert: event "alert.raised", fields in `extra`."""

    name = "log"

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._log = logger or logging.getLogger("onepath.alerts")

    def send(self, alert: Alert) -> None:
        fields = {
            "alert_id": alert.alert_id,
            "account": alert.account,
            "session": alert.session and alert.session.isoformat(),
            "stage": alert.stage,
            "symbol": alert.symbol,
            "severity": alert.severity.value,
            "kind": alert.kind,
            "at": alert.at.isoformat(),
            "detail": dict(alert.detail),
        }
        self._log.log(_LEVELS[alert.severity], "%s: %s", alert.kind, alert.message, extra=fields)


def deliver(ledger: Ledger, *, account: str, channels: Sequence[AlertChannel]) -> int:
    """Send what each channel has not sent yet, and record each attempt. Returns how many attempts failed.

    One process at a time delivers to a channel; whoever comes second leaves it to the first. No connection is
    held while a channel is called, so a kill between sending and recording sends that one alert again.
    """
    assert_no_connection_held("desk.alerts.deliver")
    failed = 0
    for channel in channels:
        if not _waiting(ledger, account, channel):
            continue
        with ledger.try_lock(f"alerts:{account}:{channel.name}") as is_ours:
            if is_ours:
                failed += sum(not _send(ledger, channel, alert) for alert in _waiting(ledger, account, channel))
    return failed


def _waiting(ledger: Ledger, account: str, channel: AlertChannel) -> list[Alert]:
    with ledger.transaction() as connection:
        return undelivered(connection, account=account, channel=channel.name)


def _send(ledger: Ledger, channel: AlertChannel, alert: Alert) -> bool:
    error: str | None = None
    try:
        channel.send(alert)
    except OnepathError as refused:
        error = f"{type(refused).__name__}: {refused}"
    with ledger.transaction() as connection:
        record_delivery(connection, alert_id=alert.alert_id, channel=channel.name, delivered=error is None, error=error)
    return error is None
