"""Alembic's environment: the connection and its transaction belong to `desk.ledger.migrate`."""

from __future__ import annotations

from alembic import context

from desk.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
