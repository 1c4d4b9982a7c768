"""Sections of `algo`: one schema an algorithm, and the network that they share."""

from typing import Annotated, Literal

from pydantic import Field

from finflow.schema.fields import Count, Discount, Fraction, NonNegative, Positive, Schedule, Schema


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
