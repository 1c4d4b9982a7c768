"""The types of the configuration: sections without defaults, since each value stands once, in `conf/`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from finflow.errors import ConfigError
from finflow.schema.algo import Algorithm, OfflineAlgorithm, OnlineAlgorithm, ValueGradients
from finflow.schema.env import Env
from finflow.schema.fields import Count, Day, Fraction, NonNegative, Positive, Schema, Text, number_as_text
from finflow.schema.monitor import MonitorConfig
from finflow.schema.tracking import Tracking

STAGES = ("pretrain", "finetune", "evaluate", "collect", "look", "decide", "explain", "sweep", "dashboard")


def _resume(value: Any) -> Any:
    if value is None or value is False:
        return None
    if value is not True and not (isinstance(value, str) and value):
        raise ValueError("should be true, a run folder, a checkpoint, or null")
    return value


class Budget(Schema):
    """How much work a run does; `experiment=demo` shrinks these."""

    collect_episodes: Count
    """Episodes of offline data that behaviours live through."""
    epochs: Count
    """Passes of phase 1."""
    updates_per_epoch: Count | None
    """Updates of one pass; null: as many as go once over the offline data."""
    episodes: Count
    """Episodes of phase 2."""
    frozen_episodes: Annotated[int, Field(ge=0)]
    """Hand-over: episodes that the frozen policy lives through before anything is updated."""
    critic_updates: Annotated[int, Field(ge=0)]
    """Hand-over: updates of the critic alone, before the policy learns."""
    crossfit_updates: Count
    """Updates of the actors that confidence is cross-fitted with."""
    refit_updates: Annotated[int, Field(ge=0)]
    """Updates of critic and value on offline data, where reward, discount or costs differ from the parent's."""


class Reward(Schema):
    """Weights of the reward's terms; the lambdas multiply raw fractions a day (see `envs/reward.py`)."""

    lambda_cvar: NonNegative
    """Weight of the loss beyond the value at risk (95 %) that 1/N had on train days."""
    lambda_turn: NonNegative
    """Weight of two-way turnover, on top of what a trade costs."""
    lambda_dd: NonNegative
    """Weight of new drawdown."""
    lambda_risk: NonNegative
    """Aversion to active risk: half of it weighs the square of the scaled active return."""


class MarketRegime(Schema):
    """One market regime: its label and the values that the training guide gives it."""

    name: Literal["all", "stable", "normal", "volatile", "crisis"]
    """Days to fine-tune on, by their label; all: every day."""
    alpha_init: Positive
    """Entropy coefficient at the start, which `algo.alpha_init` takes over."""
    cql_alpha: NonNegative
    """Strength of CQL, which `algo.cql.alpha` takes over."""
    lambda_cvar: NonNegative
    """Weight of tail loss, which `reward.lambda_cvar` takes over."""
    lambda_turn: NonNegative
    """Weight of turnover, which `reward.lambda_turn` takes over."""


class Hardware(Schema):
    """Where tensors live and how training computes; the stages that judge compute in float32, as written."""

    device: Literal["auto", "cpu", "cuda"]
    """Where tensors live; auto: CUDA where there is one."""
    threads: Annotated[int, Field(ge=1, le=1024)]
    """Threads of one process; the bits of a result depend on it."""
    precision: Literal["fp32", "bf16", "fp16"]
    """What the networks multiply in: bf16 and fp16 are mixed precision, weights and losses stay fp32."""
    gradient_checkpointing: bool
    """Compute what the backward pass needs again instead of keeping it: less memory, more time."""
    compile: Literal["default", "reduce-overhead"] | None
    """`torch.compile` of the whole update in this mode, meant for CUDA: on a CPU it hardly pays."""
    distributed: bool
    """Whether torchrun starts several processes, which share out each batch and average gradients."""


class Init(Schema):
    """What fine-tuning starts from: `latest`, a run folder or weights file, or null (from scratch).

    `publish` says whether `latest` may find what phase 1 trains.
    """

    weights: Text | None
    """What phase 2 starts from: latest, a run's or (in a sweep) a sweep's folder, a weights file, or null: scratch."""
    publish: bool
    """Phase 1: whether `latest` may find these weights."""


class Offline(Schema):
    """Offline data: collected and cached by default, or read from a file made by `collect.py`."""

    dataset: Text | None
    """File made by `collect.py`; null: collected as needed, and cached."""
    bootstrap_fraction: Fraction
    """Share of collected episodes that live through resampled history."""


class Checkpoint(Schema):
    """When a training run is saved, and how many of the newest are kept; `interval` in episodes, in phase 1 epochs."""

    interval: Count
    """Episodes (phase 2) or epochs (phase 1) from one checkpoint to the next."""
    save_best: bool
    """One more whenever validation finds a new best; it is never deleted."""
    save_latest: bool
    """One more at the end of training, so that more episodes can follow."""
    max_checkpoints: Count
    """Newest checkpoints that are kept, beside the best."""


class Evaluation(Schema):
    """Validation during training, and the verdict's bootstrap."""

    every_epochs: Count
    """Epochs of phase 1 from one validation to the next."""
    every_episodes: Count
    """Episodes of phase 2 from one validation to the next."""
    objective: Literal["sharpe", "active_ir"]
    """Figure of validation days that selects the weights: Sharpe ratio, or information ratio of the active return."""
    bootstrap_samples: Annotated[int, Field(ge=100)]
    """Resamples behind each interval."""
    block_days: Count
    """Mean length of a block of the stationary bootstrap, days."""


class Sweep(Schema):
    """Several runs from one command line: what they would take, and what their table is sorted by."""

    dry_run: bool
    """Say how many jobs, hours and gigabytes a sweep would take, and run nothing."""
    objective: Literal["sharpe", "active_ir"] | None
    """What the table of a sweep is sorted by; null: what its jobs selected by."""


class Config(Schema):
    """Root of every stage's configuration."""

    stage: Literal["pretrain", "finetune", "evaluate", "collect", "look", "decide", "explain", "sweep", "dashboard"]
    """Set by the entry point."""
    name: Annotated[str, BeforeValidator(number_as_text), Field(pattern=r"^\w[\w.+-]*$", max_length=80)]
    """Name of the run, a part of its folder's."""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """Every random draw follows from it."""
    fold: Text
    """Which test window; auto is the last there is, and the embedded prices know 2000, 2008, 2013 and 2018."""
    output_root: Text
    """Folder that everything is written under."""
    run: Text | Annotated[list[Text], Field(min_length=1)]
    """Run to judge: latest, a run folder, several as [DIR,DIR], or a sweep's folder for all of its jobs."""
    audit: bool
    """Look for leaks in data, features and fold; the test window stays shut."""
    sectors: Text | None
    """A CSV `ticker,sector`; the report then attributes the active return to sectors. null: no such table."""
    holdings: Text | None
    """A CSV `ticker,shares` or `ticker,weight` of what is held, with a row CASH; null: `capital` in cash."""
    capital: Positive | None
    """Money that weights are turned into shares with; without `holdings` it is cash that is invested."""
    min_trade: Annotated[float, Field(ge=0, lt=1)]
    """Smallest trade that is ordered, a fraction of net asset value."""
    lot: Positive
    """Shares that are traded together; 1: whole shares."""
    date: Day | Annotated[list[Day], Field(min_length=2, max_length=2)] | None
    """A day, or [first,last]; null: the test window."""
    top: Count | None
    """As many of the largest trades; null: every day of `date`, or the largest trade."""
    episodes: Count
    """Episodes that are collected."""
    out: Text
    """File that collected data is written to."""
    dir: Text
    """Sweep to read: latest, or its folder."""
    confidence: Literal["none", "validation", "crossfit"]
    """Evidence that decides how much of a policy's tilt is deployed; none: all of it."""
    budget: Budget
    reward: Reward
    init: Init
    offline: Offline
    checkpoint: Checkpoint
    resume: Annotated[Literal[True] | str | None, BeforeValidator(_resume)]
    """Go on with an interrupted run: true for the newest of the same settings, a run folder, or one checkpoint."""
    evaluation: Evaluation
    sweep: Sweep
    market_regime: MarketRegime
    env: Env
    hardware: Hardware
    tracking: Tracking
    monitor: MonitorConfig
    algo: Algorithm

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        """A memory smaller than a batch would never be learnt from; one of few days would cut its episodes' links.

        A target that is cut off whole is none.
        """
        if isinstance(self.algo, ValueGradients) and self.algo.horizon > self.env.episode_days:
            raise ConfigError(
                f"algo.horizon={self.algo.horizon}: longer than an episode; at most env.episode_days="
                f"{self.env.episode_days}"
            )
        if isinstance(self.algo, OnlineAlgorithm):
            least = max(self.algo.batch_size, 2 * self.env.parallel)
            if self.algo.memory_capacity < least:
                raise ConfigError(
                    f"algo.memory_capacity={self.algo.memory_capacity}: should be at least {least}"
                    " (algo.batch_size, and twice env.parallel)"
                )
            dropped, atoms = self.algo.top_quantiles_dropped, self.algo.network.n_quantiles
            if dropped is not None and dropped >= atoms:
                raise ConfigError(
                    f"algo.top_quantiles_dropped={dropped}: should be below algo.network.n_quantiles={atoms}"
                )
        return self


def _named(phase: type[Schema]) -> tuple[str, ...]:
    """Names of the algorithms whose settings derive from `phase`, in the order of the union."""
    members = (cls for cls in get_args(get_args(Algorithm)[0]) if issubclass(cls, phase))
    return tuple(name for cls in members for name in get_args(cls.model_fields["name"].annotation))


ALGORITHMS: Mapping[str, tuple[str, ...]] = {"pretrain": _named(OfflineAlgorithm), "finetune": _named(OnlineAlgorithm)}
"""Algorithms of each training stage; the first is the default."""

_SHARED = ("stage", "output_root")
_HOST = ("hardware.device", "hardware.threads")
_TRAINING = (*_SHARED, "name", "seed", "fold", "env", "hardware", "offline", "checkpoint", "resume", "sweep.dry_run")
READS: Mapping[str, tuple[str, ...]] = {
    "pretrain": (
        *_TRAINING, "tracking", "monitor", "algo", "market_regime", "reward", "budget.collect_episodes",
        "budget.epochs", "budget.updates_per_epoch", "budget.crossfit_updates", "confidence",
        "evaluation.every_epochs", "evaluation.objective",
        "init.publish",
    ),
    "finetune": (
        *_TRAINING, "tracking", "monitor", "algo", "market_regime", "reward", "init.weights", "budget.collect_episodes",
        "budget.epochs", "budget.updates_per_epoch",  # of the parent that is looked for
        "budget.episodes", "budget.frozen_episodes", "budget.critic_updates", "budget.refit_updates",
        "budget.crossfit_updates", "confidence",
        "evaluation.every_episodes", "evaluation.objective",
    ),
    "collect": (*_SHARED, "name", "seed", "fold", "env", *_HOST, "episodes", "out",
                "offline.bootstrap_fraction", "budget.collect_episodes"),
    "evaluate": (
        *_SHARED, "run", "audit", "sectors", *_HOST, "evaluation.bootstrap_samples", "evaluation.block_days",
    ),
    "look": (*_SHARED, "fold", "env"),
    "decide": (*_SHARED, "run", "env.end", "holdings", "capital", "min_trade", "lot", *_HOST),
    "explain": (*_SHARED, "run", "date", "top", *_HOST),
    "sweep": (*_SHARED, "dir", "sweep.objective"),
    "dashboard": (*_SHARED, "tracking"),
}  # fmt: skip
"""What each stage reads: a key typed on the command line outside these is refused (presets are exempt)."""

IDLE: Mapping[str, tuple[str, ...]] = {"audit": ("sectors", "evaluation")}
"""A switch -> what its stage reads only where it is off: typed beside it, these keys are refused."""
