"""Which alerts a channel carries now: the first at once, repeats summed up, severity never merged down."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from desk.ledger.records import Severity
from desk.paging import Fingerprint, Heap, Line, drafts, oldest_due

NOON = datetime(2024, 3, 5, 17, 0, tzinfo=UTC)
PRINT = Fingerprint("SIM-1", "order.rejected", "trading", "ACME", date(2024, 3, 5))
WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL


def heap(*ids: int, severity: Severity = WARNING, of: Fingerprint = PRINT, **values: object) -> Heap:
    return replace(Heap(of, severity, ids or (1,), NOON), **values)  # type: ignore[arg-type]


def sent(*heaps: Heap, paged: dict[Severity, datetime] | None = None, **values: object) -> list[tuple[int, ...]]:
    given = {"line": Line(), "before": None, "now": NOON, **values}
    return [draft.ids for draft in drafts(heaps, {PRINT: paged} if paged else {}, **given)]  # type: ignore[arg-type]


def test_the_first_of_a_fingerprint_pages_at_once() -> None:
    assert sent(heap(1)) == [(1,)]


def test_repeats_wait_a_quarter_of_an_hour_and_then_go_together() -> None:
    paged = {WARNING: NOON}

    assert sent(heap(2, 3), paged=paged, now=NOON + timedelta(minutes=14, seconds=59)) == []
    assert sent(heap(2, 3), paged=paged, now=NOON + timedelta(minutes=15)) == [(2, 3)]


def test_a_warning_paged_before_does_not_hold_a_critical_one_back() -> None:
    (draft,) = drafts(
        [heap(2), heap(3, severity=CRITICAL)], {PRINT: {WARNING: NOON}}, line=Line(), before=None, now=NOON
    )

    assert (draft.severity, draft.ids, draft.is_repeat) == (CRITICAL, (2, 3), True)


def test_a_critical_one_paged_before_covers_a_warning_of_the_same() -> None:
    assert sent(heap(2), paged={CRITICAL: NOON}) == []


def test_other_stages_symbols_and_sessions_are_other_fingerprints() -> None:
    others = [
        replace(PRINT, stage="close-of-day"),
        replace(PRINT, symbol="BETA"),
        replace(PRINT, session=date(2024, 3, 6)),
        replace(PRINT, kind="order.lapsed"),
    ]

    assert len(sent(*(heap(n, of=other) for n, other in enumerate(others)), paged={WARNING: NOON})) == len(others)


def test_the_most_severe_goes_first_and_what_was_refused_goes_last() -> None:
    others = [replace(PRINT, symbol=symbol) for symbol in "ABC"]
    found = sent(
        heap(1, of=others[0]),
        heap(2, of=others[1], severity=CRITICAL),
        heap(3, of=others[2], severity=CRITICAL, failed=1, tried_at=NOON - timedelta(minutes=5)),
    )

    assert found == [(2,), (1,), (3,)]


def test_a_failed_message_and_a_failed_channel_rest_longer_each_time() -> None:
    for failures, rest_s in ((1, 2), (2, 5), (3, 15), (4, 30), (5, 60), (50, 60)):
        for moment, expected in ((rest_s - 0.1, []), (rest_s, [(1,)])):
            now = NOON + timedelta(seconds=moment)
            assert sent(heap(1, failed=failures, tried_at=NOON), now=now) == expected
            assert sent(heap(1), line=Line(failures, NOON), now=now) == expected


def test_the_second_channel_gets_warnings_only_once_the_first_keeps_failing() -> None:
    assert sent(heap(1), before=Line()) == []
    assert sent(heap(1), before=Line(2, NOON)) == []
    assert sent(heap(1), before=Line(3, NOON)) == [(1,)]
    assert sent(heap(1, failed_before=3), before=Line()) == [(1,)]  # the first refuses this one alone


def test_the_second_channel_gets_what_is_critical_from_the_start() -> None:
    assert sent(heap(1, severity=CRITICAL), before=Line()) == [(1,)]


def test_what_waits_to_be_summed_up_is_not_overdue_yet() -> None:
    assert oldest_due([heap(1)], {}) == NOON
    assert oldest_due([heap(1)], {PRINT: {WARNING: NOON}}) == NOON + timedelta(minutes=15)
    assert oldest_due([], {}) is None
