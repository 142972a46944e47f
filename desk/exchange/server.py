"""The simulated Alpaca on a socket: a process of its own (`run`), or beside the caller's work (`with`)."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

import uvicorn

from desk.errors import BadInput
from desk.exchange.app import create_app
from desk.exchange.exchange import Exchange

__all__ = ["ExchangeServer"]

START_S = 30.0  # a server that does not listen by then never will
STOP_S = 3  # open requests and streams get this long to end
CLOCK_STEP_S = 0.1  # wall clock between two steps of a running virtual clock
_STOPPING = (signal.SIGINT, signal.SIGTERM)


class _Quiet(uvicorn.Server):
    """Leaves signals to whoever runs it: uvicorn raises them again, which would end in another exit code."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ExchangeServer:
    """REST and both streams of one exchange. The port is taken on construction; 0 takes any free one.

    speed: virtual seconds that pass in each second of the wall clock; 0: the clock stands still until moved.
    Raises BadInput when the address cannot be had.
    """

    def __init__(self, exchange: Exchange, *, host: str = "127.0.0.1", port: int = 0, speed: float = 0.0) -> None:
        self._exchange, self._speed = exchange, speed
        self._socket = _bind(host, port)
        self._server = _Quiet(
            uvicorn.Config(
                create_app(exchange), log_level="warning", access_log=False, lifespan="off", ws="websockets-sansio",
                timeout_graceful_shutdown=STOP_S,
            )
        )  # fmt: skip
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self.host, self.port = host, int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        """Base address, for REST; the streams are under ws:// at /stream and /v2/{feed}."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until SIGINT or SIGTERM, in the main thread. `on_ready` is called when requests are answered."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            self.stop()

        before = {number: signal.signal(number, stop) for number in _STOPPING}
        try:
            asyncio.run(self._serve(on_ready))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Ask it to end; returns at once."""
        self._server.should_exit = True

    def __enter__(self) -> Self:
        """Serve from a thread until the block ends."""
        ready = threading.Event()

        def work() -> None:
            try:
                asyncio.run(self._serve(ready.set))
            except BaseException as error:  # noqa: BLE001  # kept for the caller's thread, which raises it
                self._failure = error
            finally:
                ready.set()

        self._thread = threading.Thread(target=work, name=f"exchange-{self.port}", daemon=True)
        self._thread.start()
        if not ready.wait(START_S) or self._failure is not None:
            raise BadInput(f"simulated exchange: {self.url} does not serve; see its cause") from self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    async def _serve(self, on_ready: Callable[[], None]) -> None:
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.005)
        if self._server.started:
            on_ready()
        clock = asyncio.create_task(self._let_time_pass())
        await asyncio.wait({serving, clock}, return_when=asyncio.FIRST_COMPLETED)
        ended_early = clock.done()
        clock.cancel()
        self.stop()
        await serving
        if ended_early:
            clock.result()

    async def _let_time_pass(self) -> None:
        wall = asyncio.get_running_loop().time
        before = wall()
        while True:
            await asyncio.sleep(CLOCK_STEP_S)
            now = wall()
            if self._speed:
                self._exchange.advance((now - before) * self._speed)
            before = now


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise BadInput(f"port {port} on {host} is in use; stop what holds it or choose another port") from error
        if error.errno == errno.EACCES:
            raise BadInput(f"port {port} on {host} may not be opened by this user; choose one above 1023") from error
        raise BadInput(f"cannot listen on {host} port {port}: {error.strerror}; choose another address") from error
    # Accepted connections inherit it. asyncio sets it on sockets it made itself only; without it each answer, head and
    # body in two packets, waits 40 ms for the client's delayed acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
