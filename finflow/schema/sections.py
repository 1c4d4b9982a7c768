"""Sections of the configuration that every stage shares or that are small: budgets, reward, regime, hardware, files."""

from typing import Annotated, Literal

from pydantic import Field

from finflow.schema.fields import Count, Fraction, NonNegative, Positive, Schema, Text
from finflow.schema.roles import Grows, ReadBy, Role, Was

FOLLOWING = ("evaluate", "decide", "explain", "export")
"""Stages that load a trained run."""


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
    """Weights of the reward's terms; the lambdas multiply raw fractions a day (see `envs/ledger.py`)."""

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

    device: Annotated[Literal["auto", "cpu", "cuda"], ReadBy("pretrain", "finetune", "collect", *FOLLOWING)]
    """Where tensors live; auto: CUDA where there is one."""
    threads: Annotated[int, Field(ge=1, le=1024), ReadBy("pretrain", "finetune", "collect", *FOLLOWING)]
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
