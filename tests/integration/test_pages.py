"""The reports as a browser shows them: nothing fetched, nothing broken, nothing cut off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import chromium
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from told_day import ACCOUNT, DAY, a_replay, tell_a_day

from desk.ledger.engine import Ledger
from desk.report import write_session_report
from desk.report.render import write_replay_report

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def requested(browser: Chrome) -> list[str]:
    """Every address the page asked for, itself included; images within it ask nobody."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in asked if not url.startswith("data:")]


@pytest.fixture(params=["session", "replay"])
def page(request: pytest.FixtureRequest, books: Ledger, tmp_path: Path) -> Path:
    if request.param == "replay":
        write_replay_report(tmp_path / "report.html", a_replay(trades=30))
        return tmp_path / "report.html"
    tell_a_day(books)
    return write_session_report(books, account=ACCOUNT, session=DAY, home=tmp_path)


@pytest.mark.parametrize("width", [1280, 420], ids=["desk", "phone"])
def test_a_report_opens_from_its_file_with_plots_and_asks_nobody(browser: Chrome, page: Path, width: int) -> None:
    browser.get_log("performance")
    browser.set_window_size(width, 1600)

    browser.get(page.as_uri())

    plots = browser.find_elements(By.CSS_SELECTOR, "svg, img")
    assert plots and all(plot.size["width"] > 100 and plot.size["height"] > 20 for plot in plots if plot.is_displayed())
    assert requested(browser) == [page.as_uri()]
    assert [line["message"] for line in browser.get_log("browser")] == []
    assert browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth") <= 0


def test_the_session_report_shows_what_was_traded_and_why(browser: Chrome, books: Ledger, tmp_path: Path) -> None:
    tell_a_day(books)
    browser.get(write_session_report(books, account=ACCOUNT, session=DAY, home=tmp_path).as_uri())

    seen = browser.find_element(By.TAG_NAME, "body").text

    for part in (f"Session {DAY}", "simulated", "AAPL", "stop-loss", "fallback", "99,834.20"):
        assert part in seen
