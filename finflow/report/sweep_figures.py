"""Plotly figures of a sweep: its jobs across all parameters, each parameter alone, and pairs of them."""

import contextlib
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from finflow.report.theme import BLUE, GREY, SKY, VERMILLION, Chart, blank, finish, numbers, text
from finflow.sweeps.leaderboard import Leaderboard, Pair
from finflow.sweeps.table import scored

LABELS = {
    "validation_sharpe": "validation Sharpe ratio",
    "validation_active_information_ratio": "validation information ratio",
}
_SHADES = ((0.0, "#f1f5f9"), (0.35, "#bcd9ec"), (0.7, "#56a3d0"), (1.0, "#00507f"))
_BARS = 10
_LABEL = 14
"""Characters of a value beside an axis."""
_SPREAD = 0.06
"""How far lines through the same value of a parameter lie apart, as a share of the axis."""


def parallel_chart(board: Leaderboard) -> Chart | None:
    """Every finished job as a line across the parameters, its score on the last axis; the best stand out."""
    jobs = scored(board.rows, board.objective)
    jobs.reverse()  # of equal jobs the first is drawn last, as the best
    jobs.sort(key=lambda job: job[1])
    if len(jobs) < 2 or not board.effects:
        return None
    low, high = jobs[0][1], jobs[-1][1]
    count, width = len(jobs), len(board.effects) + 1
    figure = blank()
    for name, start, stop, line in _groups(count):
        x: list[int | None] = []
        y: list[float | None] = []
        told: list[str | None] = []
        for place in range(start, stop):
            row, score = jobs[place]
            nudge = _SPREAD * (place / (count - 1) - 0.5)
            heights = [_height(effect.values, row.values[effect.key]) + nudge for effect in board.effects]
            x += [*range(width), None]
            y += [*numbers([*heights, (score - low) / ((high - low) or 1.0)], 4), None]
            label = "<br>".join([f"{row.job}: {score:.3f}", *(text(f"{k} = {v}") for k, v in row.values.items())])
            told += [label] * width + [None]
        shared = {"mode": "lines", "hovertemplate": "%{customdata}<extra></extra>"}
        opacity = 0.4 if stop <= count / 2 else 0.9
        figure.add_scatter(**shared, x=x, y=y, name=name, customdata=told, line=line, opacity=opacity)
    ends = ((numbers([low], 2)[0], 0.0), (numbers([high], 2)[0], 1.0))
    for at, effect in enumerate(board.effects):
        _axis(figure, at, [(_short(value), _height(effect.values, value)) for value in effect.values])
    _axis(figure, width - 1, [(str(value), height) for value, height in ends])
    finish(figure, hover="closest")
    titles = [*(_broken(effect.key) for effect in board.effects), LABELS[board.objective].replace(" ", "<br>", 1)]
    figure.update_xaxes(tickvals=list(range(width)), ticktext=titles, range=[-0.3, width - 0.6], ticks="", side="top")
    figure.update_xaxes(showline=False)
    figure.update_yaxes(visible=False, range=[-0.08, 1.15])
    figure.update_layout(legend={"y": -0.02})
    note = "One line a finished job. Lines through the same value lie a little apart, those of better jobs higher."
    return Chart("parallel", "All jobs across the parameters", note, figure, 460)


def importance_chart(board: Leaderboard) -> Chart | None:
    """Share of the scores' variance that each parameter explains, and each pair beyond its two parameters."""
    bars = [(effect.key, effect.share, effect.chance, BLUE) for effect in board.effects]
    bars += [(" × ".join(pair.keys), pair.share, pair.chance, SKY) for pair in board.pairs]
    bars = sorted((bar for bar in bars if np.isfinite(bar[1])), key=lambda bar: bar[1])[-_BARS:]
    if not bars:
        return None
    names = [text(name) for name, *_ in bars]
    figure = blank()
    figure.add_bar(
        orientation="h", y=names, x=numbers((share for _, share, _, _ in bars), 4), name="share",
        marker={"color": [colour for *_, colour in bars], "line": {"width": 0}}, hovertemplate="%{x:.1%}",
        showlegend=False,
    )  # fmt: skip
    figure.add_scatter(
        x=numbers((chance for _, _, chance, _ in bars), 4), y=names, mode="markers", name="by chance alone",
        marker={"symbol": "line-ns", "size": 16, "line": {"width": 2.5, "color": VERMILLION}},
        hovertemplate="by chance alone %{x:.1%}<extra></extra>",
    )  # fmt: skip
    finish(figure, hover="closest")
    figure.update_layout(legend={"y": 1.0, "yanchor": "bottom"})  # below, it hides the title
    figure.update_xaxes(title="share of the variance of scores", tickformat=".0%", rangemode="tozero", title_standoff=8)
    note = (
        "How much of the spread of scores goes with a parameter; lighter, with a pair beyond its two parameters. "
        "A bar that ends before its red mark is no more than scores without any effect would show on average."
    )
    return Chart("importance", "Which parameters matter", note, figure, 115 + 30 * len(bars))


def effect_charts(board: Leaderboard) -> list[Chart]:
    """For each parameter the scores at each of its values, and their mean."""
    scores = [score for _, score in scored(board.rows, board.objective)]
    charts: list[Chart] = []
    for at, effect in enumerate(board.effects):
        if len(scores) < 2:
            break
        rng = np.random.default_rng(at)  # for the picture alone: it separates neighbouring dots
        x = [k + (rng.random() - 0.5) * 0.3 for k, part in enumerate(effect.scores) for _ in part]
        figure = blank()
        figure.add_scatter(
            x=numbers(x, 3), y=numbers(np.concatenate(effect.scores), 6), mode="markers", name="jobs",
            marker={"size": 6, "color": GREY, "opacity": 0.6}, hovertemplate="%{y:.3f}<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=list(range(len(effect.values))), y=numbers(effect.means, 6), mode="lines+markers", name="mean",
            line={"width": 2.5, "color": BLUE}, marker={"size": 10}, hovertemplate="mean %{y:.3f}<extra></extra>",
        )  # fmt: skip
        finish(figure, legend=False, hover="closest")
        margin = 0.05 * ((max(scores) - min(scores)) or 1.0)
        figure.update_xaxes(tickvals=list(range(len(effect.values))), ticktext=[_short(v) for v in effect.values])
        figure.update_yaxes(range=[min(scores) - margin, max(scores) + margin])
        told = f"{100 * effect.share:.0f} % of the variance, {100 * effect.chance:.0f} % by chance"
        share = "" if np.isnan(effect.share) else told
        charts.append(Chart(f"effect-{at}", effect.key, share, figure, 230))
    return charts


def pair_charts(board: Leaderboard) -> list[Chart]:
    """Mean score in every cell of two parameters, all on one scale."""
    means = [value for pair in board.pairs for value in pair.means.ravel() if np.isfinite(value)]
    if not means:
        return []
    return [_pair_chart(at, pair, min(means), max(means)) for at, pair in enumerate(board.pairs)]


def _pair_chart(at: int, pair: Pair, low: float, high: float) -> Chart:
    rows, columns = ([_short(value) for value in values] for values in pair.values)
    cells = [numbers(line, 4) for line in pair.means]
    figure = blank()
    figure.add_heatmap(
        z=cells, x=list(range(len(columns))), y=list(range(len(rows))), zmin=low, zmax=high, showscale=False,
        colorscale=[list(shade) for shade in _SHADES], xgap=3, ygap=3, texttemplate="%{text}",
        text=[["" if value is None else f"{value:.2f}" for value in line] for line in cells],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    finish(figure, legend=False, hover="closest")
    figure.update_xaxes(title=text(pair.keys[1]), tickvals=list(range(len(columns))), ticktext=columns, ticks="")
    title = {"text": text(pair.keys[0]), "standoff": 14}
    figure.update_yaxes(title=title, tickvals=list(range(len(rows))), ticktext=rows, ticks="")
    return Chart(f"pair-{at}", " × ".join(pair.keys), "", figure, 120 + 44 * len(rows))


def _groups(count: int) -> list[tuple[str, int, int, dict[str, object]]]:
    """Name, first and last place (the best last), and line of each group of jobs; groups without one are left out."""
    half, tenth = count // 2, count - max(1, count // 10)
    groups: list[tuple[str, int, int, dict[str, object]]] = [
        ("lower half", 0, half, {"width": 1, "color": GREY}),
        ("upper half", half, tenth, {"width": 1.4, "color": SKY}),
        ("best tenth", tenth, count - 1, {"width": 2.2, "color": BLUE}),
        ("best", count - 1, count, {"width": 3.2, "color": VERMILLION}),
    ]
    return [group for group in groups if group[1] < group[2]]


def _short(value: str) -> str:
    """A value as short as an axis has room for; the tables have it whole."""
    if len(value) <= _LABEL:
        return text(value)
    with contextlib.suppress(ValueError):
        return f"{float(value):g}"
    return text(value[: _LABEL - 1]) + "…"


def _height(values: Sequence[str], value: str) -> float:
    """Place of a value on its axis: in the order in which they were typed, from 0 to 1."""
    return 0.5 if len(values) < 2 else values.index(value) / (len(values) - 1)


def _axis(figure: go.Figure, at: int, ticks: Sequence[tuple[str, float]]) -> None:
    figure.add_shape(type="line", x0=at, x1=at, y0=-0.04, y1=1.04, line={"width": 1.5, "color": GREY}, layer="below")
    for label, height in ticks:
        figure.add_annotation(x=at, y=height, text=label, showarrow=False, xanchor="left", xshift=5, yshift=17)


def _broken(key: str) -> str:
    """A dotted key on lines of its own, so that axes may stand close."""
    return text(key).replace(".", ".<br>")
