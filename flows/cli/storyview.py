"""A story on one screen of a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from desk.ledger.facts import DecisionFact, OrderFact, TradeFact, VerdictFact
from desk.ledger.records import Alert, GateRecord, Severity
from desk.ledger.story import Story
from desk.report.words import NOTHING, clock_time, day_time, number, percent, price, shares, short, usd

__all__ = ["story_view"]

FEATURES_MAX = 8
ALERTS_MAX = 4
SEVERITY_STYLES = {Severity.INFO: "dim", Severity.WARNING: "yellow", Severity.CRITICAL: "bold red"}


def story_view(story: Story) -> RenderableType:
    """The story as a panel: one line or a few for each step, in the order they happened."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold cyan", no_wrap=True, width=9)
    grid.add_column(overflow="fold")
    for label, lines in _steps(story):
        for index, line in enumerate(lines):
            grid.add_row(label if index == 0 else "", line)
    account = story.account
    return Panel(
        Group(grid),
        title=f"[bold]{escape(story.symbol)}[/]  session {story.session}  {_outcome(story)}",
        subtitle=f"{escape(account.venue)} · account {escape(account.account)} · times are New York's",
        title_align="left",
        subtitle_align="left",
        border_style="cyan",
    )


def _steps(story: Story) -> Iterator[tuple[str, list[str]]]:
    yield "screened", _screened(story)
    yield "gates", _gates(story.gates)
    yield "decided", _decided(story.decision)
    yield "controls", _controls(story.verdicts)
    yield "orders", list(_orders(story.orders)) or ["none was made"]
    if story.trade is not None:
        yield "trade", _trade(story.trade)
        yield "watched", _watched(story)
    if story.later:
        yield (
            "later",
            [f"{each.session} {each.action}: {escape(each.reason)} ({escape(each.decider)})" for each in story.later],
        )
    if story.trade is not None and not story.trade.is_open:
        yield "closed", _closed(story.trade)
    if story.alerts:
        yield "alerts", _alerts(story.alerts)


def _outcome(story: Story) -> str:
    trade = story.trade
    if trade is not None and trade.is_open:
        return "[yellow]open[/]"
    if trade is not None:
        return f"closed: {escape(trade.close_reason or '')}  {_profit(trade)}"
    return "only screened" if story.decision is None else f"decided: {story.decision.action}, no trade"


def _screened(story: Story) -> list[str]:
    whole, row = story.screening, story.scored
    if whole is None:
        return ["no screening of this session is recorded"]
    lines = [
        f"{day_time(whole.screened_at)} by {escape(whole.screener)}: {whole.universe} symbols with bars up to "
        f"{whole.last_bar}, {whole.eligible} eligible, {whole.listed} listed; data {short(whole.data_hash)}"
    ]
    if row is None:
        return [*lines, "not on the watchlist"]
    lines.append(
        f"rank [bold]{row.rank}[/] · buy {row.buy_probability:.3f} · sell {row.sell_probability:.3f} · "
        f"last close {price(row.last_close)} · 20-day volume {row.volume_20d:,}"
    )
    if row.features:
        told = [f"{escape(name)} {number(value)}" for name, value in sorted(row.features.items())]
        more = f" and {len(told) - FEATURES_MAX} more (--json)" if len(told) > FEATURES_MAX else ""
        lines.append(f"[dim]{', '.join(told[:FEATURES_MAX])}{more}[/]")
    return lines


def _gates(gates: Iterable[GateRecord]) -> list[str]:
    told = []
    for gate in gates:
        broken = [str(each.get("expectation")) for each in gate.results if not each.get("passed")]
        verdict = "[green]passed[/]" if gate.passed else "[bold red]FAILED[/]"
        noted = f" ({escape(', '.join(broken[:3]))})" if broken else ""
        told.append(
            f"{escape(gate.frame)} {verdict}, {len(gate.results)} rules, {gate.rows} rows, "
            f"data {short(gate.data_hash)}{noted}"
        )
    return told or ["none recorded"]


def _decided(decision: DecisionFact | None) -> list[str]:
    if decision is None:
        return ["nothing was decided on it"]
    action = {"buy": "green", "sell": "red"}.get(decision.action, "white")
    lines = [
        f"{day_time(decision.decided_at)} [bold {action}]{decision.action}[/] by {escape(decision.decider)}, "
        f"strategy {escape(decision.strategy)} version {decision.strategy_version}; inputs {short(decision.input_hash)}"
        + (f", policy {short(decision.policy_digest)}" if decision.policy_digest else ""),
        escape(decision.reason),
    ]
    if decision.quantity > 0:
        prices = f"{shares(decision.quantity)} shares at {price(decision.reference_price)}"
        if decision.action == "buy":
            prices += (
                f", limit {price(decision.limit_price)}, stop {price(decision.stop_price)}, "
                f"target {price(decision.target_price)}; equity {usd(decision.equity)}"
            )
        lines.append(prices)
    return lines


def _controls(verdicts: tuple[VerdictFact, ...]) -> list[str]:
    if not verdicts:
        return ["none was asked"]
    allowed = [each for each in verdicts if each.allowed]
    refused = [each for each in verdicts if not each.allowed]
    lines = [
        f"[bold red]{escape(each.control)}[/] refused: {escape(each.reason)} (limit {escape(each.limit)}, "
        f"found {escape(each.value)})"
        for each in refused
    ]
    if allowed:
        names = sorted({each.control for each in allowed})
        lines.append(f"[green]{len(names)} allowed[/]: {escape(', '.join(names))}")
    return lines


def _orders(orders: tuple[OrderFact, ...]) -> Iterator[str]:
    """Each order, with the legs the broker made of it below."""
    known = {order.client_order_id for order in orders}
    for order in orders:
        if order.parent_client_order_id in known:
            continue
        yield from _order(order, "")
        for leg in orders:
            if leg.parent_client_order_id == order.client_order_id:
                yield from _order(leg, "└ ")


def _order(order: OrderFact, indent: str) -> Iterator[str]:
    prices = [
        f"{name} {price(value)}"
        for name, value in (
            ("limit", order.limit_price),
            ("stop", order.stop_price),
            ("take-profit", order.take_profit_price),
            ("stop-loss", order.stop_loss_price),
        )
        if value is not None
    ]
    kind = order.order_type if order.order_class == "simple" else f"{order.order_type} {order.order_class}"
    yield (
        f"{indent}[bold]{order.leg}[/] {order.side} {shares(order.quantity)} {kind} {order.time_in_force}"
        f"{', ' if prices else ''}{', '.join(prices)} → [bold]{order.state}[/] ({escape(order.reason)})"
    )
    if not indent:
        yield f"[dim]  {order.client_order_id}[/]"
    told = [f"{each.state} {clock_time(each.at)}" for each in order.events]
    if told:
        yield f"[dim]  {' → '.join(told)}[/]"
    for fill in order.fills:
        yield f"  filled {shares(fill.quantity)} at {price(fill.price)}, {day_time(fill.filled_at)}"


def _trade(trade: TradeFact) -> list[str]:
    return [
        f"{shares(trade.quantity)} shares at {price(trade.entry_price)} ({usd(trade.quantity * trade.entry_price)}), "
        f"entered {day_time(trade.entered_at)}",
        f"stop {price(trade.stop_price)} · target {price(trade.target_price)} · highest bid "
        f"{price(trade.high_water_price)} · held until {trade.hold_until} at the latest",
    ]


def _watched(story: Story) -> list[str]:
    watch = story.watch
    if watch is None or watch.cycles == 0:
        return ["by no monitor cycle"]
    age = NOTHING if watch.quote_age_max_s is None else f"{watch.quote_age_max_s:.1f} s"
    red = f"[bold red]{watch.red} RED[/]" if watch.red else "none RED"
    lines = [
        f"by {watch.cycles} monitor cycles, {red}, oldest quote {age}, up to {watch.stops_verified_max} stops seen"
    ]
    return lines + [
        f"{day_time(each.cycle_at)} monitor asked for the exit: {escape(each.reason)}" for each in story.exits
    ]


def _closed(trade: TradeFact) -> list[str]:
    return [
        f"[bold]{escape(trade.close_reason or NOTHING)}[/], {day_time(trade.exited_at)}: "
        f"{shares(trade.quantity_closed)} shares at {price(trade.exit_price)} → {_profit(trade)}"
    ]


def _profit(trade: TradeFact) -> str:
    if trade.profit is None:
        return NOTHING
    share = float(trade.profit / (trade.entry_price * trade.quantity))
    style = "green" if trade.profit >= 0 else "red"
    return f"[{style}]{usd(trade.profit, signed=True)} ({percent(share, signed=True)})[/]"


def _alerts(alerts: tuple[Alert, ...]) -> list[str]:
    worst = sorted(alerts, key=lambda each: list(Severity).index(each.severity), reverse=True)[:ALERTS_MAX]
    lines = [
        f"[{SEVERITY_STYLES[each.severity]}]{each.severity.value}[/] {day_time(each.at)} {escape(each.kind)}: "
        f"{escape(each.message)}"
        for each in worst
    ]
    more = len(alerts) - len(worst)
    return [*lines, f"[dim]and {more} more (--json)[/]"] if more else lines
