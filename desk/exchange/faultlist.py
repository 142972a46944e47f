"""Every fault by name: where it strikes and what can be set about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["FAULTS", "FaultKind", "Setting"]

Place = Literal["wire", "answer", "floor", "update", "stream", "world"]


@dataclass(frozen=True, slots=True)
class Setting:
    """A number with bounds, or one of some choices. `default` None: no end, no limit."""

    default: Any
    least: float = 0.0
    most: float = 1e9
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class FaultKind:
    """`place` is who asks for it: the gateway (wire, answer), the trading floor, the journal that sends trade
    updates, the streams' connections, or the world around the market. `operations`: requests that count as its calls
    unless others are named; empty: all."""

    name: str
    place: Place
    says: str
    operations: tuple[str, ...] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict)


_LENGTH = Setting(3, least=1)
_LAG = Setting(10.0)
_FOR = Setting(None)
_FRACTION = Setting(0.5, most=1.0)
_ORDERS = ("orders", "one_order", "by_client_order_id")
_QUOTES = ("latest_quotes", "snapshots")
_PAGED = ("bars", "quotes", "trades", "corporate_actions")

FAULTS: Mapping[str, FaultKind] = {
    kind.name: kind
    for kind in (
        FaultKind("lost_request", "wire", "hangs, unprocessed", (), {"hang_s": Setting(30.0)}),
        FaultKind("lost_response", "wire", "processed, then the connection is reset"),
        FaultKind("ambiguous_504", "wire", "processed, then answered 504"),
        FaultKind("latency", "wire", "answered late", (), {"seconds": Setting(1.0)}),
        FaultKind("burst_5xx", "wire", "so many calls fail unprocessed", (), {
            "status": Setting(503, choices=(500, 502, 503, 504)), "length": _LENGTH}),
        FaultKind("burst_429", "wire", "so many calls are throttled", (), {
            "headers": Setting(True, choices=(True, False)), "length": _LENGTH}),
        FaultKind("garbage_body", "wire", "processed, the body is no answer", (), {
            "body": Setting("html", choices=("html", "truncated", "empty", "redirect"))}),
        FaultKind("schema_drift", "wire", "processed, an unknown enum or a null in the answer", (), {
            "change": Setting("enum", choices=("enum", "null"))}),
        FaultKind("auth_revoked", "wire", "401, unprocessed"),
        FaultKind("process_kill", "wire", "the caller dies before the request or after it was processed: in process "
                  "ProcessKilled is raised, over HTTP the connection is cut", (), {
                      "moment": Setting("after", choices=("before", "after"))}),
        FaultKind("position_lag", "answer", "positions without the fills of the last seconds",
                  ("positions", "one_position"), {"lag_s": _LAG}),
        FaultKind("order_lag", "answer", "orders as some seconds ago; a new one is not found",
                  _ORDERS, {"lag_s": _LAG}),
        FaultKind("bp_lag", "answer", "cash and buying power as some seconds ago", ("account",), {"lag_s": _LAG}),
        FaultKind("stale_quote", "answer", "quotes with an old time", _QUOTES, {"age_s": Setting(60.0)}),
        FaultKind("zero_quote", "answer", "quotes without a side", _QUOTES, {
            "side": Setting("both", choices=("bid", "ask", "both"))}),
        FaultKind("clock_skew", "answer", "the clock is wrong", ("clock",), {"skew_s": Setting(30.0, least=-86_400)}),
        FaultKind("late_bar", "answer", "the latest bar of each symbol is not there yet", ("bars",)),
        FaultKind("bar_correction", "answer", "the latest close is wrong; the next reading has it right", ("bars",), {
            "percent": Setting(5.0, least=-99.0)}),
        FaultKind("missing_bars", "answer", "some bars are missing", ("bars",), {"fraction": _FRACTION}),
        FaultKind("page_cut", "answer", "the page claims to be the last", _PAGED),
        FaultKind("async_reject", "floor", "accepted with 200, then rejected", ("route",)),
        FaultKind("stuck_pending", "floor", "never leaves its first status", ("route",), {"for_s": _FOR}),
        FaultKind("partial_stall", "floor", "part-filled, and no more", ("fill",), {"fraction": _FRACTION,
                  "for_s": _FOR}),
        FaultKind("cancel_fill_race", "floor", "the fill wins over the cancel", ("cancel",)),
        FaultKind("cancel_stuck", "floor", "stays pending_cancel", ("cancel",), {"for_s": _FOR}),
        FaultKind("replace_race", "floor", "the fill wins over the replacement", ("replace",)),
        FaultKind("entry_partial_cancel", "floor", "a bracket's entry is part-filled and cancelled", ("fill",), {
            "fraction": _FRACTION}),
        FaultKind("leg_loss", "floor", "exits are gone when the entry is filled", ("activate",), {
            "leg": Setting("stop", choices=("stop", "target", "both"))}),
        FaultKind("leg_double_fill", "floor", "both exits fill", ("exit",)),
        FaultKind("leg_silent_cancel", "floor", "exits are cancelled and no event says so", ("activate",), {
            "after_s": Setting(60.0)}),
        FaultKind("untradable", "floor", "orders are refused: the asset is not tradable", ("admit",)),
        FaultKind("pdt_legacy", "floor", "buys are refused as pattern day trades were until 2026", ("admit",)),
        FaultKind("update_first", "wire", "the stream tells of the order before the request is answered",
                  ("submit",), {"seconds": Setting(0.2)}),
        FaultKind("drop", "update", "a message is lost"),
        FaultKind("duplicate", "update", "a message comes twice"),
        FaultKind("reorder", "update", "a message comes after the next one"),
        FaultKind("disconnect", "update", "the connections are closed; the message is lost"),
        FaultKind("mute", "update", "connected, but nothing is said any more", (), {"for_s": _FOR}),
        FaultKind("auth_hang", "stream", "no answer to the authentication"),
        FaultKind("auth_reject", "stream", "right keys are refused"),
        FaultKind("conn_limit", "stream", "one connection too many"),
        FaultKind("slow_client", "stream", "the client is told it is too slow, and dropped", ("market_data",)),
        FaultKind("halt", "world", "trading in the symbol stops", (), {"for_s": _FOR}),
        FaultKind("gap", "world", "the symbol's price leaps, for good", (), {"percent": Setting(-20.0, least=-99.0)}),
        FaultKind("early_close", "world", "the session closes in so many seconds", (), {"in_s": Setting(0.0)}),
        FaultKind("split", "world", "a split before the next open", (), {"ratio": Setting(2.0, least=0.001)}),
        FaultKind("dividend", "world", "a dividend before the next open", (), {"usd": Setting(0.5, least=0.01)}),
        FaultKind("foreign_order", "world", "an order nobody here sent", (), {
            "side": Setting("buy", choices=("buy", "sell")), "qty": Setting(1.0, least=1.0),
            "limit_price": Setting(None, least=0.01)}),
        FaultKind("forced_liquidation", "world", "the broker cancels the symbol's orders and closes its position"),
    )
}  # fmt: skip
