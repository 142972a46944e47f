"""The ground: accounts, strategies, sessions, runs, alerts, gates, trading state.

Append-only tables refuse UPDATE, DELETE and TRUNCATE by trigger: what happened is never edited.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)

APPEND_ONLY = (
    "strategies",
    "policy_approvals",
    "trading_states",
    "gate_results",
    "alerts",
    "alert_deliveries",
)


def _recorded_at() -> sa.Column[object]:
    return sa.Column("recorded_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("broker", sa.Text, nullable=False),
        sa.Column("venue", sa.Text, nullable=False),
        _recorded_at(),
        sa.CheckConstraint("broker IN ('simulated', 'paper', 'live')", name=op.f("ck_accounts_broker_known")),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_accounts")),
    )
    op.create_table(
        "strategies",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("strategy", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("document", JSONB, nullable=False),
        sa.Column("applied_by", sa.Text, nullable=False),
        _recorded_at(),
        sa.CheckConstraint("version >= 1", name=op.f("ck_strategies_version_positive")),
        sa.ForeignKeyConstraint(["account"], ["accounts.account"], name=op.f("fk_strategies_accounts")),
        sa.PrimaryKeyConstraint("account", "strategy", "version", name=op.f("pk_strategies")),
    )
    op.create_table(
        "sessions",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("opens_at", TIME, nullable=False),
        sa.Column("closes_at", TIME, nullable=False),
        _recorded_at(),
        sa.CheckConstraint("closes_at > opens_at", name=op.f("ck_sessions_closes_after_open")),
        sa.ForeignKeyConstraint(["account"], ["accounts.account"], name=op.f("fk_sessions_accounts")),
        sa.PrimaryKeyConstraint("account", "session", name=op.f("pk_sessions")),
    )
    op.create_table(
        "expected_runs",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("cutoff_at", TIME, nullable=False),
        sa.Column("state", sa.Text, server_default="expected", nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("attempts", sa.Integer, server_default="0", nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("ended_at", TIME),
        sa.Column("flow_run", sa.Text),
        sa.Column("evidence", JSONB),
        sa.Column("updated_at", TIME, nullable=False),
        sa.CheckConstraint(
            "stage IN ('premarket-screening', 'preflight', 'trading', 'position-monitor', 'close-of-day')",
            name=op.f("ck_expected_runs_stage_known"),
        ),
        sa.CheckConstraint(
            "state IN ('expected', 'running', 'ran', 'skipped', 'failed', 'missed')",
            name=op.f("ck_expected_runs_state_known"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('skipped', 'failed', 'missed') OR reason IS NOT NULL",
            name=op.f("ck_expected_runs_reason_given"),
        ),
        sa.CheckConstraint("cutoff_at >= due_at", name=op.f("ck_expected_runs_cutoff_after_due")),
        sa.ForeignKeyConstraint(["account"], ["accounts.account"], name=op.f("fk_expected_runs_accounts")),
        sa.PrimaryKeyConstraint("account", "session", "stage", name=op.f("pk_expected_runs")),
    )
    op.create_table(
        "policy_approvals",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        _recorded_at(),
        sa.ForeignKeyConstraint(["account"], ["accounts.account"], name=op.f("fk_policy_approvals_accounts")),
        sa.PrimaryKeyConstraint("account", "model", "sequence", name=op.f("pk_policy_approvals")),
    )
    op.create_table(
        "trading_states",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("set_by", sa.Text, nullable=False),
        sa.Column("at", TIME, nullable=False),
        _recorded_at(),
        sa.CheckConstraint("state IN ('ACTIVE', 'REDUCING', 'HALTED')", name=op.f("ck_trading_states_state_known")),
        sa.ForeignKeyConstraint(["account"], ["accounts.account"], name=op.f("fk_trading_states_accounts")),
        sa.PrimaryKeyConstraint("account", "sequence", name=op.f("pk_trading_states")),
    )
    op.create_table(
        "gate_results",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("frame", sa.Text, nullable=False),
        sa.Column("data_hash", sa.Text, nullable=False),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("results", JSONB, nullable=False),
        sa.Column("checked_at", TIME, nullable=False),
        _recorded_at(),
        sa.ForeignKeyConstraint(["account"], ["accounts.account"], name=op.f("fk_gate_results_accounts")),
        sa.PrimaryKeyConstraint("account", "session", "stage", "frame", "data_hash", name=op.f("pk_gate_results")),
    )
    op.create_table(
        "alerts",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("alert_id", sa.BigInteger, autoincrement=True, nullable=False),
        sa.Column("session", sa.Date),
        sa.Column("stage", sa.Text),
        sa.Column("symbol", sa.Text),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("detail", JSONB, nullable=False),
        sa.Column("at", TIME, nullable=False),
        _recorded_at(),
        sa.CheckConstraint("severity IN ('info', 'warning', 'critical')", name=op.f("ck_alerts_severity_known")),
        sa.PrimaryKeyConstraint("alert_id", name=op.f("pk_alerts")),
    )
    op.create_index("ix_alerts_session", "alerts", ["account", "session"])
    op.create_table(
        "alert_deliveries",
        sa.Column("alert_id", sa.BigInteger, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("delivered", sa.Boolean, nullable=False),
        sa.Column("error", sa.Text),
        _recorded_at(),
        sa.CheckConstraint("delivered OR error IS NOT NULL", name=op.f("ck_alert_deliveries_failure_has_error")),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.alert_id"], name=op.f("fk_alert_deliveries_alerts")),
        sa.PrimaryKeyConstraint("alert_id", "channel", "attempt", name=op.f("pk_alert_deliveries")),
    )
    op.execute(
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% on % refused: the table is append-only', TG_OP, TG_TABLE_NAME
                USING ERRCODE = 'integrity_constraint_violation';
        END
        $$
        """
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )


def downgrade() -> None:
    for table in (
        "alert_deliveries",
        "alerts",
        "gate_results",
        "trading_states",
        "policy_approvals",
        "expected_runs",
        "sessions",
        "strategies",
        "accounts",
    ):
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_change()")
