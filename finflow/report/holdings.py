"""What is held at the end of the window, against 1/N, and which names and sectors carry the risk."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from finflow.evaluation.result import Evaluation
from finflow.explanations.performance import NamePart
from finflow.report.figures import opponent_name
from finflow.report.tables import Cell, Column, Row, Table, number, signed
from finflow.report.theme import BLUE, Chart, blank, finish, numbers, text

LARGEST = 10
EACH_WAY = 5
HELD = 5e-4
"""Weight from which a name counts as held."""


def holding_tables(evaluation: Evaluation, sector_of: Mapping[str, str]) -> tuple[Table, Table]:
    """The largest holdings, and the largest active weights either way, as of the window's last decision."""
    own, theirs = (track.weights[-1] for track in (evaluation.policy, evaluation.baselines[opponent_name(evaluation)]))
    active = own - theirs
    largest = [i for i in np.argsort(-own, kind="stable").tolist() if own[i] > 0][:LARGEST]
    order = np.argsort(-active, kind="stable").tolist()
    over = [i for i in order if active[i] > 0][:EACH_WAY]
    under = [i for i in order if active[i] < 0][-EACH_WAY:]
    reach = float(np.abs(active).max()) or 1.0

    def row(i: int, group: bool = False) -> Row:
        name = evaluation.assets[i]
        lead = signed(active[i], 1, 100)
        tinted = Cell(lead.text, lead.value, tint=float(active[i] / reach))
        sector = (Cell(sector_of.get(name, "")),) if sector_of else ()
        return Row((Cell(name), *sector, number(own[i], 1, 100), number(theirs[i], 1, 100), tinted), group=group)

    columns = (
        Column("Name", numeric=False),
        *((Column("Sector", numeric=False),) if sector_of else ()),
        Column("Weight", "%"),
        Column(opponent_name(evaluation), "%"),
        Column("Active", "points"),
    )
    return (
        Table("holdings-table", columns, tuple(row(i) for i in largest)),
        Table(
            "active-table", columns, tuple(row(i, group=k == 0) for part in (over, under) for k, i in enumerate(part))
        ),
    )


def holdings_says(evaluation: Evaluation) -> str:
    """Names held, how concentrated they are, cash, and the active share."""
    own, theirs = (track.weights[-1] for track in (evaluation.policy, evaluation.baselines[opponent_name(evaluation)]))
    risky = own[:-1]
    opponent, share = opponent_name(evaluation), 0.5 * float(np.abs(own - theirs).sum())
    held, ten = int((risky > HELD).sum()), 100 * np.sort(risky)[-10:].sum()
    return (
        f"Weights behind the return of {evaluation.policy.dates[-1]}: {held} names, the ten largest {ten:.0f} % of "
        f"wealth, cash {100 * own[-1]:.1f} %. Active share against {opponent}: {100 * share:.0f} %."
    )


def risk_chart(names: tuple[NamePart, ...], sector_of: Mapping[str, str]) -> Chart:
    """Share of the window's volatility by name, the largest first, or by sector where sectors are known."""
    whole = sum(one.risk for one in names) or 1.0
    parts: dict[str, tuple[float, float]] = {}
    for one in names:
        key = sector_of.get(one.name, one.name)
        share, weight = parts.get(key, (0.0, 0.0))
        parts[key] = (share + one.risk / whole, weight + one.weight)
    shown = sorted(parts, key=lambda name: -parts[name][0])[: 2 * LARGEST][::-1]
    figure = blank()
    for label, field, colour in (("mean weight", 1, "#B8BDC2"), ("share of risk", 0, BLUE)):
        figure.add_trace(
            go.Bar(
                x=numbers((parts[name][field] for name in shown), 4), y=[text(name) for name in shown], orientation="h",
                name=label, marker={"color": colour, "line": {"width": 0}}, hovertemplate="%{x:.1%}",
            )
        )  # fmt: skip
    finish(figure)
    height = 110 + 30 * len(shown)
    figure.update_layout(barmode="group", hovermode="y unified", legend={"traceorder": "reversed", "y": -25 / height})
    figure.update_xaxes(tickformat=".0%")
    what = "sector" if sector_of else "name"
    note = f"Part of the volatility over the window that each {what} carried, beside its mean weight."
    return Chart("risk", f"Risk by {what}", note, figure, height)
