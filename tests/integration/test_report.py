"""The session's report: everything in it, nothing asked of a network, the same bytes for the same data."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import pytest
from told_day import ACCOUNT, DAY, a_replay, tell_a_day

from desk.errors import BadInput
from desk.ledger.engine import Ledger
from desk.ledger.sessionbook import session_book
from desk.report import write_session_report
from desk.report.data import SessionReport
from desk.report.render import render, render_replay, report_path, write_report

pytestmark = pytest.mark.integration


class Reading(HTMLParser):
    """Text and addresses of a document."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def book(books: Ledger) -> SessionReport:
    tell_a_day(books)
    return book_of(books)


def book_of(ledger: Ledger) -> SessionReport:
    with ledger.transaction() as connection:
        return session_book(connection, account=ACCOUNT, session=DAY)


def test_the_book_of_a_session_has_what_happened_in_it(book: SessionReport) -> None:
    assert [each.symbol for each in book.candidates] == ["MSFT", "AAPL", "NVDA", "KO"]
    assert [(each.symbol, each.action) for each in book.decisions] == [
        ("AAPL", "buy"),
        ("KO", "hold"),
        ("MSFT", "buy"),
        ("NVDA", "buy"),
    ]
    assert [each.symbol for each in book.refusals] == ["NVDA"]
    assert [(each.symbol, each.leg) for each in book.orders] == [
        ("AAPL", "entry"),
        ("MSFT", "entry"),
        ("AAPL", "stop"),
    ]
    assert len(book.fills) == 3
    assert [each.symbol for each in book.opened] == ["AAPL", "MSFT"]
    assert [(each.symbol, each.close_reason) for each in book.closed] == [("AAPL", "stop-loss")]
    assert [each.symbol for each in book.held] == ["MSFT"]
    assert (book.watch.cycles, book.watch.red, book.watch.quote_age_max_s) == (120, 1, 31.0)
    assert book.equity == ((DAY, Decimal("99834.20")),)
    assert book.equity_start == 100_000
    assert book.deciders == ("fallback: no champion",)


def test_a_session_nobody_recorded_has_no_book(books: Ledger) -> None:
    with pytest.raises(BadInput, match="session 2024-03-09 of account SIM-1"), books.transaction() as connection:
        session_book(connection, account=ACCOUNT, session=date(2024, 3, 9))


def test_the_report_says_where_it_was_traded_and_how_it_went(book: SessionReport) -> None:
    text = Reading(render(book)).text

    for part in (
        "simulated: synthetic, seed 7",
        "fallback: no champion",
        "$99,834.20",
        "-$205.80",
        "stop-loss",
        "order of 9000.00 USD, at most 5000.00 allowed",
        "stale quote",
        "momentum-reversion/1",
        "120 monitor cycles",
    ):
        assert part in text


def test_a_report_asks_nothing_of_any_network(book: SessionReport) -> None:
    document = render(book)

    assert all(address.startswith("data:") for address in Reading(document).addresses)
    assert not re.search(r"url\(|@import|<script", document)


def test_the_same_session_gives_the_same_bytes(book: SessionReport) -> None:
    assert render(book) == render(book)


def test_what_comes_from_outside_is_shown_and_not_obeyed(book: SessionReport) -> None:
    """A reason or a symbol is text, whatever it says."""
    hostile = replace(book, account=replace(book.account, venue="<script>alert(1)</script>"))

    assert "<script>" not in render(hostile)


def test_a_symbol_bought_again_after_its_exit_shows_both_trades(book: SessionReport) -> None:
    """The closed one with what it made, the held one with its mark."""
    again = replace(book.held[0], symbol="AAPL")
    marked = replace(book.closing.positions[0], symbol="AAPL") if book.closing else None
    assert book.closing is not None and marked is not None

    text = Reading(render(replace(book, held=(again,), closing=replace(book.closing, positions=(marked,))))).text

    assert "stop-loss 11:30:00 -$205.80" in text
    assert "open until 2024-03-12 +$40.00" in text


def test_an_empty_session_has_a_report_too(books: Ledger) -> None:
    text = Reading(render(book_of(books))).text

    assert "Nothing was screened" in text
    assert "not closed" in text


def test_a_report_is_written_whole_and_written_again_in_place(book: SessionReport, tmp_path: Path) -> None:
    first = write_report(tmp_path, book)
    second = write_report(tmp_path, book)

    assert first == second == report_path(tmp_path, ACCOUNT, DAY)
    assert first.name == "2024-03-05.html"
    assert list(first.parent.iterdir()) == [first]
    assert first.read_text(encoding="utf-8") == render(book)


def test_a_report_is_written_from_the_ledger(books: Ledger, tmp_path: Path) -> None:
    tell_a_day(books)

    path = write_session_report(books, account=ACCOUNT, session=DAY, home=tmp_path)

    assert path == report_path(tmp_path, ACCOUNT, DAY)
    assert path.read_text(encoding="utf-8") == render(book_of(books))


def test_a_replay_shows_what_it_replayed_and_how_it_went() -> None:
    text = Reading(render_replay(a_replay(30))).text

    for part in ("recorded: sp500_daily_2016_2020.parquet", "2019-01-02 to 2019-03-02", "66.67 %", "take-profit 20"):
        assert part in text


def test_a_long_replay_shows_a_limited_table_and_says_so() -> None:
    assert "100 more are in the trades file" in Reading(render_replay(a_replay(600))).text


def test_a_replay_without_a_trade_has_a_report() -> None:
    assert "No trade was made" in Reading(render_replay(a_replay(0))).text


def test_a_replayed_trade_without_its_columns_is_named() -> None:
    broken = replace(a_replay(1), trades=({"symbol": "AAPL"},))

    with pytest.raises(ValueError, match=r"without session, quantity"):
        render_replay(broken)
