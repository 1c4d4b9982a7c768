"""What a sweep will take before it runs: hours and disk, from an earlier run where there is one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finflow.artifacts.files import read_json
from finflow.artifacts.names import CONFIG, RUN
from finflow.artifacts.runs import newest_run
from finflow.config import from_yaml
from finflow.errors import ConfigError, StorageError
from finflow.schema import Config

TRAIN = "train"
"""Name of the phase, in `run.json`, that grows with the budget."""


@dataclass(frozen=True)
class Measured:
    """Cost of one run: seconds that grow with its work and seconds that do not, and bytes on disk.

    work : rows of batches that it learnt from; source : where it comes from, in words.
    """

    work: float
    train: float
    rest: float
    size: float
    source: str

    def seconds(self, config: Config) -> float:
        """Expected seconds of a run with `config`, on one core as fast as the measured one."""
        return self.rest + self.train * work(config) / self.work


ESTIMATE = {
    "pretrain": Measured(251_904, 36.6, 6.0, 1.3e6, "see docs/scaling.md"),
    "finetune": Measured(687_360, 114.5, 6.0, 2.0e6, "see docs/scaling.md"),
}
"""Measured on one core with the default network."""


def work(config: Config) -> float:
    """Rows of batches that a run learns from: an update takes as long as its batch is large."""
    budget, days, batch = config.budget, config.env.episode_days, config.algo.batch_size
    if config.stage == "pretrain":
        updates = budget.epochs * (budget.updates_per_epoch or budget.collect_episodes * days / batch)
    else:
        rounds = math.ceil(budget.episodes / config.env.parallel)
        updates = budget.critic_updates + rounds * days
    return updates * batch


def measured(config: Config) -> Measured:
    """Cost of the newest finished run of the stage under the same `output_root`; the documented one without any.

    A run of another algorithm, or with a network of another shape, says nothing about this one's.
    """
    estimate = ESTIMATE[config.stage]
    try:
        run = newest_run(config.output_root, config.stage)
        own, seconds = from_yaml(run / CONFIG), dict(read_json(run / RUN)["seconds"])
    except (ConfigError, StorageError, KeyError, TypeError):
        return estimate
    same = own.algo.name == config.algo.name and own.algo.network == config.algo.network
    if not same or TRAIN not in seconds:
        return estimate
    size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    return Measured(work(own), float(seconds[TRAIN]), estimate.rest, float(size), f"measured on {run}")


def told(jobs: Sequence[tuple[Config, int]]) -> str:
    """One line on what jobs will take: configurations, and how many there are of each."""
    cost, left = measured(jobs[0][0]), sum(count for _, count in jobs)
    each = [cost.seconds(config) for config, _ in jobs]
    total = sum(seconds * count for seconds, (_, count) in zip(each, jobs, strict=True))
    least, most = _time(min(each)), _time(max(each))
    one = f"{least if least == most else f'{least} to {most}'} and {_size(cost.size)} each; {cost.source}"
    return f"{left} jobs to run, about {_time(total)} of one core and {_size(cost.size * left)} ({one})"


def _time(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} hours"


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
