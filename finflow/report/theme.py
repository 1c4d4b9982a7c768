"""Shared parts of all figures: colours, number lists for JSON, layout and downsampling.

Colours are Okabe and Ito's (2008), which stay distinct under the common colour-vision deficiencies.
"""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from finflow.data.market import NO_LABEL, REGIMES

BLUE, SKY, GREEN, YELLOW = "#0072B2", "#56B4E9", "#009E73", "#F0E442"
ORANGE, VERMILLION, PURPLE, GREY = "#E69F00", "#D55E00", "#CC79A7", "#9AA0A6"

POLICY, OPPONENT = BLUE, VERMILLION
EXPERTS = (BLUE, SKY, ORANGE, GREEN, PURPLE, YELLOW, VERMILLION)
OTHERS = (GREEN, ORANGE, PURPLE, SKY, "#6B7178", "#8F6200")
"""Of the thin baselines, again from the start, with another dash, when there are more."""
NAMES = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW, "#004A75", "#8F6200", "#00583F")
"""Of the largest holdings; the last three are darker shades, so that ten stay distinct."""
REGIME_COLOURS = dict(zip((*REGIMES, "unlabelled"), ("#A8D5C5", "#D5D8DC", ORANGE, VERMILLION, "#F1F2F3"), strict=True))

MAX_POINTS = 3000
PERCENT = ".2~%"
"""Of an axis of unknown span: as many decimals as its ticks need, so that no two read the same."""


@dataclass(frozen=True)
class Chart:
    """One figure of the page: `key` is the element id, `note` a line under the title, `height` in pixels."""

    key: str
    title: str
    note: str
    figure: go.Figure
    height: int


def text(value: str) -> str:
    """Plotly renders a little HTML in names and titles; escaped, a ticker is only ever text."""
    return html.escape(value, quote=False)


def numbers(values: Iterable[float], decimals: int) -> list[float | None]:
    """Plain rounded numbers for JSON; what is not finite becomes a gap."""
    return [round(float(v), decimals) if np.isfinite(v) else None for v in values]


def days(dates: NDArray[np.datetime64]) -> list[str]:
    """ISO days; Plotly reads them as dates."""
    return [str(day) for day in dates.astype("datetime64[D]")]


def shown_rows(length: int, keep: Sequence[int] = ()) -> NDArray[np.int64]:
    """Rows to draw: all of them up to `MAX_POINTS`, else evenly spaced ones with the ends and `keep`."""
    if length <= MAX_POINTS:
        return np.arange(length)
    spaced = np.linspace(0, length - 1, MAX_POINTS).round().astype(np.int64)
    return np.unique(np.concatenate([spaced, np.asarray(keep, dtype=np.int64)]))


def regime_name(label: int) -> str:
    """Name of a regime label; days before the first label are `unlabelled`."""
    return "unlabelled" if label == NO_LABEL else REGIMES[label]


def seams(dates: NDArray[np.datetime64]) -> list[tuple[str, str]]:
    """Whole months without a day between windows stitched together: (first of them, first that has days again)."""
    months = dates.astype("datetime64[M]")
    before = np.flatnonzero(np.diff(months).astype(np.int64) > 1)
    return [(f"{months[i] + 1}-01", f"{months[i + 1]}-01") for i in before]


def finish(
    figure: go.Figure, dates: NDArray[np.datetime64] | None = None, *, legend: bool = True, hover: str = "x unified"
) -> go.Figure:
    """Give a figure the page's layout; the page's script adds the colours of the reader's light or dark mode.

    dates : [R] of a time axis, where the figure has one; months without a day are cut out of it and the cut marked.
    """
    axis: dict[str, Any] = {"automargin": True, "zeroline": False, "ticks": "outside", "ticklen": 4}
    figure.update_layout(
        margin={"l": 8, "r": 12, "t": 12, "b": 8},
        hovermode=hover,
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -0.12, "yanchor": "top", "font": {"size": 12}},
        bargap=0.15,
    )
    figure.update_xaxes(**axis, showgrid=False, hoverformat="d" if dates is None else "%Y-%m-%d")
    figure.update_yaxes(**axis)
    cuts = [] if dates is None else seams(dates)
    if dates is not None and cuts:
        years, first = np.unique(dates.astype("datetime64[Y]"), return_index=True)
        figure.update_xaxes(
            rangebreaks=[{"bounds": list(cut)} for cut in cuts],
            tickvals=days(dates[first]),  # Plotly's own ticks ignore the cut
            ticktext=[str(year) for year in years],
        )
    for _, again in cuts:
        line = {"width": 1, "color": GREY, "dash": "dot"}
        figure.add_shape(type="line", x0=again, x1=again, y0=0, y1=1, yref="paper", line=line)
    return figure


def standing_alone(chart: Chart) -> go.Figure:
    """The figure of a chart with its title and height, for where no page gives it these."""
    return go.Figure(chart.figure).update_layout(title=text(chart.title), height=chart.height, margin={"t": 48})


def blank() -> go.Figure:
    """A figure without Plotly's default template, which would add several kB to every chart."""
    return go.Figure(layout={"template": "none"})


def stacked(*heights: float, spacing: float = 0.04) -> go.Figure:
    """Panels of these relative heights below each other, on one horizontal axis."""
    return make_subplots(
        len(heights), 1, shared_xaxes=True, vertical_spacing=spacing, row_heights=list(heights), figure=blank()
    )
