"""The watchdog's unit and manifest start what there is, with settings there are."""

from __future__ import annotations

from configparser import RawConfigParser
from pathlib import Path

import yaml
from typer.testing import CliRunner

from desk.settings import Settings
from flows.cli import app

DEPLOY = Path(__file__).parents[2] / "deploy"


def is_setting(name: str) -> bool:
    return name.removeprefix("ONEPATH_").lower() in Settings.model_fields


def is_command(*arguments: str) -> bool:
    return CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0


def test_the_systemd_unit_starts_the_watchdog_and_waits_for_neither_prefect_nor_postgresql() -> None:
    unit = RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]  # systemd's names have capitals
    unit.read(DEPLOY / "systemd" / "onepath-watchdog.service", encoding="utf-8")

    program, *arguments = unit["Service"]["ExecStart"].split()

    assert program.endswith("/bin/onepath") and is_command(*arguments)
    assert is_setting(unit["Service"]["Environment"].partition("=")[0])
    assert unit["Service"]["Restart"] == "always"
    assert unit["Unit"]["After"] == "network-online.target"


def test_the_manifest_starts_the_watchdog_with_settings_there_are() -> None:
    (manifest,) = yaml.safe_load_all((DEPLOY / "kubernetes" / "watchdog.yaml").read_text(encoding="utf-8"))
    pod = manifest["spec"]["template"]
    (container,) = pod["spec"]["containers"]

    assert is_command(*container["args"])
    assert all(is_setting(each["name"]) for each in container["env"])
    assert manifest["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {each["name"] for each in pod["spec"]["volumes"]}
