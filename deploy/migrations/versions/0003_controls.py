"""What the controls need to remember: equity anchors, and which check passed on the decisions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MONEY = sa.Numeric(20, 6)
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("decision_sets", sa.Column("gate_hash", sa.Text))
    op.create_table(
        "equity_anchors",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("opening_equity", MONEY, nullable=False),
        sa.Column("high_water_equity", MONEY, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False, server_default=sa.func.clock_timestamp()),
        sa.CheckConstraint(
            "opening_equity > 0 AND high_water_equity >= opening_equity", name=op.f("ck_equity_anchors_equity_ordered")
        ),
        sa.ForeignKeyConstraint(["account"], ["accounts.account"], name=op.f("fk_equity_anchors_accounts")),
        sa.PrimaryKeyConstraint("account", "sequence", name=op.f("pk_equity_anchors")),
    )
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON equity_anchors "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    op.create_index("ix_orders_sent", "orders", ["account", "sent_at"])
    op.create_index("ix_fills_filled", "fills", ["account", "filled_at"])


def downgrade() -> None:
    op.drop_index("ix_fills_filled", "fills")
    op.drop_index("ix_orders_sent", "orders")
    op.drop_table("equity_anchors")
    op.drop_column("decision_sets", "gate_hash")
