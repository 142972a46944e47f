"""`onepath why`: the whole story of a trade, read from the ledger."""

from __future__ import annotations

import json
from datetime import date

import pytest
from told_day import ACCOUNT, DAY, tell_a_day
from typer.testing import CliRunner

from desk.errors import BadInput
from desk.ledger.engine import Ledger
from desk.ledger.story import Story, chapters, choose_account, tell
from flows.cli import app

pytestmark = pytest.mark.integration


@pytest.fixture
def told(books: Ledger, ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A ledger with a day in it, which the settings name."""
    tell_a_day(books)
    monkeypatch.setenv("ONEPATH_DATABASE_URL", ledger_url)
    return books


def story_of(ledger: Ledger, symbol: str) -> Story:
    with ledger.transaction() as connection:
        account = choose_account(connection, None)
        newest = chapters(connection, account=account.account, symbol=symbol)[0]
        return tell(connection, account=account, chapter=newest)


def screen(*arguments: str) -> str:
    shown = CliRunner().invoke(app, ["why", *arguments], env={"COLUMNS": "120"}, catch_exceptions=False)
    assert shown.exit_code == 0
    return shown.stdout


def test_a_closed_trade_is_told_from_the_data_to_the_close_reason(told: Ledger) -> None:
    story = story_of(told, "AAPL")

    assert story.account.venue == "simulated: synthetic, seed 7"
    assert story.screening is not None and story.screening.data_hash == "ab" * 32
    assert story.scored is not None and story.scored.rank == 2
    assert story.decision is not None and story.decision.decider == "fallback: no champion"
    assert [(each.control, each.allowed) for each in story.verdicts] == [("order value", True)]
    assert [(order.leg, order.state, len(order.fills)) for order in story.orders] == [
        ("entry", "filled", 1),
        ("stop", "filled", 1),
    ]
    assert [event.state for event in story.orders[0].events] == ["reserved", "sending", "acked", "filled"]
    assert story.trade is not None and story.trade.close_reason == "stop-loss"
    assert [(each.symbol, each.reason) for each in story.exits] == [("AAPL", "stop-loss")]
    assert story.watch is not None and (story.watch.red, story.watch.quote_age_max_s) == (1, 31.0)
    assert [gate.frame for gate in story.gates] == ["bars"]


def test_the_alerts_of_another_symbol_are_another_story(told: Ledger) -> None:
    assert story_of(told, "AAPL").alerts == ()
    assert [alert.kind for alert in story_of(told, "MSFT").alerts] == ["quote.unusable"]


def test_one_screen_says_who_decided_and_why_it_closed(told: Ledger) -> None:
    shown = screen("aapl")

    for part in ("fallback: no champion", "momentum-reversion/1", "rank 2", "stop-loss", "-$205.80", "seed 7"):
        assert part in shown
    assert len(shown.splitlines()) <= 50


def test_a_refused_order_names_the_control_with_limit_and_value(told: Ledger) -> None:
    shown = " ".join(screen("NVDA").replace("│", " ").split())

    assert "order value refused" in shown
    assert "limit 5000.00, found 9000.00" in shown
    assert "none was made" in shown


def test_a_symbol_that_was_left_alone_has_a_story_too(told: Ledger) -> None:
    assert "not above 0.70" in screen("KO")


def test_json_is_one_document_with_the_same_facts(told: Ledger) -> None:
    document = json.loads(screen("AAPL", "--json"))

    assert document["symbol"] == "AAPL"
    assert document["stories"][0]["trade"]["profit"] == "-205.8"
    assert document["stories"][0]["orders"][0]["events"][0]["state"] == "reserved"


def test_an_unknown_symbol_is_answered_with_the_nearest_known(told: Ledger) -> None:
    with pytest.raises(BadInput, match=r"AAPLE: never screened.*nearest known: AAPL"):
        screen("AAPLE")


def test_a_session_without_the_symbol_is_answered_with_those_that_have_it(told: Ledger) -> None:
    with pytest.raises(BadInput, match="AAPL: nothing known in session 2024-03-06; give one of 2024-03-05"):
        screen("AAPL", "--session", "2024-03-06")


def test_an_open_trade_is_what_goes_on_in_later_sessions(told: Ledger) -> None:
    """The session need not be the one of the decision."""
    with told.transaction() as connection:
        found = chapters(connection, account=ACCOUNT, symbol="MSFT", session=date(2024, 3, 7))

    assert [(chapter.first, chapter.last) for chapter in found] == [(DAY, None)]


def test_a_date_that_is_none_is_refused(told: Ledger) -> None:
    with pytest.raises(BadInput, match="--session tuesday: not a date"):
        screen("AAPL", "--session", "tuesday")


def test_a_home_without_a_ledger_is_not_made_into_one(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEPATH_DATABASE_URL", raising=False)

    with pytest.raises(BadInput, match="no ledger under"):
        screen("AAPL", "--home", str(tmp_path))

    assert list(tmp_path.iterdir()) == []


def test_an_account_that_is_not_there_names_those_that_are(told: Ledger) -> None:
    with pytest.raises(BadInput, match="account SIM-9: set ONEPATH_ACCOUNT to one of SIM-1"):
        screen("AAPL", "--account", "SIM-9")


def test_without_a_replay_there_is_nothing_to_tell_of_it(told: Ledger) -> None:
    with pytest.raises(BadInput, match="database onepath_replay: not on this server; run onepath replay first"):
        screen("AAPL", "--replay")
