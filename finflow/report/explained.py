"""The section *Why it traded* of a whole window: inputs, gate by regime, parts of return and risk, the critic."""

from collections.abc import Sequence

from finflow.explanations.attribution import Importance
from finflow.explanations.overview import GateRow, Overview
from finflow.explanations.performance import ActiveParts, Contribution, NamePart, SectorPart
from finflow.explanations.value_distribution import Calibration
from finflow.report.card_text import plain_name
from finflow.report.tables import Cell, Column, Field, Row, Table, number, signed, table_of
from finflow.report.theme import BLUE, EXPERTS, GREY, OTHERS, Chart, blank, finish, numbers, text

SHOWN = 14
"""Inputs that are drawn; the others are summed in a sentence."""


def charts(overview: Overview) -> list[Chart]:
    """Importance of the inputs, gate against regime, and calibration where it is known."""
    calibration = [calibration_chart(overview.calibration)] if overview.calibration else []
    return [importance_chart(overview.importance), regime_chart(overview.gate, overview.experts), *calibration]


def says(overview: Overview) -> tuple[str, ...]:
    """Which experts brought the return and carry the risk, and what trading added."""
    experts = [one for one in overview.contributions if one.name in overview.experts]
    best = max(experts, key=lambda one: one.total)
    risky = max(experts, key=lambda one: one.risk)
    traded = sum(one.trading for one in overview.names)
    verb = "added" if traded >= 0 else "took"
    return (
        f"Of the {100 * overview.net:+.1f} % net, holdings that {best.name} asked for brought most, "
        f"{100 * best.total:+.1f} points; those of {risky.name} carry most of the risk.",
        f"All trades after the first purchase {verb} {abs(100 * traded):.1f} points before cost, and cost "
        f"{100 * sum(one.cost for one in overview.names):.1f} points, the first purchase included.",
    )


def importance_chart(found: Importance) -> Chart:
    """Bars of the most important inputs, with their interval over runs."""
    names, share = found.names[:SHOWN][::-1], found.share[:SHOWN][::-1]
    error = None
    if found.low is not None and found.high is not None:
        low, high = found.low[:SHOWN][::-1], found.high[:SHOWN][::-1]
        error = {
            "type": "data", "symmetric": False, "color": GREY,
            "array": numbers((h - s for h, s in zip(high, share, strict=True)), 5),
            "arrayminus": numbers((s - b for s, b in zip(share, low, strict=True)), 5),
        }  # fmt: skip
    figure = blank()
    figure.add_bar(
        x=numbers(share, 5), y=[text(plain_name(name)) for name in names], orientation="h", marker={"color": BLUE},
        error_x=error, hovertemplate="%{x:.1%}<extra></extra>",
    )  # fmt: skip
    finish(figure, legend=False, hover="closest")
    figure.update_xaxes(tickformat=".0%", rangemode="tozero", title="share of the attribution")
    rest = 1.0 - sum(found.share[:SHOWN])
    over = (
        f"bars are the mean of {found.runs} runs, whiskers its 95 % t-interval"
        if found.runs > 1
        else "one run: how far this depends on the seed is not known"
    )
    note = (
        f"Mean absolute integrated gradients of the largest trade of each of {found.days} decisions, summed over "
        f"names; {over}. All other inputs: {100 * rest:.0f} %."
    )
    return Chart("importance", "Which inputs move it", note, figure, 60 + 26 * len(names))


def regime_chart(rows: Sequence[GateRow], experts: Sequence[str]) -> Chart:
    """Mean share of each expert under each regime label, as stacked bars."""
    figure = blank()
    labels = [f"{row.regime} ({row.days})" for row in rows][::-1]
    for k, name in enumerate(experts):
        figure.add_bar(
            x=numbers((row.gate[k] for row in rows[::-1]), 4), y=labels, orientation="h", name=text(name),
            marker={"color": EXPERTS[k % len(EXPERTS)]}, hovertemplate="%{x:.1%}",
        )  # fmt: skip
    finish(figure)
    figure.update_layout(barmode="stack", hovermode="y unified", legend={"traceorder": "normal"})
    figure.update_xaxes(tickformat=".0%", range=[0, 1])
    rates = ", ".join(f"{row.regime} {100 * row.rate:.2g} %" for row in rows)
    note = (
        "Mean share of each expert in the aim over the decisions under each label (their number in brackets). "
        f"Mean trading rate: {rates}."
    )
    return Chart("gate-regimes", "Gate against regime", note, figure, 120 + 44 * len(rows))


def calibration_chart(found: dict[str, Calibration]) -> Chart:
    """Calibration curves against the diagonal; the band of the first."""
    figure = blank()
    ends: list[float | None] = [0.0, 1.0]
    figure.add_scatter(
        x=ends, y=ends, mode="lines", name="calibrated", line={"width": 1, "color": GREY, "dash": "dash"}
    )
    for place, (label, one) in enumerate(found.items()):
        colour = (BLUE, *OTHERS)[place % (len(OTHERS) + 1)]
        x = numbers(one.levels, 2)
        if place == 0:
            band = {"mode": "lines", "line": {"width": 0, "color": colour}, "showlegend": False, "hoverinfo": "skip"}
            figure.add_scatter(x=x, y=numbers(one.low, 4), **band)
            figure.add_scatter(x=x, y=numbers(one.high, 4), fill="tonexty", fillcolor="rgba(0,114,178,0.18)", **band)
        figure.add_scatter(
            x=x, y=numbers(one.curve, 4), mode="lines+markers", name=text(label),
            line={"width": 2, "color": colour}, marker={"size": 5}, hovertemplate="%{y:.0%}",
        )  # fmt: skip
    finish(figure, legend=len(found) > 1)
    figure.update_xaxes(tickformat=".0%", range=[0, 1], title="level the critic named")
    figure.update_yaxes(tickformat=".0%", range=[0, 1], title="share of outcomes")
    note = (
        "Probability integral transform of a month of realised reward, carried on by the critic's own distribution "
        "after them. On the diagonal it was calibrated; band: 95 %, block bootstrap. Flat in the middle: too sure of "
        "itself."
    )
    return Chart("calibration", "Was the critic's distribution calibrated", note, figure, 360)


def calibration_says(label: str, found: Calibration) -> str:
    """Coverage, spread and bias of one run's critic in a sentence."""
    spread = "" if found.spread_ratio is None else f", surprises {found.spread_ratio:.1f} times what it expected"
    interval = f"[{found.bias_low:+.2f}, {found.bias_high:+.2f}]"
    return (
        f"{label}: its 5 to 95 % band held {100 * found.coverage:.0f} % of outcomes (90 % if calibrated){spread}; mean "
        f"surprise {found.bias:+.2f} {interval} units of reward. {found.days} decisions, about "
        f"{found.days // found.horizon} of them independent."
    )


def expert_table(overview: Overview) -> Table:
    """Return, cost and risk by expert; the last row is the whole."""
    parts = overview.contributions
    share, earned, cost = (sum(getattr(one, field) for one in parts) for field in ("share", "earned", "cost"))
    last = _whole(overview, number(share, 1, 100), signed(earned, 2, 100), number(cost, 2, 100))
    fields: list[Field[Contribution]] = [
        (Column("Expert", numeric=False), lambda one: Cell(one.name)),
        (Column("Held", "% of wealth, mean"), lambda one: number(one.share, 1, 100)),
        (Column("Earned", "points"), lambda one: signed(one.earned, 2, 100)),
        (Column("Cost", "points"), lambda one: number(one.cost, 2, 100)),
        (Column("Return", "points, net"), lambda one: signed(one.total, 2, 100)),
        (Column("Risk", "% a year"), lambda one: signed(one.risk, 2, 100)),
    ]
    return table_of("expert-parts-table", parts, fields, last=[last])


def name_table(overview: Overview) -> Table:
    """Return and risk by name, the largest return first; the last row is the whole."""
    parts = overview.names
    drift, trading, cost = (sum(getattr(one, field) for one in parts) for field in ("drift", "trading", "cost"))
    held = number(sum(one.weight for one in parts), 1, 100)
    last = _whole(overview, held, signed(drift, 2, 100), signed(trading, 2, 100), number(cost, 2, 100))
    fields: list[Field[NamePart]] = [
        (Column("Name", numeric=False), lambda one: Cell(one.name)),
        (Column("Weight", "%, mean"), lambda one: number(one.weight, 1, 100)),
        (Column("First portfolio", "points, left alone"), lambda one: signed(one.drift, 2, 100)),
        (Column("Trading since", "points"), lambda one: signed(one.trading, 2, 100)),
        (Column("Cost", "points"), lambda one: number(one.cost, 2, 100)),
        (Column("Return", "points, net"), lambda one: signed(one.total, 2, 100)),
        (Column("Risk", "% a year"), lambda one: signed(one.risk, 2, 100)),
    ]
    return table_of("name-parts-table", sorted(parts, key=lambda one: -one.total), fields, last=[last])


def sector_table(found: ActiveParts, overview: Overview) -> Table:
    """Allocation and selection by sector, cost, the active return that they sum to, and the risk that each carries."""
    risk = dict.fromkeys((part.sector for part in found.sectors), 0.0)
    for one in overview.names:
        risk[overview.sector_of.get(one.name, one.name)] += one.risk
    blank = Cell("")
    cost = Row((Cell("cost"), blank, blank, blank, blank, signed(-found.cost, 2, 100), blank))
    sums = (sum(getattr(one, field) for one in found.sectors) for field in ("allocation", "selection"))
    ends = (*sums, found.active, overview.volatility)
    whole = (Cell("against 1/N"), blank, blank, *(signed(part, 2, 100) for part in ends))
    fields: list[Field[SectorPart]] = [
        (Column("Sector", numeric=False), lambda one: Cell(one.sector)),
        (Column("Weight", "%, mean"), lambda one: number(one.weight, 1, 100)),
        (Column("1/N", "%, mean"), lambda one: number(one.benchmark, 1, 100)),
        (Column("Allocation", "points"), lambda one: signed(one.allocation, 2, 100)),
        (Column("Selection", "points"), lambda one: signed(one.selection, 2, 100)),
        (Column("Active return", "points"), lambda one: signed(one.total, 2, 100)),
        (Column("Risk", "% a year"), lambda one: signed(risk[one.sector], 2, 100)),
    ]
    parts = sorted(found.sectors, key=lambda one: -one.total)
    return table_of("sector-parts-table", parts, fields, last=[cost, Row(whole, "policy", group=True)])


def _whole(overview: Overview, *middle: Cell) -> Row:
    ends = (signed(overview.net, 2, 100), signed(overview.volatility, 2, 100))
    return Row((Cell("whole portfolio"), *middle, *ends), "policy", group=True)
