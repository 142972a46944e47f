"""Delivery of alerts: when each attempt was made, how many alerts it spoke of, and who acknowledged what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.add_column("alert_deliveries", sa.Column("together", sa.Integer, server_default="1", nullable=False))
    op.add_column("alert_deliveries", sa.Column("tried_at", TIME, server_default=NOW, nullable=False))
    op.create_check_constraint(op.f("ck_alert_deliveries_together_positive"), "alert_deliveries", "together >= 1")
    op.create_index("ix_alert_deliveries_channel", "alert_deliveries", ["channel", "delivered", "tried_at"])
    op.create_index("ix_alerts_recorded", "alerts", ["recorded_at"])
    op.create_table(
        "alert_acknowledgements",
        sa.Column("alert_id", sa.BigInteger, nullable=False),
        sa.Column("acknowledged_by", sa.Text, nullable=False),
        sa.Column("recorded_at", TIME, server_default=NOW, nullable=False),
        sa.CheckConstraint("acknowledged_by <> ''", name=op.f("ck_alert_acknowledgements_acknowledged_by_named")),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.alert_id"], name=op.f("fk_alert_acknowledgements_alerts")),
        sa.PrimaryKeyConstraint("alert_id", name=op.f("pk_alert_acknowledgements")),
    )
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON alert_acknowledgements "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )


def downgrade() -> None:
    op.drop_table("alert_acknowledgements")
    op.drop_index("ix_alerts_recorded", table_name="alerts")
    op.drop_index("ix_alert_deliveries_channel", table_name="alert_deliveries")
    op.drop_constraint(op.f("ck_alert_deliveries_together_positive"), "alert_deliveries")
    op.drop_column("alert_deliveries", "tried_at")
    op.drop_column("alert_deliveries", "together")
