"""An audit beside a list of known defects: what was found, missed, and cannot be looked for."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest
from clean_bars import clean_bars

from desk.errors import BadInput
from expectations.audit.known import Known, compare, load_known
from expectations.audit.report import audit_panel

FILE = "bars.parquet"


def line(symbol: str, day: date | None, kind: str, file: str = FILE) -> Known:
    return Known(file, symbol, day, kind, "")


def test_recall_counts_what_can_be_found() -> None:
    """A wick, its name aside, and a gap are found; a split is missed; two more lines speak of what is not here."""
    bars = clean_bars()
    bars["high"][70, 6] *= 2
    bars["low"][40, 9] *= 0.4
    bars.kept[30:45, 13] = False
    wick = line("S006", bars.day(70), "bad_print")
    within_gap = line("S013", bars.day(35), "gap")
    missed = line("S020", bars.day(70), "wrong_adjustment")
    later, undated = line("S001", bars.day(159) + timedelta(days=3), "gap"), line("S002", None, "scale")
    elsewhere = line("S003", bars.day(10), "gap", file="other.parquet")

    found = compare(audit_panel(bars.panel()), [wick, within_gap, missed, later, undated, elsewhere], FILE)

    assert (found.found, found.missed, found.outside, found.undated) == (
        (wick, within_gap),
        (missed,),
        (later,),
        (undated,),
    )
    assert found.as_another_kind == (wick,)
    assert found.recall == pytest.approx(2 / 3)
    assert found.by_kind() == {"bad_print": (1, 1), "gap": (1, 1), "wrong_adjustment": (0, 1)}
    assert [each.symbol for each in found.unlisted] == ["S009"]


def test_a_flag_of_another_day_finds_nothing() -> None:
    bars = clean_bars()
    bars["high"][70, 6] *= 2

    found = compare(audit_panel(bars.panel()), [line("S006", bars.day(71), "extreme_wick")], FILE)

    assert (found.recall, len(found.unlisted)) == (0.0, 1)


def test_without_a_line_for_the_file_there_is_no_recall() -> None:
    assert compare(audit_panel(clean_bars().panel()), [], FILE).recall is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,symbol,date,kind\n", "no column note"),
        ("file,symbol,date,kind,note\nf,A,2024-13-01,gap,x\n", "line 2 has date 2024-13-01"),
        (None, "not a readable CSV"),
        (b"\xff\xfe\x00", "not a readable CSV"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, text: str | bytes | None, words: str
) -> None:
    path = tmp_path / "known.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(BadInput, match=words) as refused:
        load_known(path)

    assert "\n" not in str(refused.value)
