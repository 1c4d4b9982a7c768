"""Each stage as a command runs it: the work, and what is printed of its result.

A stage is imported when its command runs: `--help` must not wait for torch.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from finflow.artifacts.runs import typable
from finflow.cli import tables
from finflow.schema import Config

if TYPE_CHECKING:
    from finflow.stages.results import EvaluateResult


class Result(Protocol):
    """What the closing lines need of a stage's result."""

    @property
    def run_dir(self) -> Path:
        """Folder that the stage wrote."""
        ...

    @property
    def next_command(self) -> str:
        """Command that a user would run next."""
        ...


def pretrain(config: Config, folder: Path) -> Result:
    """Phase 1: offline pretraining on the train days of one fold."""
    from finflow.stages.pretrain import pretrain

    result = pretrain(config, folder)
    losses = {"v_loss": result.v_loss, "q_loss": result.q_loss, "policy_loss": result.policy_loss}
    print(timing(result.run_dir))
    print(f"Last epoch: {figures(losses)}")
    if result.confidence is not None:
        print(f"Confidence: {result.confidence.line()}")
    return result


def finetune(config: Config, folder: Path) -> Result:
    """Phase 2: online fine-tuning of the B-Cell, from the weights of phase 1."""
    from finflow.evaluation.metrics import diagnostics_says
    from finflow.stages.finetune import finetune

    result = finetune(config, folder)
    print(timing(result.run_dir))
    print(f"Kept from episode {result.selected_episode} (0 is the hand-over), by validation")
    print(f"Experts and gate, kept: {diagnostics_says(result.diagnostics)}")
    print(f"Experts and gate, at the end of training: {diagnostics_says(result.diagnostics_at_end)}")
    if result.confidence is not None:
        print(f"Confidence: {result.confidence.line()}")
    return result


def evaluate(config: Config, folder: Path) -> Result:
    """The test window: baselines, costs, statistics, verdict and report; with `audit` the leak audit instead."""
    if config.audit:
        return _audit(config, folder)
    from finflow.stages.evaluate import evaluate

    return _judged(evaluate(config, folder))


def _judged(result: "EvaluateResult") -> Result:
    """Print metrics, verdict and where the report lies."""
    from finflow.evaluation.metrics import diagnostics_says

    found = result.evaluation
    for one in result.runs:
        print(f"Run judged: {shown(one)}")
    tables.show_growth(result.new_days)
    tables.show_metrics(found.metrics, found.policy.year)
    tables.show_settings(result.study, found)
    tables.show_parts(found)
    if found.diagnostics:
        print(f"Experts and gate: {diagnostics_says(found.diagnostics)}")
    print(timing(result.run_dir))
    for name, line in result.confidence.items():
        print(f"Confidence{f', {name}' if name else ''}: {line}")
    if result.rendered_from is not None:
        print(f"Made from the evaluation in {shown(result.rendered_from)}: the test window was not opened again")
    times = "once" if found.window_opened == 1 else f"{found.window_opened} times"
    print(f"Test window opened {times}")
    print(found.verdict.line())
    print(f"Report: {shown(result.report)}")
    return result


def judge(config: Config, folder: Path) -> Result:
    """A strategy from outside on the test window: weights or returns of a file."""
    from finflow.stages.judge import judge

    return _judged(judge(config=config, run_dir=folder))


def _audit(config: Config, folder: Path) -> Result:
    """Print a row per check and the verdict; a leak ends in an `AuditError`."""
    from finflow.stages.audit import audit

    result = audit(config, folder)
    tables.show_checks(result.checks)
    result.require()
    print(f"Record: {shown(result.record)}")
    print(result.line())
    return result


def decide(config: Config, folder: Path) -> Result:
    """Target weights and trades for the latest date in the data."""
    from finflow.stages.decide import decide

    result = decide(config, folder)
    for one in result.runs:
        print(f"Run followed: {shown(one)}")
    _averaged(result.runs)
    for name, line in result.confidence.items():
        print(f"Confidence{f', {name}' if name else ''}: {line}")
    tables.show_growth(result.new_days)
    if not result.decides:
        print(f"{result.date} is no decision day of env.rebalance: what is held stays as it is")
    if not result.owned:
        print(f"No holdings given: this follows {result.portfolio}, the start of the test window; it is not yours")
    print(result.verdict or f"Verdict: none yet, run {result.next_command}")
    title = f"Decision at the close of {result.date}, as fractions of net asset value"
    tables.show_trades(title, result.trades, config.min_trade)
    tables.show_ticket(result.ticket)
    print(f"Orders: {shown(result.orders)}")
    print(f"Table: {shown(result.table)}")
    tables.show_realised(result.became)
    print(f"Card: {shown(result.card)}")
    print(f"Log: {shown(result.log)}")
    return result


def _averaged(seeds: Sequence[object]) -> None:
    if len(seeds) > 1:
        print(f"Averaged: the decisions of {len(seeds)} seeds, as one policy")


def explain(config: Config, folder: Path) -> Result:
    """Why a run traded as it did: a decision card for each day asked for."""
    from finflow.stages.explain import explain

    result = explain(config, folder)
    for one in result.runs:
        print(f"Run explained: {shown(one)}")
    seeds = result.cards[0].provenance["seed"]
    _averaged(seeds if isinstance(seeds, list) else [seeds])
    tables.show_cards(result.cards)
    for page in result.pages if result.index is None else [result.index]:
        print(f"Card: {shown(page)}" if result.index is None else f"Cards: {shown(page)}")
    return result


def export(config: Config, folder: Path) -> Result:
    """A run's policy as an ONNX file."""
    from finflow.stages.export import export

    result = export(config, folder)
    print(f"Run exported: {shown(result.run)}")
    if result.confidence is not None:
        print(f"Confidence: {result.confidence}")
    print(f"Checked: {result.decisions} validation decisions, weights at most {result.difference:.1e} off the policy's")
    print(f"Policy: {shown(result.file)}")
    print(f"Inputs and answers to test with: {shown(result.answers)}")
    return result


def collect(config: Config, folder: Path) -> Result:
    """Offline data by hand: episodes of the behaviour policies, written to one file."""
    from finflow.stages.collect import collect

    result = collect(config, folder)
    print(f"Calendar: {result.calendar}")
    print(f"{result.transitions} transitions in {shown(result.dataset)}")
    return result


def look(config: Config, _folder: Path) -> None:
    """A dry look at the data: what a run on these settings would see."""
    from finflow.stages.look import look
    from finflow.tracking.sink import warn

    result = look(config)
    for line in result.warnings:
        warn(line)
    print("\n".join(result.lines))


def sweep(config: Config, folder: Path) -> Result:
    """The table of a sweep: leaderboard, the best setting, how much of it is luck, and what each parameter does."""
    from finflow.stages.sweep import collect_sweep

    result = collect_sweep(config, folder)
    tables.show_leaderboard(result.leaderboard)
    print(f"Table: {shown(result.table)}\nReport: {shown(result.page)}")
    if result.best is not None:
        print(f"Best: {shown(result.best)}\nAgain: {typable(result.rerun)}")
    return result


def dashboard(config: Config, folder: Path) -> Result:
    """The W&B workspace of a project as code: written as JSON, and saved where tracking is online."""
    from finflow.stages.dashboard import dashboard

    result = dashboard(config, folder)
    print(f"Workspace: {shown(result.file)}")
    if result.url is not None:
        print(f"Saved: {result.url}")
    return result


def shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path)


def figures(values: Mapping[str, float | None]) -> str:
    """Named figures in one line; a dash is an undefined value."""
    return ", ".join(f"{name} {'-' if value is None else format(value, '.4g')}" for name, value in values.items())


def timing(folder: Path) -> str:
    """Wall-clock seconds of a run by phase, from its `run.json`, in one line."""
    from finflow.artifacts.runs import RUN
    from finflow.io.files import read_json

    record = read_json(folder / RUN)
    begin, end = (datetime.fromisoformat(record[name]) for name in ("started", "finished"))
    whole = (end - begin).total_seconds()
    phases = record["seconds"] | {"rest": max(whole - sum(record["seconds"].values()), 0.0)}
    since = " since it was resumed" if record.get("resumed") else ""
    return f"Seconds{since}: {', '.join(f'{name} {s:.1f}' for name, s in phases.items())}; in all {whole:.1f}"
