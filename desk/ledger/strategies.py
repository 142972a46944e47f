"""Strategies: numbered versions that are never edited. The newest version holds."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from desk.ledger.engine import xact_lock
from desk.ledger.tables import strategies
from desk.strategy import Strategy

__all__ = ["apply_strategy", "current_strategy", "strategy_version"]


def apply_strategy(connection: Connection, *, account: str, strategy: Strategy, by: str) -> int:
    """Make these numbers the ones that hold. Returns their version.

    The numbers that hold already keep their version; anything else, earlier numbers included, becomes the next
    one.
    """
    xact_lock(connection, f"strategies:{account}:{strategy.name}")
    held = current_strategy(connection, account=account, name=strategy.name)
    if held is not None and held[0].digest == strategy.digest:
        return held[1]
    version = 1 if held is None else held[1] + 1
    connection.execute(
        insert(strategies).values(
            account=account,
            strategy=strategy.name,
            version=version,
            digest=strategy.digest,
            document=strategy.document,
            applied_by=by,
        )
    )
    return version


def current_strategy(connection: Connection, *, account: str, name: str) -> tuple[Strategy, int] | None:
    """The numbers that hold and their version; None when none were applied under this name."""
    row = connection.execute(
        select(strategies.c.document, strategies.c.version)
        .where(strategies.c.account == account, strategies.c.strategy == name)
        .order_by(strategies.c.version.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else (Strategy.model_validate(row.document), row.version)


def strategy_version(connection: Connection, *, account: str, name: str, version: int) -> Strategy | None:
    """The numbers of one version, as a trade refers to them."""
    document = connection.execute(
        select(strategies.c.document).where(
            strategies.c.account == account, strategies.c.strategy == name, strategies.c.version == version
        )
    ).scalar_one_or_none()
    return None if document is None else Strategy.model_validate(document)
