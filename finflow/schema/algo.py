"""Sections of `algo`: one schema an algorithm, what those of a phase share, and the network."""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidatorFunctionWrapHandler, WrapValidator

from finflow.plugins import added
from finflow.schema.fields import Count, Discount, Fraction, NonNegative, Positive, Role, Schedule, Schema, Text, Was


class Network(Schema):
    """Shape of the networks; shared by both phases, since phase 2 loads what phase 1 learnt."""

    kind: Literal["portfolio", "mlp"] | Text
    """One network shared by all assets, plain layers on the flat state of one universe, or one of a plugin."""
    actors: Count
    """Policies trained side by side, whose decisions are averaged; `algo.actors` sets it."""
    embed_dim: Count
    """Width of an asset's embedding, where `kind` is portfolio."""
    hidden_dim: Count
    """Width of the hidden layers."""
    n_quantiles: Annotated[int, Field(ge=2)]
    """Atoms of the critic's distribution."""
    layer_norm: bool
    """Normalise the first hidden layer (Ba et al. 2016); false is the plain network of most papers and libraries."""
    dropout: Annotated[float, Field(ge=0, lt=1), Role.STUDY]
    """Of the policy's hidden units, in training."""
    state_noise: Annotated[NonNegative, Role.STUDY]
    """Standard deviation of noise on the scaled features, in training."""


class ValueGradients(Schema):
    """How far exact gradients go back along known paths, and how many of them."""

    horizon: Annotated[int, Field(ge=0)]
    """Days along which the policy's gradient is exact; 0: the critic's gradient alone."""
    walkers: Count
    """Paths of each actor in an update."""


class OfflineAlgorithm(Schema):
    """What every algorithm of phase 1 has."""

    lr: Positive
    """Learning rate, which others of this section take over."""
    actor_lr: Positive
    """Learning rate of the policy."""
    grad_clip: Positive
    """Norm that gradients are clipped to."""
    gamma: Discount
    """Discount a day."""
    actors: Annotated[Count, Role.PRETRAINED]
    """Policies trained side by side in one pass, whose decisions are averaged."""
    network: Annotated[Network, Role.PRETRAINED]


class DirectConfig(OfflineAlgorithm, ValueGradients):
    """Direct reinforcement (Moody & Saffell 2001): value gradients alone, no critic; the ablation of both phases."""

    name: Literal["direct"]
    """The algorithm."""
    horizon: Count
    """Days along which the policy's gradient is exact."""
    prior_kl_coef: Annotated[NonNegative, Was("anchor")]
    """Weight of the divergence from the benchmark's portfolio."""


class OfflineCritic(OfflineAlgorithm):
    """What the algorithms of phase 1 share that fit a critic."""

    critic_lr: Positive
    """Learning rate of critic and value."""
    batch_size: Count
    """Transitions of one update."""
    tau: Annotated[float, Field(gt=0, le=1)]
    """Share of the way that target networks go whenever they follow."""
    relabel_fraction: Fraction
    """Share of a batch whose action is replaced by another portfolio and booked anew by the ledger."""


class IQLConfig(OfflineCritic, ValueGradients):
    """Implicit Q-learning (Kostrikov et al. 2021); `beta` is what the training guide calls temperature."""

    name: Literal["iql"]
    """The algorithm."""
    extraction: Literal["value_gradient", "q_gradient", "awr"]
    """How the policy is extracted: along known paths with V at their end, up Q's gradient, or as in the paper."""
    horizon: Count
    """Days along which the policy's gradient is exact, with `value_gradient`."""
    prior_kl_coef: Annotated[NonNegative, Was("anchor")]
    """Weight of the divergence from the benchmark's portfolio, with `value_gradient` and `q_gradient`."""
    expectile: Discount
    """Of the value regression: .5 is the mean, towards 1 the best action in the data."""
    beta: NonNegative
    """How sharply the policy prefers better actions; it multiplies the advantage, as in the paper."""
    max_weight: Annotated[Positive, Was("weight_cap")]
    """Largest weight of a transition in the policy's loss."""
    normalise_advantage: bool
    """Divide advantages by three of their standard deviations before `beta`; false is the paper's form."""


class TD3BCConfig(OfflineCritic):
    """TD3+BC (Fujimoto & Gu 2021): the policy climbs the critic and is held to the data by cloning."""

    name: Literal["td3bc"]
    """The algorithm."""
    expectile: Discount
    """Of the value regression, which phase 2 is handed: .5 is the mean, towards 1 the best action in the data."""
    alpha: NonNegative
    """Weight of the critic against cloning, over the batch's mean absolute value; 0 is cloning alone."""
    policy_delay: Count
    """Updates of the critic for one of policy and targets."""
    policy_noise: NonNegative
    """Standard deviation of the noise on the target's portfolio, in logits."""
    noise_clip: NonNegative
    """Bound of that noise."""


class CQL(Schema):
    """Conservative Q-learning (Kumar et al. 2020) in phase 2."""

    alpha: NonNegative
    """Strength: 10 holds an unsupported action one standard deviation of advantage down; 0 is none."""
    n_actions: Count
    """Sampled portfolios of each kind a state."""
    batch_fraction: Annotated[float, Field(gt=0, le=1)]
    """Share of a batch that the penalty is computed on."""
    anneal: Schedule
    """Factor on the strength, at the start and at the end of training."""
    calibrate: bool
    """Bound the policy's own samples below by the value of phase 1 (Cal-QL)."""


class Entropy(Schema):
    """Entropy target, written as the standard deviation of a logit that has just that entropy."""

    target_sigma: Annotated[Schedule, Was("sigma")]
    """At the start and at the end of training; phase 2 starts at the parent's own where that is less."""


class Gate(Schema):
    """Gate over the experts, and what keeps it from collapsing onto one."""

    temperature: Schedule
    """At the start and at the end of training; above 1 the gate that learns is softer than the one that acts."""
    load_balance_coef: Annotated[Schedule, Was("balance")]
    """Weight of the loss that spreads the gate over experts, at the start and at the end of training."""
    expert_dropout: Annotated[float, Field(ge=0, lt=1)]
    """Probability that an expert is left out of an update."""
    lr_ratio: Positive
    """The gate's learning rate over the policy's."""


class OnlineAlgorithm(ValueGradients):
    """What every algorithm of phase 2 has: the loop reads its schedules."""

    lr: Positive
    """Learning rate, which the two below take over."""
    actor_lr: Positive
    """Learning rate of the policy."""
    critic_lr: Positive
    """Learning rate of the critic."""
    grad_clip: Positive
    """Norm that gradients are clipped to."""
    batch_size: Count
    """Transitions of one update."""
    update_interval: Count
    """Steps of the parallel episodes from one update to the next."""
    actors: Annotated[Count, Role.PRETRAINED]
    """Policies trained side by side in one pass, whose decisions are averaged."""
    gamma: Discount
    """Discount a day."""
    tau: Annotated[float, Field(gt=0, le=1)]
    """Share of the way that target networks go at each update."""
    alpha_init: Positive
    """Entropy coefficient at the start; it is learnt from there."""
    alpha_lr: Positive
    """Learning rate of the entropy coefficient."""
    expectile: Discount
    """Of the value regression, where critic and value are refitted to another reward."""
    top_quantiles_dropped: Annotated[int, Field(ge=0)] | None
    """Atoms a critic cut off the top of the target (TQC); null: the target of the lower of both critics, whole."""
    risk_weight: Fraction
    """How much of the critic's mean the policy gives up for its lower tail; 0 is risk-neutral."""
    risk_level: Annotated[float, Field(gt=0, le=1)]
    """Fraction of atoms that make up that tail."""
    relabel_fraction: Fraction
    """Share of a batch whose action is replaced by another portfolio and booked anew by the ledger."""
    bootstrap_fraction: Fraction
    """Share of episodes that live through resampled history."""
    mixing_ratio: Annotated[list[Fraction], Field(min_length=2, max_length=2), Was("offline_fraction")]
    """Share of a batch from offline data, at the start and at the end of training."""
    buffer_size: Annotated[Count, Was("memory_capacity")]
    """Transitions that the memory of what was lived through holds."""
    prior_kl_coef: Annotated[Schedule, Was("anchor")]
    """Weight of the divergence from the benchmark's portfolio, at the start and at the end of training."""
    entropy: Entropy
    gate: Gate | None
    cql: CQL | None
    network: Annotated[Network, Role.PRETRAINED]


class BCellConfig(OnlineAlgorithm):
    """B-Cell: five experts under a gate, distributional SAC with CQL. Without a gate there is one expert.

    `sac` is the ablation of it: `gate` and `cql` are null.
    """

    name: Literal["bcell", "sac"]
    """The algorithm."""


def _by_name(value: Any, own: ValidatorFunctionWrapHandler) -> Any:
    """A plugin's algorithm has settings of its own class."""
    found = added("algorithms").get(str(value.get("name"))) if isinstance(value, dict) else None
    return own(value) if found is None else found[0].model_validate(value)


Algorithm = Annotated[IQLConfig | TD3BCConfig | DirectConfig | BCellConfig, Field(discriminator="name")]
"""Settings of FinFlow's algorithms; the name decides which."""
AnyAlgorithm = Annotated[SerializeAsAny[Algorithm], WrapValidator(_by_name)]
"""Settings of an algorithm, those of plugins too."""
