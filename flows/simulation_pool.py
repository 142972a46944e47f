"""Many seeds, on this process or on several: each worker has a database of its own."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import Any

from desk.errors import BadInput
from flows.logs import ROOMS
from flows.simulation import Outcome, Simulator

__all__ = ["DATABASE", "SEEDS_MAX", "read_seeds", "simulate"]

DATABASE = "onepath_simulation"
SEEDS_MAX = 1_000_000
_here: list[Simulator] = []  # this worker's own


def read_seeds(text: str) -> range:
    """ "A:B", the first seed and the one after the last. Raises BadInput."""
    first, colon, after = text.partition(":")
    if not colon or not first.isdecimal() or not after.isdecimal():
        raise BadInput(f"--seeds {text}: give the first seed and the one after the last, as 0:100")
    seeds = range(int(first), int(after))
    if not seeds:
        raise BadInput(f"--seeds {text}: no seed in it; the second number must be above the first, as 0:100")
    if seeds.stop > SEEDS_MAX:
        raise BadInput(f"--seeds {text}: seeds go up to {SEEDS_MAX}")
    return seeds


def simulate(
    server_url: str, seeds: Sequence[int], *, families: Sequence[str], weeks: int, workers: int, traced: bool
) -> Iterator[Outcome]:
    """Each seed's outcome as it comes; with one worker in the order of the seeds."""
    if workers == 1:
        with quiet():
            simulator = Simulator(server_url, f"{DATABASE}_0", families=families, weeks=weeks)
            for seed in seeds:
                yield simulator.run(seed, traced=traced)
        return
    # Spawned: a forked child would inherit connections and locks of this process.
    context = multiprocessing.get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(workers):
        numbers.put(number)
    pool = ProcessPoolExecutor(workers, context, _begin, (numbers, server_url, tuple(families), weeks))
    ahead = iter(seeds)
    try:
        under_way: set[Future[Outcome]] = {pool.submit(_run, seed, traced) for seed in islice(ahead, 2 * workers)}
        while under_way:
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            under_way |= {pool.submit(_run, seed, traced) for seed in islice(ahead, len(done))}
            for future in sorted(done, key=lambda each: each.result().seed):
                yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def quiet() -> Iterator[None]:
    """What goes wrong here is meant to: the outcome tells of it, the log does not."""
    loggers = [logging.getLogger(room) for room in ROOMS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _begin(numbers: Any, server_url: str, families: Sequence[str], weeks: int) -> None:
    quiet().__enter__()  # for as long as this worker lives
    _here.append(Simulator(server_url, f"{DATABASE}_{numbers.get()}", families=families, weeks=weeks))


def _run(seed: int, traced: bool) -> Outcome:
    return _here[0].run(seed, traced=traced)
