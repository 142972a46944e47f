"""Orders at the broker that nobody here sent, each with the alert that tells of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "external_orders",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("broker_order_id", sa.Text, nullable=False),
        sa.Column("client_order_id", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("side", sa.Text, nullable=False),
        sa.Column("order_type", sa.Text, nullable=False),
        sa.Column("quantity", sa.Numeric(20, 9), nullable=False),
        sa.Column("submitted_at", TIME, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.Column("alert_id", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.CheckConstraint("side IN ('buy', 'sell')", name=op.f("ck_external_orders_side_known")),
        sa.ForeignKeyConstraint(["account"], ["accounts.account"], name=op.f("fk_external_orders_accounts")),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.alert_id"], name=op.f("fk_external_orders_alerts")),
        sa.PrimaryKeyConstraint("account", "broker_order_id", name=op.f("pk_external_orders")),
    )
    op.create_index("ix_external_orders_symbol", "external_orders", ["account", "symbol"])
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON external_orders "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )


def downgrade() -> None:
    op.drop_table("external_orders")
