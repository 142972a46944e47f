"""Which alerts a channel carries now, and as what: pure judgement over what the outbox holds.

A fingerprint that has been quiet pages at once; its repeats are summed up every 15 minutes. Severity is never merged
down: a warning paged before does not hold a critical one back. A channel that fails is left alone for a while, and
what is not critical goes to the next one once it has failed often enough; what is critical goes to all from the start.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from desk.ledger.records import Severity

__all__ = ["FAILURES_TO_ESCALATE", "SUM_UP", "Draft", "Fingerprint", "Heap", "Line", "Paged", "drafts", "oldest_due"]

SUM_UP = timedelta(minutes=15)
FAILURES_TO_ESCALATE = 3
BACKOFF_S = (2.0, 5.0, 15.0, 30.0, 60.0)  # after 1, 2, ... failures; the last one repeats
_RANK = {severity: rank for rank, severity in enumerate(Severity)}  # info, warning, critical


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What makes two alerts the same to whoever is woken: class, symbol, session.

    The stage belongs to the class: three stages missed on one morning are three things to see to.
    """

    account: str
    kind: str
    stage: str | None
    symbol: str | None
    session: date | None


@dataclass(frozen=True, slots=True)
class Heap:
    """Alerts of one fingerprint and severity that a channel has not delivered yet."""

    fingerprint: Fingerprint
    severity: Severity
    ids: tuple[int, ...]  # oldest first
    oldest_at: datetime  # when the oldest was raised
    failed: int = 0  # attempts on this channel
    tried_at: datetime | None = None
    failed_before: int = 0  # attempts on the channel before it


@dataclass(frozen=True, slots=True)
class Line:
    """How a channel does: failures in a row, and when it was last tried."""

    failures: int = 0
    tried_at: datetime | None = None

    @property
    def is_down(self) -> bool:
        return self.failures >= FAILURES_TO_ESCALATE

    def rests(self, now: datetime) -> bool:
        """Whether it failed so lately that it is left alone."""
        return _rests(self.failures, self.tried_at, now)


# When each severity of a fingerprint was last delivered by this channel.
Paged = Mapping[Fingerprint, Mapping[Severity, datetime]]


@dataclass(frozen=True, slots=True)
class Draft:
    """One message to be sent: these alerts, at the highest of their severities."""

    fingerprint: Fingerprint
    severity: Severity
    ids: tuple[int, ...]
    is_repeat: bool  # the fingerprint has paged before, not long ago
    failed: int = 0


def drafts(heaps: Iterable[Heap], paged: Paged, *, line: Line, before: Line | None, now: datetime) -> list[Draft]:
    """What the channel should send now, most urgent first. Those often refused come last: they hold up no other."""
    if line.rests(now):
        return []
    by_fingerprint: dict[Fingerprint, list[Heap]] = defaultdict(list)
    for heap in heaps:
        if _is_wanted(heap, before) and not _rests(heap.failed, heap.tried_at, now):
            by_fingerprint[heap.fingerprint].append(heap)
    found = [
        _draft(each, paged.get(fingerprint, {}))
        for fingerprint, each in by_fingerprint.items()
        if any(_due_at(heap, paged) <= now for heap in each)
    ]
    return sorted(found, key=lambda draft: (draft.failed, -_RANK[draft.severity], draft.ids))


def oldest_due(heaps: Iterable[Heap], paged: Paged) -> datetime | None:
    """Since when a message has been due that this channel has not delivered."""
    return min((_due_at(heap, paged) for heap in heaps), default=None)


def _is_wanted(heap: Heap, before: Line | None) -> bool:
    if before is None or heap.severity is Severity.CRITICAL:
        return True
    return before.is_down or heap.failed_before >= FAILURES_TO_ESCALATE


def _due_at(heap: Heap, paged: Paged) -> datetime:
    """At once, unless something as severe of this fingerprint went out less than 15 minutes ago."""
    known = paged.get(heap.fingerprint, {})
    last = max((at for severity, at in known.items() if _RANK[severity] >= _RANK[heap.severity]), default=None)
    return heap.oldest_at if last is None else max(heap.oldest_at, last + SUM_UP)


def _draft(heaps: Sequence[Heap], known: Mapping[Severity, datetime]) -> Draft:
    return Draft(
        fingerprint=heaps[0].fingerprint,
        severity=max((heap.severity for heap in heaps), key=_RANK.__getitem__),
        ids=tuple(sorted(number for heap in heaps for number in heap.ids)),
        is_repeat=bool(known),
        failed=max(heap.failed for heap in heaps),
    )


def _rests(failures: int, tried_at: datetime | None, now: datetime) -> bool:
    """Whether what failed is to be left alone for a while yet."""
    if tried_at is None or failures == 0:
        return False
    return now < tried_at + timedelta(seconds=BACKOFF_S[min(failures, len(BACKOFF_S)) - 1])
