"""How a policy behaves: rolling risk, deepest drawdowns, and figures against its rivals."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from finflow.data.market import unit_of
from finflow.evaluation.metrics import Drawdown, deepest_drawdowns, sharpe_ratio
from finflow.evaluation.relative import relative, rolling, skewness
from finflow.evaluation.result import Evaluation, Floats, Track
from finflow.report.figures import opponent_name, rivals_shown
from finflow.report.tables import Cell, Column, Field, Row, Table, mark, number, signed, table_of
from finflow.report.theme import GREY, OPPONENT, PERCENT, POLICY, Chart, blank, days, finish, numbers, shown_rows, text


def rolling_chart(evaluation: Evaluation) -> Chart | None:
    """Sharpe ratio and volatility of policy and 1/N, and the policy's beta on it, over rolling windows."""
    name = opponent_name(evaluation)
    found = rolling(evaluation.policy, evaluation.baselines[name])
    if found is None or len(found.beta) < 2:
        return None
    rows = shown_rows(len(found.beta))
    x = days(evaluation.policy.dates[found.window - 1 :][rows])
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.05, figure=blank())

    def line(values: Floats, row: int, label: str, colour: str, shown: str, dash: str = "solid") -> None:
        trace = go.Scatter(
            x=x, y=numbers(values[rows], 4), name=text(label), legendgroup=text(label), showlegend=row == 1,
            legendrank=1 if label == "policy" else 2,
            line={"width": 2, "color": colour, "dash": dash}, hovertemplate=shown,
        )  # fmt: skip
        figure.add_trace(trace, row=row, col=1)

    line(found.other_sharpe, 1, name, OPPONENT, "%{y:.2f}", "10px,2px")
    line(found.sharpe, 1, "policy", POLICY, "%{y:.2f}")
    line(found.other_volatility, 2, name, OPPONENT, "%{y:.1%}", "10px,2px")
    line(found.volatility, 2, "policy", POLICY, "%{y:.1%}")
    line(found.beta, 3, "policy", POLICY, "%{y:.2f}")
    for level, row in ((0, 1), (1, 3)):
        figure.add_hline(y=level, line={"width": 1, "color": GREY}, row=row, col=1)  # pyright: ignore[reportArgumentType]
    finish(figure, evaluation.policy.dates)
    for row, title, form in ((1, "Sharpe ratio", ".2~f"), (2, "volatility", PERCENT), (3, "beta", ".3~f")):
        figure.update_yaxes(title=title, tickformat=form, row=row, col=1)
    figure.update_xaxes(type="date", row=3, col=1)
    figure.update_layout(legend={"y": -0.09})
    note = (
        f"Over the {found.window} {unit_of(evaluation.policy.year)}s up to each date, annualised, net of costs. "
        f"Bottom: the policy's beta on {name}; at 1 it moves with it."
    )
    return Chart("rolling", "Rolling Sharpe ratio, volatility and beta", note, figure, 560)


def drawdown_table(evaluation: Evaluation) -> Table:
    """The policy's deepest drawdowns, and what its rivals returned from the peak to the trough of each."""
    policy, rivals = evaluation.policy, rivals_shown(evaluation)
    unit = unit_of(policy.year)

    def against(rival: Track) -> Field[Drawdown]:
        return Column(rival.name, "% to the lowest"), lambda one: signed(_return_over(rival, one), 1, 100)

    fields: list[Field[Drawdown]] = [
        (Column("From", "first loss", numeric=False), lambda one: Cell(str(policy.dates[one.first]))),
        (Column("Lowest", numeric=False), lambda one: Cell(str(policy.dates[one.trough]))),
        (
            Column("Recovered", numeric=False),
            lambda one: Cell(str(policy.dates[one.last + 1]) if one.recovered else "not yet"),
        ),
        (Column("Depth", "%"), lambda one: number(one.depth, 1, 100)),
        *map(against, rivals),
        (Column("Falling", f"{unit}s"), lambda one: number(one.falling, 0)),
        (
            Column("Recovering", f"{unit}s"),
            lambda one: number(one.length - one.falling, 0) if one.recovered else Cell("open"),
        ),
    ]
    return table_of("drawdown-table", deepest_drawdowns(policy, 5), fields)


def _return_over(track: Track, one: Drawdown) -> float:
    before = track.nav[one.first - 1] if one.first else 1.0
    return float(track.nav[one.trough] / before - 1.0)


def relative_table(evaluation: Evaluation) -> Table:
    """Every strategy against 1/N, and the policy against the user's own benchmark where there is one."""
    name = opponent_name(evaluation)
    tracks = {evaluation.policy.name: evaluation.policy, **evaluation.baselines}
    idle = evaluation.cash if evaluation.cash.any() else None
    rows = [
        _relative_row(key, track, evaluation.baselines[name], mark(key, evaluation), idle)
        for key, track in tracks.items()
        if key != name
    ]
    if evaluation.benchmark is not None:
        own = evaluation.baselines[evaluation.benchmark.opponent]
        rows.insert(1, _relative_row(f"policy against {own.name}", evaluation.policy, own, "policy", idle))
    columns = (
        Column("Strategy", f"against {name}", numeric=False),
        Column("Beta"),
        Column("Correlation"),
        Column("Active return", "% a year"),
        Column("Tracking error", "% a year"),
        Column("Information ratio", "a year"),
        Column("Up capture", "% of its gains"),
        Column("Down capture", "% of its losses"),
        Column("Skew", f"of {unit_of(evaluation.policy.year)}s"),
        *((Column("Sharpe over cash", "ratio"),) if idle is not None else ()),
    )
    return Table("relative-table", columns, tuple(rows), sortable=True)


def _relative_row(label: str, track: Track, other: Track, marked: str, idle: Floats | None) -> Row:
    found = relative(track, other)
    over = () if idle is None else (number(sharpe_ratio(track.net - idle, track.year), 2),)
    cells = (
        Cell(label),
        number(found.beta, 2),
        number(found.correlation, 2),
        signed(found.active_return, 1, 100),
        number(found.tracking_error, 1, 100),
        signed(found.information_ratio, 2),
        number(found.up_capture, 0, 100),
        number(found.down_capture, 0, 100),
        number(skewness(track.net), 2),
        *over,
    )
    return Row(cells, marked)
