"""A runner that dies, or waits for its twin, at a named place of the product.

    launch.py --kill before desk.protocol:OrderDesk._post 2 -- --queue daily
    launch.py --meet FOLDER flows.trading:execution -- --queue daily

The product knows nothing of this: the named function is wrapped here, and then `flows.serve` runs as ever. SIGKILL to
itself is a kill -9 from outside that cannot come a moment too early or too late.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

WAIT_S_MAX = 60.0


def wrap(place: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace `module:name` or `module:Class.name` by what `wrapper` makes of it."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, import_module(module))
    setattr(owner, name, wrapper(getattr(owner, name)))


def kill(when: str, place: str, nth: str) -> None:
    """SIGKILL before or after the nth call."""
    calls = count(1)

    def dying(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            is_last = next(calls) == int(nth)
            if is_last and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = fn(*args, **kwargs)
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    wrap(place, dying)


def meet(folder: str, place: str) -> None:
    """Nobody goes on from here before two processes have come to it."""

    def waiting(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            here = Path(folder) / place.replace(":", ".")
            here.mkdir(exist_ok=True)
            (here / str(os.getpid())).touch()
            deadline = time.monotonic() + WAIT_S_MAX
            while len(list(here.iterdir())) < 2:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{place}: nobody else came in {WAIT_S_MAX:g} s")
                time.sleep(0.01)
            return fn(*args, **kwargs)

        return call

    wrap(place, waiting)


def main() -> None:
    split = sys.argv.index("--")
    parser = argparse.ArgumentParser()
    parser.add_argument("--kill", nargs=3, metavar=("WHEN", "PLACE", "NTH"))
    parser.add_argument("--meet", nargs=2, action="append", default=[], metavar=("FOLDER", "PLACE"))
    options = parser.parse_args(sys.argv[1:split])
    if options.kill:
        kill(*options.kill)
    for folder, place in options.meet:
        meet(folder, place)

    from flows.serve import main as serve

    serve(sys.argv[split + 1 :])


if __name__ == "__main__":
    main()
