"""Plotly figures of the backtest: equity and drawdown, weights, gate and rate, turnover and cost.

The curves are drawn from the tracks of an `Evaluation`; every number printed as a number comes from its tables.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from finflow.data.market import unit_of
from finflow.evaluation.metrics import period_sums, underwater
from finflow.evaluation.result import Evaluation, Track
from finflow.report import theme
from finflow.report.theme import EXPERTS, GREY, NAMES, OPPONENT, OTHERS, PERCENT, POLICY, PURPLE, REGIME_COLOURS, Chart

MOST_NAMES = 30
"""Names of a chart at the most."""
SMALL_REST = 0.05
"""Share of wealth, on average, under which the smallest holdings are drawn as one."""
DASHES = ("dot", "dash", "dashdot", "longdash", "longdashdot", "2px,4px", "8px,3px", "8px,3px,2px,3px", "14px,3px",
          "14px,3px,2px,3px", "2px,7px", "5px,5px", "3px,3px,9px,3px")  # fmt: skip
"""Of the thin baselines, each its own; the policy's line alone is solid."""
HATCHES = ("", "/", "x")
"""Of every ten largest holdings, so that thirty stay distinct."""
WIDE_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
LOG_TICKS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100)


def rivals_shown(evaluation: Evaluation) -> tuple[Track, ...]:
    """The 1/N of the verdict, and the user's own benchmark where there is one: they stand beside the policy."""
    own = () if evaluation.benchmark is None else (evaluation.baselines[evaluation.benchmark.opponent],)
    return (evaluation.baselines[evaluation.verdict.opponent], *own)


def equity_chart(evaluation: Evaluation) -> Chart:
    """Growth of 1, drawdown, and the policy's wealth relative to 1/N, over one time axis."""
    name = evaluation.verdict.opponent
    opponent = evaluation.baselines[name]
    worst = [int(np.argmin(underwater(track.nav))) for track in (evaluation.policy, opponent)]
    rows = theme.shown_rows(len(evaluation.policy.dates), worst)
    x = theme.days(evaluation.policy.dates[rows])
    figure = theme.stacked(0.56, 0.24, 0.2)
    benchmark = rivals_shown(evaluation)[1:]
    apart = {name, *(track.name for track in benchmark)}
    # Baselines at the policy's frequency stand in the tables alone: as lines they would cover the monthly ones.
    frequent = (", daily", ", weekly")
    others = [t for key, t in evaluation.baselines.items() if key not in apart and not key.endswith(frequent)]
    for i, track in enumerate(others):
        line = {"width": 1.2, "color": OTHERS[i % len(OTHERS)], "dash": DASHES[i % len(DASHES)]}
        _add_track(figure, track, x, rows, line, rank=4 + i)
    for track in benchmark:
        _add_track(figure, track, x, rows, {"width": 2.2, "color": PURPLE, "dash": "4px,2px"}, rank=3)
    _add_track(figure, opponent, x, rows, {"width": 2.2, "color": OPPONENT, "dash": "10px,2px"}, rank=2)
    _add_track(figure, evaluation.policy, x, rows, {"width": 2.6, "color": POLICY}, rank=1)
    relative = evaluation.policy.nav / opponent.nav
    figure.add_scatter(
        x=x, y=theme.numbers(relative[rows] - 1, 5), name=f"policy relative to {theme.text(name)}", showlegend=False,
        line={"width": 1.8, "color": POLICY}, hovertemplate="%{y:+.2%}",
        row=3, col=1,
    )  # fmt: skip
    figure.add_hline(y=0, line={"width": 1, "color": GREY}, row=3, col=1)  # pyright: ignore[reportArgumentType]
    _equity_axes(figure, [evaluation.policy, *evaluation.baselines.values()])
    theme.finish(figure, evaluation.policy.dates)
    figure.update_layout(legend={"y": -0.07})
    note = (
        f"Net of costs. Top: growth of 1 on a logarithmic scale. Middle: loss from the last peak. "
        f"Bottom: wealth of the policy relative to {name}. Click a name in the legend to hide or show it."
    )
    if len(rows) < len(evaluation.policy.dates):
        note += f" {len(rows):,} of {len(evaluation.policy.dates):,} {unit_of(evaluation.policy.year)}s are drawn."
    return Chart("equity", f"Equity and drawdown against {name}", note, figure, 720)


def _add_track(
    figure: go.Figure, track: Track, x: list[str], rows: NDArray[np.int64], line: Mapping[str, float | str], rank: int
) -> None:
    """Draw last what ranks first, so that it lies on top; the legend lists it first."""
    shared = {
        "x": x, "name": theme.text(track.name), "legendgroup": theme.text(track.name), "legendrank": rank, "line": line,
        "opacity": 1.0 if rank <= 3 else 0.7,
    }  # fmt: skip
    figure.add_scatter(**shared, y=theme.numbers(track.nav[rows], 4), hovertemplate="%{y:.3f}", row=1, col=1)
    below = theme.numbers(underwater(track.nav)[rows], 4)
    figure.add_scatter(**shared, y=below, showlegend=False, hovertemplate="%{y:.1%}", row=2, col=1)


def _equity_axes(figure: go.Figure, tracks: list[Track]) -> None:
    wealth = np.concatenate([track.nav for track in tracks])
    low, high = max(float(wealth.min()) * 0.97, 1e-3), float(wealth.max()) * 1.03
    shown = WIDE_TICKS if high > 4 * low else LOG_TICKS
    figure.update_yaxes(
        type="log", title="growth of 1", range=[float(np.log10(low)), float(np.log10(high))],
        tickvals=[tick for tick in shown if low <= tick <= high] or None,
        row=1, col=1,
    )  # fmt: skip
    figure.update_yaxes(title="drawdown", tickformat=PERCENT, row=2, col=1)
    figure.update_yaxes(title="relative", tickformat=f"+{PERCENT}", row=3, col=1)
    figure.update_xaxes(type="date", row=3, col=1)


def weights_chart(evaluation: Evaluation) -> Chart:
    """Executed weights of the largest holdings as a stacked area, cash in grey."""
    weights, assets = evaluation.policy.weights, evaluation.assets
    rows = theme.shown_rows(len(weights))
    x = theme.days(evaluation.policy.dates[rows])
    risky = weights[:, :-1]
    order = np.argsort(-risky.mean(axis=0), kind="stable")
    left = 1.0 - weights[:, -1].mean() - np.cumsum(risky.mean(axis=0)[order])
    count = min(int(np.argmax(left < SMALL_REST)) + 1 if (left < SMALL_REST).any() else len(order), MOST_NAMES)
    count = len(order) if count >= len(order) - 1 else count  # a rest of one name is shown itself
    top, rest = order[:count], order[count:]
    figure = theme.blank()
    figure.add_trace(_area(x, weights[rows, -1], theme.text(assets[-1]), "#B8BDC2"))
    for k, i in enumerate(top):
        hatch = HATCHES[k // len(NAMES) % len(HATCHES)]
        figure.add_trace(_area(x, risky[rows, i], theme.text(assets[i]), NAMES[k % len(NAMES)], hatch=hatch))
    note = "Executed weights, cash at the bottom, then the largest average holdings first."
    if len(rest):
        label = f"{len(rest)} other names"
        figure.add_trace(_area(x, risky[np.ix_(rows, rest)].sum(axis=1), label, "#E3E5E8"))
        note += f" The {label} hold {risky[:, rest].max():.1%} each at the most."
    theme.finish(figure, evaluation.policy.dates)
    figure.update_yaxes(title="share of wealth", tickformat=".0%", range=[0, 1])
    figure.update_xaxes(type="date")
    figure.update_layout(legend={"traceorder": "normal"})
    return Chart("weights", "Weights over time", note, figure, 460)


def gate_chart(evaluation: Evaluation) -> Chart:
    """Shares that the gate gives the experts, the regime known at the decision, and the trading rate."""
    rows = theme.shown_rows(len(evaluation.gate))
    x = theme.days(evaluation.policy.dates[rows])
    figure = theme.stacked(0.62, 0.06, 0.32)
    for k, name in enumerate(evaluation.expert_names):
        area = _area(x, evaluation.gate[rows, k], theme.text(name), EXPERTS[k % len(EXPERTS)])
        figure.add_trace(area, row=1, col=1)
    _add_regimes(figure, evaluation.policy.dates, evaluation.regime)
    names = [theme.regime_name(int(label)) for label in evaluation.regime[rows]]
    for row, level in ((1, 1.0), (2, 0.0)):  # invisible: it only names the regime in the tooltip
        figure.add_scatter(
            x=x, y=[level] * len(x), mode="lines", line={"width": 0, "color": GREY}, name="regime",
            showlegend=False, customdata=names, hovertemplate="%{customdata}",
            row=row, col=1,
        )  # fmt: skip
    figure.add_scatter(
        x=x, y=theme.numbers(evaluation.rate[rows], 4), name="trading rate", showlegend=False,
        line={"width": 1.6, "color": POLICY}, hovertemplate="%{y:.1%}",
        row=3, col=1,
    )  # fmt: skip
    theme.finish(figure, evaluation.policy.dates)
    figure.update_yaxes(title="expert share", tickformat=".0%", range=[0, 1], row=1, col=1)
    figure.update_yaxes(title="", showticklabels=False, showgrid=False, ticks="", range=[-0.5, 0.5], row=2, col=1)
    figure.update_yaxes(title="trading rate", tickformat=PERCENT, rangemode="tozero", row=3, col=1)
    figure.update_xaxes(type="date", range=[x[0], x[-1]])
    figure.update_xaxes(ticks="", row=2, col=1)
    figure.update_layout(legend={"traceorder": "normal"}, barmode="overlay")
    note = (
        "Top: share of each expert in the aim. Strip: market regime known at the decision. "
        "Bottom: trading rate, the part of the way to the aim that is traded."
    )
    return Chart("gate", "Gate and trading rate over time", note, figure, 560)


def _area(x: list[str], values: NDArray[np.float64], name: str, colour: str, hatch: str = "") -> go.Scatter:
    pattern = {"shape": hatch, "fgcolor": "#ffffff", "bgcolor": colour, "size": 7, "solidity": 0.25} if hatch else None
    return go.Scatter(
        x=x, y=theme.numbers(values, 4), name=name, stackgroup="one", mode="lines",
        line={"width": 0.5, "color": colour}, fillcolor=colour, fillpattern=pattern, hovertemplate="%{y:.1%}",
    )  # fmt: skip


def _add_regimes(figure: go.Figure, dates: NDArray[np.datetime64], regime: NDArray[np.int8]) -> None:
    """One horizontal bar per stretch of equal label: from its first day to the first day of the next, or to a cut."""
    cut = np.diff(dates.astype("datetime64[M]")).astype(np.int64) > 1
    starts = np.flatnonzero(np.r_[True, (regime[1:] != regime[:-1]) | cut])
    last = np.r_[starts[1:], len(dates)] - 1
    begin = dates[starts].astype("datetime64[D]")
    end = np.r_[begin[1:], dates[-1:].astype("datetime64[D]")]
    closing = np.r_[cut, True][last]  # the window ends here: the bar ends with its last day
    end[closing] = dates[last[closing]].astype("datetime64[D]") + np.timedelta64(1, "D")
    for name, colour in REGIME_COLOURS.items():
        chosen = [i for i, start in enumerate(starts) if theme.regime_name(int(regime[start])) == name]
        if not chosen:
            continue
        lengths = (end[chosen] - begin[chosen]).astype("timedelta64[ms]").astype(np.int64)
        figure.add_bar(
            orientation="h", base=theme.days(begin[chosen]), x=[int(v) for v in lengths], y=[0] * len(chosen),
            width=1, marker={"color": colour, "line": {"width": 0}}, name=f"regime: {name}", hoverinfo="skip",
            row=2, col=1,
        )  # fmt: skip


def trading_chart(evaluation: Evaluation) -> Chart:
    """Turnover and cost by month, of the policy and of 1/N."""
    name = evaluation.verdict.opponent
    figure = theme.stacked(0.58, 0.42, spacing=0.07)
    for track, colour in ((evaluation.policy, POLICY), (evaluation.baselines[name], OPPONENT)):
        months, turnover = period_sums(track.dates, track.turnover, "M")
        _, cost = period_sums(track.dates, track.cost, "M")
        label = theme.text(track.name)
        shared: dict[str, Any] = {
            "x": theme.days(months), "name": label, "legendgroup": label, "xhoverformat": "%B %Y",
            "marker": {"color": colour, "line": {"width": 0}},
        }  # fmt: skip
        figure.add_bar(**shared, y=theme.numbers(turnover, 4), hovertemplate="%{y:.1%}", row=1, col=1)
        basis = theme.numbers(1e4 * cost, 2)
        figure.add_bar(**shared, y=basis, hovertemplate="%{y:.1f} bp", showlegend=False, row=2, col=1)
    theme.finish(figure, evaluation.policy.dates)
    figure.update_yaxes(title="turnover a month", tickformat=PERCENT, row=1, col=1)
    figure.update_yaxes(title="cost a month, bp", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(type="date")
    figure.update_layout(legend={"traceorder": "normal"}, barmode="group")
    note = (
        "Top: notional bought and sold each month, as a share of wealth (the first purchase included). "
        "Bottom: costs charged each month, in basis points of wealth."
    )
    return Chart("trading", "Turnover and cost by month", note, figure, 460)
