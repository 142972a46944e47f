"""The channels alerts leave by: the log, a file, and whatever Apprise reaches."""

from __future__ import annotations

import logging
import re
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import orjson

from desk.alerts import AlertChannel, Message, kind_of
from desk.errors import BadInput, Transient
from desk.guard import assert_no_connection_held
from desk.ledger.records import Alert, Severity

if TYPE_CHECKING:
    from desk.settings import Settings

__all__ = ["AppriseChannel", "FileChannel", "LogChannel", "channels_of"]

_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.CRITICAL}
_NEXT_URL = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")  # a URL may have commas of its own
_ERROR_CHARS_MAX = 300


def channels_of(settings: Settings) -> tuple[AlertChannel, ...]:
    """The log, then what ONEPATH_ALERT_URLS names, first choice first. Raises BadInput, never showing a URL."""
    given = settings.alert_urls.get_secret_value().strip() if settings.alert_urls else ""
    named = [_channel(url, place) for place, url in enumerate(_NEXT_URL.split(given), 1)] if given else []
    return (LogChannel(), *named)


def _channel(url: str, place: int) -> AlertChannel:
    if url.lower().startswith("file:"):
        path = Path(unquote(urlsplit(url).path))
        if not path.is_absolute() or urlsplit(url).netloc or path.is_dir():
            raise BadInput(f"ONEPATH_ALERT_URLS: entry {place} needs the form file:///absolute/path.jsonl")
        return FileChannel(path)
    return AppriseChannel(url, place)


class LogChannel:
    """One structured log line an alert: event "alert.raised", fields in `extra`."""

    name = "log"
    pages = False

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._log = logger or logging.getLogger("onepath.alerts")

    def send(self, message: Message) -> None:
        for alert in message.alerts:
            text = f"{alert.kind}: {alert.message}"
            self._log.log(_LEVELS[alert.severity], "%s", text, extra=_facts(alert))


class FileChannel:
    """One JSON line an alert, appended."""

    pages = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"file-{_digest(str(path))}"

    def send(self, message: Message) -> None:
        assert_no_connection_held("file channel")
        lines = b"".join(orjson.dumps(_line(alert), default=str) + b"\n" for alert in message.alerts)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.write(lines)  # one write: lines of two processes do not mix
        except OSError as error:
            raise Transient(f"file channel {self.path}: {error.strerror}") from error


class AppriseChannel:
    """A service by its Apprise URL. The URL is a secret: the channel is called by its kind and a digest."""

    pages = True

    def __init__(self, url: str, place: int = 1) -> None:
        from apprise import Apprise, AppriseAsset, PersistentStoreMode

        scheme = url.partition("://")[0].lower()
        self.name = f"{scheme}-{_digest(url)}"
        its_log = logging.getLogger("apprise")
        its_log.setLevel(logging.CRITICAL)  # its own lines may show parts of the URL
        its_log.propagate = False
        asset = AppriseAsset(
            app_id="onepath", app_desc="onepath", async_mode=False, storage_mode=PersistentStoreMode.MEMORY
        )
        service = Apprise.instantiate(url, asset=asset)
        if service is None:
            raise BadInput(
                f"ONEPATH_ALERT_URLS: entry {place} ({scheme}://...) is no URL that Apprise knows; "
                "its forms are listed at https://github.com/caronc/apprise/wiki"
            )
        self._service: Any = service
        self._secrets = sorted(
            {part for part in re.split(r"[/@:?&=,\s]+", url.partition("://")[2]) if len(part) > 3},
            key=len,
            reverse=True,
        )

    def send(self, message: Message) -> None:
        from apprise import LogCapture, NotifyType

        assert_no_connection_held("alert channel")
        kinds = {
            Severity.INFO: NotifyType.INFO,
            Severity.WARNING: NotifyType.WARNING,
            Severity.CRITICAL: NotifyType.FAILURE,
        }
        with LogCapture(level=logging.WARNING, fmt="%(message)s") as said:  # type: ignore[no-untyped-call]
            is_sent = self._service.notify(
                body=message.body, title=message.title, notify_type=kinds[message.severity], body_format="text"
            )
            why = " ".join(said.getvalue().split())
        if not is_sent:
            raise Transient(f"{self.name}: not delivered ({self._without_secrets(why) or 'no reason given'})")

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text[:_ERROR_CHARS_MAX]


def _facts(alert: Alert) -> dict[str, object]:
    return {
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


def _line(alert: Alert) -> dict[str, object]:
    message = Message(alert.severity, (alert,), 1)
    return {**_facts(alert), "message": alert.message, "text": message.body, "remedy": kind_of(alert.kind).remedy}


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()[:8]
