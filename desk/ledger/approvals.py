"""Which version of a model may decide. The newest approval is the champion."""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, select

from desk.decision import Approval
from desk.ledger.engine import xact_lock
from desk.ledger.tables import policy_approvals

__all__ = ["approve", "champion"]

_approvals = policy_approvals.c


def champion(connection: Connection, *, account: str, model: str) -> Approval | None:
    """The approved version and the digest its file must have; None when none was ever approved."""
    row = connection.execute(
        select(policy_approvals)
        .where(_approvals.account == account, _approvals.model == model)
        .order_by(_approvals.sequence.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else Approval(model=row.model, version=row.version, digest=row.digest)


def approve(connection: Connection, *, account: str, approval: Approval, by: str) -> None:
    """Make this version the champion; approving the champion again adds no row."""
    xact_lock(connection, f"approvals:{account}:{approval.model}")
    if champion(connection, account=account, model=approval.model) == approval:
        return
    newest = connection.execute(
        select(func.max(_approvals.sequence)).where(_approvals.account == account, _approvals.model == approval.model)
    ).scalar()
    connection.execute(
        insert(policy_approvals).values(
            account=account,
            model=approval.model,
            sequence=(newest or 0) + 1,
            version=approval.version,
            digest=approval.digest,
            approved_by=by,
        )
    )
