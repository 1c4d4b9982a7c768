"""Estimate of a sweep's hours and disk space, from an earlier run if there is one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from finflow.artifacts.runs import CHECKPOINTS, CONFIG, RUN, newest_run
from finflow.config.compose import from_yaml, load
from finflow.data.market import BLOCKS, Fold, Market
from finflow.errors import ConfigError, DataError, StorageError
from finflow.io.files import read_json
from finflow.schema import Config
from finflow.schema.fields import digest
from finflow.schema.sections import Algorithm, DirectConfig, IQLConfig, OnlineAlgorithm, ValueGradients


class Work(NamedTuple):
    """The work of a run, by what takes time.

    rows : of paths that it learns from, a row of a batch counting as `BATCH_ROW` of them; steps : days lived side by
    side in all episodes; validations : with the first.
    """

    rows: float
    steps: float
    validations: float


PHASES = {"updates": "rows", "environment": "steps", "validation": "validations", "checkpoints": "validations"}
"""Phases of `run.json` that grow with the budget, and what each grows with; in phase 1 also its cross-fitting."""
BATCH_ROW, REFIT_ROW = 4.0, 2.0
"""Rows of a path that take as long as a row of a batch: 0.22 ms in an update and 0.10 ms in a refit, to 0.057 ms."""

TRANSITION = 190.0
"""Bytes of a transition in a checkpoint, for a market of 20 names."""


@dataclass(frozen=True)
class Measured:
    """Cost of one run: seconds that grow with its work and seconds that do not, and bytes on disk.

    work : what it did; train : the seconds of each kind; size : of everything but checkpoints; state : of a checkpoint
    without the memory of transitions; source : where it comes from, in words.
    """

    work: Work
    train: Work
    rest: float
    size: float
    state: float
    source: str

    def seconds(self, config: Config) -> float:
        """Expected seconds of a run with `config`, on one core as fast as the measured one."""
        amounts = zip(self.train, work(config), self.work, strict=True)
        return self.rest + sum(seconds * amount / own for seconds, amount, own in amounts if own)

    def bytes(self, config: Config) -> float:
        """Expected bytes that a run with `config` leaves."""
        return self.size + kept(config) * (self.state + TRANSITION * remembered(config))


ESTIMATE = {
    "pretrain": Measured(Work(4_300_800, 0, 4), Work(212.0, 0.0, 4.0), 6.0, 1.4e6, 3.3e6, "see docs/scaling.md"),
    "finetune": Measured(
        Work(5_656_064, 15_876, 11), Work(348.0, 39.0, 11.0), 5.0, 1.8e6, 5.0e6, "see docs/scaling.md"
    ),
}
"""Measured on one core at the default settings, where phase 2 takes over what phase 1 cross-fitted."""


def work(config: Config) -> Work:
    """The work of a run, from its budgets; for one market regime, and for a user's file, from the data as well."""
    budget, algo = config.budget, config.algo
    path = _path(algo, algo.actors)
    crossfit = budget.crossfit_updates * _path(algo, BLOCKS) if _crossfits(config) else 0
    if isinstance(algo, OnlineAlgorithm):
        batch = BATCH_ROW * algo.batch_size
        slots = min(config.env.num_envs, budget.episodes)
        days, mean = _episode_rows(config)
        steps = math.ceil(budget.episodes / slots) * mean
        updates = max(steps - math.ceil(budget.warmup_episodes * days / slots), 0.0) / algo.update_interval
        alone = min(budget.critic_warmup_updates, updates)
        refit = budget.refit_updates * REFIT_ROW * algo.batch_size if _refits(config) else 0.0
        validations = 1 + math.ceil(budget.episodes / config.evaluation.every_episodes)
        return Work(updates * batch + (updates - alone) * path + refit + crossfit, steps, validations)
    validations = math.ceil(budget.epochs / config.evaluation.every_epochs)
    if isinstance(algo, DirectConfig):
        return Work(budget.epochs * (budget.updates_per_epoch or 1) * path + crossfit, 0.0, validations)
    updates = budget.updates_per_epoch or budget.collect_episodes * _episode_rows(config)[0] / algo.batch_size
    return Work(budget.epochs * updates * (BATCH_ROW * algo.batch_size + path) + crossfit, 0.0, validations)


def _path(algo: Algorithm, actors: int) -> int:
    """Days of paths in an update of so many actors; 0 without value gradients."""
    if not isinstance(algo, ValueGradients) or (isinstance(algo, IQLConfig) and algo.extraction != "value_gradient"):
        return 0
    return actors * algo.walkers * algo.horizon


_MARKETS: dict[str, tuple[Market, Fold]] = {}


def _episode_rows(config: Config) -> tuple[int, float]:
    """Rows of an episode that runs to its end, and of one on average: a regime's stretches are shorter.

    Prices are read where these differ from `env.episode_days`: for a regime, and for files, whose rows may be weeks.
    """
    days, regime, env = config.env.episode_days, config.market_regime.name, config.env
    fractional = config.algo.bootstrap_fraction if isinstance(config.algo, OnlineAlgorithm) else 0.0
    if regime == "all" and env.source != "csv" and env.snapshot is None:
        return days, float(days)
    from finflow.data.build import build_market  # pandas and torch, which other estimates do not need
    from finflow.data.market import make_fold
    from finflow.envs.collect import mean_length

    key = digest([env.model_dump(), config.fold])
    if key not in _MARKETS:
        market = build_market(env)
        _MARKETS[key] = market, make_fold(market, env, config.fold)
    market, fold = _MARKETS[key]
    rows = market.calendar.rows(days)
    try:
        mean = mean_length(market, fold.train, regime, rows)
    except DataError:  # no such stretch: the job says so itself, and the others of its sweep run
        mean = float(rows)
    return rows, fractional * rows + (1.0 - fractional) * mean


def _refits(config: Config) -> bool:
    """Whether values are refitted: the parent was trained for another reward, discount, cost or limit."""
    if config.init.weights is None:
        return False
    return _valued_by(_parent(config) or load("pretrain")) != _valued_by(config)


def _parent(config: Config) -> Config | None:
    """Settings of the weights that a run starts from; None where these are not known yet, or none."""
    path = Path(config.init.weights or "") / CONFIG
    return from_yaml(path) if config.init.weights is not None and path.exists() else None


def _crossfits(config: Config) -> bool:
    """Whether a run cross-fits its confidence: phase 2 takes over that of its parent where it would be the same."""
    own = crossfit_of(config)
    if own is None or config.stage == "pretrain" or config.init.weights is None:
        return own is not None
    parent = _parent(config)
    if parent is None:
        return config.market_regime.name != "all" or _refits(config)
    return crossfit_of(parent) != own


def crossfit_of(config: Config) -> list[object] | None:
    """What cross-fitting depends on: runs that are alike in it share one, in the cache; None where there is none."""
    algo = config.algo
    if config.confidence != "crossfit" or not isinstance(algo, ValueGradients) or not _path(algo, BLOCKS):
        return None
    online = isinstance(algo, OnlineAlgorithm)
    return [
        _valued_by(config),
        config.market_regime.name if online else "all",
        algo.prior_kl_coef[1] if isinstance(algo, OnlineAlgorithm) else algo.prior_kl_coef,
        algo.network.model_copy(update={"actors": BLOCKS}),
        *(algo.lr, algo.actor_lr, algo.grad_clip, algo.horizon, algo.walkers),
        config.env.model_dump(exclude={"num_envs"}),
        *(config.fold, config.budget.crossfit_updates, config.seed),
    ]


def _valued_by(config: Config) -> list[object]:
    env = config.env
    return [config.reward, config.algo.gamma, env.cost_bps, env.slippage_bps, env.limits, env.rebalance]


def kept(config: Config) -> int:
    """Checkpoints that a run leaves: the newest, and the best."""
    saved, budget = config.checkpoint, config.budget
    done = (budget.epochs if config.stage == "pretrain" else budget.episodes) // saved.interval
    return min(saved.max_checkpoints, done + saved.save_latest) + saved.save_best


def remembered(config: Config) -> int:
    """Transitions in the memory of a run at its end."""
    capacity = getattr(config.algo, "buffer_size", 0)
    return min(capacity, round(config.budget.episodes * _episode_rows(config)[1]))


def measured(config: Config) -> Measured:
    """Cost of the newest finished run of the stage under the same `output_root`; the documented one without any.

    Runs of another algorithm or network do not count, nor do resumed runs, whose seconds start at the resumption.
    """
    estimate = ESTIMATE[config.stage]
    try:
        run = newest_run(config.output_root, config.stage)
        own, record = from_yaml(run / CONFIG), read_json(run / RUN)
        seconds = dict(record["seconds"])
    except (ConfigError, StorageError, KeyError, TypeError):
        return estimate
    same = own.algo.name == config.algo.name and own.algo.network == config.algo.network
    trained = _trained(seconds, config.stage)
    if not same or not any(trained) or record.get("resumed"):
        return estimate
    size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file() and path.parent.name != CHECKPOINTS)
    saved = [path.stat().st_size for path in (run / CHECKPOINTS).glob("*.safetensors")]
    state = max(saved) - TRANSITION * remembered(own) if saved else estimate.state
    alone: dict[str, object] = {"budget": own.budget.model_copy(update={"refit_updates": 0})}
    if config.stage == "finetune":
        alone["confidence"] = "none"
    done = work(own.model_copy(update=alone))
    return Measured(done, trained, estimate.rest, size, max(state, 0.0), f"measured on {run}")


def _trained(seconds: Mapping[str, float], stage: str) -> Work:
    """Seconds of a run's phases by what they grow with; those of a refit, and in phase 2 of cross-fitting, left out."""
    phases = PHASES | ({"confidence": "rows"} if stage == "pretrain" else {})
    kinds = dict.fromkeys(Work._fields, 0.0)
    for phase, kind in phases.items():
        kinds[kind] += float(seconds.get(phase, 0.0))
    return Work(**kinds)


def told(jobs: Sequence[tuple[Config, int]]) -> str:
    """One line on the cost of jobs, given as configurations with the number of jobs of each."""
    cost, left = measured(jobs[0][0]), sum(count for _, count in jobs)
    time = _sum([cost.seconds(config) for config, _ in jobs], jobs, duration)
    size = _sum([cost.bytes(config) for config, _ in jobs], jobs, _size)
    one = f"{time[1]} and {size[1]} each; {cost.source}"
    return f"{left} job{'' if left == 1 else 's'} to run, about {time[0]} of one core and {size[0]} ({one})"


def time_left(took: Sequence[float], left: int, side_by_side: int) -> str:
    """How long the jobs that are left may take, if as long as those that have ended, `took` seconds each.

    side_by_side : most jobs that ran at a time.
    """
    if not took or not left:
        return ""
    return f"; {left} left, about {duration(sum(took) / len(took) * math.ceil(left / side_by_side))}"


def _sum(each: Sequence[float], jobs: Sequence[tuple[Config, int]], say: Callable[[float], str]) -> tuple[str, str]:
    """The sum over all jobs, and the least and the most of one, in words."""
    least, most = say(min(each)), say(max(each))
    total = sum(one * count for one, (_, count) in zip(each, jobs, strict=True))
    return say(total), least if least == most else f"{least} to {most}"


def duration(seconds: float) -> str:
    """A time in minutes, or from an hour on in hours."""
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} hours"


def _size(count: float) -> str:
    if count >= 1e12:
        return f"{count / 1e12:.2f} TB"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
