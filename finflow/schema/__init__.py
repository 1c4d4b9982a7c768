"""The types of the configuration: sections without defaults, since each value stands once, in `conf/`."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from finflow.errors import ConfigError
from finflow.schema.algo import Algorithm, OfflineAlgorithm, OnlineAlgorithm, ValueGradients
from finflow.schema.env import Env
from finflow.schema.fields import Count, Day, Fraction, NonNegative, Positive, Schema, Text, number_as_text
from finflow.schema.monitor import MonitorConfig
from finflow.schema.roles import Grows, Marks, NotWith, ReadBy, Role, Was, keys_where, marks_of
from finflow.schema.tracking import Tracking

Stage = Literal[
    "pretrain", "finetune", "collect", "evaluate", "judge", "look", "decide", "explain", "export", "sweep", "dashboard"
]
STAGES: tuple[str, ...] = get_args(Stage)
OnlineSelection = Literal["eg", "ons", "anticor", "pamr", "cwmr", "olmar", "rmr"]

_TRAINING = ReadBy("pretrain", "finetune")
_EVERY_STAGE = ReadBy(*STAGES)
_FOLLOWING: tuple[Stage, ...] = ("evaluate", "decide", "explain", "export")
"""Stages that load a trained run."""


def _resume(value: Any) -> Any:
    if value is None or value is False:
        return None
    if value is not True and not (isinstance(value, str) and value):
        raise ValueError("should be true, a run folder, a checkpoint, or null")
    return value


class Budget(Schema):
    """How much work a run does; `experiment=demo` shrinks these."""

    collect_episodes: Annotated[Count, Role.PRETRAINED, ReadBy("pretrain", "finetune", "collect")]
    """Episodes of offline data that behaviours live through."""
    epochs: Annotated[Count, Role.PRETRAINED, Grows("pretrain")]
    """Passes of phase 1."""
    updates_per_epoch: Annotated[Count | None, Role.PRETRAINED]
    """Updates of one pass; null: as many as go once over the offline data."""
    episodes: Annotated[Count, ReadBy("finetune"), Grows("finetune")]
    """Episodes of phase 2."""
    warmup_episodes: Annotated[int, Field(ge=0), ReadBy("finetune"), Was("frozen_episodes")]
    """Hand-over: episodes that the frozen policy lives through before anything is updated."""
    critic_warmup_updates: Annotated[int, Field(ge=0), ReadBy("finetune"), Was("critic_updates")]
    """Hand-over: updates of the critic alone, before the policy learns."""
    crossfit_updates: Count
    """Updates of the actors that confidence is cross-fitted with."""
    refit_updates: Annotated[int, Field(ge=0), ReadBy("finetune")]
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

    device: Annotated[Literal["auto", "cpu", "cuda"], ReadBy("pretrain", "finetune", "collect", *_FOLLOWING)]
    """Where tensors live; auto: CUDA where there is one."""
    threads: Annotated[int, Field(ge=1, le=1024), ReadBy("pretrain", "finetune", "collect", *_FOLLOWING)]
    """Threads of one process; the bits of a result depend on it."""
    precision: Annotated[Literal["fp32", "bf16", "fp16"], Role.PRECISION]
    """What the networks multiply in: bf16 and fp16 are mixed precision, weights and losses stay fp32."""
    gradient_checkpointing: Annotated[bool, Role.SPEED]
    """Compute what the backward pass needs again instead of keeping it: less memory, more time."""
    compile: Annotated[Literal["default", "reduce-overhead"] | None, Role.SPEED]
    """`torch.compile` of the whole update in this mode, meant for CUDA: on a CPU it hardly pays."""
    distributed: Annotated[bool, Role.PRECISION]
    """Whether torchrun starts several processes, which share out each batch and average gradients."""


class Init(Schema):
    """What fine-tuning starts from: `latest`, a run folder or weights file, or null (from scratch).

    `publish` says whether `latest` may find what phase 1 trains.
    """

    weights: Annotated[Text | None, ReadBy("finetune")]
    """What phase 2 starts from: latest, a run's or (in a sweep) a sweep's folder, a weights file, or null: scratch."""
    publish: Annotated[bool, Role.SAVING, ReadBy("pretrain")]
    """Phase 1: whether `latest` may find these weights."""


class Offline(Schema):
    """Offline data: collected and cached by default, or read from a file made by `collect.py`."""

    dataset: Text | None
    """File made by `collect.py`; null: collected as needed, and cached."""
    bootstrap_fraction: Annotated[Fraction, ReadBy("pretrain", "finetune", "collect")]
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

    every_epochs: Annotated[Count, ReadBy("pretrain")]
    """Epochs of phase 1 from one validation to the next."""
    every_episodes: Annotated[Count, ReadBy("finetune")]
    """Episodes of phase 2 from one validation to the next."""
    objective: Literal["sharpe", "active_ir"]
    """Figure of validation days that selects the weights: Sharpe ratio, or information ratio of the active return."""
    bootstrap_samples: Annotated[int, Field(ge=100), ReadBy("evaluate", "judge")]
    """Resamples behind each interval."""
    block_days: Annotated[Count, ReadBy("evaluate", "judge")]
    """Mean length of a block of the stationary bootstrap, days."""


class Sweep(Schema):
    """Several runs from one command line: what they would take, and what their table is sorted by."""

    dry_run: bool
    """Say how many jobs, hours and gigabytes a sweep would take, and run nothing."""
    objective: Annotated[Literal["sharpe", "active_ir"] | None, ReadBy("sweep")]
    """What the table of a sweep is sorted by; null: what its jobs selected by."""


class Config(Schema):
    """Root of every stage's configuration."""

    stage: Annotated[Stage, Role.METHOD, _EVERY_STAGE]
    """Set by the entry point."""
    name: Annotated[
        str,
        BeforeValidator(number_as_text),
        Field(pattern=r"^\w[\w.+-]*$", max_length=80),
        Role.NAME,
        ReadBy("pretrain", "finetune", "collect", "judge"),
    ]
    """Name of the run, a part of its folder's."""
    seed: Annotated[int, Field(ge=0, lt=2**63), Role.DATA, ReadBy("pretrain", "finetune", "collect", "judge")]
    """Every random draw follows from it."""
    fold: Annotated[Text, Role.DATA, ReadBy("pretrain", "finetune", "collect", "look", "judge")]
    """Which test window; auto is the last there is, and the embedded prices know 2000, 2008, 2013 and 2018."""
    output_root: Annotated[Text, Role.OUTPUT, _EVERY_STAGE]
    """Folder that everything is written under."""
    run: Annotated[Text | Annotated[list[Text], Field(min_length=1)], Role.REQUEST, ReadBy(*_FOLLOWING)]
    """Run to judge: latest, a run folder, several as [DIR,DIR], or a sweep's folder for all of its jobs."""
    audit: Annotated[bool, Role.REQUEST, ReadBy("evaluate")]
    """Look for leaks in data, features and fold; the test window stays shut."""
    sectors: Annotated[Text | None, Role.REQUEST, ReadBy("evaluate"), NotWith("audit")]
    """A CSV `ticker,sector`; the report then attributes the active return to sectors. null: no such table."""
    baselines: Annotated[list[OnlineSelection], Role.REQUEST, ReadBy("evaluate", "judge"), NotWith("audit")]
    """Algorithms of online portfolio selection beside the baselines, say [olmar,anticor]; needs the extra `olps`."""
    weights: Annotated[Text | None, Role.REQUEST, ReadBy("judge")]
    """A CSV `date,ticker,...` of a strategy's weights, decided at the close of the date; see docs/judge.md."""
    returns: Annotated[Text | None, Role.REQUEST, ReadBy("judge")]
    """A CSV `date,return` of a strategy's returns, taken as given."""
    holdings: Annotated[Text | None, Role.REQUEST, ReadBy("decide")]
    """A CSV `ticker,shares` or `ticker,weight` of what is held, with a row CASH; null: `capital` in cash."""
    capital: Annotated[Positive | None, Role.REQUEST, ReadBy("decide")]
    """Money that weights are turned into shares with; without `holdings` it is cash that is invested."""
    min_trade: Annotated[float, Field(ge=0, lt=1), Role.REQUEST, ReadBy("decide")]
    """Smallest trade that is ordered, a fraction of net asset value."""
    lot: Annotated[Positive, Role.REQUEST, ReadBy("decide")]
    """Shares that are traded together; 1: whole shares."""
    date: Annotated[
        Day | Annotated[list[Day], Field(min_length=2, max_length=2)] | None, Role.REQUEST, ReadBy("explain")
    ]
    """A day, or [first,last]; null: the test window."""
    top: Annotated[Count | None, Role.REQUEST, ReadBy("explain")]
    """As many of the largest trades; null: every day of `date`, or the largest trade."""
    ticker: Annotated[Text | None, Role.REQUEST, ReadBy("explain")]
    """A name whose holding is explained: why its weight is what it is; without `date` at the newest close."""
    episodes: Annotated[Count, Role.REQUEST, ReadBy("collect")]
    """Episodes that are collected."""
    out: Annotated[Text, Role.REQUEST, ReadBy("collect", "export")]
    """File to write: collected data, or the policy as ONNX."""
    dir: Annotated[Text, Role.COMMAND, ReadBy("sweep")]
    """Sweep to read: latest, or its folder."""
    confidence: Annotated[Literal["none", "validation", "crossfit"], Role.METHOD, _TRAINING]
    """Evidence that decides how much of a policy's tilt is deployed; none: all of it."""
    budget: Annotated[Budget, Role.STUDY, _TRAINING]
    reward: Annotated[Reward, Role.METHOD, _TRAINING]
    init: Annotated[Init, Role.INIT, _TRAINING]
    offline: Annotated[Offline, Role.STUDY, _TRAINING]
    checkpoint: Annotated[Checkpoint, Role.SAVING, _TRAINING]
    resume: Annotated[Literal[True] | str | None, BeforeValidator(_resume), Role.COMMAND, _TRAINING]
    """Go on with an interrupted run: true for the newest of the same settings, a run folder, or one checkpoint."""
    evaluation: Annotated[Evaluation, Role.METHOD, _TRAINING, NotWith("audit")]
    sweep: Annotated[Sweep, Role.COMMAND, _TRAINING]
    market_regime: Annotated[MarketRegime, Role.METHOD, _TRAINING]
    env: Annotated[Env, Role.DATA, ReadBy("pretrain", "finetune", "collect", "look", "judge")]
    hardware: Annotated[Hardware, Role.HOST, _TRAINING]
    tracking: Annotated[Tracking, Role.TRACKING, ReadBy("pretrain", "finetune", "dashboard")]
    monitor: Annotated[MonitorConfig, Role.METHOD, _TRAINING]
    algo: Annotated[Algorithm, Role.METHOD, _TRAINING]

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
            least = max(self.algo.batch_size, 2 * self.env.num_envs)
            if self.algo.buffer_size < least:
                raise ConfigError(
                    f"algo.buffer_size={self.algo.buffer_size}: should be at least {least}"
                    " (algo.batch_size, and twice env.num_envs)"
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

MARKS: Marks = marks_of(Config)
"""What each key and section is to a run, and who reads it."""

READS: Mapping[str, tuple[str, ...]] = {
    stage: keys_where(MARKS, lambda mark, stage=stage: stage in mark.read_by) for stage in STAGES
}
"""What each stage reads: a key typed on the command line outside these is refused (presets are exempt)."""

IDLE: Mapping[str, tuple[str, ...]] = {
    switch: keys_where(MARKS, lambda mark, switch=switch: mark.not_with == switch)
    for switch in {mark.not_with for mark in MARKS.values() if mark.not_with is not None}
}
"""A switch -> what its stage reads only where it is off: typed beside it, these keys are refused."""

RENAMED: Mapping[str, str] = {
    ".".join([*key.split(".")[:-1], mark.was]): key for key, mark in MARKS.items() if mark.was is not None
}
"""A key's name in the version before -> its name."""

GROWS: Mapping[str, str] = {mark.grows: key for key, mark in MARKS.items() if mark.grows is not None}
"""A training stage -> what a resumed run of it may be given more of."""


def part_of(values: Mapping[str, Any], roles: Collection[Role], section: str = "") -> dict[str, Any]:
    """Those of the nested `values` of a configuration, or of its `section`, that have one of `roles`, nested too."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{section}.{name}" if section else name
        if isinstance(value, dict):
            found |= {name: inside} if (inside := part_of(value, roles, key)) else {}
        elif role_of(key) in roles:
            found[name] = value
    return found


def role_of(key: str) -> Role | None:
    """Role of a key or section; None where there is no such key."""
    mark = MARKS.get(key)
    return None if mark is None else mark.role
