"""Whom we connect to: the right address, the right keys, the right account, or one line that says what is wrong."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
import requests
from pydantic import SecretStr
from requests.adapters import BaseAdapter

from desk.broker.connect import connect
from desk.broker.pacing import NullPacer, TokenBucket
from desk.broker.transport import TimeoutAdapter
from desk.errors import BadInput, Transient
from desk.settings import BrokerKind, Settings, load_settings

KEY_ID, SECRET = "KEYIDENTIFIER", "verysecretkey"
NUMBER = "123456789"

ACCOUNT = {
    "account_number": NUMBER,
    "status": "ACTIVE",
    "equity": "1",
    "last_equity": "1",
    "cash": "1",
    "buying_power": "1",
    "long_market_value": "0",
    "trading_blocked": False,
}


class Alpaca(BaseAdapter):
    """Answers every request alike, and notes the addresses and keys it was asked with."""

    def __init__(self, status: int = 200, body: object = ACCOUNT, **headers: str) -> None:
        super().__init__()
        self.status, self.body, self.headers = status, body, headers
        self.asked: list[requests.PreparedRequest] = []

    def send(self, request: requests.PreparedRequest, **_options: Any) -> requests.Response:
        self.asked.append(request)
        response = requests.Response()
        response.status_code, response.request, response.url = self.status, request, request.url
        response.headers.update({"Content-Type": "application/json", **self.headers})
        raw = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        response._content = raw
        return response

    def close(self) -> None:
        pass


class Unreachable(Alpaca):
    def send(self, request: requests.PreparedRequest, **_options: Any) -> requests.Response:
        self.asked.append(request)
        raise requests.ConnectionError("name or service not known")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"ONEPATH_{name.upper()}", raising=False)


def settings(**overrides: object) -> Settings:
    keys = {"alpaca_key_id": SecretStr(KEY_ID), "alpaca_secret_key": SecretStr(SECRET)}
    return load_settings(**{**keys, **overrides})


def refusal(asked: Settings, mount: Alpaca) -> str:
    with pytest.raises(BadInput) as caught:
        connect(asked, mount=mount, sleep=lambda _s: None)
    text = str(caught.value)
    assert "\n" not in text
    assert SECRET not in text
    assert KEY_ID not in text
    return text


# -- the three things that must agree for live ---------------------------------------------------------------------


def test_live_connects_when_broker_account_and_report_agree():
    alpaca = Alpaca()

    broker, _ = connect(settings(broker="live", account=NUMBER), mount=alpaca)

    assert broker.venue == "alpaca live"
    assert [request.url for request in alpaca.asked] == ["https://api.alpaca.markets/v2/account"]


def test_live_is_refused_without_the_account_in_the_settings():
    """Already when the settings are read, and again when they were made another way."""
    with pytest.raises(BadInput, match="needs ONEPATH_ACCOUNT"):
        settings(broker="live")
    unchecked = settings(broker="live", account=NUMBER).model_copy(update={"account": None})
    alpaca = Alpaca()

    assert refusal(unchecked, alpaca) == (
        "live trading refused: ONEPATH_BROKER is live, but ONEPATH_ACCOUNT does not name the account to trade; "
        "set it to the number Alpaca shows for that account"
    )
    assert alpaca.asked == []  # nothing was even asked


def test_live_is_refused_for_another_account_than_the_settings_name():
    text = refusal(settings(broker="live", account="987654321"), Alpaca())

    assert text.startswith(
        "live trading refused: ONEPATH_ACCOUNT is 987654321, but the keys belong to account 123456789"
    )


@pytest.mark.parametrize("kind", ["paper", "simulated"])
def test_without_the_word_live_the_live_address_is_never_asked(kind):
    """Whatever keys and account are given: the first of the three is missing."""
    alpaca = Alpaca()

    broker, data = connect(settings(broker=kind, account=NUMBER), mount=alpaca)
    broker.account()
    data.quotes([])

    assert all("//api.alpaca.markets" not in (request.url or "") for request in alpaca.asked)
    assert "live" not in broker.venue


@pytest.mark.parametrize("kind", list(BrokerKind))
@pytest.mark.parametrize("named", [None, NUMBER, "other"])
@pytest.mark.parametrize("reported", [NUMBER, "other"])
def test_the_whole_matrix(kind, named, reported):
    """A named account must be the reported one; live must name one."""
    made = settings(broker="paper").model_copy(update={"broker": kind, "account": named})
    alpaca = Alpaca(body={**ACCOUNT, "account_number": reported})
    agrees = named == reported if named else kind is not BrokerKind.LIVE

    if agrees:
        broker, _ = connect(made, mount=alpaca)
        assert broker.account().number == reported
    else:
        assert "refused" in refusal(made, alpaca)
        assert all(request.method == "GET" for request in alpaca.asked)


# -- addresses and keys --------------------------------------------------------------------------------------------


def test_paper_uses_its_own_address_and_a_pacer_shared_by_both_clients():
    alpaca = Alpaca()

    broker, data = connect(settings(broker="paper"), mount=alpaca)

    assert alpaca.asked[0].url == "https://paper-api.alpaca.markets/v2/account"
    assert alpaca.asked[0].headers["APCA-API-SECRET-KEY"] == SECRET
    assert broker.venue == "alpaca paper"
    assert isinstance(broker._calls._pacer, TokenBucket)
    assert broker._calls._pacer is data._calls._pacer
    assert data._client._base_url == "https://data.alpaca.markets"


def test_simulated_uses_the_exchange_and_its_default_keys():
    alpaca = Alpaca(**{"X-Market": "synthetic, seed 7"})

    broker, data = connect(load_settings(exchange_url="http://127.0.0.1:8999/"), mount=alpaca)

    assert alpaca.asked[0].url == "http://127.0.0.1:8999/v2/account"
    assert alpaca.asked[0].headers["APCA-API-KEY-ID"] == "SIMULATED"
    assert broker.venue == "simulated: synthetic, seed 7"
    assert isinstance(data._calls._pacer, NullPacer)


def test_timeouts_come_from_the_settings():
    with pytest.raises(BadInput):
        connect(load_settings(exchange_url="http://127.0.0.1:1"), sleep=lambda _s: None)

    made: list[TimeoutAdapter] = []

    class Recorder(TimeoutAdapter):
        def __init__(self, **limits: float) -> None:
            super().__init__(**limits)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("desk.broker.connect.TimeoutAdapter", Recorder)
        with pytest.raises(BadInput):
            connect(
                load_settings(
                    exchange_url="http://127.0.0.1:1", request_connect_timeout_s=1.5, request_read_timeout_s=2.5
                ),
                sleep=lambda _s: None,
            )
    assert made[0]._timeout == (1.5, 2.5)


@pytest.mark.parametrize("kind", list(BrokerKind))
@pytest.mark.parametrize("missing", ["alpaca_key_id", "alpaca_secret_key"])
def test_half_a_pair_of_keys_is_named(kind, missing):
    made = settings(broker="paper", account=NUMBER).model_copy(update={"broker": kind, missing: None})

    assert refusal(made, Alpaca()) == (
        f"keys for ONEPATH_BROKER={kind}: set both ONEPATH_ALPACA_KEY_ID and ONEPATH_ALPACA_SECRET_KEY"
    )


@pytest.mark.parametrize("kind", list(BrokerKind))
@pytest.mark.parametrize("status", [401, 403])
def test_refused_keys_are_one_line_with_the_remedy(kind, status):
    text = refusal(settings(broker=kind, account=NUMBER), Alpaca(status, {"message": "forbidden."}))

    assert text.startswith("keys refused by http")
    assert "ONEPATH_ALPACA_KEY_ID and ONEPATH_ALPACA_SECRET_KEY must be" in text
    assert ("onepath exchange serve --keys" in text) == (kind is BrokerKind.SIMULATED)


# -- somebody else answers, or nobody ------------------------------------------------------------------------------


def test_an_exchange_that_does_not_run_is_named_with_the_command_that_starts_it():
    """A real port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    with pytest.raises(BadInput) as caught:
        connect(load_settings(exchange_url=f"http://127.0.0.1:{port}"), sleep=lambda _s: None)

    assert str(caught.value) == (
        f"simulated exchange at http://127.0.0.1:{port} cannot be reached: start it with `onepath exchange serve`, "
        "or set ONEPATH_EXCHANGE_URL"
    )


@pytest.mark.parametrize("body", [b"<html>Grafana</html>", b"", {"detail": "Not Found"}])
@pytest.mark.parametrize("status", [200, 404])
def test_another_service_on_the_port_is_not_taken_for_the_exchange(status, body):
    assert "does not answer" in refusal(settings(), Alpaca(status, body))


@pytest.mark.parametrize("kind", ["paper", "live"])
def test_alpaca_out_of_reach_may_pass_and_is_not_the_users_mistake(kind):
    with pytest.raises(Transient):
        connect(settings(broker=kind, account=NUMBER), mount=Unreachable(), sleep=lambda _s: None)


def test_an_overloaded_exchange_may_pass():
    with pytest.raises(Transient):
        connect(settings(), mount=Alpaca(503, b""), sleep=lambda _s: None)


@pytest.mark.parametrize("url", ["127.0.0.1:8710", "ftp://x", "http://", "http://user:geheim@127.0.0.1:1", ""])
def test_an_address_that_is_none_is_refused_without_repeating_it(url):
    text = refusal(settings(exchange_url=url), Alpaca())

    assert text.startswith("ONEPATH_EXCHANGE_URL: an address like http://127.0.0.1:8710 is needed")
    assert "geheim" not in text
