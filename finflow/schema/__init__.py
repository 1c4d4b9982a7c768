"""What a configuration holds: typed sections without defaults; values live in `conf/`, once."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from finflow.errors import ConfigError
from finflow.schema.algo import IQL, BCell
from finflow.schema.env import Env
from finflow.schema.fields import Count, Day, Fraction, NonNegative, Positive, Schema, Text, number_as_text
from finflow.schema.monitor import Monitor
from finflow.schema.tracking import Tracking

STAGES = ("pretrain", "finetune", "evaluate", "collect", "decide", "explain", "sweep")


def _resume(value: Any) -> Any:
    if value is None or value is False:
        return None
    if value is not True and not (isinstance(value, str) and value):
        raise ValueError("should be true, a run folder, a checkpoint, or null")
    return value


class Budget(Schema):
    """How much work a run does; `experiment=demo` shrinks these."""

    collect_episodes: Count
    epochs: Count
    updates_per_epoch: Count | None
    episodes: Count
    frozen_episodes: Annotated[int, Field(ge=0)]
    critic_updates: Annotated[int, Field(ge=0)]
    refit_updates: Annotated[int, Field(ge=0)]


class Reward(Schema):
    """Weights of the reward's terms; the lambdas multiply raw fractions a day (see `envs/reward.py`)."""

    lambda_cvar: NonNegative
    lambda_turn: NonNegative
    lambda_dd: NonNegative


class MarketRegime(Schema):
    """One market regime: its label and the values that the training guide gives it."""

    name: Literal["all", "stable", "normal", "volatile", "crisis"]
    alpha_init: Positive
    cql_alpha: NonNegative
    lambda_cvar: NonNegative
    lambda_turn: NonNegative


class Hardware(Schema):
    """Where tensors live and how many threads work on them."""

    device: Literal["auto", "cpu"]
    threads: Annotated[int, Field(ge=1, le=1024)]


class Init(Schema):
    """What fine-tuning starts from: `latest`, a run folder or weights file, or null (from scratch).

    `publish` says whether `latest` may find what phase 1 trains.
    """

    weights: Text | None
    publish: bool


class Offline(Schema):
    """Offline data: collected and cached by default, or read from a file made by `collect.py`."""

    dataset: Text | None
    bootstrap_fraction: Fraction


class Checkpoint(Schema):
    """When a training run is saved, and how many of the newest are kept; `interval` in episodes, in phase 1 epochs."""

    interval: Count
    save_best: bool
    save_latest: bool
    max_checkpoints: Count


class Evaluation(Schema):
    """Validation during training, and the verdict's bootstrap."""

    every_epochs: Count
    every_episodes: Count
    objective: Literal["sharpe", "active_ir"]
    bootstrap_samples: Annotated[int, Field(ge=100)]
    block_days: Count


class Sweep(Schema):
    """Several runs from one command line: what they would take, and what their table is sorted by."""

    dry_run: bool
    objective: Literal["sharpe", "active_ir"] | None


class Config(Schema):
    """Root of every stage's configuration."""

    stage: Literal["pretrain", "finetune", "evaluate", "collect", "decide", "explain", "sweep"]
    name: Annotated[str, BeforeValidator(number_as_text), Field(pattern=r"^\w[\w.+-]*$", max_length=80)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    fold: Text
    output_root: Text
    run: Text | Annotated[list[Text], Field(min_length=1)]
    audit: bool
    date: Day | Annotated[list[Day], Field(min_length=2, max_length=2)] | None
    top: Count | None
    episodes: Count
    out: Text
    dir: Text
    budget: Budget
    reward: Reward
    init: Init
    offline: Offline
    checkpoint: Checkpoint
    resume: Annotated[Literal[True] | str | None, BeforeValidator(_resume)]
    evaluation: Evaluation
    sweep: Sweep
    market_regime: MarketRegime
    env: Env
    hardware: Hardware
    tracking: Tracking
    monitor: Monitor
    algo: Annotated[IQL | BCell, Field(discriminator="name")]

    @model_validator(mode="after")
    def _memory_holds_a_batch(self) -> Self:
        """A memory smaller than a batch would never be learnt from; one of few days would cut its episodes' links."""
        if isinstance(self.algo, BCell):
            least = max(self.algo.batch_size, 2 * self.env.parallel)
            if self.algo.memory_capacity < least:
                raise ConfigError(
                    f"algo.memory_capacity={self.algo.memory_capacity}: should be at least {least}"
                    " (algo.batch_size, and twice env.parallel)"
                )
        return self


ALGORITHMS: Mapping[str, tuple[str, ...]] = {"pretrain": ("iql",), "finetune": ("bcell",)}
"""Algorithms of each training stage; the first is the default."""

_SHARED = ("stage", "output_root")
_TRAINING = (*_SHARED, "name", "seed", "fold", "env", "hardware", "offline", "checkpoint", "resume", "sweep.dry_run")
READS: Mapping[str, tuple[str, ...]] = {
    "pretrain": (
        *_TRAINING, "tracking", "monitor", "algo", "market_regime", "reward", "budget.collect_episodes",
        "budget.epochs", "budget.updates_per_epoch", "evaluation.every_epochs", "evaluation.objective",
        "init.publish",
    ),
    "finetune": (
        *_TRAINING, "tracking", "monitor", "algo", "market_regime", "reward", "init.weights", "budget.collect_episodes",
        "budget.epochs", "budget.updates_per_epoch",  # of the parent that is looked for
        "budget.episodes", "budget.frozen_episodes", "budget.critic_updates", "budget.refit_updates",
        "evaluation.every_episodes", "evaluation.objective",
    ),
    "collect": (*_SHARED, "name", "seed", "fold", "env", "hardware", "episodes", "out",
                "offline.bootstrap_fraction", "budget.collect_episodes"),
    "evaluate": (*_SHARED, "run", "audit", "hardware", "evaluation.bootstrap_samples", "evaluation.block_days"),
    "decide": (*_SHARED, "run", "hardware"),
    "explain": (*_SHARED, "run", "date", "top", "hardware"),
    "sweep": (*_SHARED, "dir", "sweep.objective"),
}  # fmt: skip
"""What each stage reads: a key typed on the command line outside these is refused (presets are exempt)."""
