"""Plots as SVG data URIs. Same input, same bytes: no time of making, no random ids. matplotlib is imported on use."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

from desk.metrics import drawdowns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["equity_plot", "labelled", "price_bar", "profit_plot", "profits_in_order_plot"]

INK, FAINT, LINE = "#1d2733", "#8895a4", "#2563a8"
GAIN, LOSS = "#1a7f4b", "#c0392b"
TICKS_MAX = 8
BARS_MAX = 30
BAR_WIDTH, BAR_HEIGHT = 180, 26  # px


def equity_plot(points: Sequence[tuple[str, Decimal]], *, with_drawdown: bool) -> str:
    """Equity at each close, USD; the first point is the start. With the drawdown below it, in percent."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4 if with_drawdown else 2.8), layout="constrained")
    values = [float(value) for _, value in points]
    along = range(len(values))
    if with_drawdown:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        fallen = [100 * each for each in drawdowns([value for _, value in points])]
        lower.fill_between(along, fallen, 0, color=LOSS, alpha=0.25, linewidth=0)
        lower.plot(along, fallen, color=LOSS, linewidth=1)
        lower.set_ylabel("drawdown, %")
        _plain(lower)
    else:
        upper = lower = figure.subplots()
    upper.plot(along, values, color=LINE, linewidth=1.8, marker="o" if len(values) <= 40 else None, markersize=4)
    upper.axhline(values[0], color=FAINT, linewidth=0.8, linestyle=(0, (4, 4)))
    upper.set_ylabel("equity, USD")
    upper.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _plain(upper)
    step = max(1, -(-len(points) // TICKS_MAX))
    lower.set_xticks(list(along)[::step], [label for label, _ in points][::step])
    return _uri(figure)


def profit_plot(profits: Sequence[tuple[str, Decimal, bool]]) -> str:
    """One bar a trade (label, USD, whether realised), best first; of very many the best and the worst."""
    from matplotlib.figure import Figure

    ranked = sorted(profits, key=lambda each: (-each[1], each[0]))
    if len(ranked) > BARS_MAX:
        ranked = ranked[: BARS_MAX // 2] + ranked[-BARS_MAX // 2 :]
    figure = Figure(figsize=(10, 0.8 + 0.26 * len(ranked)), layout="constrained")
    axes = figure.subplots()
    values = [float(profit) for _, profit, _ in ranked]
    bars = axes.barh(range(len(ranked)), values, color=[GAIN if value >= 0 else LOSS for value in values], height=0.68)
    for bar, (_, _, is_realised) in zip(bars, ranked, strict=True):
        bar.set_alpha(0.9 if is_realised else 0.35)
    axes.bar_label(bars, labels=[f"{value:+,.2f}" for value in values], padding=4, fontsize=8, color=INK)
    axes.set_yticks(range(len(ranked)), [label for label, _, _ in ranked])
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.axvline(0, color=FAINT, linewidth=0.8)
    axes.set_xlabel("profit, USD")
    _plain(axes)
    return _uri(figure)


def profits_in_order_plot(profits: Sequence[Decimal]) -> str:
    """One thin bar a trade, USD, in the order of entry."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.4), layout="constrained")
    axes = figure.subplots()
    values = [float(profit) for profit in profits]
    axes.vlines(
        range(1, len(values) + 1),
        0,
        values,
        colors=[GAIN if value >= 0 else LOSS for value in values],
        linewidth=max(0.6, min(6.0, 500 / max(len(values), 1))),
    )
    axes.axhline(0, color=FAINT, linewidth=0.8)
    axes.set_xlabel("trade, in order of entry")
    axes.set_ylabel("profit, USD")
    _plain(axes)
    return _uri(figure)


def price_bar(*, stop: Decimal, entry: Decimal, target: Decimal, now: Decimal | None) -> str:
    """A trade's prices on one line, as an SVG data URI: stop, entry, target, and where it stands or left."""
    prices = [float(value) for value in (stop, entry, target, now) if value is not None]
    low, high = min(prices), max(prices)
    span = (high - low) or 1.0

    def x(value: Decimal) -> float:
        return 8 + (BAR_WIDTH - 16) * (float(value) - low) / span

    middle = BAR_HEIGHT / 2
    shapes = [
        _band(x(stop), x(entry), LOSS),
        _band(x(entry), x(target), GAIN),
        *(_tick(x(value), colour) for value, colour in ((stop, LOSS), (entry, INK), (target, GAIN))),
    ]
    if now is not None:
        colour = GAIN if now >= entry else LOSS
        shapes.append(
            f'<circle cx="{x(now):.1f}" cy="{middle:.1f}" r="5.5" fill="{colour}" stroke="#fff" stroke-width="1.5"/>'
        )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {BAR_WIDTH} {BAR_HEIGHT}" '
        f'width="{BAR_WIDTH}" height="{BAR_HEIGHT}">{"".join(shapes)}</svg>'
    )
    return _as_uri(svg.encode())


def labelled(start: Decimal, equity: Sequence[tuple[date, Decimal]]) -> list[tuple[str, Decimal]]:
    """Points for `equity_plot`: the start, then each close."""
    return [("start", start), *((f"{session:%Y-%m-%d}", value) for session, value in equity)]


def _band(start: float, end: float, colour: str) -> str:
    left, width = min(start, end), abs(end - start)
    return (
        f'<rect x="{left:.1f}" y="{BAR_HEIGHT / 2 - 3:.1f}" width="{width:.1f}" height="6" '
        f'fill="{colour}" fill-opacity="0.22"/>'
    )


def _tick(at: float, colour: str) -> str:
    return f'<rect x="{at - 1:.1f}" y="4" width="2" height="{BAR_HEIGHT - 8}" fill="{colour}"/>'


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8, color=FAINT)
    axes.xaxis.label.set(color=INK, fontsize=8)
    axes.yaxis.label.set(color=INK, fontsize=8)
    axes.grid(axis="both", color=FAINT, alpha=0.18, linewidth=0.6)
    axes.set_axisbelow(True)


def _uri(figure: Figure) -> str:
    from matplotlib import rc_context

    held = io.BytesIO()
    with rc_context({"svg.hashsalt": "onepath", "svg.fonttype": "none"}):  # text stays text, ids stay the same
        figure.savefig(held, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _as_uri(held.getvalue())


def _as_uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
