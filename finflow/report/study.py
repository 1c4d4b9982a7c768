"""Several runs on one page: seeds averaged, folds stitched, or settings compared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from finflow.evaluation.result import Evaluation, Metrics, Verdict
from finflow.evaluation.study import Member, Study
from finflow.report.figures import opponent_name
from finflow.report.settings import settings_caution, settings_says, settings_table
from finflow.report.tables import BY_FIELD, Cell, Column, Row, Table, interval_cell, number, signed
from finflow.report.theme import BLUE, GREEN, OPPONENT, POLICY, SKY, Chart, blank, finish, numbers, text
from finflow.report.verdict import CLASSES, common_reach

ENOUGH_SEEDS = 10
FIGURES = ("sharpe", "annual_return", "volatility", "max_drawdown", "cvar95", "turnover", "effective_assets")
SPREAD = (0.0, 0.16, -0.16, 0.08, -0.08)
"""Heights of neighbouring dots within their row, so that equal seeds are still seen apart."""


@dataclass(frozen=True)
class StudyView:
    """The page's section on the runs behind it.

    Attributes
    ----------
    subject : stands beside the page's title.
    link : its name in the navigation.
    says : plain sentences.
    caution : a warning, or nothing.
    """

    subject: str
    link: str
    heading: str
    says: tuple[str, ...]
    caution: str
    chart: Chart | None
    table: Table


def study_view(study: Study, evaluation: Evaluation) -> StudyView:
    """What the page shows of a study, by its kind."""
    count = len(study.members)
    tally = f"Each on its own: {_tally(study.members)}."
    if study.kind == "seeds":
        of = f"{count} seed{'' if count == 1 else 's'}"
        caution = f"{of}: underpowered. {ENOUGH_SEEDS} seeds are the least that count." if study.underpowered else ""
        first = f"The page's policy is the average of the portfolios of {of}; the verdict above is on that average."
        says = (f"{first} {tally}", *_middle(study))
        return StudyView(
            f"average of {of}",
            "Seeds",
            "Seed by seed",
            says,
            caution,
            _strip(study, evaluation),
            _table(study, evaluation),
        )
    if study.kind == "folds":
        first = (
            f"Walk-forward: {count} test window{'' if count == 1 else 's'}, each after everything its run was trained "
            "and selected on, stitched into one track. The verdict above is the pooled one, over all of them."
        )
        subject, table = "walk-forward, stitched", _table(study, evaluation)
        if not study.seeds:
            return StudyView(subject, "Folds", "Fold by fold", (first, tally), "", None, table)
        of = f"{len(study.seeds)} seeds"
        average = f"In each window the portfolios of {of} are averaged; a seed's row is its own walk-forward."
        caution = f"{of}: underpowered. {ENOUGH_SEEDS} seeds are the least that count." if study.underpowered else ""
        says = (first, average, tally, f"Each seed over all windows: {_tally(study.seeds)}.", *_middle(study))
        return StudyView(f"{subject}, average of {of}", "Folds", "Fold by fold", says, caution, None, table)
    first, *says = settings_says(study)
    return StudyView(
        f"first of {count} settings",
        "Settings",
        "Setting by setting",
        (f"{first} {tally}", *says),
        settings_caution(study),
        None,
        settings_table(study, evaluation),
    )


def _tally(members: Sequence[Member]) -> str:
    outcomes = [member.verdict.outcome for member in members]
    return ", ".join(f"{outcomes.count(kind)} × {kind} 1/N" for kind in CLASSES if kind in outcomes)


def _middle(study: Study) -> tuple[str, ...]:
    if study.middle is None or not all(math.isfinite(x) for x in study.middle):
        return ()
    mean, low, high = study.middle
    return (f"Interquartile mean of the seeds' Sharpe ratios: {mean:.2f}, 95 % [{low:.2f}, {high:.2f}].",)


def _table(study: Study, evaluation: Evaluation) -> Table:
    """One row per member, of folds a row per seed as well, and a last one for all of them together."""
    label = {"seeds": "Seed", "folds": "Fold"}[study.kind]
    measures = [BY_FIELD[field] for field in FIGURES]
    verdicts = [*(member.verdict for member in (*study.members, *study.seeds)), evaluation.verdict]
    reach = common_reach(verdicts)
    against = f"against {verdicts[0].opponent}" if len({verdict.opponent for verdict in verdicts}) == 1 else ""

    def row(name: str, metrics: Metrics, verdict: Verdict, mark: str) -> Row:
        note = "" if against else f"against {verdict.opponent}"
        outcome = Cell(f"{verdict.outcome} 1/N", note=note, tone=CLASSES[verdict.outcome])
        judged = (signed(verdict.difference, 2), interval_cell(verdict, reach), outcome)
        return Row((Cell(name), *judged, *(measure.cell(metrics) for measure in measures)), mark)

    rows = [row(member.label, member.metrics, member.verdict, "") for member in study.members]
    rows += [row(f"{seed.label}, pooled", seed.metrics, seed.verdict, "") for seed in study.seeds]
    together = "average" if study.kind == "seeds" else "average, pooled" if study.seeds else "pooled"
    rows.append(row(together, evaluation.metrics[evaluation.policy.name], evaluation.verdict, "policy"))
    columns = (
        Column(label, numeric=False),
        Column("Sharpe difference", "a year"),
        Column("95 % interval", "bar: against zero"),
        Column("Verdict", against, numeric=False),
        *(measure.column(evaluation.policy.year) for measure in measures),
    )
    return Table("study-table", columns, tuple(rows), sortable=True)


def _strip(study: Study, evaluation: Evaluation) -> Chart | None:
    """The seeds' Sharpe ratios as dots over their interquartile mean, the averaged policy and 1/N."""
    drawn = sorted(
        ((m.metrics.sharpe, m.label) for m in study.members if m.metrics.sharpe is not None), key=lambda pair: pair[0]
    )
    if not drawn:
        return None
    opponent = opponent_name(evaluation)
    figure = blank()
    figure.add_trace(
        go.Scatter(
            x=numbers((sharpe for sharpe, _ in drawn), 4), y=[3 + SPREAD[i % len(SPREAD)] for i in range(len(drawn))],
            mode="markers", name="seeds",
            marker={"size": 11, "color": SKY, "opacity": 0.85, "line": {"width": 1.5, "color": BLUE}},
            customdata=[text(label) for _, label in drawn], hovertemplate="%{customdata}: %{x:.2f}<extra></extra>",
        )
    )  # fmt: skip
    ticks = {3: "each seed"}
    if study.middle is not None and all(math.isfinite(x) for x in study.middle):
        mean, low, high = study.middle
        ticks[2] = "interquartile<br>mean, 95 %"
        _mark(figure, mean, 2, GREEN, "square", (low, high))
    averaged, theirs = (evaluation.metrics[name].sharpe for name in (evaluation.policy.name, opponent))
    if averaged is not None:
        ticks[1] = "averaged<br>policy"
        _mark(figure, averaged, 1, POLICY, "diamond")
    if theirs is not None:
        ticks[0] = text(opponent)
        _mark(figure, theirs, 0, OPPONENT, "diamond", above=False)
        line = {"width": 1, "color": OPPONENT, "dash": "dot"}
        figure.add_shape(type="line", x0=theirs, x1=theirs, y0=0, y1=3.6, line=line)
    finish(figure, legend=False)
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(title="Sharpe ratio, net of costs", hoverformat=".2f", nticks=8)
    figure.update_yaxes(tickvals=list(ticks), ticktext=list(ticks.values()), range=[min(ticks) - 0.7, 3.6], ticks="")
    missing = len(study.members) - len(drawn)
    note = f"{missing} without a defined Sharpe ratio not drawn." if missing else ""
    return Chart("seeds", "Sharpe ratio of every seed", note, figure, 290)


def _mark(
    figure: go.Figure,
    value: float,
    height: int,
    colour: str,
    symbol: str,
    ends: tuple[float, float] | None = None,
    *,
    above: bool = True,
) -> None:
    """One value in a row of its own, written beside it, with its interval where there is one."""
    whisker: dict[str, object] | None = None
    if ends is not None:
        whisker = {
            "type": "data", "symmetric": False, "array": [ends[1] - value], "arrayminus": [value - ends[0]],
            "width": 7, "thickness": 2.5, "color": colour,
        }  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=numbers([value], 4), y=[height], mode="markers+text", text=[number(value, 2).text], error_x=whisker,
            textposition="top center" if above else "bottom center",
            marker={"size": 13, "color": colour, "symbol": symbol},
            hovertemplate="%{x:.2f}<extra></extra>", showlegend=False,
        )
    )  # fmt: skip
