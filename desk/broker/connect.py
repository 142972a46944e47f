"""From settings to a broker and its market data: which address, which keys, and whether it is the right account.

Live trading needs three things to agree: ONEPATH_BROKER=live, the account number in the settings, and the number
the broker reports for the keys. A refusal names which one does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
from alpaca.common.enums import BaseURL
from requests.adapters import BaseAdapter

from desk.broker.alpaca import AlpacaBroker
from desk.broker.calls import KeysRefused, NoAnswer
from desk.broker.marketdata import AlpacaMarketData
from desk.broker.pacing import NullPacer, Pacer, TokenBucket
from desk.broker.parse import Unreadable
from desk.broker.transport import Access, TimeoutAdapter
from desk.errors import BadInput, Refused, Transient
from desk.settings import BrokerKind, Settings

if TYPE_CHECKING:
    from desk.exchange.exchange import Exchange

__all__ = ["SIMULATED_KEYS", "connect", "connect_in_process"]

SIMULATED_KEYS = ("SIMULATED", "simulated-secret")
_TRADING_URLS = {BrokerKind.PAPER: BaseURL.TRADING_PAPER.value, BrokerKind.LIVE: BaseURL.TRADING_LIVE.value}


def connect(
    settings: Settings,
    *,
    mount: BaseAdapter | None = None,
    pacer: Pacer | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[AlpacaBroker, AlpacaMarketData]:
    """The settings' account, asked once who it is.

    Raises BadInput, in one line with the remedy: keys missing or refused, simulated exchange not reachable, or
    another account than the settings name. Raises Transient when Alpaca itself cannot be reached just now.
    """
    _refuse_unnamed_live(settings)
    simulated = settings.broker is BrokerKind.SIMULATED
    key_id, secret_key = _keys(settings)
    access = Access(
        key_id=key_id,
        secret_key=secret_key,
        # The simulated exchange limits nothing by our minutes, and its own may pass in a second.
        pacer=pacer or (NullPacer() if simulated else TokenBucket()),
        sleep=sleep,
        mount=mount
        or TimeoutAdapter(
            connect_timeout_s=settings.request_connect_timeout_s, read_timeout_s=settings.request_read_timeout_s
        ),
        use_environment=not simulated,
    )
    if simulated:
        trading_url = data_url = _exchange_url(settings)
    else:
        trading_url, data_url = _TRADING_URLS[settings.broker], BaseURL.DATA.value
    broker = AlpacaBroker(trading_url, access, venue=None if simulated else f"alpaca {settings.broker}")
    data = AlpacaMarketData(data_url, access)
    try:
        _refuse_other_account(settings, _account_number(settings, broker, trading_url))
    except BaseException:
        broker.close()
        data.close()
        raise
    return broker, data


def connect_in_process(
    exchange: Exchange, *, keys: tuple[str, str] = SIMULATED_KEYS, sleep: Callable[[float], None] | None = None
) -> tuple[AlpacaBroker, AlpacaMarketData]:
    """The same adapters on an exchange in this process: no socket, no pacing.

    `sleep` is what a repeated read waits with. By default it does not wait: the time there is virtual, and
    nothing but its clock passes it.
    """
    from desk.exchange.transport import InProcessSession

    access = Access(
        key_id=keys[0],
        secret_key=keys[1],
        pacer=NullPacer(),
        sleep=sleep or (lambda _seconds: None),
        mount=None,
        session=lambda: InProcessSession(exchange),
    )
    url = "http://exchange.invalid"
    return AlpacaBroker(url, access), AlpacaMarketData(url, access)


def _keys(settings: Settings) -> tuple[str, str]:
    key_id, secret_key = settings.alpaca_key_id, settings.alpaca_secret_key
    if key_id is not None and secret_key is not None and key_id.get_secret_value() and secret_key.get_secret_value():
        return key_id.get_secret_value(), secret_key.get_secret_value()
    if settings.broker is BrokerKind.SIMULATED and key_id is None and secret_key is None:
        return SIMULATED_KEYS
    raise BadInput(
        f"keys for ONEPATH_BROKER={settings.broker}: set both ONEPATH_ALPACA_KEY_ID and ONEPATH_ALPACA_SECRET_KEY"
    )


def _exchange_url(settings: Settings) -> str:
    url = settings.exchange_url.rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise BadInput(
            "ONEPATH_EXCHANGE_URL: an address like http://127.0.0.1:8710 is needed, without user or password"
        )
    return url


def _refuse_unnamed_live(settings: Settings) -> None:
    if settings.broker is BrokerKind.LIVE and not settings.account:
        raise BadInput(
            "live trading refused: ONEPATH_BROKER is live, but ONEPATH_ACCOUNT does not name the account to trade; "
            "set it to the number Alpaca shows for that account"
        )


def _refuse_other_account(settings: Settings, reported: str) -> None:
    if not settings.account or settings.account == reported:
        return
    refused = "live trading refused" if settings.broker is BrokerKind.LIVE else f"{settings.broker} account refused"
    raise BadInput(
        f"{refused}: ONEPATH_ACCOUNT is {settings.account}, but the keys belong to account {reported}; "
        "correct ONEPATH_ACCOUNT or use that account's keys"
    )


def _account_number(settings: Settings, broker: AlpacaBroker, url: str) -> str:
    try:
        return broker.account().number
    except KeysRefused as error:
        raise BadInput(
            f"keys refused by {url}: ONEPATH_ALPACA_KEY_ID and ONEPATH_ALPACA_SECRET_KEY must be {_whose(settings)}"
        ) from error
    except (Transient, Refused) as error:
        if settings.broker is not BrokerKind.SIMULATED or not _is_absent(error):
            raise
        reason = "cannot be reached" if isinstance(error.__cause__, requests.ConnectionError) else "does not answer"
        raise BadInput(
            f"simulated exchange at {url} {reason}: start it with `onepath exchange serve`, or set ONEPATH_EXCHANGE_URL"
        ) from error


def _is_absent(error: Transient | Refused) -> bool:
    """Whether nobody is there, or somebody else. An exchange that hangs or is overloaded is there."""
    if isinstance(error.__cause__, requests.ReadTimeout):
        return False
    return isinstance(error, (NoAnswer, Refused)) or isinstance(error.__cause__, Unreadable)


def _whose(settings: Settings) -> str:
    if settings.broker is BrokerKind.SIMULATED:
        return "the pair given to `onepath exchange serve --keys`, or unset for its default"
    return f"keys of the {settings.broker} account (paper and live have different ones)"
