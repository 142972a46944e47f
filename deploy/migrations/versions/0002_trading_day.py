"""The trading day: from the screening over decisions, orders and fills to the closed books."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MONEY = sa.Numeric(20, 6)
PRICE = sa.Numeric(18, 6)
SHARES = sa.Numeric(20, 9)
TIME = sa.DateTime(timezone=True)
ORDER_STATES = (
    "('planned', 'reserved', 'sending', 'acked', 'rejected', 'unknown', 'partial', "
    "'filled', 'cancelling', 'canceled', 'expired', 'replaced', 'lapsed', 'quarantined')"
)

APPEND_ONLY = (
    "screenings",
    "watchlist",
    "decision_sets",
    "decisions",
    "control_verdicts",
    "order_events",
    "fills",
    "adjustments",
    "monitor_cycles",
    "closings",
)


def _recorded_at() -> sa.Column[object]:
    return sa.Column("recorded_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "screenings",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("screener", sa.Text, nullable=False),
        sa.Column("data_hash", sa.Text, nullable=False),
        sa.Column("last_bar", sa.Date, nullable=False),
        sa.Column("universe", sa.Integer, nullable=False),
        sa.Column("eligible", sa.Integer, nullable=False),
        sa.Column("screened_at", TIME, nullable=False),
        _recorded_at(),
        sa.CheckConstraint("last_bar < session", name=op.f("ck_screenings_no_lookahead")),
        sa.ForeignKeyConstraint(
            ["account", "session"], ["sessions.account", "sessions.session"], name=op.f("fk_screenings_sessions")
        ),
        sa.PrimaryKeyConstraint("account", "session", name=op.f("pk_screenings")),
    )
    op.create_table(
        "watchlist",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("buy_probability", sa.Double, nullable=False),
        sa.Column("sell_probability", sa.Double, nullable=False),
        sa.Column("last_close", PRICE, nullable=False),
        sa.Column("volume_20d", sa.BigInteger, nullable=False),
        sa.Column("features", JSONB, nullable=False),
        _recorded_at(),
        sa.CheckConstraint("buy_probability BETWEEN 0 AND 1", name=op.f("ck_watchlist_buy_probability_range")),
        sa.CheckConstraint("rank >= 1", name=op.f("ck_watchlist_rank_positive")),
        sa.CheckConstraint("sell_probability BETWEEN 0 AND 1", name=op.f("ck_watchlist_sell_probability_range")),
        sa.ForeignKeyConstraint(
            ["account", "session"], ["screenings.account", "screenings.session"], name=op.f("fk_watchlist_screenings")
        ),
        sa.PrimaryKeyConstraint("account", "session", "symbol", name=op.f("pk_watchlist")),
        sa.UniqueConstraint("account", "session", "rank", name=op.f("uq_watchlist_account")),
    )
    op.create_table(
        "decision_sets",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("strategy", sa.Text, nullable=False),
        sa.Column("strategy_version", sa.Integer, nullable=False),
        sa.Column("decider", sa.Text, nullable=False),
        sa.Column("policy_digest", sa.Text),
        sa.Column("input_hash", sa.Text, nullable=False),
        sa.Column("equity", MONEY, nullable=False),
        sa.Column("buying_power", MONEY, nullable=False),
        sa.Column("decided_at", TIME, nullable=False),
        _recorded_at(),
        sa.ForeignKeyConstraint(
            ["account", "session"],
            ["screenings.account", "screenings.session"],
            name=op.f("fk_decision_sets_screenings"),
        ),
        sa.ForeignKeyConstraint(
            ["account", "strategy", "strategy_version"],
            ["strategies.account", "strategies.strategy", "strategies.version"],
            name=op.f("fk_decision_sets_strategies"),
        ),
        sa.PrimaryKeyConstraint("account", "session", "strategy", name=op.f("pk_decision_sets")),
    )
    op.create_table(
        "decisions",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("strategy", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("decider", sa.Text, nullable=False),
        sa.Column("input_hash", sa.Text, nullable=False),
        sa.Column("buy_probability", sa.Double),
        sa.Column("sell_probability", sa.Double),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("quantity", SHARES, nullable=False),
        sa.Column("reference_price", PRICE),
        sa.Column("limit_price", PRICE),
        sa.Column("stop_price", PRICE),
        sa.Column("target_price", PRICE),
        _recorded_at(),
        sa.CheckConstraint(
            "action <> 'buy' OR (stop_price < reference_price AND reference_price < target_price)",
            name=op.f("ck_decisions_prices_in_order"),
        ),
        sa.CheckConstraint("action IN ('buy', 'sell', 'hold')", name=op.f("ck_decisions_action_known")),
        sa.CheckConstraint("quantity >= 0", name=op.f("ck_decisions_quantity_not_negative")),
        sa.ForeignKeyConstraint(
            ["account", "session", "strategy"],
            ["decision_sets.account", "decision_sets.session", "decision_sets.strategy"],
            name=op.f("fk_decisions_decision_sets"),
        ),
        sa.PrimaryKeyConstraint("account", "session", "strategy", "symbol", name=op.f("pk_decisions")),
    )
    op.create_table(
        "control_verdicts",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("client_order_id", sa.Text, nullable=False),
        sa.Column("control", sa.Text, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("allowed", sa.Boolean, nullable=False),
        sa.Column("limit", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        _recorded_at(),
        sa.ForeignKeyConstraint(["account"], ["accounts.account"], name=op.f("fk_control_verdicts_accounts")),
        sa.PrimaryKeyConstraint("account", "client_order_id", "control", name=op.f("pk_control_verdicts")),
    )
    op.create_index("ix_control_verdicts_session", "control_verdicts", ["account", "session", "symbol"])
    op.create_table(
        "orders",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("client_order_id", sa.Text, nullable=False),
        sa.Column("parent_client_order_id", sa.Text),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("strategy", sa.Text, nullable=False),
        sa.Column("strategy_version", sa.Integer, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("leg", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("side", sa.Text, nullable=False),
        sa.Column("order_type", sa.Text, nullable=False),
        sa.Column("order_class", sa.Text, nullable=False),
        sa.Column("time_in_force", sa.Text, nullable=False),
        sa.Column("quantity", SHARES, nullable=False),
        sa.Column("limit_price", PRICE),
        sa.Column("stop_price", PRICE),
        sa.Column("take_profit_price", PRICE),
        sa.Column("stop_loss_price", PRICE),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("broker_order_id", sa.Text),
        sa.Column("filled_quantity", SHARES, nullable=False),
        sa.Column("filled_avg_price", PRICE),
        sa.Column("attempt", sa.Integer, server_default="0", nullable=False),
        sa.Column("not_after", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("sent_at", TIME),
        sa.Column("updated_at", TIME, nullable=False),
        _recorded_at(),
        sa.CheckConstraint("leg IN ('entry', 'target', 'stop', 'protect', 'exit')", name=op.f("ck_orders_leg_known")),
        sa.CheckConstraint(
            "order_class IN ('simple', 'bracket', 'oco', 'oto')", name=op.f("ck_orders_order_class_known")
        ),
        sa.CheckConstraint(
            "order_type IN ('market', 'limit', 'stop', 'stop_limit', 'trailing_stop')",
            name=op.f("ck_orders_order_type_known"),
        ),
        sa.CheckConstraint("side IN ('buy', 'sell')", name=op.f("ck_orders_side_known")),
        sa.CheckConstraint(f"state IN {ORDER_STATES}", name=op.f("ck_orders_state_known")),
        sa.CheckConstraint("time_in_force IN ('day', 'gtc')", name=op.f("ck_orders_time_in_force_known")),
        sa.CheckConstraint("char_length(client_order_id) <= 48", name=op.f("ck_orders_client_order_id_length")),
        sa.CheckConstraint("filled_quantity BETWEEN 0 AND quantity", name=op.f("ck_orders_filled_within_quantity")),
        sa.CheckConstraint("generation >= 0", name=op.f("ck_orders_generation_not_negative")),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_orders_quantity_positive")),
        sa.ForeignKeyConstraint(
            ["account", "parent_client_order_id"], ["orders.account", "orders.client_order_id"], name="fk_orders_parent"
        ),
        sa.ForeignKeyConstraint(
            ["account", "session"], ["sessions.account", "sessions.session"], name=op.f("fk_orders_sessions")
        ),
        sa.ForeignKeyConstraint(
            ["account", "strategy", "strategy_version"],
            ["strategies.account", "strategies.strategy", "strategies.version"],
            name=op.f("fk_orders_strategies"),
        ),
        sa.PrimaryKeyConstraint("account", "client_order_id", name=op.f("pk_orders")),
        sa.UniqueConstraint("account", "broker_order_id", name="uq_orders_broker_order_id"),
        sa.UniqueConstraint("account", "strategy", "session", "symbol", "leg", "generation", name="uq_orders_intent"),
    )
    op.create_index("ix_orders_state", "orders", ["account", "state"])
    op.create_table(
        "order_events",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("client_order_id", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("detail", JSONB, nullable=False),
        sa.Column("at", TIME, nullable=False),
        _recorded_at(),
        sa.CheckConstraint(f"state IN {ORDER_STATES}", name=op.f("ck_order_events_state_known")),
        sa.ForeignKeyConstraint(
            ["account", "client_order_id"],
            ["orders.account", "orders.client_order_id"],
            name=op.f("fk_order_events_orders"),
        ),
        sa.PrimaryKeyConstraint("account", "client_order_id", "sequence", name=op.f("pk_order_events")),
    )
    op.create_table(
        "fills",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("activity_id", sa.Text, nullable=False),
        sa.Column("client_order_id", sa.Text, nullable=False),
        sa.Column("broker_order_id", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("side", sa.Text, nullable=False),
        sa.Column("quantity", SHARES, nullable=False),
        sa.Column("price", PRICE, nullable=False),
        sa.Column("filled_at", TIME, nullable=False),
        _recorded_at(),
        sa.CheckConstraint("side IN ('buy', 'sell')", name=op.f("ck_fills_side_known")),
        sa.CheckConstraint("quantity > 0 AND price > 0", name=op.f("ck_fills_amounts_positive")),
        sa.ForeignKeyConstraint(
            ["account", "client_order_id"], ["orders.account", "orders.client_order_id"], name=op.f("fk_fills_orders")
        ),
        sa.PrimaryKeyConstraint("account", "activity_id", name=op.f("pk_fills")),
    )
    op.create_index("ix_fills_order", "fills", ["account", "client_order_id"])
    op.create_table(
        "adjustments",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("activity_id", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("quantity_change", SHARES, nullable=False),
        sa.Column("ratio", sa.Numeric(precision=18, scale=9), nullable=False),
        sa.Column("cash", MONEY, nullable=False),
        _recorded_at(),
        sa.CheckConstraint("ratio > 0", name=op.f("ck_adjustments_ratio_positive")),
        sa.ForeignKeyConstraint(["account"], ["accounts.account"], name=op.f("fk_adjustments_accounts")),
        sa.PrimaryKeyConstraint("account", "activity_id", name=op.f("pk_adjustments")),
    )
    op.create_table(
        "trades",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("strategy", sa.Text, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("strategy_version", sa.Integer, nullable=False),
        sa.Column("entry_client_order_id", sa.Text, nullable=False),
        sa.Column("quantity", SHARES, nullable=False),
        sa.Column("entry_price", PRICE, nullable=False),
        sa.Column("entered_at", TIME, nullable=False),
        sa.Column("stop_price", PRICE, nullable=False),
        sa.Column("target_price", PRICE, nullable=False),
        sa.Column("high_water_price", PRICE, nullable=False),
        sa.Column("hold_until", sa.Date, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("quantity_closed", SHARES, nullable=False),
        sa.Column("exit_price", PRICE),
        sa.Column("exited_at", TIME),
        sa.Column("close_reason", sa.Text),
        sa.Column("profit", MONEY),
        sa.Column("updated_at", TIME, nullable=False),
        _recorded_at(),
        sa.CheckConstraint(
            "(status = 'open') = (close_reason IS NULL) AND (status = 'open') = (exited_at IS NULL)",
            name=op.f("ck_trades_closed_has_reason"),
        ),
        sa.CheckConstraint("status IN ('open', 'closed')", name=op.f("ck_trades_status_known")),
        sa.CheckConstraint("quantity > 0 AND entry_price > 0", name=op.f("ck_trades_entry_positive")),
        sa.CheckConstraint("quantity_closed BETWEEN 0 AND quantity", name=op.f("ck_trades_closed_within_quantity")),
        sa.ForeignKeyConstraint(
            ["account", "entry_client_order_id"],
            ["orders.account", "orders.client_order_id"],
            name=op.f("fk_trades_orders"),
        ),
        sa.ForeignKeyConstraint(
            ["account", "session", "strategy", "symbol"],
            ["decisions.account", "decisions.session", "decisions.strategy", "decisions.symbol"],
            name=op.f("fk_trades_decisions"),
        ),
        sa.ForeignKeyConstraint(
            ["account", "strategy", "strategy_version"],
            ["strategies.account", "strategies.strategy", "strategies.version"],
            name=op.f("fk_trades_strategies"),
        ),
        sa.PrimaryKeyConstraint("account", "strategy", "session", "symbol", name=op.f("pk_trades")),
        sa.UniqueConstraint("account", "entry_client_order_id", name=op.f("uq_trades_account")),
    )
    op.create_index(
        "uq_trades_open_symbol",
        "trades",
        ["account", "strategy", "symbol"],
        unique=True,
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_table(
        "monitor_cycles",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("cycle_at", TIME, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("positions_expected", sa.Integer),
        sa.Column("positions_evaluated", sa.Integer, nullable=False),
        sa.Column("position_hash", sa.Text),
        sa.Column("quote_age_max_s", sa.Double),
        sa.Column("stops_verified", sa.Integer, nullable=False),
        sa.Column("exits", JSONB, nullable=False),
        sa.Column("errors", JSONB, nullable=False),
        sa.Column("next_due_at", TIME, nullable=False),
        _recorded_at(),
        sa.CheckConstraint(
            "verdict <> 'OK' OR (positions_expected IS NOT NULL AND positions_evaluated = positions_expected)",
            name=op.f("ck_monitor_cycles_ok_needs_evidence"),
        ),
        sa.CheckConstraint("verdict IN ('OK', 'RED')", name=op.f("ck_monitor_cycles_verdict_known")),
        sa.ForeignKeyConstraint(
            ["account", "session"], ["sessions.account", "sessions.session"], name=op.f("fk_monitor_cycles_sessions")
        ),
        sa.PrimaryKeyConstraint("account", "cycle_at", name=op.f("pk_monitor_cycles")),
    )
    op.create_index("ix_monitor_cycles_session", "monitor_cycles", ["account", "session", "cycle_at"])
    op.create_table(
        "closings",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("equity_before", MONEY, nullable=False),
        sa.Column("equity", MONEY, nullable=False),
        sa.Column("cash", MONEY, nullable=False),
        sa.Column("long_market_value", MONEY, nullable=False),
        sa.Column("positions", JSONB, nullable=False),
        sa.Column("differences", JSONB, nullable=False),
        sa.Column("report", sa.Text),
        sa.Column("closed_at", TIME, nullable=False),
        _recorded_at(),
        sa.ForeignKeyConstraint(
            ["account", "session"], ["sessions.account", "sessions.session"], name=op.f("fk_closings_sessions")
        ),
        sa.PrimaryKeyConstraint("account", "session", name=op.f("pk_closings")),
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )


def downgrade() -> None:
    for table in (
        "closings",
        "monitor_cycles",
        "trades",
        "adjustments",
        "fills",
        "order_events",
        "orders",
        "control_verdicts",
        "decisions",
        "decision_sets",
        "watchlist",
        "screenings",
    ):
        op.drop_table(table)
