"""The broker and market data ports, kept by the adapter against the simulated exchange: over HTTP and in process.

One suite, two transports, the same alpaca-py in both.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from desk.broker.alpaca import AlpacaBroker
from desk.broker.calls import KeysRefused
from desk.broker.connect import connect, connect_in_process
from desk.broker.marketdata import AlpacaMarketData
from desk.errors import Ambiguous, BadInput, Refused
from desk.exchange.exchange import Exchange
from desk.exchange.options import ExchangeOptions
from desk.exchange.synthetic import SyntheticMarket
from desk.market import NEW_YORK, at_new_york
from desk.orders import BrokerStatus, OrderClass, OrderRequest, OrderType, Side, TimeInForce
from desk.settings import load_settings

DAY = date(2024, 3, 5)
NOW = datetime(2024, 3, 5, 15, 0, tzinfo=UTC)  # 10:00 in New York
CENT = Decimal("0.01")
TRANSPORTS = ["in process", pytest.param("http", marks=pytest.mark.integration)]


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return SyntheticMarket(7, date(2024, 1, 2), date(2024, 12, 31), symbols=40)


@pytest.fixture
def exchange(market: SyntheticMarket) -> Exchange:
    return Exchange(market, NOW, options=ExchangeOptions(override_holds="until_replaced"))


@pytest.fixture(params=TRANSPORTS)
def ports(exchange: Exchange, request: pytest.FixtureRequest) -> Iterator[tuple[AlpacaBroker, AlpacaMarketData]]:
    if request.param == "in process":
        yield connect_in_process(exchange)
        return
    with served(exchange) as url:
        broker, data = connect(load_settings(exchange_url=url))
        yield broker, data
        broker.close()
        data.close()


class served:
    """The exchange on a free loopback port for as long as the block lasts."""

    def __init__(self, exchange: Exchange) -> None:
        import uvicorn

        from desk.exchange.app import create_app

        config = uvicorn.Config(create_app(exchange), log_level="warning", lifespan="off", ws="websockets-sansio")
        self._server = uvicorn.Server(config)
        # asyncio switches Nagle's algorithm off only on a socket that says it is TCP; else each answer waits 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.005)
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_error: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


@pytest.fixture
def broker(ports) -> AlpacaBroker:
    return ports[0]


@pytest.fixture
def data(ports) -> AlpacaMarketData:
    return ports[1]


@pytest.fixture
def symbol(broker: AlpacaBroker, exchange: Exchange) -> str:
    """A symbol quoted at 100.00 to 100.04, until a test moves it."""
    name = broker.assets()[0].symbol
    exchange.set_market(name, bid=100.0, ask=100.04, last=100.02)
    return name


def bracket(symbol: str, name: str = "op-entry", quantity: int = 10, **changes: object) -> OrderRequest:
    fields = {
        "client_order_id": name,
        "symbol": symbol,
        "side": Side.BUY,
        "quantity": Decimal(quantity),
        "order_type": OrderType.LIMIT,
        "time_in_force": TimeInForce.GTC,
        "order_class": OrderClass.BRACKET,
        "limit_price": Decimal("100.50"),
        "take_profit_price": Decimal("108.55"),
        "stop_loss_price": Decimal("96.03"),
    }
    return OrderRequest(**{**fields, **changes})


def sale(symbol: str, name: str = "op-exit", quantity: int = 10, **changes: object) -> OrderRequest:
    fields = {"order_type": OrderType.MARKET, "time_in_force": TimeInForce.DAY}
    return OrderRequest(name, symbol, Side.SELL, Decimal(quantity), **{**fields, **changes})


# -- who, when, what -----------------------------------------------------------------------------------------------


def test_the_account_is_the_exchanges(broker, exchange):
    account = broker.account()

    assert account.number == exchange.account_number
    assert account.equity == account.cash == account.buying_power == account.last_equity == Decimal(100_000)
    assert account.long_market_value == 0
    assert not account.trading_blocked


def test_the_venue_says_that_it_is_simulated_and_on_which_market(broker):
    broker.account()

    assert broker.venue == "simulated: synthetic, seed 7"


def test_the_clock_is_the_exchanges(broker, exchange):
    clock = broker.clock()

    assert (clock.now, clock.today, clock.is_open) == (NOW, DAY, True)
    assert clock.next_close == at_new_york(DAY, "16:00")
    assert clock.next_open == at_new_york(date(2024, 3, 6), "09:30")

    exchange.set_clock(at_new_york(DAY, "16:00") + timedelta(seconds=1))
    assert not broker.clock().is_open


def test_the_calendar_knows_half_days_and_holidays(broker, market):
    sessions = broker.calendar(date(2024, 11, 25), date(2024, 11, 29))

    assert [session.day.day for session in sessions] == [25, 26, 27, 29]
    assert [session.is_half_day for session in sessions] == [False, False, False, True]
    assert sessions == [s for s in market.sessions() if date(2024, 11, 25) <= s.day <= date(2024, 11, 29)]


def test_assets_come_by_symbol(broker, market):
    assets = broker.assets()

    symbols = [asset.symbol for asset in assets]
    assert symbols == sorted(symbols)
    assert len(assets) >= 40
    assert {asset.asset_id for asset in assets} <= {listing.asset_id for listing in market.listings()}
    assert all(asset.active and asset.tradable and asset.name.startswith("Synthetic") for asset in assets)


# -- the life of a bracket -----------------------------------------------------------------------------------------


def test_a_bracket_fills_and_its_exits_stay_visible(broker, exchange, symbol):
    """The held stop too, which the broker's own list of open orders leaves out."""
    sent = broker.submit(bracket(symbol))

    assert sent.client_order_id == "op-entry"
    assert sent.status in {BrokerStatus.PENDING_NEW, BrokerStatus.ACCEPTED, BrokerStatus.NEW}
    assert sent.submitted_at == NOW
    exchange.advance(1)
    found = broker.order("op-entry")
    assert found is not None
    assert (found.status, found.filled_quantity) == (BrokerStatus.FILLED, Decimal(10))
    assert found.filled_avg_price == Decimal("100.04")
    target, stop = found.legs
    assert (target.order_type, target.limit_price, target.side) == (OrderType.LIMIT, Decimal("108.55"), Side.SELL)
    assert (stop.order_type, stop.stop_price, stop.quantity) == (OrderType.STOP, Decimal("96.03"), Decimal(10))
    assert not target.status.is_terminal
    assert stop.status is BrokerStatus.HELD
    assert broker.orders(status="open", after=NOW) == [found]
    assert broker.orders(status="open") == [found]
    assert broker.orders(status="all", after=NOW, symbols=[symbol]) == [found]
    assert broker.orders(status="all", after=NOW, symbols=["SYNNONE"]) == []
    assert broker.orders(status="all", after=NOW + timedelta(seconds=1)) == []


def test_a_filled_entry_is_a_position_whose_shares_are_held_for_its_exits(broker, exchange, symbol):
    broker.submit(bracket(symbol))
    exchange.advance(1)

    (position,) = broker.positions()

    assert (position.symbol, position.quantity, position.available) == (symbol, Decimal(10), Decimal(0))
    assert position.avg_entry_price == Decimal("100.04")
    assert position.current_price == Decimal("100.02")
    assert position.asset_id == next(a.asset_id for a in broker.assets() if a.symbol == symbol)
    account = broker.account()
    assert account.cash == Decimal(100_000) - Decimal("1000.40")
    assert account.equity == Decimal(100_000) - Decimal("0.20")


def test_every_execution_is_a_fill_with_an_id_of_its_own(broker, exchange, symbol):
    entry = broker.submit(bracket(symbol))
    exchange.advance(60)
    exchange.set_market(symbol, bid=108.60, ask=108.64, last=108.62)
    exchange.advance(60)

    bought, sold = broker.fills(NOW)

    assert (bought.broker_order_id, bought.side, bought.quantity) == (entry.broker_order_id, Side.BUY, Decimal(10))
    assert (sold.side, sold.quantity) == (Side.SELL, Decimal(10))
    assert sold.price >= Decimal("108.55")
    assert bought.at < sold.at
    assert bought.activity_id != sold.activity_id
    assert broker.fills(sold.at) == [sold]
    assert broker.fills(sold.at + timedelta(microseconds=1)) == []
    assert broker.positions() == []
    assert broker.orders(status="open", after=NOW) == []


def test_a_fall_through_the_stop_sells(broker, exchange, symbol):
    broker.submit(bracket(symbol))
    exchange.advance(60)

    exchange.set_market(symbol, bid=95.00, ask=95.04, last=95.02)
    exchange.advance(60)

    found = broker.order("op-entry")
    assert found is not None
    target, stop = found.legs
    assert target.status is BrokerStatus.CANCELED
    assert (stop.status, stop.filled_quantity) == (BrokerStatus.FILLED, Decimal(10))
    assert broker.positions() == []


def test_cancelling_the_exits_frees_the_shares_for_a_sale_of_our_own(broker, exchange, symbol):
    """How a position is closed: cancel the legs, wait until they have ended, sell what is left."""
    broker.submit(bracket(symbol))
    exchange.advance(1)
    found = broker.order("op-entry")
    assert found is not None
    with pytest.raises(Refused) as refusal:
        broker.submit(sale(symbol))
    assert (refusal.value.status, refusal.value.code) == (403, 40310000)

    for leg in found.legs:
        broker.cancel(leg.broker_order_id)
    exchange.advance(1)
    assert broker.orders(status="open", after=NOW) == []
    broker.submit(sale(symbol, "op-exit-2"))
    exchange.advance(1)

    assert broker.positions() == []
    closing = broker.order("op-exit-2")
    assert closing is not None
    assert closing.filled_avg_price == Decimal("100")


def test_an_oco_protects_shares_that_are_held(broker, exchange, symbol):
    broker.submit(bracket(symbol, order_class=OrderClass.SIMPLE, take_profit_price=None, stop_loss_price=None))
    exchange.advance(1)

    broker.submit(
        sale(
            symbol,
            "op-oco",
            order_type=OrderType.LIMIT,
            time_in_force=TimeInForce.GTC,
            order_class=OrderClass.OCO,
            limit_price=Decimal("108.55"),
            take_profit_price=Decimal("108.55"),
            stop_loss_price=Decimal("96.03"),
        )
    )
    exchange.advance(1)

    oco = broker.order("op-oco")
    assert oco is not None
    assert (oco.order_class, oco.limit_price) == (OrderClass.OCO, Decimal("108.55"))
    assert [leg.stop_price for leg in oco.legs] == [Decimal("96.03")]
    assert broker.positions()[0].available == 0


def test_an_entry_out_of_reach_rests_until_it_is_cancelled(broker, exchange, symbol):
    sent = broker.submit(
        bracket(symbol, limit_price=Decimal("90"), take_profit_price=Decimal("95"), stop_loss_price=Decimal("85"))
    )
    exchange.advance(60)
    (resting,) = broker.orders(status="open", after=NOW)
    assert (resting.status, resting.filled_quantity) == (BrokerStatus.NEW, Decimal(0))
    assert broker.account().buying_power == Decimal(100_000) - Decimal(900)

    broker.cancel(sent.broker_order_id)
    exchange.advance(1)

    assert broker.orders(status="open", after=NOW) == []
    (ended,) = broker.orders(status="closed", after=NOW)
    assert ended.status is BrokerStatus.CANCELED
    assert broker.account().buying_power == Decimal(100_000)


# -- identity and refusals -----------------------------------------------------------------------------------------


def test_the_same_order_twice_is_one_order(broker, exchange, symbol):
    """The twin is ambiguous, and the lookup finds the first: nothing is bought twice, not even after a cancel."""
    first = broker.submit(bracket(symbol))

    with pytest.raises(Ambiguous):
        broker.submit(bracket(symbol))

    exchange.advance(1)
    found = broker.order("op-entry")
    assert found is not None
    assert found.broker_order_id == first.broker_order_id
    assert sum(fill.quantity for fill in broker.fills(NOW)) == 10


def test_an_id_the_broker_never_saw_has_no_order(broker):
    assert broker.order("op-never-sent") is None


def test_cancelling_what_has_ended_or_never_was_is_fine(broker, exchange, symbol):
    broker.submit(bracket(symbol, order_class=OrderClass.SIMPLE, take_profit_price=None, stop_loss_price=None))
    exchange.advance(1)
    filled = broker.order("op-entry")
    assert filled is not None

    broker.cancel(filled.broker_order_id)
    broker.cancel("00000000-0000-4000-8000-000000000000")

    assert broker.order("op-entry") == filled


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"quantity": Decimal(100_000)}, 403),  # buying power
        ({"symbol": "SYNNONE"}, 422),
        ({"limit_price": Decimal("100.505")}, 422),  # below a cent
        ({"stop_loss_price": Decimal("100.50")}, 422),  # not below the entry
    ],
)
def test_what_the_broker_refuses_leaves_nothing_behind(broker, symbol, changes, status):
    with pytest.raises(Refused) as refusal:
        broker.submit(bracket(**{"symbol": symbol, **changes}))

    assert refusal.value.status == status
    assert broker.order("op-entry") is None
    assert broker.orders(status="all", after=NOW - timedelta(days=1)) == []


def test_nothing_can_be_sold_that_is_not_held(broker, symbol):
    with pytest.raises(Refused):
        broker.submit(sale(symbol))


def test_an_order_sent_while_the_market_is_closed_waits_for_the_open(broker, exchange, symbol):
    exchange.set_clock(at_new_york(DAY, "20:00"))

    sent = broker.submit(bracket(symbol))

    assert sent.status is BrokerStatus.ACCEPTED
    assert broker.orders(status="open", after=NOW)[0].broker_order_id == sent.broker_order_id


def test_a_day_order_ends_with_the_session(broker, exchange, symbol):
    broker.submit(
        bracket(
            symbol,
            order_class=OrderClass.SIMPLE,
            time_in_force=TimeInForce.DAY,
            limit_price=Decimal(50),
            take_profit_price=None,
            stop_loss_price=None,
        )
    )

    exchange.set_clock(at_new_york(DAY, "16:05"))

    found = broker.order("op-entry")
    assert found is not None
    assert found.status is BrokerStatus.EXPIRED


def test_two_hundred_brackets_are_listed_completely(broker, exchange, symbol):
    """More than one page, all submitted in a few moments."""
    far = {"limit_price": Decimal(20), "take_profit_price": Decimal(30), "stop_loss_price": Decimal(10)}
    for number in range(200):
        broker.submit(bracket(symbol, f"op-{number}", quantity=1, **far))
        if number % 40 == 0:
            exchange.advance(1)

    listed = broker.orders(status="open", after=NOW)

    assert {order.client_order_id for order in listed} == {f"op-{number}" for number in range(200)}
    assert all(len(order.legs) == 2 for order in listed)


# -- splits --------------------------------------------------------------------------------------------------------


def test_a_split_is_an_adjustment_of_the_position(market):
    """Shares out, shares in, and cash for a fraction; seen once, from its day on."""
    split = next(
        action
        for session in market.sessions()
        if session.day > date(2024, 1, 10)
        for action in market.corporate_actions(session.day)
        if action.kind == "split"
    )
    before = max(session.day for session in market.sessions() if session.day < split.day)
    exchange = Exchange(market, at_new_york(before, "10:00"))
    broker, data = connect_in_process(exchange)
    ask = data.quotes([split.symbol])[split.symbol].ask
    broker.submit(OrderRequest("op-1", split.symbol, Side.BUY, Decimal(7), OrderType.MARKET, TimeInForce.DAY))
    exchange.set_clock(at_new_york(split.day, "09:31"))

    (adjustment,) = broker.adjustments(split.day)

    assert (adjustment.symbol, adjustment.day, adjustment.ratio) == (split.symbol, split.day, split.value)
    assert broker.positions()[0].quantity == Decimal(7) + adjustment.quantity_change
    in_lieu = 7 * split.value - broker.positions()[0].quantity
    assert (adjustment.cash > 0) == (in_lieu > 0)
    assert adjustment.cash <= ask * 2
    assert broker.adjustments(split.day + timedelta(days=1)) == []


# -- market data ---------------------------------------------------------------------------------------------------


def test_daily_bars_are_the_markets_and_end_with_the_last_closed_session(data, broker, market):
    symbols = [asset.symbol for asset in broker.assets()]

    frame = data.daily_bars(symbols, date(2024, 1, 2), DAY)

    known = market.daily_bars(symbols, date(2024, 1, 2), DAY, adjustment="split", known_at=NOW)
    expected = [
        (symbol, row.at.astimezone(NEW_YORK).date(), row.open, row.high, row.low, row.close, row.volume)
        for symbol in sorted(known)
        for row in known[symbol]
    ]
    assert list(frame.itertuples(index=False, name=None)) == expected
    assert frame["session"].max() == date(2024, 3, 4)


def test_one_day_of_bars_and_symbols_nobody_knows(data, symbol):
    frame = data.daily_bars([symbol, "SYNNONE"], date(2024, 3, 4), date(2024, 3, 4))

    assert list(frame["symbol"]) == [symbol]
    assert len(data.daily_bars(["SYNNONE"], date(2024, 3, 4), date(2024, 3, 4))) == 0


def test_quotes_of_many_symbols_come_at_once(data, broker, symbol):
    symbols = [asset.symbol for asset in broker.assets()]

    quotes = data.quotes([*symbols, "SYNNONE"])

    assert set(quotes) == set(symbols)
    assert (quotes[symbol].bid, quotes[symbol].ask, quotes[symbol].mid) == (
        Decimal(100),
        Decimal("100.04"),
        Decimal("100.02"),
    )
    assert quotes[symbol].unusable(NOW, age_s_max=30) is None


def test_a_quote_without_a_side_is_told_apart_from_no_quote(data, exchange, symbol):
    exchange.set_market(symbol, bid=0.0)

    quote = data.quotes([symbol])[symbol]

    assert quote.bid == 0
    assert "zero quote" in str(quote.unusable(NOW, age_s_max=30))


# -- keys and account ----------------------------------------------------------------------------------------------


def test_wrong_keys_are_refused_in_process(exchange):
    broker, _ = connect_in_process(exchange, keys=("WRONG", "wrong-secret"))

    with pytest.raises(KeysRefused):
        broker.account()
    with pytest.raises(KeysRefused):
        broker.submit(bracket("SYN"))


@pytest.mark.integration
def test_wrong_keys_and_wrong_account_are_refused_over_http(exchange):
    with served(exchange) as url:
        with pytest.raises(BadInput, match="keys refused by http://127"):
            connect(load_settings(exchange_url=url, alpaca_key_id="WRONG", alpaca_secret_key="wrong-secret"))
        with pytest.raises(
            BadInput, match=f"ONEPATH_ACCOUNT is PA1, but the keys belong to account {exchange.account_number}"
        ):
            connect(load_settings(exchange_url=url, account="PA1"))
