"""Estimate of a sweep's hours and disk space, from an earlier run if there is one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finflow.artifacts.names import CHECKPOINTS, CONFIG, RUN
from finflow.artifacts.runs import newest_run
from finflow.config import from_yaml
from finflow.data.market import BLOCKS
from finflow.errors import ConfigError, StorageError
from finflow.io.files import read_json
from finflow.schema import Config
from finflow.schema.algo import Algorithm, DirectConfig, IQLConfig, OnlineAlgorithm, ValueGradients

TRAINING = ("updates", "environment", "validation", "checkpoints", "confidence")
"""Names of the phases, in `run.json`, that grow with the budget."""


TRANSITION = 190.0
"""Bytes of a transition in a checkpoint, for a market of 20 names."""


@dataclass(frozen=True)
class Measured:
    """Cost of one run: seconds that grow with its work and seconds that do not, and bytes on disk.

    work : rows of batches and paths that it learnt from; size : of everything but checkpoints; state : of a checkpoint
    without the memory of transitions; source : where it comes from, in words.
    """

    work: float
    train: float
    rest: float
    size: float
    state: float
    source: str

    def seconds(self, config: Config) -> float:
        """Expected seconds of a run with `config`, on one core as fast as the measured one."""
        return self.rest + self.train * work(config) / self.work

    def bytes(self, config: Config) -> float:
        """Expected bytes that a run with `config` leaves."""
        return self.size + kept(config) * (self.state + TRANSITION * remembered(config))


ESTIMATE = {
    "pretrain": Measured(3_532_800, 216.0, 6.0, 1.4e6, 3.3e6, "see docs/scaling.md"),
    "finetune": Measured(4_623_360, 398.0, 5.0, 1.8e6, 5.0e6, "see docs/scaling.md"),
}
"""Measured on one core at the default settings; phase 2 takes over what phase 1 cross-fitted for its confidence."""


def work(config: Config) -> float:
    """Rows that a run learns from, of batches and of paths: an update takes as long as it has rows."""
    budget, days, algo = config.budget, config.env.episode_days, config.algo
    path = _path(algo, algo.actors)
    crossfit = budget.crossfit_updates * _path(algo, BLOCKS) if config.confidence == "crossfit" else 0
    if isinstance(algo, DirectConfig):
        return budget.epochs * (budget.updates_per_epoch or 1) * path + crossfit
    if isinstance(algo, OnlineAlgorithm):
        updates = math.ceil(budget.episodes / config.env.num_envs) * days / algo.update_interval
        return budget.critic_warmup_updates * algo.batch_size + updates * (algo.batch_size + path)
    updates = budget.epochs * (budget.updates_per_epoch or budget.collect_episodes * days / algo.batch_size)
    return updates * (algo.batch_size + path) + crossfit


def _path(algo: Algorithm, actors: int) -> int:
    """Days of paths in an update of so many actors; 0 without value gradients."""
    if not isinstance(algo, ValueGradients) or (isinstance(algo, IQLConfig) and algo.extraction != "value_gradient"):
        return 0
    return actors * algo.walkers * algo.horizon


def kept(config: Config) -> int:
    """Checkpoints that a run leaves: the newest, and the best."""
    saved, budget = config.checkpoint, config.budget
    done = (budget.epochs if config.stage == "pretrain" else budget.episodes) // saved.interval
    return min(saved.max_checkpoints, done + saved.save_latest) + saved.save_best


def remembered(config: Config) -> int:
    """Transitions in the memory of a run at its end."""
    capacity = getattr(config.algo, "buffer_size", 0)
    return min(capacity, config.budget.episodes * config.env.episode_days)


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
    trained = sum(float(seconds.get(name, 0.0)) for name in TRAINING)
    if not same or not trained or record.get("resumed"):
        return estimate
    size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file() and path.parent.name != CHECKPOINTS)
    saved = [path.stat().st_size for path in (run / CHECKPOINTS).glob("*.safetensors")]
    state = max(saved) - TRANSITION * remembered(own) if saved else estimate.state
    return Measured(work(own), trained, estimate.rest, size, max(state, 0.0), f"measured on {run}")


def told(jobs: Sequence[tuple[Config, int]]) -> str:
    """One line on the cost of jobs, given as configurations with the number of jobs of each."""
    cost, left = measured(jobs[0][0]), sum(count for _, count in jobs)
    time = _sum([cost.seconds(config) for config, _ in jobs], jobs, _time)
    size = _sum([cost.bytes(config) for config, _ in jobs], jobs, _size)
    one = f"{time[1]} and {size[1]} each; {cost.source}"
    return f"{left} job{'' if left == 1 else 's'} to run, about {time[0]} of one core and {size[0]} ({one})"


def _sum(each: Sequence[float], jobs: Sequence[tuple[Config, int]], say: Callable[[float], str]) -> tuple[str, str]:
    """The sum over all jobs, and the least and the most of one, in words."""
    least, most = say(min(each)), say(max(each))
    total = sum(one * count for one, (_, count) in zip(each, jobs, strict=True))
    return say(total), least if least == most else f"{least} to {most}"


def _time(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} hours"


def _size(count: float) -> str:
    if count >= 1e12:
        return f"{count / 1e12:.2f} TB"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
