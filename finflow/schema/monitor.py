"""The stability monitor's section."""

from typing import Annotated, Literal

from pydantic import Field

from finflow.schema.fields import Count, Positive, Schema

Limit = Positive | None
"""Null switches the rule off."""


class Act(Schema):
    """What `mode: act` does: factors on learning rates and CQL, and how often."""

    lr_factor: Annotated[float, Field(gt=0, lt=1)]
    cql_factor: Annotated[float, Field(gt=1)]
    settle: Count
    patience: Annotated[int, Field(ge=0)]
    most: Annotated[int, Field(ge=0)]


class Monitor(Schema):
    """Thresholds of the rules in `training/rules.py`, and what a finding leads to."""

    mode: Literal["warn", "act", "off"]
    every: Count
    repeat: Count
    q_value: Limit
    actor_loss: Limit
    critic_loss: Limit
    sharpe: float | None
    validation_sharpe: float | None
    entropy_gap: Limit
    entropy_fall: Limit
    grad_norm: Limit
    effective_assets: Limit
    turnover: Limit
    reward_sigmas: Limit
    dip: Limit
    act: Act
