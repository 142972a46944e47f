"""Who decides: the champion policy, or, for a named reason, the fallback rule. There is no third."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from desk.decision import Approval, Decision
from desk.errors import Unavailable
from models import fallback

__all__ = ["Decider", "choose_decider"]


@dataclass(frozen=True, slots=True)
class Decider:
    """`decide` takes what `models.fallback.decide` takes."""

    name: str  # written beside each decision: "policy onepath-policy/7" or "fallback: no champion"
    decide: Callable[..., list[Decision]]
    policy_digest: str | None  # sha256 of the policy's file; None for the fallback


def choose_decider(champion: Approval | None) -> Decider:
    """The champion's decider or, when a policy is unavailable, the fallback under a name that says why.

    Anything else that goes wrong is a defect and passes through.
    """
    try:
        return _serve(champion)
    except Unavailable as reason:
        return Decider(name=f"fallback: {reason}", decide=fallback.decide, policy_digest=None)


def _serve(champion: Approval | None) -> NoReturn:
    if champion is None:
        raise Unavailable("no champion")
    raise Unavailable(f"policy {champion.name} cannot be served by this version")
