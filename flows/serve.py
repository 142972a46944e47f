"""`python -m flows.serve --queue monitor`, with PREFECT_API_URL set: a runner as a process of its own.

Apart from `flows.runner` for one reason: signals must be blocked before anything is imported that starts threads.
"""

from __future__ import annotations

import argparse
import logging
import signal
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

__all__ = ["main"]

SIGNALS = {signal.SIGTERM, signal.SIGINT}


def main(arguments: Sequence[str] | None = None) -> None:
    # Blocked in every thread and taken by one that waits for them: Prefect's own SIGTERM handler would tear the
    # current run apart, at any line. A thread inherits the mask it is started under, and numpy's BLAS starts its own
    # at import: one of those would take the signal and the process would die of it.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    from flows.declared import POOL, declared
    from flows.logs import log_to, run_log_handler
    from flows.runner import GRACE_S, Runner

    parser = argparse.ArgumentParser(prog="python -m flows.serve", description=__doc__)
    parser.add_argument("--queue", action="append", required=True, help="work queue to serve; may be repeated")
    parser.add_argument("--name", help="shown in the UI; default: the queues")
    parser.add_argument("--pool", default=POOL)
    parser.add_argument("--grace-s", type=float, default=GRACE_S, help="how long a run may go on after SIGTERM")
    parser.add_argument("--file", type=Path, help="another prefect.yaml, whose flows are imported before the first run")
    options = parser.parse_args(arguments)
    log_to(logging.StreamHandler(), run_log_handler())
    for deployment in declared(options.file):
        import_module(deployment["entrypoint"].rpartition(".")[0])
    runner = Runner(options.queue, name=options.name or "-".join(options.queue), pool=options.pool)
    threading.Thread(target=runner.stop_on_signal, args=(SIGNALS, options.grace_s), daemon=True).start()
    if runner.wait_for_server():
        with runner:
            runner.serve()


if __name__ == "__main__":
    main()
