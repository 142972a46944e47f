"""What Alpaca leaves open, or does differently from day to day, as choices of the simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ExchangeOptions"]


@dataclass(frozen=True, slots=True)
class ExchangeOptions:
    """The defaults are the plainest behaviour seen: at once, whole, and the same every time."""

    submitted_status: Literal["pending_new", "accepted"] = "pending_new"
    """What POST answers in session. With the market closed it is always "accepted"."""

    fill_on_submit_latency_s: float = 0.0
    """Virtual seconds from POST to `new` and the first match. 0: right after the answer was built, so a later
    GET shows the fill although the clock stands still."""

    cancel_latency_s: float = 0.0
    """Virtual seconds an order stays `pending_cancel`; a fill may win meanwhile. 0: cancelled at once."""

    partial_fill_probability: float = 0.0
    """Chance that a fill of two or more shares takes only a part; the rest waits for the next tick."""

    seed: int = 0
    """Seeds the partial fills."""

    override_holds: Literal["until_next_tick", "until_replaced"] = "until_next_tick"
    """How long a price set through /admin/market is the market. `until_replaced`: the market's own ticks of that
    symbol count for nothing until the exchange is reset."""

    split_open_orders: Literal["adjust", "cancel"] = "adjust"
    """On a split, open orders of the symbol get quantities multiplied (rounded down to whole shares) and prices
    divided by the ratio (rounded to the tick), or are cancelled."""

    bracket_base_includes_market: bool = False
    """Whether a bracket's exit prices are also checked against the current price when its entry is a limit."""

    day_order_ends: Literal["expired", "canceled"] = "expired"
    """The status of what remains of a day order after its last moment."""

    repeated_cancel: Literal["accept", "refuse"] = "refuse"
    """Cancelling an order that is already cancelled: 204 again, or 422 as for every ended order. Both were seen."""

    stop_trigger_ends_target: Literal["canceled", "replaced"] = "canceled"
    """What the take-profit of a pair becomes when its stop is triggered. Both were seen."""

    sibling_cancel_event: bool = True
    """Whether the stream tells of the stop that goes when the target fills. Alpaca was seen not to."""

    submitted_at_when_routed: bool = False
    """Whether `submitted_at` of an order queued overnight is rewritten when the session opens."""

    replace_latency_s: float = 0.0
    """Virtual seconds an order stays `pending_replace`; a fill may win meanwhile. 0: replaced at once."""

    replace_keeps_fills: bool = True
    """A replaced order that was partly filled: the new order starts with that filled quantity and its average price,
    or as a fresh order for the rest."""

    small_notional: Literal["rule", "malformed", "cost_basis"] = "rule"
    """How a notional below 1 USD is refused: 422 with 42210000, 422 with 40010001, or 403 with 40310000."""

    not_fractionable_status: Literal[403, 422] = 403
    """Of the refusal of a fraction of an asset that has none."""

    wash_trade_status: Literal[403, 422] = 403
    """Of the refusal of an order that could trade with our own."""

    auction_and_immediate_orders: bool = True
    """Whether opg, cls, ioc and fok are enabled for the account."""

    extended_hours_quotes: Literal["last", "set"] = "last"
    """What extended-hours orders trade with outside of the session: the market's latest quote, or only prices set
    through /admin/market since the close."""

    shorting: bool = False
    """Whether the account may sell short. No leverage either way: a short sale needs its value in cash, and as much
    is tied while it lasts."""

    configuration_nulls: Literal["unchanged", "default"] = "unchanged"
    """What null means in PATCH /v2/account/configurations, where the SDK sends every field."""

    sip_entitled: bool = True
    """Without it, asking for the last 15 minutes of the sip feed is 403, and its stream says 409. No feed asked for
    is then iex."""

    rate_limit_per_minute: int | None = None
    """Trading requests in each minute of the exchange's own clock, in process and over HTTP; None: no limit. Alpaca:
    200. Mind that a clock which stands still never begins another minute."""

    data_rate_limit_per_minute: int | None = None
    """The same for market data. Alpaca: 200, or 10,000 with a subscription."""

    trade_stream_connections: int | None = None
    """Connections to the trade updates at a time; one more is HTTP 429. Alpaca: 1. None: any number."""

    data_stream_connections: int | None = None
    """Connections to the market data streams at a time; one more is error 406. Alpaca: 1. None: any number."""

    data_stream_symbols: int | None = None
    """Symbols a market data connection may subscribe to; one more is error 405. None: any number."""

    def __post_init__(self) -> None:
        if not 0 <= self.partial_fill_probability <= 1:
            raise ValueError(f"partial_fill_probability {self.partial_fill_probability} is not between 0 and 1")
        for name in ("fill_on_submit_latency_s", "cancel_latency_s", "replace_latency_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} is below 0")
        for name in (
            "rate_limit_per_minute",
            "data_rate_limit_per_minute",
            "trade_stream_connections",
            "data_stream_connections",
            "data_stream_symbols",
        ):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} {count} is below 1; None means no limit")
