"""A demo touches nothing of what is real: not the ledger, not the account, not whoever is woken by alerts."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from desk.channels import FileChannel, LogChannel, channels_of
from desk.settings import BrokerKind, Settings
from flows.demo import DemoPlan, demo_settings

REAL = Settings(
    broker=BrokerKind.PAPER,
    account="PA-1",
    alpaca_key_id=SecretStr("key"),
    alpaca_secret_key=SecretStr("secret"),
    alert_urls=SecretStr("json://127.0.0.1:9/wakes-someone"),
    deadman_url=SecretStr("http://127.0.0.1:9/deadman"),
    database_url=SecretStr("postgresql://someone@127.0.0.1:9/real"),
)


def test_a_demo_has_a_broker_a_ledger_and_channels_of_its_own(tmp_path: Path) -> None:
    own = demo_settings(DemoPlan(tmp_path / "a b", sessions=1, seed=1), REAL)

    assert own.broker is BrokerKind.SIMULATED and own.account is None and own.alpaca_key_id is None
    assert own.database_url is not None and own.database_url.get_secret_value().endswith("/real_demo")
    assert [type(channel) for channel in channels_of(own)] == [LogChannel, FileChannel]
    assert own.deadman_url is None


def test_a_demos_alerts_are_in_a_file_of_its_home_also_when_the_path_has_spaces(tmp_path: Path) -> None:
    own = demo_settings(DemoPlan(tmp_path / "a b", sessions=1, seed=1), REAL)

    assert own.alert_urls is not None
    (_, file) = channels_of(own)
    assert isinstance(file, FileChannel) and file.path == tmp_path / "a b" / "logs" / "alerts.jsonl"
