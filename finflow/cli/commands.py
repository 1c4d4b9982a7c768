"""The commands: of each what `--help` says, the function that runs it, and what is printed of its result.

A stage is imported when its command runs: `--help` must not wait for torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from finflow.artifacts.runs import command_line, typable
from finflow.cli import tables
from finflow.config.compose import compose_stage, conf_dirs, group_choices
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
        """What to type next."""
        ...


def pretrain(config: Config, folder: Path | None) -> Result:
    """Phase 1: offline pretraining on the train days of one fold."""
    from finflow.stages.pretrain import pretrain

    result = pretrain(config, folder)
    print(timing(result.run_dir))
    losses = f"v_loss {result.v_loss:.4g}, q_loss {result.q_loss:.4g}, policy_loss {result.policy_loss:.4g}"
    print(f"Last epoch: {losses}")
    if result.confidence is not None:
        print(f"Confidence: {result.confidence.line()}")
    return result


def finetune(config: Config, folder: Path | None) -> Result:
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


def evaluate(config: Config, folder: Path | None) -> Result:
    """The test window: baselines, costs, statistics, verdict and report; with `audit` the leak audit instead."""
    if config.audit:
        from finflow.stages.audit import audit

        result = audit(config, folder)
        tables.show_checks(result.checks)
        result.require()  # a leak ends in an `AuditError`
        print(f"Record: {shown(result.record)}")
        print(result.line())
        return result
    from finflow.stages.evaluate import evaluate

    return _judged(evaluate(config, folder))


def _judged(result: "EvaluateResult") -> Result:
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


def judge(config: Config, folder: Path | None) -> Result:
    """A strategy from outside on the test window: weights or returns of a file."""
    from finflow.stages.judge import judge

    return _judged(judge(config=config, run_dir=folder))


def decide(config: Config, folder: Path | None) -> Result:
    """Target weights and trades for the latest date in the data."""
    from finflow.stages.decide import decide

    result = decide(config, folder)
    for one in result.runs:
        print(f"Run followed: {shown(one)}")
    if len(result.runs) > 1:
        print(f"Averaged: the decisions of {len(result.runs)} seeds, as one policy")
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


def explain(config: Config, folder: Path | None) -> Result:
    """Why a run traded as it did: a decision card for each day asked for."""
    from finflow.stages.explain import explain

    result = explain(config, folder)
    for one in result.runs:
        print(f"Run explained: {shown(one)}")
    seeds = result.cards[0].provenance["seed"]
    if isinstance(seeds, list):
        print(f"Averaged: the decisions of {len(seeds)} seeds, as one policy")
    tables.show_cards(result.cards)
    print(f"Card: {shown(result.pages[0])}" if result.index is None else f"Cards: {shown(result.index)}")
    return result


def export(config: Config, folder: Path | None) -> Result:
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


def collect(config: Config, folder: Path | None) -> Result:
    """Offline data by hand: episodes of the behaviour policies, written to one file."""
    from finflow.stages.collect import collect

    result = collect(config, folder)
    print(f"Calendar: {result.calendar}")
    print(f"{result.transitions} transitions in {shown(result.dataset)}")
    return result


def look(config: Config, _folder: Path | None) -> None:
    """A dry look at the data: what a run on these settings would see."""
    from finflow.stages.look import look
    from finflow.tracking.sink import warn

    result = look(config)
    for line in result.warnings:
        warn(line)
    print("\n".join(result.lines))


def sweep(config: Config, folder: Path | None) -> Result:
    """The table of a sweep: leaderboard, the best setting, how much of it is luck, and what each parameter does."""
    from finflow.stages.sweep import collect_sweep

    result = collect_sweep(config, folder)
    tables.show_leaderboard(result.leaderboard)
    print(f"Table: {shown(result.table)}\nReport: {shown(result.page)}")
    if result.best is not None:
        print(f"Best: {shown(result.best)}\nAgain: {typable(result.rerun)}")
    return result


def dashboard(config: Config, folder: Path | None) -> Result:
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


@dataclass(frozen=True)
class Command:
    """One command: what it does, the function that does it and prints its result, and overrides worth knowing.

    run : in a folder, which the stage makes, and names where it is None; the result is None where nothing is written.
    """

    about: str
    run: Callable[[Config, Path | None], Result | None]
    examples: Mapping[str, str]


_WRITTEN = {"output_root=DIR": "where everything is written (default outputs)"}
_LOOKED_FOR = {"output_root=DIR": "where runs are looked for and written (default outputs)"}
COMMANDS: dict[str, Command] = {
    "pretrain": Command(
        "Learn values and a policy offline (IQL) from collected episodes.",
        pretrain,
        {
            "experiment=demo": "small budgets: a result in a minute",
            "seed=1": "another seed",
            "env=csv env.path=prices.csv": "your own daily prices",
            "market_regime=volatile": "the training guide's values for volatile markets",
            "fold=2008": "another test window (2000, 2008, 2013, 2018)",
            "budget.epochs=20": "passes over the offline data",
            "budget.collect_episodes=1000": "episodes of offline data",
            "offline.dataset=dataset.npz": "offline data from collect.py",
            "algo.lr=1e-4": "learning rate",
            "algo.expectile=0.8": "expectile of the value loss",
            **_WRITTEN,
        },
    ),
    "finetune": Command(
        "Fine-tune five experts under a gate online (distributional SAC with CQL).",
        finetune,
        {
            "experiment=demo": "small budgets: a result in a minute",
            "seed=1": "another seed",
            "market_regime=volatile": "train on days with that label, with the guide's values for them",
            "env=csv env.path=prices.csv": "your own daily prices",
            "init.weights=null": "from scratch: the ablation",
            "init.weights=DIR": "from one pretraining run (default: the newest that fits)",
            "budget.episodes=200": "episodes to train on",
            "algo.cql.alpha=10": "how conservative the critic is",
            "algo.alpha_init=0.5": "first entropy coefficient",
            "algo.lr=1e-4": "learning rate",
            "env.limits.max_weight=0.2": "most that one name may hold",
            **_WRITTEN,
        },
    ),
    "evaluate": Command(
        "Open the test window: net of costs, against simple portfolios, with statistics and a report.",
        evaluate,
        {
            "run=DIR": "a run folder (default: the newest finished one)",
            "audit=true": "look for leaks in data, features and fold; the test window stays shut",
            "evaluation.bootstrap_samples=10000": "a finer interval",
            **_LOOKED_FOR,
        },
    ),
    "judge": Command(
        "Open the test window for a strategy from outside: weights or returns of a file, see docs/judge.md.",
        judge,
        {
            "weights=FILE": "a CSV date,ticker,...,CASH: decided at the close of the date, booked by the ledger",
            "returns=FILE": "a CSV date,return: taken as given",
            "name=momentum": "what the report calls it",
            "fold=2008": "another test window (2000, 2008, 2013, 2018)",
            "env=csv env.path=prices.csv": "on your own daily prices",
            "env.rebalance=monthly": "how often it decides (default daily)",
            **_WRITTEN,
        },
    ),
    "decide": Command(
        "Print the portfolio to hold after the last date in the data, and the trades.",
        decide,
        {
            "run=DIR": "a fine-tuning run (default: the newest finished one), a sweep's folder, or [DIR,DIR]",
            "holdings=FILE": "a CSV ticker,shares or ticker,weight of what is held, with a row CASH",
            "capital=100000": "money to invest, or what holdings in weights are worth",
            "capital=1e5 lot=100 min_trade=0.005": "shares traded together; smallest trade, a fraction of NAV",
            "env.end=2024-12-30": "last day of the data to use, where the newest row is not complete",
            **_LOOKED_FOR,
        },
    ),
    "explain": Command(
        "Decision cards: what was traded, who asked for it, why, and what came of it.",
        explain,
        {
            "run=DIR": "a run that evaluate.py has judged (default: the newest finished one)",
            "date=2020-03-16": "the decision at the close of this day",
            "date=[2020-03-01,2020-03-31]": "every decision of these days",
            "ticker=KO": "why the holding of one name is what it is, at the newest close or on `date`",
            "top=10": "the ten largest trades, of the test window or of `date`; neither: the largest",
            **_LOOKED_FOR,
        },
    ),
    "export": Command(
        "Write a run's policy as ONNX, with its scaling, names and limits: see docs/export.md.",
        export,
        {
            "run=DIR": "a run folder (default: the newest finished one)",
            "out=policy.onnx": "the file; an .npz of inputs and answers lies beside it",
            **_LOOKED_FOR,
        },
    ),
    "collect": Command(
        "Collect offline data with priors, mixtures, noisy and random portfolios.",
        collect,
        {
            "episodes=1000 out=dataset.npz": "how many, and the file that pretrain reads by offline.dataset=",
            "seed=1": "another seed",
            "env=csv env.path=prices.csv": "your own daily prices",
            "offline.bootstrap_fraction=0.25": "share of episodes from resampled history",
            "output_root=DIR": "where the run folder goes (default outputs)",
        },
    ),
    "look": Command(
        "Look at the data: names, calendar, windows of the fold, masks, warnings. Trains nothing, writes nothing.",
        look,
        {
            "env=csv env.path=prices.csv": "your own prices: a file or a folder, see docs/data.md",
            "env=csv env.path=p.csv env.rebalance=weekly": "whether the newest row is a decision day",
            "fold=2008": "another test window of the embedded prices",
        },
    ),
    "sweep": Command(
        "Collect a sweep: leaderboard, deflated Sharpe, effects, best.yaml, sweep.html.",
        sweep,
        {
            "dir=DIR": "the folder of a sweep (default: the newest), also while its jobs run",
            "sweep.objective=active_ir": "sort by the information ratio against 1/N (default: as the jobs selected)",
            "output_root=DIR": "where sweeps are looked for (default outputs)",
        },
    ),
    "dashboard": Command(
        "Build the W&B workspace; written as JSON, and saved where tracking is online.",
        dashboard,
        {
            "tracking.wandb.mode=online": "save it on the server; needs a key: wandb login, or WANDB_API_KEY",
            "tracking.wandb.project=desk": "for the runs of that project (default finflow)",
            "tracking.wandb.entity=team": "of that account or team (default: the account's own)",
            "output_root=DIR": "where the JSON is written (default outputs)",
        },
    ),
}


def overview() -> str:
    """All commands, a line each."""
    lines = [f"  {name:<10} {one.about}" for name, one in COMMANDS.items()]
    foot = "finflow COMMAND --help shows the groups and keys of one."
    return "\n".join(["finflow COMMAND [key=value ...] [-m]", "", *lines, "", foot])


def usage(stage: str, overrides: Sequence[str] = ()) -> str:
    """What a stage does, its groups with their options, and keys worth knowing; of `overrides` the added folders."""
    command = COMMANDS[stage]
    added = [text for text in overrides if text.startswith("hydra.searchpath=")]
    chosen = compose_stage(stage, added, with_hydra=True).hydra.runtime.choices
    lines = [f"{command_line(stage, [])} [key=value ...] [-m]", "", command.about, "", "Groups (* is the default):"]
    for group, options in group_choices(stage, conf_dirs(added)).items():
        marked = ", ".join(f"{option}*" if option == chosen.get(group) else option for option in options)
        lines.append(f"  {group:<15} {marked}")
    lines += ["", "Keys used most:", *(f"  {key:<40} {reason}" for key, reason in command.examples.items())]
    lines += ["", "-m runs every combination of values written as seed=0,1,2; quote 'seed=range(5)' for the shell."]
    lines += ["Hydra's flags work too: --cfg job, --info, --config-dir DIR, --hydra-help for all of them."]
    return "\n".join([*lines, "All keys and their values: conf/base.yaml and the folders beside it."])
