"""Log lines of our own rooms: to a stream or file, and to the run they belong to in the Prefect UI."""

from __future__ import annotations

import logging
import sys

__all__ = ["FactFormatter", "log_to", "run_log_handler"]

ROOMS = ("desk", "expectations", "flows", "models", "tasks")
_NOT_FACTS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class FactFormatter(logging.Formatter):
    """Event name, then its fields: `order.refused symbol='TSLA' reason='sub-penny'`."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        facts = " ".join(f"{name}={value!r}" for name, value in vars(record).items() if name not in _NOT_FACTS)
        line = super().formatMessage(record)
        return f"{line} {facts}" if facts else line


def log_to(*handlers: logging.Handler, level: int = logging.INFO) -> None:
    """Give our rooms their handlers. Called by a process at its start, never by a library."""
    for handler in handlers:
        if handler.formatter is None:
            handler.setFormatter(FactFormatter("%(asctime)s %(levelname)-7s %(name)s %(message)s"))
    for room in ROOMS:
        logger = logging.getLogger(room)
        logger.setLevel(level)
        logger.propagate = False
        logger.handlers = list(handlers)


def run_log_handler() -> logging.Handler:
    """A handler that writes to the log of the current flow run in the UI, and outside of one does nothing."""
    from prefect.exceptions import MissingContextError
    from prefect.logging.handlers import APILogHandler

    class RunLogHandler(APILogHandler):
        def handleError(self, record: logging.LogRecord) -> None:
            if not isinstance(sys.exception(), MissingContextError):
                super().handleError(record)

    handler = RunLogHandler()
    handler.setFormatter(FactFormatter("%(message)s"))
    return handler
