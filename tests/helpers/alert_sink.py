"""A webhook that alerts arrive at: a real HTTP server, which can be told to refuse.

It is the dead-man's URL too, and answers as the health check of Prefect's server does.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Sink:
    """`received`: (seconds since the epoch, document), in order of arrival."""

    received: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    refused: int = 0
    is_down: bool = False
    pings: int = 0
    is_unhealthy: bool = False
    port: int = 0

    @property
    def url(self) -> str:
        """As Apprise names a plain JSON webhook."""
        return f"json://127.0.0.1:{self.port}/hook-token"

    @property
    def titles(self) -> list[str]:
        return [document["title"] for _, document in self.received]

    @property
    def text(self) -> str:
        return "\n".join(f"{document['title']}\n{document['message']}" for _, document in self.received)


@contextmanager
def alert_sink() -> Iterator[Sink]:
    sink = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if sink.is_down:
                sink.refused += 1
            else:
                sink.received.append((time.time(), json.loads(body)))
            self.send_response(503 if sink.is_down else 200)
            self.end_headers()

        def do_GET(self) -> None:
            sink.pings += self.path == "/deadman-token"
            self.send_response(503 if sink.is_unhealthy and self.path == "/api/health" else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sink.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
