"""What a configuration holds: typed sections without defaults; values live in `conf/`, once."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from finflow.errors import ConfigError

STAGES = ("pretrain", "finetune", "evaluate", "collect", "decide")


class Schema(BaseModel):
    """Base of every section: frozen, no coercion, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def _calendar_day(value: str) -> str:
    try:
        written = date.fromisoformat(value).isoformat()
    except ValueError:
        written = ""
    if written != value:
        raise ValueError("not a calendar day; write it as YYYY-MM-DD")
    return value


def _number_as_text(value: Any) -> Any:
    """`fold=2008` arrives as a number; where text is asked for, it is the text that was typed."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _benchmark(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("should be equal_weight or the path of a CSV with a level per date")
    return value


Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Discount = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, BeforeValidator(_number_as_text), Field(min_length=1)]
Day = Annotated[str, AfterValidator(_calendar_day)]
Schedule = Annotated[list[NonNegative], Field(min_length=2, max_length=2)]
"""Value at the start and at the end of training; linear between them."""


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


class Limits(Schema):
    """Rules of a desk, applied by the ledger; `null` switches a rule off."""

    max_weight: Annotated[float, Field(gt=0, le=1)] | None
    min_cash: Annotated[float, Field(ge=0, lt=1)]
    no_trade_band: NonNegative
    max_turnover: Positive | None


class Synthetic(Schema):
    """A regime-switching market with a planted signal of information coefficient `ic` (0: none)."""

    days: Annotated[int, Field(ge=1300)]
    assets: Annotated[int, Field(ge=2)]
    ic: Annotated[float, Field(ge=0, lt=1)]
    persistence: Annotated[float, Field(ge=0, lt=1)]
    seed: int


class Env(Schema):
    """Where prices come from, and how a portfolio of them is accounted for."""

    source: Literal["sp500", "csv", "synthetic"]
    path: Text | None
    start: Day | None
    delist_return: Annotated[float, Field(ge=-1)]
    min_history: Annotated[int, Field(ge=22)]
    stale_run: Annotated[int, Field(ge=2)]
    split_jump: Annotated[float, Field(gt=0)]
    cost_bps: NonNegative
    slippage_bps: NonNegative
    cash_yield: float | Annotated[str, Field(min_length=1)]  # not `Text`: 0 is a number here
    benchmark: Annotated[str, BeforeValidator(_benchmark), Field(min_length=1)]
    rebalance: Literal["daily", "weekly", "monthly"]
    episode_days: Annotated[int, Field(ge=21)]
    parallel: Count
    limits: Limits
    synthetic: Synthetic | None

    @model_validator(mode="after")
    def _fits_source(self) -> Self:
        """Keys that belong to one source are asked for there and refused elsewhere."""
        if self.source == "csv" and self.path is None:
            raise ConfigError("env.path: env=csv needs the file of prices; write env.path=prices.csv")
        if self.source != "csv" and self.path is not None:
            raise ConfigError(f"env.path={self.path}: env={self.source} does not read it; add env=csv or leave it out")
        if (self.source == "synthetic") != (self.synthetic is not None):
            raise ConfigError("env.synthetic: belongs to env=synthetic alone; choose that env or leave its keys out")
        return self

    @property
    def cost_rate(self) -> float:
        """Cost of a traded unit of notional, as a fraction."""
        return (self.cost_bps + self.slippage_bps) / 1e4


class Network(Schema):
    """Shape of the networks; shared by both phases, since phase 2 loads what phase 1 learnt."""

    embed_dim: Count
    hidden_dim: Count
    n_quantiles: Annotated[int, Field(ge=2)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    state_noise: NonNegative


class IQL(Schema):
    """Implicit Q-learning (Kostrikov et al. 2021); `beta` is what the training guide calls temperature."""

    name: Literal["iql"]
    lr: Positive
    actor_lr: Positive
    critic_lr: Positive
    grad_clip: Positive
    batch_size: Count
    gamma: Discount
    tau: Annotated[float, Field(gt=0, le=1)]
    expectile: Discount
    beta: NonNegative
    weight_cap: Positive
    normalise_advantage: bool
    relabel_fraction: Fraction
    network: Network


class CQL(Schema):
    """Conservative Q-learning (Kumar et al. 2020) in phase 2."""

    alpha: NonNegative
    n_actions: Count
    batch_fraction: Annotated[float, Field(gt=0, le=1)]
    anneal: Schedule
    calibrate: bool


class Entropy(Schema):
    """Entropy target, written as the standard deviation of a logit that has just that entropy."""

    sigma: Schedule


class Gate(Schema):
    """Gate over the experts, and what keeps it from collapsing onto one."""

    temperature: Schedule
    balance: Schedule
    expert_dropout: Annotated[float, Field(ge=0, lt=1)]
    lr_ratio: Positive


class BCell(Schema):
    """B-Cell: five experts under a gate, distributional SAC with CQL."""

    name: Literal["bcell"]
    lr: Positive
    actor_lr: Positive
    critic_lr: Positive
    grad_clip: Positive
    batch_size: Count
    gamma: Discount
    tau: Annotated[float, Field(gt=0, le=1)]
    alpha_init: Positive
    alpha_lr: Positive
    expectile: Discount
    risk_weight: Fraction
    risk_level: Annotated[float, Field(gt=0, le=1)]
    relabel_fraction: Fraction
    bootstrap_fraction: Fraction
    offline_fraction: Schedule
    memory_capacity: Count
    anchor: Schedule
    entropy: Entropy
    gate: Gate
    cql: CQL
    network: Network


class Hardware(Schema):
    """Where tensors live and how many threads work on them."""

    device: Literal["auto", "cpu"]
    threads: Annotated[int, Field(ge=1, le=1024)]


class Tracking(Schema):
    """Sinks beside `metrics.jsonl`, which is always written."""

    tensorboard: bool


class Init(Schema):
    """What fine-tuning starts from: `latest`, a run folder or weights file, or null (from scratch)."""

    weights: Text | None


class Offline(Schema):
    """Offline data: collected and cached by default, or read from a file made by `collect.py`."""

    dataset: Text | None
    bootstrap_fraction: Fraction


class Evaluation(Schema):
    """Validation during training, and the verdict's bootstrap."""

    every_epochs: Count
    every_episodes: Count
    objective: Literal["sharpe", "active_ir"]
    bootstrap_samples: Annotated[int, Field(ge=100)]
    block_days: Count


class Config(Schema):
    """Root of every stage's configuration."""

    stage: Literal["pretrain", "finetune", "evaluate", "collect", "decide"]
    name: Annotated[str, BeforeValidator(_number_as_text), Field(pattern=r"^\w[\w.+-]*$", max_length=80)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    fold: Text
    output_root: Text
    run: Text | Annotated[list[Text], Field(min_length=1)]
    audit: bool
    episodes: Count
    out: Text
    budget: Budget
    reward: Reward
    init: Init
    offline: Offline
    evaluation: Evaluation
    market_regime: MarketRegime
    env: Env
    hardware: Hardware
    tracking: Tracking
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
_TRAINING = (*_SHARED, "name", "seed", "fold", "env", "hardware", "offline")
READS: Mapping[str, tuple[str, ...]] = {
    "pretrain": (
        *_TRAINING, "tracking", "algo", "market_regime", "reward", "budget.collect_episodes",
        "budget.epochs", "budget.updates_per_epoch", "evaluation.every_epochs",
    ),
    "finetune": (
        *_TRAINING, "tracking", "algo", "market_regime", "reward", "init", "budget.collect_episodes",
        "budget.epochs", "budget.updates_per_epoch",  # of the parent that is looked for
        "budget.episodes", "budget.frozen_episodes", "budget.critic_updates", "budget.refit_updates",
        "evaluation.every_episodes", "evaluation.objective",
    ),
    "collect": (*_SHARED, "name", "seed", "fold", "env", "hardware", "episodes", "out",
                "offline.bootstrap_fraction", "budget.collect_episodes"),
    "evaluate": (*_SHARED, "run", "audit", "hardware", "evaluation.bootstrap_samples", "evaluation.block_days"),
    "decide": (*_SHARED, "run", "hardware"),
}  # fmt: skip
"""What each stage reads: a key typed on the command line outside these is refused (presets are exempt)."""
