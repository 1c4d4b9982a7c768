"""Small charts of training: one per quantity, drawn only if the history holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from finflow.report.theme import BLUE, GREY, VERMILLION, Chart, blank, finish, numbers, shown_rows

History = Sequence[Mapping[str, Any]]
"""Rows of `metrics.jsonl`, in order; a row may lack any key."""


@dataclass(frozen=True)
class Curve:
    """One quantity of a history: its key, title, what its axis says, and what reads well beside it."""

    key: str
    title: str
    unit: str
    note: str = ""
    smooth: bool = False
    zero: bool = False
    validation: str | None = None
    percent: bool = False


PRETRAIN = (
    Curve("v_loss", "Value loss", "loss", "Expectile regression of V."),
    Curve("q_loss", "Critic loss", "loss", "Quantile regression of Q."),
    Curve("policy_loss", "Policy loss", "loss", "Advantage-weighted regression."),
    Curve("validation_sharpe", "Validation Sharpe", "annualised", "Net of costs.", zero=True),
)
FINETUNE = (
    Curve("return", "Episode return", "of wealth", "Net of costs, over the episode.", smooth=True, zero=True,
          percent=True),
    Curve("sharpe", "Episode Sharpe", "annualised", "Diamonds: validation.", smooth=True, zero=True,
          validation="validation_sharpe"),
    Curve("validation_active_information_ratio", "Validation active IR", "annualised", "Of the net return over 1/N.",
          zero=True),
    Curve("cvar", "Episode CVaR 95 %", "daily loss", "Mean of the worst 5 % of days.", smooth=True, percent=True),
    Curve("critic_loss", "Critic loss", "loss", "", smooth=True),
    Curve("actor_loss", "Actor loss", "loss", "", smooth=True),
    Curve("alpha", "Entropy coefficient", "alpha", "Learnt, to hold the entropy at its target."),
    Curve("entropy", "Policy entropy", "nats", "Of the logits; may be negative."),
)  # fmt: skip
EXPERTS = (
    Curve("validation_gate_entropy", "Gate entropy", "nats", "On validation days; 0: one expert alone."),
    Curve("validation_expert_distance", "Expert distance", "mean pairwise", "On validation days; 0: copies."),
)


def curves(history: History, step: str, wanted: Sequence[Curve], prefix: str) -> list[Chart]:
    """Charts of the quantities in `wanted` that `history` holds, against its `step` (epoch or episode)."""
    charts: list[Chart] = []
    for curve in wanted:
        x, y = _column(history, step, curve.key)
        if len(x):
            window = max(5, len(x) // 20) if curve.smooth and len(x) >= 10 else 0
            figure = _curve_figure(curve, step, x, y, history, window)
            legend = f"Grey: each {step}; blue: mean of the last {window}." if window else ""
            note = f"{curve.note} {legend}".strip()
            charts.append(Chart(f"{prefix}-{curve.key.replace('_', '-')}", curve.title, note, figure, 220))
    return charts


def training_charts(history: History, step: str) -> list[Chart]:
    """Charts of a training run: of phase 1 where its step is an epoch, of phase 2 where it is an episode."""
    if step == "epoch":
        return curves(history, step, PRETRAIN, "pretrain")
    return curves(history, step, (*FINETUNE, *EXPERTS), "finetune")


def together(charts: Sequence[Chart]) -> go.Figure:
    """Charts as one figure, two in a row."""
    count = -(-len(charts) // 2)
    figure = make_subplots(count, 2, subplot_titles=[chart.title for chart in charts], figure=blank())
    for at, chart in enumerate(charts):
        row, col = at // 2 + 1, at % 2 + 1
        for trace in chart.figure.data:
            figure.add_trace(trace, row=row, col=col)
        x, y = chart.figure.layout.xaxis, chart.figure.layout.yaxis
        figure.update_xaxes(title=x.title, row=row, col=col)
        figure.update_yaxes(title=y.title, tickformat=y.tickformat, row=row, col=col)
    finish(figure, legend=False)
    return figure.update_layout(height=60 + 220 * count, margin={"t": 40}, hovermode="x")


def _curve_figure(
    curve: Curve, step: str, x: NDArray[np.float64], y: NDArray[np.float64], history: History, window: int
) -> go.Figure:
    figure = blank()
    rows = shown_rows(len(x))
    shared: dict[str, Any] = {
        "x": numbers(x[rows], 0),
        "hovertemplate": "%{y:.2%}" if curve.percent else "%{y:.4~g}",
        "mode": "lines+markers" if not window and len(rows) < 60 else "lines",
    }
    drawn = numbers(y[rows], 6)
    if window:
        mean, line = numbers(rolling_mean(y, window)[rows], 6), {"width": 2.2, "color": BLUE}
        figure.add_scatter(y=drawn, name=f"each {step}", opacity=0.45, line={"width": 1, "color": GREY}, **shared)
        figure.add_scatter(y=mean, name=f"mean of {window}", line=line, **shared)
    else:
        line = {"width": 2, "color": BLUE}
        figure.add_scatter(y=drawn, name=curve.title.lower(), line=line, marker={"size": 5}, **shared)
    marks_x, marks_y = _column(history, step, curve.validation) if curve.validation else (x[:0], y[:0])
    if len(marks_x):
        figure.add_scatter(
            x=numbers(marks_x, 0), y=numbers(marks_y, 6), mode="markers", name="validation",
            marker={"symbol": "diamond", "size": 8, "color": VERMILLION}, hovertemplate="%{y:.2f}",
        )  # fmt: skip
    if curve.zero:
        figure.add_hline(y=0, line={"width": 1, "color": GREY})
    finish(figure, legend=False)
    figure.update_xaxes(title=step)
    figure.update_yaxes(title=curve.unit, tickformat=".3~%" if curve.percent else None)
    return figure


def rolling_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean of the last `window` values; of fewer at the start, so that the mean uses no later value."""
    return np.asarray(pd.Series(values).rolling(window, min_periods=1).mean())


def _column(history: History, step: str, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of the rows where both are finite numbers."""
    table = np.array([(row.get(step), row.get(key)) for row in history], dtype=np.float64).reshape(-1, 2)
    table = table[np.isfinite(table).all(axis=1)]
    return table[:, 0], table[:, 1]
