"""The broker port on alpaca-py: Alpaca live, Alpaca paper and the simulated exchange, by one adapter.

Whoever comes to change this should know:

- alpaca-py is used with `raw_data=True`: one unknown word in one order must not fail the whole list, and
  amounts must not pass through float.
- An order is sent once. Whether to send it again is the resolver's decision, by its client order id.
- A bracket's stop leg is `held`: absent from the flat list of open orders, and a nested list of open
  orders leaves out a bracket whose parent is filled. So "open" here is read from the complete list.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, TypeVar

import requests
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import AssetClass, AssetStatus, QueryOrderStatus
from alpaca.trading.requests import GetAssetsRequest, GetCalendarRequest, GetOrdersRequest

from desk.broker import parse
from desk.broker.calls import Calls, Failure, KeysRefused, answered
from desk.broker.pacing import Priority
from desk.broker.transport import Access, prepare
from desk.broker.wire import order_request
from desk.errors import Ambiguous, Halt, Refused, TradingError, Transient
from desk.market import Asset, MarketClock, Session
from desk.orders import BrokerOrder, OrderClass, OrderRequest, Side
from desk.portfolio import Account, Adjustment, CashMovement, Fill, Position

__all__ = ["AlpacaBroker"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_ORDERS_A_PAGE = 500  # the most Alpaca gives
_GROUP_MAX = 10  # an order with its legs; replaced ones stay listed
_ORDER_PAGES_MAX = 200
_ACTIVITIES_A_PAGE = 100  # the most Alpaca gives
_CASH_KINDS = (
    *("DIV", "DIVCGL", "DIVCGS", "DIVFEE", "DIVFT", "DIVNRA", "DIVROC", "DIVTW", "DIVTXEX"),
    *("INT", "INTNRA", "INTTW", "FEE", "CFEE", "PTC", "CSD", "CSW", "JNLC"),
)
_ACTIVITY_PAGES_MAX = 1000
# The broker's `after` excludes the moment itself, which the orders of one group share: ask from a little earlier,
# and drop what is known or too early.
_OVERLAP = timedelta(milliseconds=1)
# A gtc order ends 90 days after it was sent; ten more for an order waiting for its first session.
_LIVE_AT_MOST = timedelta(days=100)

# The only answers to an order that prove there is none (alpaca-semantics, section 4). Anything not listed
# leaves the order unknown until it was looked up.
_DEFINITIVE = frozenset(
    {
        (403, 40310000),  # buying power, shares held, wash trade, not fractionable, auction window, blocked
        (403, 40310100),  # pattern day trading, a rule no longer in force
        (404, 40410000),  # no such asset
        (422, 40010001),  # malformed field; also the twin, see _is_twin
        (422, 42210000),  # price, class, asset or time-in-force rule
    }
)


class AlpacaBroker:
    """One trading account. Implements `desk.ports.Broker`; safe to use from several threads.

    `base_url` is where `/v2` begins; `venue` is None for a simulated exchange, which names its market
    itself in the X-Market header of every answer.
    """

    def __init__(self, base_url: str, access: Access, *, venue: str | None = None) -> None:
        self._venue = venue
        self._market = "market not yet named"
        self._calls = Calls(access)
        self._client = TradingClient(access.key_id, access.secret_key, raw_data=True, url_override=base_url.rstrip("/"))
        prepare(self._client, access, self._heard)
        self._orders = parse.Orders()

    def __repr__(self) -> str:
        return f"AlpacaBroker({self.venue})"

    def close(self) -> None:
        """Close the connections. The broker itself is not told anything."""
        self._client._session.close()

    @property
    def venue(self) -> str:
        return self._venue or f"simulated: {self._market}"

    def account(self) -> Account:
        return self._read("account", self._client.get_account, parse.account)

    def clock(self) -> MarketClock:
        return self._read("clock", self._client.get_clock, parse.clock)

    def calendar(self, start: date, end: date) -> list[Session]:
        what = f"calendar {start} to {end}"
        asked = GetCalendarRequest(start=start, end=end)
        sessions = self._read(what, lambda: self._client.get_calendar(asked), _each(what, parse.session))
        return sorted(sessions, key=lambda session: session.day)

    def assets(self) -> list[Asset]:
        asked = GetAssetsRequest(status=AssetStatus.ACTIVE, asset_class=AssetClass.US_EQUITY)
        assets = self._read("assets", lambda: self._client.get_all_assets(asked), _each("assets", parse.asset))
        return sorted(assets, key=lambda asset: asset.symbol)

    def positions(self) -> list[Position]:
        positions = self._read("positions", self._client.get_all_positions, _each("positions", parse.position))
        return sorted(positions, key=lambda position: position.symbol)

    def submit(self, request: OrderRequest) -> BrokerOrder:
        what = f"submit {request.side} {request.quantity} {request.symbol} ({request.client_order_id})"
        sent = order_request(request)
        reduces = request.side is Side.SELL and request.order_class is not OrderClass.BRACKET
        priority = Priority.EXIT if reduces else Priority.ENTRY
        answer = self._calls.once(what, lambda: self._client.submit_order(sent), priority)
        if isinstance(answer, Failure):
            raise self._submit_error(what, answer) from answer.cause
        try:
            order = parse.order(answer)
        except parse.Unreadable as error:
            raise Ambiguous(f"{what}: it may or may not have happened (unreadable answer: {error})") from error
        if order.client_order_id != request.client_order_id:
            raise Ambiguous(f"{what}: it may or may not have happened (answer about order {order.client_order_id})")
        return order

    def order(self, client_order_id: str) -> BrokerOrder | None:
        what = f"order {client_order_id}"
        asked = {"client_order_id": client_order_id, "nested": True}
        found = self._lookup(what, lambda: self._client.get("/orders:by_client_order_id", asked))
        if found is None or found.order_class is OrderClass.SIMPLE or found.legs:
            return found
        # `nested` is documented for the lookup by id only. A leg asked for by name has no legs there either.
        by_id = f"/orders/{found.broker_order_id}"
        whole = self._lookup(f"{what} with legs", lambda: self._client.get(by_id, {"nested": True}))
        if whole is None:
            raise Transient(f"{what}: found by its client id, but not by its id {found.broker_order_id}")
        return whole

    def orders(
        self,
        *,
        status: Literal["open", "closed", "all"],
        after: datetime | None = None,
        symbols: Sequence[str] = (),
    ) -> list[BrokerOrder]:
        """As the port says; submitted at `after` or later. "open": orders with any live member, legs included,
        read from the complete list since `after`; without it, of 100 days, longer than any order can live."""
        if status != "open":
            return self._listed(QueryOrderStatus(status), after, symbols)
        since = after if after is not None else self.clock().now - _LIVE_AT_MOST
        return [order for order in self._listed(QueryOrderStatus.ALL, since, symbols) if _is_live(order)]

    def cancel(self, broker_order_id: str) -> None:
        what = f"cancel {broker_order_id}"
        answer = self._calls.repeatable(what, lambda: self._client.cancel_order_by_id(broker_order_id), Priority.EXIT)
        if not isinstance(answer, Failure):
            return
        if answer.from_broker and (answer.status, answer.code) in {(404, 40410000), (422, 42210000)}:
            log.info("order.cancel_unneeded order=%s answer=%s", broker_order_id, answer)
            return
        raise self._change_error(what, answer) from answer.cause

    def fills(self, after: datetime) -> list[Fill]:
        raw = self._activities("FILL", (after - _OVERLAP).astimezone(UTC).isoformat())
        fills = [self._readable(f"fills after {after}", parse.fill, entry) for entry in raw]
        return sorted((fill for fill in fills if fill.at >= after), key=lambda fill: fill.at)

    def adjustments(self, after: date) -> list[Adjustment]:
        raw = self._activities("SPLIT", (after - timedelta(days=1)).isoformat())
        adjusted = self._readable(f"adjustments after {after}", parse.adjustments, raw)
        return [adjustment for adjustment in adjusted if adjustment.day >= after]

    def cash_movements(self, after: date) -> list[CashMovement]:
        kinds = {"activity_types": ",".join(_CASH_KINDS)}
        raw = self._activities("", (after - timedelta(days=1)).isoformat(), kinds)
        moved = [self._readable(f"cash movements after {after}", parse.cash_movement, entry) for entry in raw]
        return sorted((each for each in moved if each.day >= after), key=lambda each: (each.day, each.activity_id))

    # -- reading ---------------------------------------------------------------------------------

    def _read(self, what: str, call: Callable[[], Any], parsed: Callable[[Any], T]) -> T:
        return self._readable(what, parsed, self._calls.read(what, call))

    def _readable(self, what: str, parsed: Callable[[Any], T], raw: object) -> T:
        try:
            return parsed(raw)
        except parse.Unreadable as error:
            raise Transient(f"{what}: the broker's answer cannot be read ({error})") from error

    def _lookup(self, what: str, call: Callable[[], Any]) -> BrokerOrder | None:
        """None only when the broker itself says so: a 404 of a proxy is no evidence."""
        answer = self._calls.read_or_failure(what, call, Priority.LOOKUP)
        if isinstance(answer, Failure) and answer.from_broker and (answer.status, answer.code) == (404, 40410000):
            return None
        return self._readable(what, parse.order, answered(what, answer))

    def _listed(self, status: QueryOrderStatus, after: datetime | None, symbols: Sequence[str]) -> list[BrokerOrder]:
        """Walk the list by submission time, oldest first, until a page is certainly the last."""
        found: dict[str, BrokerOrder] = {}
        since = None if after is None else after - _OVERLAP
        for _ in range(_ORDER_PAGES_MAX):
            page = self._page(status, since, symbols)
            new = [order for order in page if order.broker_order_id not in found]
            found.update((order.broker_order_id, order) for order in page)
            # Whether the limit counts legs is not documented: this page is the last under either reading.
            if sum(1 + len(order.legs) for order in page) <= _ORDERS_A_PAGE - _GROUP_MAX:
                return [order for order in _without_stray_legs(found) if after is None or order.submitted_at >= after]
            if not new:
                raise Transient(f"orders after {since}: more than {_ORDERS_A_PAGE} share one moment")
            since = max(order.submitted_at for order in page) - _OVERLAP
        raise Transient(f"orders after {after}: more than {_ORDER_PAGES_MAX} pages of {_ORDERS_A_PAGE}")

    def _page(self, status: QueryOrderStatus, after: datetime | None, symbols: Sequence[str]) -> list[BrokerOrder]:
        asked: dict[str, Any] = {"status": status.value, "limit": _ORDERS_A_PAGE, "direction": "asc", "nested": True}
        if after is not None:
            asked["after"] = after
        if symbols:
            asked["symbols"] = list(symbols)
        return self._read("orders", lambda: self._client.get_orders(GetOrdersRequest(**asked)), self._orders.parse)

    def _activities(self, kind: str, after: str, chosen: Mapping[str, str] | None = None) -> list[Any]:
        """All activities of a kind, or `chosen` by the query, oldest first. alpaca-py's `get` reaches them."""
        what = f"activities {kind} after {after}"
        found: dict[str, Any] = {}
        asked: dict[str, Any] = {"after": after, "direction": "asc", "page_size": _ACTIVITIES_A_PAGE, **(chosen or {})}
        path = f"/account/activities/{kind}".rstrip("/")
        for _ in range(_ACTIVITY_PAGES_MAX):
            page = self._read(what, lambda: self._client.get(path, asked), _each(what, _with_id))
            found.update(page)
            if len(page) < _ACTIVITIES_A_PAGE:
                return list(found.values())
            asked["page_token"] = page[-1][0]
        raise Transient(f"{what}: more than {_ACTIVITY_PAGES_MAX} pages of {_ACTIVITIES_A_PAGE}")

    def _heard(self, response: requests.Response) -> None:
        self._calls.heard(response)
        self._market = response.headers.get("X-Market", self._market)

    # -- what a failed change means --------------------------------------------------------------

    def _change_error(self, what: str, failure: Failure) -> TradingError:
        if failure.status == 401 or (failure.status == 403 and failure.code is None):
            return KeysRefused(f"{what}: the broker refused the keys ({failure})")
        return Ambiguous(f"{what}: it may or may not have happened ({failure})")

    def _submit_error(self, what: str, failure: Failure) -> TradingError:
        definitive = failure.from_broker and (failure.status, failure.code) in _DEFINITIVE
        if not definitive or _is_twin(failure):
            return self._change_error(what, failure)
        assert failure.status is not None  # it is in the list
        if failure.status == 403 and self._is_blocked(what):
            return Halt(f"{what}: the account may not trade ({failure})")
        return Refused(f"{what}: refused ({failure})", status=failure.status, code=failure.code)

    def _is_blocked(self, what: str) -> bool:
        """One code stands for a dozen refusals, so the account is read again instead of the message."""
        try:
            return self.account().trading_blocked
        except TradingError as error:
            # The order was refused either way. A block is met again at the next reading of the account.
            log.warning("account.unread_after_refusal call=%s error=%s", what, error)
            return False


def _each(what: str, parsed: Callable[[Any], T]) -> Callable[[Any], list[T]]:
    return lambda raw: [parsed(entry) for entry in parse.rows(what, raw)]


def _with_id(raw: Any) -> tuple[str, Any]:
    if not (isinstance(raw, dict) and isinstance(raw.get("id"), str)):
        raise parse.Unreadable("activity without an id")
    return raw["id"], raw


def _is_live(order: BrokerOrder) -> bool:
    return not order.status.is_terminal or any(_is_live(leg) for leg in order.legs)


def _without_stray_legs(found: dict[str, BrokerOrder]) -> list[BrokerOrder]:
    """Oldest first. A leg that a page boundary cut from its parent is listed under its parent only."""
    nested = {leg.broker_order_id for order in found.values() for leg in order.legs}
    whole = (order for order in found.values() if order.broker_order_id not in nested)
    return sorted(whole, key=lambda order: order.submitted_at)


def _is_twin(failure: Failure) -> bool:
    """Whether the broker says it has this client order id already: then the order exists.

    The code is shared with malformed fields, so the message decides, read generously: a false alarm costs a
    lookup, a missed twin would be an order nobody watches.
    """
    text = "".join(letter for letter in failure.message.lower() if letter.isalpha())
    return failure.status == 422 and any(word in text for word in ("clientorderid", "unique", "duplicate", "already"))
