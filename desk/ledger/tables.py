"""The ledger's tables. One dialect: PostgreSQL.

Money and shares are NUMERIC, times are timestamptz, keys are natural. Append-only tables refuse UPDATE and
DELETE by trigger (see deploy/migrations). Every key carries the account.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from desk.orders import Leg, OrderClass, OrderState, OrderType, Side, TimeInForce

__all__ = ["APPEND_ONLY", "metadata"]

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


def _money(name: str, *, nullable: bool = False) -> Column[Decimal]:
    return Column(name, Numeric(20, 6), nullable=nullable)


def _price(name: str, *, nullable: bool = False) -> Column[Decimal]:
    return Column(name, Numeric(18, 6), nullable=nullable)


def _shares(name: str, *, nullable: bool = False) -> Column[Decimal]:
    return Column(name, Numeric(20, 9), nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> Column[datetime]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _recorded_at() -> Column[datetime]:
    """When the database wrote the row, by the database server's clock."""
    return Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())


def _one_of(column: str, values: object, name: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)  # type: ignore[attr-defined]  # any iterable of names
    return CheckConstraint(f"{column} IN ({listed})", name=name)


accounts = Table(
    "accounts",
    metadata,
    Column("account", Text, primary_key=True),
    Column("broker", Text, nullable=False),
    Column("venue", Text, nullable=False),  # "simulated: synthetic, seed 7"
    _recorded_at(),
    _one_of("broker", ("simulated", "paper", "live"), "broker_known"),
)

strategies = Table(  # the newest version holds; going back to earlier numbers is a new version with the same digest
    "strategies",
    metadata,
    Column("account", Text, ForeignKey("accounts.account"), primary_key=True),
    Column("strategy", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("document", JSONB, nullable=False),
    Column("applied_by", Text, nullable=False),
    _recorded_at(),
    CheckConstraint("version >= 1", name="version_positive"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("account", Text, ForeignKey("accounts.account"), primary_key=True),
    Column("session", Date, primary_key=True),
    _time("opens_at"),
    _time("closes_at"),
    _recorded_at(),
    CheckConstraint("closes_at > opens_at", name="closes_after_open"),
)

STAGES = ("premarket-screening", "preflight", "trading", "position-monitor", "close-of-day")
RUN_STATES = ("expected", "running", "ran", "skipped", "failed", "missed")

expected_runs = Table(
    "expected_runs",
    metadata,
    Column("account", Text, ForeignKey("accounts.account"), primary_key=True),
    Column("session", Date, primary_key=True),  # a calendar day without a session may be skipped too
    Column("stage", Text, primary_key=True),
    _time("due_at"),
    _time("cutoff_at"),  # later than this a start is a miss
    Column("state", Text, nullable=False, server_default="expected"),
    Column("reason", Text),  # why skipped, failed or missed
    Column("attempts", Integer, nullable=False, server_default="0"),
    _time("started_at", nullable=True),  # broker's clock
    _time("ended_at", nullable=True),
    Column("flow_run", Text),  # Prefect flow run id, when there is one
    Column("evidence", JSONB),  # what the stage did, in numbers
    _time("updated_at"),
    _one_of("stage", STAGES, "stage_known"),
    _one_of("state", RUN_STATES, "state_known"),
    CheckConstraint("state NOT IN ('skipped', 'failed', 'missed') OR reason IS NOT NULL", name="reason_given"),
    CheckConstraint("cutoff_at >= due_at", name="cutoff_after_due"),
)

screenings = Table(
    "screenings",
    metadata,
    Column("account", Text, primary_key=True),
    Column("session", Date, primary_key=True),
    Column("screener", Text, nullable=False),  # "momentum-reversion/1", later "onepath-screener/3"
    Column("data_hash", Text, nullable=False),  # sha256 of the panel that was scored
    Column("last_bar", Date, nullable=False),  # newest session in the panel
    Column("universe", Integer, nullable=False),  # symbols with bars
    Column("eligible", Integer, nullable=False),  # symbols that passed the universe filters
    _time("screened_at"),
    _recorded_at(),
    ForeignKeyConstraint(["account", "session"], ["sessions.account", "sessions.session"]),
    CheckConstraint("last_bar < session", name="no_lookahead"),
)

watchlist = Table(
    "watchlist",
    metadata,
    Column("account", Text, primary_key=True),
    Column("session", Date, primary_key=True),
    Column("symbol", Text, primary_key=True),
    Column("rank", Integer, nullable=False),
    Column("buy_probability", Double, nullable=False),
    Column("sell_probability", Double, nullable=False),
    _price("last_close"),
    Column("volume_20d", BigInteger, nullable=False),  # mean daily shares
    Column("features", JSONB, nullable=False),  # what the scores were made of
    _recorded_at(),
    ForeignKeyConstraint(["account", "session"], ["screenings.account", "screenings.session"]),
    UniqueConstraint("account", "session", "rank"),
    CheckConstraint("rank >= 1", name="rank_positive"),
    CheckConstraint("buy_probability BETWEEN 0 AND 1", name="buy_probability_range"),
    CheckConstraint("sell_probability BETWEEN 0 AND 1", name="sell_probability_range"),
)

policy_approvals = Table(  # promotion writes here; the newest row is the champion
    "policy_approvals",
    metadata,
    Column("account", Text, ForeignKey("accounts.account"), primary_key=True),
    Column("model", Text, primary_key=True),  # "onepath-policy" or "onepath-screener"
    Column("sequence", Integer, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("digest", Text, nullable=False),  # sha256 of the ONNX file
    Column("approved_by", Text, nullable=False),
    _recorded_at(),
)

decision_sets = Table(  # one per session and strategy: also proves "decided nothing"
    "decision_sets",
    metadata,
    Column("account", Text, primary_key=True),
    Column("session", Date, primary_key=True),
    Column("strategy", Text, primary_key=True),
    Column("strategy_version", Integer, nullable=False),
    Column("decider", Text, nullable=False),  # "policy onepath-policy/7" or "fallback: no champion"
    Column("policy_digest", Text),
    Column("input_hash", Text, nullable=False),
    _money("equity"),
    _money("buying_power"),
    _time("decided_at"),
    _recorded_at(),
    Column("gate_hash", Text),  # data_hash of the gate's result that let these decisions pass
    ForeignKeyConstraint(["account", "session"], ["screenings.account", "screenings.session"]),
    ForeignKeyConstraint(
        ["account", "strategy", "strategy_version"],
        ["strategies.account", "strategies.strategy", "strategies.version"],
    ),
)

decisions = Table(
    "decisions",
    metadata,
    Column("account", Text, primary_key=True),
    Column("session", Date, primary_key=True),
    Column("strategy", Text, primary_key=True),
    Column("symbol", Text, primary_key=True),
    Column("action", Text, nullable=False),
    Column("decider", Text, nullable=False),
    Column("input_hash", Text, nullable=False),
    Column("buy_probability", Double, nullable=True),  # a held symbol may be unscored today
    Column("sell_probability", Double, nullable=True),
    Column("reason", Text, nullable=False),
    _shares("quantity"),  # 0 for hold
    _price("reference_price", nullable=True),  # mid used for sizing
    _price("limit_price", nullable=True),
    _price("stop_price", nullable=True),
    _price("target_price", nullable=True),
    _recorded_at(),
    ForeignKeyConstraint(
        ["account", "session", "strategy"],
        ["decision_sets.account", "decision_sets.session", "decision_sets.strategy"],
    ),
    _one_of("action", ("buy", "sell", "hold"), "action_known"),
    CheckConstraint("quantity >= 0", name="quantity_not_negative"),
    CheckConstraint(
        "action <> 'buy' OR (stop_price < reference_price AND reference_price < target_price)",
        name="prices_in_order",
    ),
)

control_verdicts = Table(
    "control_verdicts",
    metadata,
    Column("account", Text, ForeignKey("accounts.account"), primary_key=True),
    Column("client_order_id", Text, primary_key=True),  # the order that was, or would have been, sent
    Column("control", Text, primary_key=True),
    Column("session", Date, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("allowed", Boolean, nullable=False),
    Column("limit", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("reason", Text, nullable=False),
    _recorded_at(),
    Index("ix_control_verdicts_session", "account", "session", "symbol"),
)

orders = Table(
    "orders",
    metadata,
    Column("account", Text, primary_key=True),
    Column("client_order_id", Text, primary_key=True),
    Column("parent_client_order_id", Text),  # legs the broker made under our bracket or OCO
    Column("session", Date, nullable=False),  # session of the decision that opened the trade
    Column("strategy", Text, nullable=False),
    Column("strategy_version", Integer, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("leg", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("side", Text, nullable=False),
    Column("order_type", Text, nullable=False),
    Column("order_class", Text, nullable=False),
    Column("time_in_force", Text, nullable=False),
    _shares("quantity"),
    _price("limit_price", nullable=True),
    _price("stop_price", nullable=True),
    _price("take_profit_price", nullable=True),
    _price("stop_loss_price", nullable=True),
    Column("reason", Text, nullable=False),  # why this order: "entry", "stop-loss", "holding time", ...
    Column("state", Text, nullable=False),
    Column("broker_order_id", Text),
    _shares("filled_quantity"),
    _price("filled_avg_price", nullable=True),
    Column("attempt", Integer, nullable=False, server_default="0"),
    _time("not_after"),  # no (re)sending later than this
    _time("created_at"),  # broker's clock, like all times here but recorded_at
    _time("sent_at", nullable=True),
    _time("updated_at"),
    _recorded_at(),
    ForeignKeyConstraint(
        ["account", "strategy", "strategy_version"],
        ["strategies.account", "strategies.strategy", "strategies.version"],
    ),
    ForeignKeyConstraint(["account", "session"], ["sessions.account", "sessions.session"]),
    ForeignKeyConstraint(
        ["account", "parent_client_order_id"],
        ["orders.account", "orders.client_order_id"],
        name="fk_orders_parent",
    ),
    UniqueConstraint("account", "strategy", "session", "symbol", "leg", "generation", name="uq_orders_intent"),
    UniqueConstraint("account", "broker_order_id", name="uq_orders_broker_order_id"),
    CheckConstraint("char_length(client_order_id) <= 48", name="client_order_id_length"),
    CheckConstraint("quantity > 0", name="quantity_positive"),
    CheckConstraint("filled_quantity BETWEEN 0 AND quantity", name="filled_within_quantity"),
    CheckConstraint("generation >= 0", name="generation_not_negative"),
    _one_of("leg", Leg, "leg_known"),
    _one_of("side", Side, "side_known"),
    _one_of("order_type", OrderType, "order_type_known"),
    _one_of("order_class", OrderClass, "order_class_known"),
    _one_of("time_in_force", TimeInForce, "time_in_force_known"),
    _one_of("state", OrderState, "state_known"),
    Index("ix_orders_state", "account", "state"),
    Index("ix_orders_sent", "account", "sent_at"),
)

order_events = Table(
    "order_events",
    metadata,
    Column("account", Text, primary_key=True),
    Column("client_order_id", Text, primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("state", Text, nullable=False),  # the state entered
    Column("detail", JSONB, nullable=False),
    _time("at"),
    _recorded_at(),
    ForeignKeyConstraint(["account", "client_order_id"], ["orders.account", "orders.client_order_id"]),
    _one_of("state", OrderState, "state_known"),
)

fills = Table(
    "fills",
    metadata,
    Column("account", Text, primary_key=True),
    Column("activity_id", Text, primary_key=True),
    Column("client_order_id", Text, nullable=False),
    Column("broker_order_id", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("side", Text, nullable=False),
    _shares("quantity"),
    _price("price"),
    _time("filled_at"),
    _recorded_at(),
    ForeignKeyConstraint(["account", "client_order_id"], ["orders.account", "orders.client_order_id"]),
    CheckConstraint("quantity > 0 AND price > 0", name="amounts_positive"),
    _one_of("side", Side, "side_known"),
    Index("ix_fills_order", "account", "client_order_id"),
    Index("ix_fills_filled", "account", "filled_at"),
)

adjustments = Table(
    "adjustments",
    metadata,
    Column("account", Text, ForeignKey("accounts.account"), primary_key=True),
    Column("activity_id", Text, primary_key=True),
    Column("symbol", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("day", Date, nullable=False),
    _shares("quantity_change"),
    Column("ratio", Numeric(18, 9), nullable=False),
    _money("cash"),
    _recorded_at(),
    CheckConstraint("ratio > 0", name="ratio_positive"),
)

trades = Table(  # one per entry to exit
    "trades",
    metadata,
    Column("account", Text, primary_key=True),
    Column("strategy", Text, primary_key=True),
    Column("session", Date, primary_key=True),  # of the entry decision
    Column("symbol", Text, primary_key=True),
    Column("strategy_version", Integer, nullable=False),
    Column("entry_client_order_id", Text, nullable=False),
    _shares("quantity"),  # bought, split-adjusted
    _price("entry_price"),  # average, split-adjusted
    _time("entered_at"),
    _price("stop_price"),
    _price("target_price"),
    _price("high_water_price"),  # highest bid seen since entry, for the trailing stop
    Column("hold_until", Date, nullable=False),  # closed in this session at the latest
    Column("status", Text, nullable=False),
    _shares("quantity_closed"),
    _price("exit_price", nullable=True),  # average
    _time("exited_at", nullable=True),
    Column("close_reason", Text),
    _money("profit", nullable=True),  # USD, realised
    _time("updated_at"),
    _recorded_at(),
    ForeignKeyConstraint(
        ["account", "session", "strategy", "symbol"],
        ["decisions.account", "decisions.session", "decisions.strategy", "decisions.symbol"],
    ),
    ForeignKeyConstraint(["account", "entry_client_order_id"], ["orders.account", "orders.client_order_id"]),
    ForeignKeyConstraint(
        ["account", "strategy", "strategy_version"],
        ["strategies.account", "strategies.strategy", "strategies.version"],
    ),
    UniqueConstraint("account", "entry_client_order_id"),
    CheckConstraint("quantity > 0 AND entry_price > 0", name="entry_positive"),
    CheckConstraint("quantity_closed BETWEEN 0 AND quantity", name="closed_within_quantity"),
    CheckConstraint(
        "(status = 'open') = (close_reason IS NULL) AND (status = 'open') = (exited_at IS NULL)",
        name="closed_has_reason",
    ),
    _one_of("status", ("open", "closed"), "status_known"),
    Index(
        "uq_trades_open_symbol",
        "account",
        "strategy",
        "symbol",
        unique=True,
        postgresql_where=text("status = 'open'"),
    ),
)

monitor_cycles = Table(
    "monitor_cycles",
    metadata,
    Column("account", Text, primary_key=True),
    Column("cycle_at", DateTime(timezone=True), primary_key=True),  # broker's clock
    Column("session", Date, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("positions_expected", Integer),  # by the broker; null: could not be read
    Column("positions_evaluated", Integer, nullable=False),
    Column("position_hash", Text),
    Column("quote_age_max_s", Double),
    Column("stops_verified", Integer, nullable=False),
    Column("exits", JSONB, nullable=False),  # [{symbol, reason}]
    Column("errors", JSONB, nullable=False),  # [text]
    _time("next_due_at"),
    _recorded_at(),
    ForeignKeyConstraint(["account", "session"], ["sessions.account", "sessions.session"]),
    _one_of("verdict", ("OK", "RED"), "verdict_known"),
    CheckConstraint(
        "verdict <> 'OK' OR (positions_expected IS NOT NULL AND positions_evaluated = positions_expected)",
        name="ok_needs_evidence",
    ),
    Index("ix_monitor_cycles_session", "account", "session", "cycle_at"),
)

closings = Table(  # the books of a session, closed
    "closings",
    metadata,
    Column("account", Text, primary_key=True),
    Column("session", Date, primary_key=True),
    _money("equity_before"),  # at the previous close
    _money("equity"),
    _money("cash"),
    _money("long_market_value"),
    Column("positions", JSONB, nullable=False),  # [{symbol, quantity, price, value, entry_price}]
    Column("differences", JSONB, nullable=False),  # what reconcile could not explain; [] when all is proven
    Column("report", Text),  # path of the HTML report
    _time("closed_at"),
    _recorded_at(),
    ForeignKeyConstraint(["account", "session"], ["sessions.account", "sessions.session"]),
)

SEVERITIES = ("info", "warning", "critical")

alerts = Table(  # outbox: written in the same transaction as the fact
    "alerts",
    metadata,
    Column("account", Text, nullable=False),  # no foreign key: an alert may be why no account was opened
    Column("alert_id", BigInteger, primary_key=True, autoincrement=True),
    Column("session", Date),
    Column("stage", Text),
    Column("symbol", Text),
    Column("severity", Text, nullable=False),
    Column("kind", Text, nullable=False),  # "stage.failed", "quote.unusable", ...
    Column("message", Text, nullable=False),  # what happened, and to what
    Column("detail", JSONB, nullable=False),
    _time("at"),
    _recorded_at(),
    _one_of("severity", SEVERITIES, "severity_known"),
    Index("ix_alerts_session", "account", "session"),
    Index("ix_alerts_recorded", "recorded_at"),
)

alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("alert_id", BigInteger, ForeignKey("alerts.alert_id"), primary_key=True),
    Column("channel", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("delivered", Boolean, nullable=False),
    Column("error", Text),
    Column("together", Integer, nullable=False, server_default="1"),  # how many alerts the one message spoke of
    Column("tried_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    _recorded_at(),
    CheckConstraint("delivered OR error IS NOT NULL", name="failure_has_error"),
    CheckConstraint("together >= 1", name="together_positive"),
    Index("ix_alert_deliveries_channel", "channel", "delivered", "tried_at"),
)

alert_acknowledgements = Table(  # someone has seen it and looks after it
    "alert_acknowledgements",
    metadata,
    Column("alert_id", BigInteger, ForeignKey("alerts.alert_id"), primary_key=True),
    Column("acknowledged_by", Text, nullable=False),
    _recorded_at(),
    CheckConstraint("acknowledged_by <> ''", name="acknowledged_by_named"),
)

external_orders = Table(  # at the broker, and sent by nobody here
    "external_orders",
    metadata,
    Column("account", Text, ForeignKey("accounts.account"), primary_key=True),
    Column("broker_order_id", Text, primary_key=True),
    Column("client_order_id", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("side", Text, nullable=False),
    Column("order_type", Text, nullable=False),
    _shares("quantity"),
    _time("submitted_at"),
    _time("seen_at"),
    Column("alert_id", BigInteger, ForeignKey("alerts.alert_id"), nullable=False),  # acknowledged: entries may go on
    _recorded_at(),
    _one_of("side", Side, "side_known"),
    Index("ix_external_orders_symbol", "account", "symbol"),
)

gate_results = Table(
    "gate_results",
    metadata,
    Column("account", Text, ForeignKey("accounts.account"), primary_key=True),
    Column("session", Date, primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("frame", Text, primary_key=True),  # "bars", "watchlist", "decisions"
    Column("data_hash", Text, primary_key=True),
    Column("passed", Boolean, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("results", JSONB, nullable=False),  # [{expectation, column, bound, observed, passed, severity, examples}]
    _time("checked_at"),
    _recorded_at(),
)

trading_states = Table(  # the newest row holds
    "trading_states",
    metadata,
    Column("account", Text, ForeignKey("accounts.account"), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("set_by", Text, nullable=False),
    _time("at"),
    _recorded_at(),
    _one_of("state", ("ACTIVE", "REDUCING", "HALTED"), "state_known"),
)

equity_anchors = Table(  # what losses are measured from; the newest row holds
    "equity_anchors",
    metadata,
    Column("account", Text, ForeignKey("accounts.account"), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("session", Date, nullable=False),
    _money("opening_equity"),
    _money("high_water_equity"),  # the highest a day opened with, since somebody last resumed trading
    Column("reason", Text, nullable=False),  # "the day opens", or who resumed
    _time("at"),
    _recorded_at(),
    CheckConstraint("opening_equity > 0 AND high_water_equity >= opening_equity", name="equity_ordered"),
)

APPEND_ONLY = (
    "strategies",
    "screenings",
    "watchlist",
    "policy_approvals",
    "decision_sets",
    "decisions",
    "control_verdicts",
    "order_events",
    "fills",
    "adjustments",
    "monitor_cycles",
    "closings",
    "alerts",
    "alert_deliveries",
    "alert_acknowledgements",
    "gate_results",
    "trading_states",
    "equity_anchors",
    "external_orders",
)
