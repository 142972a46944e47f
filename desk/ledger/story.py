"""The whole story of a trade or a decision, from bars and scores to the close reason. Read only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from difflib import get_close_matches

from sqlalchemy import Connection, select

from desk.errors import BadInput
from desk.ledger.accounts import known_accounts
from desk.ledger.alerts import alerts_of
from desk.ledger.facts import (
    AccountFact,
    DecisionFact,
    MonitorExit,
    OrderFact,
    ScoredFact,
    ScreeningFact,
    TradeFact,
    VerdictFact,
    WatchFact,
)
from desk.ledger.gates import gates_of
from desk.ledger.records import Alert, GateRecord
from desk.ledger.tables import decisions, orders, trades, watchlist
from desk.ledger.telling import (
    account_fact,
    decision_facts,
    monitor_exits,
    order_facts,
    scored_facts,
    screening_fact,
    trade_facts,
    verdict_facts,
    watch_fact,
)
from desk.market import NEW_YORK

__all__ = ["Chapter", "Story", "chapters", "choose_account", "known_symbols", "tell"]

NAMED_MAX = 8  # how many alternatives a refusal lists


@dataclass(frozen=True, slots=True)
class Chapter:
    """What there is to tell about a symbol: a trade, a decision that opened none, or a place on a watchlist."""

    symbol: str
    first: date  # session of the decision
    last: date | None  # session of the exit; None while the trade is open
    strategy: str | None  # None: screened, never decided on
    trade: TradeFact | None

    def covers(self, session: date) -> bool:
        return self.first <= session and (self.last is None or session <= self.last)


@dataclass(frozen=True, slots=True)
class Story:
    """Everything the ledger knows about one chapter. `later` are decisions made while the trade was open."""

    account: AccountFact
    symbol: str
    session: date
    screening: ScreeningFact | None
    scored: ScoredFact | None
    decision: DecisionFact | None
    verdicts: tuple[VerdictFact, ...]
    orders: tuple[OrderFact, ...]
    trade: TradeFact | None
    later: tuple[DecisionFact, ...]
    watch: WatchFact | None
    exits: tuple[MonitorExit, ...]
    gates: tuple[GateRecord, ...]
    alerts: tuple[Alert, ...]


def choose_account(connection: Connection, wanted: str | None) -> AccountFact:
    """The account named, or the only one there is. Raises BadInput naming the accounts."""
    known = known_accounts(connection)
    if not known:
        raise BadInput("the ledger has no account yet; run onepath up or onepath demo once")
    chosen = wanted or (known[0] if len(known) == 1 else None)
    found = account_fact(connection, chosen) if chosen else None
    if found is None:
        raise BadInput(f"account {wanted or 'not given'}: set ONEPATH_ACCOUNT to one of {', '.join(known)}")
    return found


def chapters(connection: Connection, *, account: str, symbol: str, session: date | None = None) -> list[Chapter]:
    """What there is to tell about the symbol, newest first; with a session, what was going on in it.

    Raises BadInput when nothing is known, naming the symbols or sessions that are.
    """
    found = _all_chapters(connection, account, symbol)
    if not found:
        raise _unknown_symbol(connection, account, symbol)
    if session is None:
        return found
    then = [chapter for chapter in found if chapter.covers(session)]
    if not then:
        sessions = sorted({chapter.first for chapter in found}, reverse=True)
        raise BadInput(f"{symbol}: nothing known in session {session}; give one of {_listed(sessions)}")
    return then


def tell(connection: Connection, *, account: AccountFact, chapter: Chapter) -> Story:
    """The chapter's story."""
    number, symbol, session = account.account, chapter.symbol, chapter.first
    decided = decision_facts(connection, account=number, symbol=symbol)
    start, end = _span(chapter)
    own = (orders.c.symbol == symbol) & (orders.c.session == session)
    return Story(
        account=account,
        symbol=symbol,
        session=session,
        screening=screening_fact(connection, account=number, session=session),
        scored=next(iter(scored_facts(connection, account=number, session=session, symbol=symbol)), None),
        decision=next((d for d in decided if (d.session, d.strategy) == (session, chapter.strategy)), None),
        verdicts=verdict_facts(connection, account=number, session=session, symbol=symbol),
        orders=()
        if chapter.strategy is None
        else order_facts(connection, account=number, where=own & (orders.c.strategy == chapter.strategy)),
        trade=chapter.trade,
        later=tuple(reversed([d for d in decided if _is_later(chapter, d)])),
        watch=None if start is None else watch_fact(connection, account=number, start=start, end=end),
        exits=() if start is None else monitor_exits(connection, account=number, start=start, end=end, symbol=symbol),
        gates=tuple(gates_of(connection, account=number, session=session)),
        alerts=_alerts(connection, number, chapter),
    )


def known_symbols(connection: Connection, account: str) -> list[str]:
    """Symbols that were ever listed, decided on or traded."""
    found: set[str] = set()
    for table in (watchlist, decisions, trades):
        found.update(connection.execute(select(table.c.symbol).where(table.c.account == account).distinct()).scalars())
    return sorted(found)


def _all_chapters(connection: Connection, account: str, symbol: str) -> list[Chapter]:
    traded = trade_facts(connection, account=account, where=trades.c.symbol == symbol)
    found = [Chapter(symbol, each.session, _exit_session(each), each.strategy, each) for each in traded]
    opened = {(chapter.first, chapter.strategy) for chapter in found}
    alone = [
        Chapter(symbol, each.session, each.session, each.strategy, None)
        for each in decision_facts(connection, account=account, symbol=symbol)
        if (each.session, each.strategy) not in opened and not any(_is_later(chapter, each) for chapter in found)
    ]
    told = {chapter.first for chapter in found + alone}
    listed = connection.execute(
        select(watchlist.c.session).where(watchlist.c.account == account, watchlist.c.symbol == symbol)
    ).scalars()
    only_listed = [
        Chapter(symbol, day, day, None, None)
        for day in listed
        if day not in told and not any(chapter.covers(day) for chapter in found)
    ]
    return sorted(found + alone + only_listed, key=lambda chapter: chapter.first, reverse=True)


def _is_later(chapter: Chapter, decision: DecisionFact) -> bool:
    """Whether the decision was about the position of this trade, not about a new one."""
    return (
        chapter.trade is not None
        and decision.strategy == chapter.strategy
        and decision.action != "buy"
        and chapter.first < decision.session
        and chapter.covers(decision.session)
    )


def _exit_session(trade: TradeFact) -> date | None:
    return None if trade.exited_at is None else trade.exited_at.astimezone(NEW_YORK).date()


def _span(chapter: Chapter) -> tuple[datetime | None, datetime | None]:
    if chapter.trade is None:
        return None, None
    return chapter.trade.entered_at, chapter.trade.exited_at


def _alerts(connection: Connection, account: str, chapter: Chapter) -> tuple[Alert, ...]:
    """Alerts about the symbol while the chapter lasted, and those of its session about no symbol; oldest first."""
    about = alerts_of(connection, account=account, symbol=chapter.symbol)
    during = [alert for alert in about if alert.session is not None and chapter.covers(alert.session)]
    general = [alert for alert in alerts_of(connection, account=account, session=chapter.first) if not alert.symbol]
    return tuple(sorted([*during, *general], key=lambda alert: alert.alert_id))


def _unknown_symbol(connection: Connection, account: str, symbol: str) -> BadInput:
    known = known_symbols(connection, account)
    if not known:
        return BadInput(
            f"{symbol}: account {account} has screened nothing yet; run onepath demo, or wait for a screening"
        )
    near = get_close_matches(symbol, known, n=NAMED_MAX, cutoff=0.3) or known[:NAMED_MAX]
    return BadInput(
        f"{symbol}: never screened, decided on or traded in account {account}; nearest known: {', '.join(near)}"
    )


def _listed(sessions: Sequence[date]) -> str:
    named = ", ".join(str(session) for session in sessions[:NAMED_MAX])
    more = len(sessions) - NAMED_MAX
    return f"{named} and {more} more" if more > 0 else named
