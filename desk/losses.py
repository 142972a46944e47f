"""The limits on losses, watched between orders too: a day that goes wrong stops entries before the next is tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from desk.controls import judge_losses
from desk.ledger.anchors import anchors_of
from desk.ledger.engine import Ledger
from desk.ledger.records import Anchors
from desk.portfolio import Account, Position
from desk.ports import Broker
from desk.strategy import Controls
from desk.tripping import trip

__all__ = ["LossWatch", "opening_equity"]

_READ_AGAIN = timedelta(minutes=30)  # a deposit, a fee: cash moves without a fill now and then
_TOLD_FOR = timedelta(minutes=5)  # after a trip, until the ledger is asked again


def opening_equity(account: Account) -> Decimal:
    """What the day opened with: the broker's figure at the previous close; of a new account, what it has."""
    return account.last_equity if account.last_equity > 0 else account.equity


@dataclass(frozen=True, slots=True)
class _Cash:
    """The account's cash, as long as the same shares are held."""

    held: tuple[tuple[str, Decimal], ...]
    amount: Decimal  # USD
    read_at: datetime


class LossWatch:
    """Equity against the ledger's anchors. A quiet look costs no query and no call; keep one per process."""

    def __init__(self, *, ledger: Ledger, broker: Broker, account: str) -> None:
        self._ledger = ledger
        self._broker = broker
        self._account = account
        self._cash: _Cash | None = None
        self._anchors: Anchors | None = None
        self._told: tuple[frozenset[str], datetime] = (frozenset(), datetime.min.replace(tzinfo=UTC))

    def look(self, positions: Mapping[str, Position], *, session: date, limits: Controls, now: datetime) -> bool:
        """Judge the equity of this moment. Returns whether trading was made stricter by it."""
        equity = self._equity(positions, session, now)
        anchors = self._anchors
        if anchors is None or anchors.session < session:
            raise RuntimeError(f"losses of {session}: no anchors were read")
        broken = self._broken(equity, anchors, limits)
        told, until = self._told
        if not broken or (broken <= told and now < until):
            return False
        with self._ledger.transaction() as connection:
            # Somebody may have resumed since: losses count from there.
            anchors = anchors_of(
                connection, account=self._account, session=session, opening=anchors.opening_equity, at=now
            )
            self._anchors = anchors
            verdicts = judge_losses(
                equity, opening=anchors.opening_equity, high_water=anchors.high_water_equity, limits=limits
            )
            is_stricter = trip(
                connection, account=self._account, verdicts=verdicts, session=session, symbol=None, at=now
            )
        self._told = (self._broken(equity, anchors, limits), now + _TOLD_FOR)
        return is_stricter

    def _equity(self, positions: Mapping[str, Position], session: date, now: datetime) -> Decimal:
        """The account's equity in USD. The account is read anew when other shares are held than the last time."""
        held = tuple(sorted((position.symbol, position.quantity) for position in positions.values()))
        values = [position.market_value for position in positions.values()]
        market_value = sum((value for value in values if value is not None), Decimal(0))
        cash, is_new_day = self._cash, self._anchors is None or self._anchors.session < session
        is_known = cash is not None and cash.held == held and now - cash.read_at < _READ_AGAIN
        if cash is not None and is_known and not is_new_day and None not in values:
            return cash.amount + market_value
        account = self._broker.account()
        # The account was read a moment after the positions; what was filled in between is seen at the next look.
        self._cash = _Cash(held, account.cash, now)
        if is_new_day:
            with self._ledger.transaction() as connection:
                self._anchors = anchors_of(
                    connection, account=self._account, session=session, opening=opening_equity(account), at=now
                )
        return account.equity

    @staticmethod
    def _broken(equity: Decimal, anchors: Anchors, limits: Controls) -> frozenset[str]:
        verdicts = judge_losses(
            equity, opening=anchors.opening_equity, high_water=anchors.high_water_equity, limits=limits
        )
        return frozenset(f"{verdict.control} {verdict.trips}" for verdict in verdicts if not verdict.allowed)
