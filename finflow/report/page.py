"""The report page of an evaluated run: self-contained, and the same bytes for the same inputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finflow.data.market import BUSINESS, Calendar
from finflow.evaluation.result import Evaluation
from finflow.evaluation.study import Study
from finflow.explanations.overview import Overview
from finflow.io.files import atomic_write
from finflow.report import behaviour, explained, figures, scrutiny, tables
from finflow.report.card import OF_CARDS
from finflow.report.html import render_page
from finflow.report.learning_curves import EXPERTS, FINETUNE, PRETRAIN, History, curves
from finflow.report.study import study_view
from finflow.report.tables import Cell
from finflow.report.theme import seams
from finflow.report.verdict import scaling, verdict_views


@dataclass(frozen=True)
class RunFacts:
    """Facts about a run beside its evaluation.

    Attributes
    ----------
    title : what was evaluated, e.g. "finetune / bcell, volatile".
    folder : name of the evaluated run's folder.
    config : the run's configuration as YAML text.
    provenance : of `run.json`: versions, git commit, data fingerprint, parent and its hash, seed, threads. May nest.
    fold : name of the fold.
    fold_dates : window -> (first, last) day of its returns, in the order to show.
    pretrain, finetune : rows of the two stages' `metrics.jsonl`; either may be empty.
    confidence : by run ("" where there is one), the deployed part of its tilt, and the evidence.
    next_command : what to type next.
    calendar : of the market.
    """

    title: str
    folder: str
    config: str
    provenance: Mapping[str, Any]
    fold: str
    fold_dates: Mapping[str, tuple[str, str]]
    pretrain: History
    finetune: History
    confidence: Mapping[str, str]
    next_command: str
    calendar: Calendar = BUSINESS


def write_report(
    path: Path, evaluation: Evaluation, run: RunFacts, study: Study | None = None, overview: Overview | None = None
) -> None:
    """Write the page of one run to `path`, whole or not at all; StorageError where it cannot be written.

    study : the runs behind `evaluation`, where it stands for several; their section is added.
    overview : why it traded; that section is added.
    """
    atomic_write(path, render(evaluation, run, study, overview).encode())


def render(evaluation: Evaluation, run: RunFacts, study: Study | None = None, overview: Overview | None = None) -> str:
    """The page as HTML text."""
    main, scaled, benchmark = verdict_views(evaluation)
    booked, sectors = evaluation.policy.booked, overview.sector_of if overview else {}
    runs = None if study is None else study_view(study, evaluation)
    charts = {
        "explained": explained.charts(overview) if overview else [],
        "study": [runs.chart] if runs and runs.chart else [],
        "equity": [figures.equity_chart(evaluation)],
        "rolling": [chart for chart in [behaviour.rolling_chart(evaluation)] if chart],
        "risk": [behaviour.risk_chart(overview.names, sectors)] if overview else [],
        "weights": [figures.weights_chart(evaluation)] if booked else [],
        "gate": [figures.gate_chart(evaluation)] if evaluation.expert_names else [],
        "trading": [figures.trading_chart(evaluation)] if booked else [],
        "pretrain": curves(run.pretrain, "epoch", PRETRAIN, "pretrain"),
        "finetune": curves(run.finetune, "episode", FINETUNE, "finetune"),
        "experts": curves(run.finetune, "episode", EXPERTS, "experts"),
    }
    return render_page(
        "page.html.j2",
        [chart for group in charts.values() for chart in group],
        run=run,
        evaluation=evaluation,
        verdict=main,
        scaled=scaled,
        benchmark=benchmark,
        scaling=scaling(evaluation.scaled_verdict),
        stitched=bool(seams(evaluation.policy.dates)),
        opponent=evaluation.verdict.opponent,
        figures=_key_figures(evaluation),
        facts=_facts(evaluation, run),
        study=runs,
        overview=overview,
        sectors=sectors,
        charts=charts,
        tables=tables,
        behaviour=behaviour,
        scrutiny=scrutiny,
        explained=explained,
        **OF_CARDS,
    )


def _facts(evaluation: Evaluation, run: RunFacts) -> dict[str, Any]:
    windows = {f"{name} window": f"{first} to {last}" for name, (first, last) in run.fold_dates.items()}
    return {
        "run folder": run.folder,
        "fold": run.fold,
        **windows,
        "assets": evaluation.assets,
        "positions closed because their price ended": evaluation.policy.closures,
    }


def _key_figures(evaluation: Evaluation) -> list[tuple[str, str, Cell, list[tuple[str, Cell]]]]:
    """Label, unit, the policy's figure, and those of 1/N and of the user's own benchmark by name."""
    policy = evaluation.metrics[evaluation.policy.name]
    rivals = [(rival.name, evaluation.metrics[rival.name]) for rival in figures.rivals_shown(evaluation)]
    unknown = () if evaluation.policy.booked else ("turnover", "effective_assets")
    found: list[tuple[str, str, Cell, list[tuple[str, Cell]]]] = []
    for field in tables.KEY_FIGURES:
        if field in unknown:
            continue
        measure = tables.BY_FIELD[field]
        unit, cell = measure.unit_in(evaluation.policy.year), measure.cell
        if field == "annual_return" and policy.annual_return is None:  # too short to annualise
            unit, cell = "% in all", tables.total_return
        found.append((measure.label, unit, cell(policy), [(name, cell(own)) for name, own in rivals]))
    return found
