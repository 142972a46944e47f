"""The token bucket: never above the allowance, the urgent first, no wait without an end. No real time passes."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from desk.broker.pacing import NullPacer, Priority, TokenBucket
from desk.errors import Transient


class Clock:
    """Seconds that pass only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def bucket(clock: Clock, *, per_minute: int = 180, burst: int = 30, wait_s_max: float = 30.0) -> TokenBucket:
    return TokenBucket(per_minute=per_minute, burst=burst, wait_s_max=wait_s_max, monotonic=clock, sleep=clock.sleep)


@given(
    per_minute=st.integers(40, 199),
    burst=st.integers(9, 39),
    steps=st.lists(st.tuples(st.sampled_from(Priority), st.floats(0, 5)), max_size=300),
)
def test_no_minute_holds_more_requests_than_allowed(per_minute, burst, steps):
    """Whatever asks, and whenever: in any 60 s at most `per_minute` requests go out."""
    clock = Clock()
    pacer = bucket(clock, per_minute=per_minute, burst=burst, wait_s_max=1e9)
    sent: list[float] = []

    for priority, idle_s in steps:
        clock.now += idle_s
        pacer.admit(priority, "a call")
        sent.append(clock.now)

    for start in range(len(sent)):
        assert sum(sent[start] <= at < sent[start] + 60 for at in sent) <= per_minute


def test_a_busy_minute_gets_the_whole_allowance():
    """180 requests in the first minute, and 150 in each one after it."""
    clock = Clock()
    pacer = bucket(clock)

    for _ in range(330):
        pacer.admit(Priority.EXIT, "a call")

    assert clock.now - 1000.0 == pytest.approx(120.0, abs=0.1)


def test_reading_leaves_room_for_a_cancel():
    """After as many reads as go without waiting, a cancel, a lookup and an entry still go at once."""
    clock = Clock()
    pacer = bucket(clock)
    for _ in range(30 - 8):
        pacer.admit(Priority.READ, "a read")
    began = clock.now

    pacer.admit(Priority.ENTRY, "an entry")
    pacer.admit(Priority.LOOKUP, "a lookup")
    pacer.admit(Priority.EXIT, "a cancel")

    assert clock.now == began
    pacer.admit(Priority.READ, "a read")
    assert clock.now > began


class Turns:
    """Lets threads run one at a time: each runs until it sleeps or is done, then the test goes on."""

    def __init__(self) -> None:
        self._mine: dict[int, threading.Event] = {}
        self._test = threading.Event()

    def sleep(self, _seconds: float) -> None:
        self._test.set()
        mine = self._mine[threading.get_ident()]
        assert mine.wait(10)
        mine.clear()

    def start(self, work) -> threading.Thread:
        def run() -> None:
            self._mine[threading.get_ident()] = threading.Event()
            work()
            self._test.set()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._until_it_pauses()
        return thread

    def wake(self, thread: threading.Thread) -> None:
        assert thread.ident is not None
        self._mine[thread.ident].set()
        self._until_it_pauses()

    def _until_it_pauses(self) -> None:
        assert self._test.wait(10)
        self._test.clear()


def test_the_urgent_are_served_before_those_who_waited_longer():
    """Reads, entries and lookups that wait let a later cancel pass, although they wake up before it."""
    clock, turns, served = Clock(), Turns(), []
    pacer = TokenBucket(per_minute=180, burst=30, wait_s_max=1e6, monotonic=clock, sleep=turns.sleep)
    pacer.remaining(0)

    def asking(priority: Priority):
        def ask() -> None:
            pacer.admit(priority, priority.name)
            served.append(priority)

        return ask

    by_arrival = (Priority.READ, Priority.ENTRY, Priority.LOOKUP, Priority.EXIT)
    waiting = {priority: turns.start(asking(priority)) for priority in by_arrival}
    for _ in range(100):
        clock.now += 0.1
        for priority in [p for p in by_arrival if p not in served]:
            turns.wake(waiting[priority])

    assert served == [Priority.EXIT, Priority.LOOKUP, Priority.ENTRY, Priority.READ]


def test_a_wait_ends_with_an_error_that_names_it():
    """Nobody waits for ever: Transient, because nothing was sent."""
    clock = Clock()
    pacer = bucket(clock, wait_s_max=2.0)
    pacer.remaining(0)

    with pytest.raises(Transient, match=r"positions: not sent, waited 2 s for one of 180 requests a minute as READ"):
        pacer.admit(Priority.READ, "positions")

    assert clock.now - 1000.0 == pytest.approx(2.0, abs=0.01)


def test_giving_up_leaves_the_queue():
    """Who gave up does not hold up those behind."""
    clock = Clock()
    pacer = bucket(clock, wait_s_max=2.0)
    pacer.remaining(0)
    with pytest.raises(Transient):
        pacer.admit(Priority.READ, "positions")
    clock.now += 60
    began = clock.now

    pacer.admit(Priority.READ, "positions")

    assert clock.now == began


def test_the_brokers_own_count_is_believed_when_it_is_lower():
    """Another process spent the allowance: the next request waits although ours is untouched."""
    clock = Clock()
    pacer = bucket(clock)

    pacer.remaining(100)
    pacer.admit(Priority.EXIT, "a cancel")
    assert clock.now == 1000.0

    pacer.remaining(0)
    pacer.admit(Priority.EXIT, "a cancel")
    assert clock.now == pytest.approx(1000.4)


def test_threads_share_one_allowance():
    """Eight threads on a real clock together get the burst and what is refilled meanwhile, no more."""
    pacer = TokenBucket(per_minute=180, burst=30, wait_s_max=0.0)
    admitted = []

    def ask() -> None:
        for _ in range(20):
            try:
                pacer.admit(Priority.EXIT, "a call")
            except Transient:
                continue
            admitted.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 30 <= len(admitted) <= 60  # 160 asked; 2.5 a second are refilled while they run


@pytest.mark.parametrize("burst", [0, 8, 180, 500])
def test_a_bucket_that_could_not_work_is_refused(burst):
    with pytest.raises(ValueError, match="token bucket: burst"):
        TokenBucket(per_minute=180, burst=burst)


def test_no_pacing_means_none():
    pacer = NullPacer()
    for _ in range(1000):
        pacer.remaining(0)
        pacer.admit(Priority.READ, "a read")
