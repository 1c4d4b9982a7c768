"""The commands: of each what `--help` says, and the function that runs it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finflow.artifacts.runs import command_line
from finflow.cli import stages
from finflow.config.compose import compose_stage
from finflow.config.overrides import conf_dirs, group_choices
from finflow.schema import Config

Run = Callable[[Config, Path], stages.Result | None]
"""Runs a stage in a folder, which the stage makes; None where it writes none."""


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes
    ----------
    about : what it does, in a line.
    run : does the work and prints its result.
    examples : overrides worth knowing, and what each is for.
    """

    about: str
    run: Run
    examples: Mapping[str, str]


_WRITTEN = {"output_root=DIR": "where everything is written (default outputs)"}
_LOOKED_FOR = {"output_root=DIR": "where runs are looked for and written (default outputs)"}
COMMANDS: dict[str, Command] = {
    "pretrain": Command(
        "Learn values and a policy offline (IQL) from collected episodes.",
        stages.pretrain,
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
        stages.finetune,
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
        stages.evaluate,
        {
            "run=DIR": "a run folder (default: the newest finished one)",
            "audit=true": "look for leaks in data, features and fold; the test window stays shut",
            "evaluation.bootstrap_samples=10000": "a finer interval",
            **_LOOKED_FOR,
        },
    ),
    "judge": Command(
        "Open the test window for a strategy from outside: weights or returns of a file, see docs/judge.md.",
        stages.judge,
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
        stages.decide,
        {
            "run=DIR": "a fine-tuning run (default: the newest finished one), a sweep's folder, or [DIR,DIR]",
            "holdings=FILE": "a CSV ticker,shares or ticker,weight of what is held, with a row CASH",
            "capital=100000": "money to invest, or what holdings in weights are worth",
            "min_trade=0.005 lot=100": (
                "smallest trade that is ordered, a fraction of net asset value; shares traded together"
            ),
            "env.end=2024-12-30": "last day of the data to use, where the newest row is not complete",
            **_LOOKED_FOR,
        },
    ),
    "explain": Command(
        "Decision cards: what was traded, who asked for it, why, and what came of it.",
        stages.explain,
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
        stages.export,
        {
            "run=DIR": "a run folder (default: the newest finished one)",
            "out=policy.onnx": "the file; an .npz of inputs and answers lies beside it",
            **_LOOKED_FOR,
        },
    ),
    "collect": Command(
        "Collect offline data with priors, mixtures, noisy and random portfolios.",
        stages.collect,
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
        stages.look,
        {
            "env=csv env.path=prices.csv": "your own prices: a file or a folder, see docs/data.md",
            "env=csv env.path=p.csv env.rebalance=weekly": "whether the newest row is a decision day",
            "fold=2008": "another test window of the embedded prices",
        },
    ),
    "sweep": Command(
        "Collect a sweep: leaderboard, deflated Sharpe, effects, best.yaml, sweep.html.",
        stages.sweep,
        {
            "dir=DIR": "the folder of a sweep (default: the newest), also while its jobs run",
            "sweep.objective=active_ir": "sort by the information ratio against 1/N (default: as the jobs selected)",
            "output_root=DIR": "where sweeps are looked for (default outputs)",
        },
    ),
    "dashboard": Command(
        "Build the W&B workspace; written as JSON, and saved where tracking is online.",
        stages.dashboard,
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
    lines = [
        "finflow COMMAND [key=value ...] [-m]",
        "",
        *(f"  {name:<10} {one.about}" for name, one in COMMANDS.items()),
    ]
    return "\n".join([*lines, "", "finflow COMMAND --help shows the groups and keys of one."])


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
