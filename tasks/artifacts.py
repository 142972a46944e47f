"""What a person sees in the Prefect UI beside the runs."""

from __future__ import annotations

import sys
from pathlib import Path

from desk.ledger.records import Closing

__all__ = ["publish_session"]


def publish_session(closing: Closing, report: Path) -> None:
    """A Markdown artifact with the session's figures, inside a flow run; nothing outside of one."""
    context = sys.modules.get("prefect.context")
    if context is None or context.FlowRunContext.get() is None:
        return
    from prefect.artifacts import create_markdown_artifact

    rows = "\n".join(
        f"| {held.symbol} | {held.quantity:f} | {held.price:.2f} | {held.value:.2f} |" for held in closing.positions
    )
    create_markdown_artifact(
        key="session-report",
        description=f"Books of {closing.session}",
        markdown=f"# {closing.session}\n\nEquity {closing.equity:.2f} USD "
        f"({closing.equity - closing.equity_before:+.2f}), cash {closing.cash:.2f} USD. Report: `{report}`\n\n"
        f"Differences: {'; '.join(closing.differences) or 'none'}\n\n"
        f"| symbol | shares | price | value |\n|---|---|---|---|\n{rows}\n",
    )
