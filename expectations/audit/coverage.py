"""Which rows are not there: whole sessions, half of the symbols, one symbol for a while."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from desk.exchange.sessions import EARLIEST, LATEST, sessions_between
from expectations.audit.finding import EVERY, Finding, Grade, Kind, as_date
from expectations.audit.moves import MARKET_MIN
from expectations.audit.panel import Flags, Floats, Ints, Panel

__all__ = ["Calendar", "Coverage", "calendar_of", "coverage_of", "gaps", "missing_sessions", "thin_dates"]

_THIN_MAX = 0.70  # of the usual share: without three in ten symbols a screening is another screening
_SPARSE_MAX = 0.90  # below it a date is at least noted
_USUAL_SESSIONS = 10  # to each side
_COMPLETE_MIN = 0.80  # a file whose symbols have fewer of their sessions is a selection: gaps are its nature
_GAP_MIN = 11  # sessions; the SEC may suspend trading for ten
_GAP_CHANCE_MAX = 1e-6
_BLOCKS_MIN = 0.20  # of the sessions
_SLACK = 5  # sessions before its first and after its last row in which a symbol still counts as missing


@dataclass(frozen=True, slots=True, eq=False)
class Calendar:
    """Sessions of the New York Stock Exchange from the panel's first day to its last."""

    days: Ints  # days since 1970-01-01, ascending
    minutes: Ints  # length of each regular session

    def is_open(self, day: Ints) -> Flags:
        """Whether each day is a session; True for days that the calendar does not know, before 1990 or after 2059."""
        unknown = (day < _number(EARLIEST)) | (day > _number(LATEST))
        return unknown | np.isin(day, self.days)


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """How many symbols have rows on each session, and how many should have."""

    days: Ints
    present: Ints
    alive: Ints  # symbols whose first row is not after and last row not before the session, give or take 5 sessions
    share: Floats  # present / alive
    usual: Floats  # median share of the 10 sessions to each side


def calendar_of(panel: Panel) -> Calendar:
    first, last = max(as_date(panel.day.min()), EARLIEST), min(as_date(panel.day.max()), LATEST)
    sessions = sessions_between(first, last) if first <= last else ()
    return Calendar(
        days=np.array([_number(each.day) for each in sessions], dtype=np.int64),
        minutes=np.array([(each.closes - each.opens).total_seconds() // 60 for each in sessions], dtype=np.int64),
    )


def coverage_of(panel: Panel, calendar: Calendar) -> Coverage:
    """`panel` without repeated rows; rows of closed days do not count."""
    count = calendar.days.size
    at = np.searchsorted(calendar.days, panel.day)
    known = (at < count) & (calendar.days[np.minimum(at, max(count - 1, 0))] == panel.day) if count else at < 0
    session, code = at[known], panel.code[known]
    new = (np.diff(session, prepend=-1) != 0) | (np.diff(code, prepend=-1) != 0)  # intraday: one a day
    present = np.bincount(session[new], minlength=count)
    heads = np.flatnonzero(np.diff(code, prepend=-1))
    begins = np.maximum(session[heads] - _SLACK, 0)
    ends = np.minimum(session[np.append(heads[1:], code.size) - 1] + _SLACK + 1, count) if heads.size else heads
    steps = np.bincount(begins, minlength=count + 1) - np.bincount(ends, minlength=count + 1)
    alive = np.cumsum(steps)[:count]
    share = present / np.maximum(alive, 1)
    return Coverage(calendar.days, present, alive, share, _rolling_median(share, present > 0))


def missing_sessions(coverage: Coverage) -> list[Finding]:
    """Sessions between the file's first and last on which nobody has a row, one finding for each run of them.

    A file that lacks more than a fifth of the sessions holds blocks of days on purpose: that is noted once.
    """
    absent = coverage.present == 0
    if not absent.any():
        return []
    if absent.mean() > _BLOCKS_MIN:
        when = as_date(coverage.days[0]), as_date(coverage.days[-1])
        text = f"rows on {np.count_nonzero(~absent):,} of {absent.size:,} sessions: the file holds blocks of days"
        return [Finding(Kind.MISSING_SESSION, Grade.NOTE, EVERY, *when, 0, text)]
    return [
        Finding(
            Kind.MISSING_SESSION,
            Grade.CRITICAL,
            EVERY,
            as_date(coverage.days[first]),
            as_date(coverage.days[last]),
            0,
            f"no symbol has a row on {last - first + 1} sessions",
        )
        for first, last in _stretches(absent)
    ]


def thin_dates(coverage: Coverage) -> list[Finding]:
    """Sessions on which many symbols have no row.

    share / usual share below 0.70 is flagged: without three in ten symbols a screening is another screening; below
    0.90 it is noted. Judged where at least 20 symbols are alive and the file is usually complete (share 0.80).
    """
    relative = coverage.share / np.maximum(coverage.usual, 1e-9)
    judged = (coverage.alive >= MARKET_MIN) & (coverage.usual >= _COMPLETE_MIN) & (coverage.present > 0)
    thin, sparse = judged & (relative < _THIN_MAX), judged & (relative >= _THIN_MAX) & (relative < _SPARSE_MAX)
    found = []
    for i in np.flatnonzero(thin).tolist():
        day, expected = as_date(coverage.days[i]), round(coverage.usual[i] * coverage.alive[i])
        text = f"{coverage.present[i]:,} of about {expected:,} symbols have a row"
        found.append(Finding(Kind.THIN_DATE, Grade.CRITICAL, EVERY, day, day, int(coverage.present[i]), text))
    at = np.flatnonzero(sparse)
    if at.size:
        worst = int(at[relative[at].argmin()])
        text = f"{at.size} more sessions lack 10 to 30 % of their symbols, most {as_date(coverage.days[worst])}"
        days = as_date(coverage.days[at[0]]), as_date(coverage.days[at[-1]])
        found.append(Finding(Kind.THIN_DATE, Grade.NOTE, EVERY, *days, int(coverage.present[at].sum()), text))
    return found


def gaps(panel: Panel, coverage: Coverage) -> list[Finding]:
    """Stretches in which one symbol has no row while the others do; all long ones of a symbol are one finding.

    Long: k > 10 sessions, the longest suspension of trading that the SEC may order, thin and missing ones not counted,
    and k in a row improbable for the symbol: (share of its other sessions that it lacks) ** k below one in a million.
    Shorter ones are noted. Not judged in a file that is a selection of symbol-days (usual share below 0.80).
    """
    filled = coverage.present > 0
    if not filled.any() or float(np.median(coverage.usual[filled])) < _COMPLETE_MIN:
        return []
    counts = filled & (coverage.share >= _THIN_MAX * coverage.usual)
    before = np.append(0, np.cumsum(counts))  # sessions that count, before each
    at = np.searchsorted(coverage.days, panel.day)
    same = np.zeros(len(panel), dtype=bool)
    same[1:] = np.diff(panel.code) == 0
    skipped = np.zeros(len(panel), dtype=np.int64)
    skipped[1:] = before[at[1:]] - before[np.minimum(at[:-1] + 1, before.size - 1)]
    skipped[~same] = 0
    skipped = np.maximum(skipped, 0)

    lacking = np.bincount(panel.code, weights=skipped, minlength=len(panel.names))[panel.code]
    new = ~same | (np.diff(at, prepend=-1) != 0)
    having = np.bincount(panel.code, weights=new, minlength=len(panel.names))[panel.code]
    chance = ((lacking - skipped + 1) / (having + lacking - skipped + 2)) ** skipped
    long = (skipped >= _GAP_MIN) & (chance < _GAP_CHANCE_MAX)
    found = []
    ends = np.flatnonzero(long)
    for code in np.unique(panel.code[ends]).tolist():
        rows = ends[panel.code[ends] == code]
        first, last = coverage.days[at[rows[0] - 1] + 1], coverage.days[at[rows[-1]] - 1]
        many = f"{rows.size} gaps, " if rows.size > 1 else ""
        text = f"{many}{int(skipped[rows].sum()):,} sessions without a row while others have one"
        name = panel.names[code]
        days = as_date(first), as_date(last)
        found.append(Finding(Kind.GAP, Grade.WARNING, name, *days, 0, text + panel.detail(int(rows[0]))))
    short = np.flatnonzero((skipped > 0) & ~long)
    if short.size:
        symbols, first = np.unique(panel.code[short]).size, int(short[0])
        missing = as_date(coverage.days[at[first - 1] + 1])
        text = f"short gaps: {short.size:,}, symbols: {symbols:,}, first {panel.name(first)} {missing}"
        days = as_date(panel.day[short].min()), as_date(panel.day[short].max())
        found.append(Finding(Kind.GAP, Grade.NOTE, EVERY, *days, 0, text))
    return found


def _rolling_median(share: Floats, known: Flags) -> Floats:
    """Median of the known shares in the window around each session."""
    width = 2 * _USUAL_SESSIONS + 1
    padded = np.pad(np.where(known, share, np.nan), _USUAL_SESSIONS, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    filled = np.isfinite(windows).any(axis=1)
    usual = np.zeros(share.size)
    usual[filled] = np.nanmedian(windows[filled], axis=1)
    return usual


def _stretches(flags: Flags) -> list[tuple[int, int]]:
    at = np.flatnonzero(flags)
    breaks = np.flatnonzero(np.diff(at) > 1) + 1
    return [(int(part[0]), int(part[-1])) for part in np.split(at, breaks)]


def _number(day: date) -> int:
    return (day - date(1970, 1, 1)).days
