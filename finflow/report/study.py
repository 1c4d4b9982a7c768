"""Several runs on one page: seeds averaged, folds stitched, or settings side by side, each with its averaged seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from finflow.evaluation.result import Evaluation, Metrics, Verdict
from finflow.evaluation.study import LEAST, Member, Setting, Study
from finflow.report.tables import BY_FIELD, DASH, Cell, Column, Row, Table, interval_cell, middle_cell, number, signed
from finflow.report.theme import BLUE, GREEN, OPPONENT, POLICY, SKY, Chart, blank, finish, numbers, text
from finflow.report.verdict import CLASSES, common_reach, tone

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
    if study.kind == "comparison":
        first, *others = settings_says(study)
        says, caution = (f"{first} {tally}", *others), settings_caution(study)
        table = settings_table(study, evaluation)
        return StudyView(f"first of {count} settings", "Settings", "Setting by setting", says, caution, None, table)
    of, table = _count(len(study.seeds or study.members), "seed"), _table(study, evaluation)
    caution = f"{of}: underpowered. {LEAST} seeds are the least that count." if study.underpowered else ""
    if study.kind == "seeds":
        first = f"The page's policy is the average of the portfolios of {of}; the verdict above is on that average."
        says, chart = (f"{first} {tally}", *_middle(study)), _strip(study, evaluation)
        return StudyView(f"average of {of}", "Seeds", "Seed by seed", says, caution, chart, table)
    first = (
        f"Walk-forward: {_count(count, 'test window')}, each after everything its run was trained and selected on, "
        "stitched into one track. The verdict above is the pooled one, over all of them."
    )
    subject, says = "walk-forward, stitched", (first, tally)
    if study.seeds:
        subject += f", average of {of}"
        average = f"In each window the portfolios of {of} are averaged; a seed's row is its own walk-forward."
        says = (first, average, tally, f"Each seed over all windows: {_tally(study.seeds)}.", *_middle(study))
    return StudyView(subject, "Folds", "Fold by fold", says, caution, None, table)


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
    opponent = evaluation.verdict.opponent
    figure = blank()
    figure.add_scatter(
        x=numbers((sharpe for sharpe, _ in drawn), 4), y=[3 + SPREAD[i % len(SPREAD)] for i in range(len(drawn))],
        mode="markers", name="seeds",
        marker={"size": 11, "color": SKY, "opacity": 0.85, "line": {"width": 1.5, "color": BLUE}},
        customdata=[text(label) for _, label in drawn], hovertemplate="%{customdata}: %{x:.2f}<extra></extra>",
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
    finish(figure, legend=False, hover="closest")
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
    whisker = ends and {
        "type": "data", "symmetric": False, "array": [ends[1] - value], "arrayminus": [value - ends[0]],
        "width": 7, "thickness": 2.5, "color": colour,
    }  # fmt: skip
    figure.add_scatter(
        x=numbers([value], 4), y=[height], mode="markers+text", text=[number(value, 2).text], error_x=whisker,
        textposition="top center" if above else "bottom center",
        marker={"size": 13, "color": colour, "symbol": symbol},
        hovertemplate="%{x:.2f}<extra></extra>", showlegend=False,
    )  # fmt: skip


SETTING_FIGURES = ("sharpe", "annual_return", "max_drawdown", "turnover")
"""The others stand in the table of all strategies: so many columns fit on a printed page."""
OUTCOMES = {"beats": "BEATS", "worse": "WORSE THAN", "level": "INDISTINGUISHABLE FROM"}


def settings_says(study: Study) -> tuple[str, ...]:
    """Plain sentences: what is compared with what, which settings are the same, and what picking one is worth."""
    reference, *others = study.members
    seeds = {member.setting.seeds for member in study.members if member.setting}
    each = f", each of {_count(len(next(iter(seeds))), 'seed')}" if len(seeds) == 1 else ""
    start = (
        f"{len(study.members)} settings{each}; the seeds of a setting are averaged to one strategy. "
        f"The reference is the first, {reference.label}, and the rest of the page is about it."
    )
    same = [member for member in others if member.setting and member.setting.same_as]
    if len(same) == len(others):
        return start, (
            f"All {len(study.members)} settings are the same policy: their returns are identical on every day"
            f"{_reason(study.members)}. There is nothing to rank."
        )
    alike = [
        f"{member.label} is the same policy as {member.setting.same_as}, with identical returns on every day"
        f"{_reason([member])}: it is not ranked."
        for member in same
        if member.setting
    ]
    how = (
        f"Differences are Sharpe ratios minus those of {reference.label}: of the averaged strategies over the same "
        "days, and seed by seed, as the interquartile mean over seeds. Each interval is for itself: of twenty settings "
        "without any effect, one lies beside zero."
    )
    return start, *alike, how, *_selection(study)


def settings_caution(study: Study) -> str:
    """A warning about few seeds and about picking the best; nothing where all settings are the same."""
    if study.selection is None:
        return ""
    least = min((len(member.setting.seeds) for member in study.members if member.setting), default=1)
    few = f"{_count(least, 'seed')}: underpowered. 10 seeds are the least that count. " if study.underpowered else ""
    return f"{few}The best of several settings is partly the luckiest: its lead is smaller than it looks."


def settings_table(study: Study, evaluation: Evaluation) -> Table:
    """One row per setting, the reference first."""
    measures = [BY_FIELD[field] for field in SETTING_FIGURES]
    against = [member.setting.against for member in study.members if member.setting and member.setting.against]
    reach, reference = common_reach(against), study.members[0].label
    cells = [(*_setting_cells(m, reach), *(measure.cell(m.metrics) for measure in measures)) for m in study.members]
    rows = [Row(own, "" if at else "policy") for at, own in enumerate(cells)]
    columns = (
        Column("Setting", "seeds averaged", numeric=False),
        Column("Seeds"),
        Column("Difference", f"Sharpe, to {reference}"),
        Column("95 % interval", "against zero"),
        Column("Outcome", numeric=False),
        Column("Seed by seed", "difference, 95 %"),
        Column("Over seeds", "Sharpe, 95 %"),
        Column("Against 1/N", "Sharpe difference"),
        *(measure.column(evaluation.policy.year) for measure in measures),
    )
    return Table("study-table", columns, tuple(rows), sortable=True)


def _setting_cells(member: Member, reach: float) -> tuple[Cell, ...]:
    setting = member.setting
    assert setting is not None  # a comparison's members have one
    seeds = number(float(len(setting.seeds)), 0)
    rest = (middle_cell(setting.middle, number), signed(member.verdict.difference, 2))
    if setting.against is None:
        return Cell(member.label), seeds, Cell(DASH), Cell(DASH), Cell("reference"), Cell(DASH), *rest
    if setting.same_as:
        same = Cell(f"IDENTICAL TO {setting.same_as}", note=_why_same(setting), tone="level")
        return Cell(member.label), seeds, Cell(DASH), Cell(DASH), same, Cell(DASH), *rest
    kind = tone(setting.against)
    outcome = Cell(f"{OUTCOMES[kind]} {setting.against.opponent}", tone=kind)
    compared = (signed(setting.against.difference, 2), interval_cell(setting.against, reach), outcome)
    return Cell(member.label), seeds, *compared, middle_cell(setting.paired, signed), *rest


def _why_same(setting: Setting) -> str:
    if setting.handed_over == len(setting.seeds):
        return "kept the hand-over"
    return "abstains" if setting.abstaining == len(setting.seeds) else ""


def _reason(members: Sequence[Member]) -> str:
    """Why these settings are the same, where every run of theirs says so."""
    settings = [member.setting for member in members if member.setting]
    runs = sum(len(setting.seeds) for setting in settings)
    each = f"each of the {runs} runs" if runs > 1 else "its run"
    if sum(setting.handed_over for setting in settings) == runs:
        return f", since {each} kept the hand-over, the policy of phase 1"
    if sum(setting.abstaining for setting in settings) == runs:
        return f", since {each} abstains and holds the benchmark's portfolio"
    return ""


def _selection(study: Study) -> tuple[str, ...]:
    chosen = study.selection
    if chosen is None or chosen.probabilistic is None:
        return ()
    alone = f"Probability that its active Sharpe ratio is above 0: {chosen.probabilistic:.2f} alone"
    says = f"Best against 1/N: {chosen.best}. {alone}"
    if chosen.deflated is not None:
        says += f", {chosen.deflated:.2f} deflated for {chosen.trials} settings"
    if chosen.deflated_effective is not None and chosen.effective_trials is not None:
        says += f", {chosen.deflated_effective:.2f} for the {chosen.effective_trials:.1f} that they amount to"
    if chosen.overfitting is None:
        return (f"{says}.",)
    return (f"{says}.", f"Probability that picking the best overfits (CSCV): {chosen.overfitting:.2f}.")


def _count(number_of: int, what: str) -> str:
    return f"{number_of} {what}{'' if number_of == 1 else 's'}"
