"""What is put under alpaca-py so that a call ends: timeouts, no repeats, no redirects, a loud answer.

alpaca-py 0.44 sets no timeout, repeats 429 and 504 by itself on every verb, POST included, and takes an
empty redirect for success. Nothing of the library is changed: it gets a session with an adapter of ours,
and its retry attributes are set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
import urllib3
from alpaca.common.rest import RESTClient
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.util.retry import Retry

from desk.broker.pacing import Pacer

__all__ = ["Access", "AnswerTooSlow", "RedirectRefused", "TimeoutAdapter", "prepare"]

_CHUNK_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Access:
    """How an account is reached; its trading and its data client share one."""

    key_id: str = field(repr=False)
    secret_key: str = field(repr=False)
    pacer: Pacer
    sleep: Callable[[float], None]  # seconds, between repeated reads
    mount: BaseAdapter | None  # what the session sends with; None: the session brings its own
    use_environment: bool = False  # proxies and certificates named in the environment; never on loopback
    session: Callable[[], requests.Session] = requests.Session


class RedirectRefused(requests.RequestException):
    """The broker's address answered with a redirect: no API does that, and following it could leak the keys."""


class AnswerTooSlow(requests.Timeout):
    """The answer kept trickling in beyond the limit for one whole answer."""


class TimeoutAdapter(HTTPAdapter):
    """Every request gets (connect, read) timeouts in seconds and is sent once.

    The read timeout bounds one silence; an answer that trickles byte by byte never falls silent, so the
    whole body has a limit too (`body_timeout_s`).
    """

    def __init__(
        self,
        *,
        connect_timeout_s: float = 3.0,
        read_timeout_s: float = 10.0,
        body_timeout_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(pool_connections=2, pool_maxsize=8, max_retries=Retry(0, read=False, redirect=False))
        self._timeout = (connect_timeout_s, read_timeout_s)
        self._body_timeout_s = body_timeout_s
        self._monotonic = monotonic

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        response = super().send(
            request, stream=True, timeout=timeout or self._timeout, verify=verify, cert=cert, proxies=proxies
        )
        # The way requests itself keeps a body that was read: `content` returns it from then on.
        response._content = self._body(response)
        response._content_consumed = True  # type: ignore[attr-defined]  # not in the stubs
        return response

    def _body(self, response: requests.Response) -> bytes:
        until = self._monotonic() + self._body_timeout_s
        chunks: list[bytes] = []
        try:
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
                chunks.append(chunk)
                if self._monotonic() > until:
                    response.raw.close()
                    raise AnswerTooSlow(f"the answer was still arriving after {self._body_timeout_s:g} s")
        except urllib3.exceptions.ReadTimeoutError as error:
            raise requests.ReadTimeout(str(error)) from error
        except urllib3.exceptions.HTTPError as error:
            raise requests.ConnectionError(f"broken answer: {error}") from error
        response.raw.release_conn()
        return b"".join(chunks)


def prepare(client: RESTClient, access: Access, heard: Callable[[requests.Response], None]) -> None:
    """Put the access's transport under an alpaca-py client, switch its own retries off, have each answer `heard`."""
    client._retry = 0
    client._retry_codes = []
    session = client._session = access.session()
    session.trust_env = access.use_environment
    if access.mount is not None:
        session.mount("https://", access.mount)
        session.mount("http://", access.mount)

    def on_answer(response: requests.Response, *_args: Any, **_options: Any) -> None:
        heard(response)
        if 300 <= response.status_code < 400:
            raise RedirectRefused(f"redirect {response.status_code} refused")

    session.hooks["response"].append(on_answer)
