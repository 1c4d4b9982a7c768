"""The stability monitor's section."""

from typing import Annotated, Literal

from pydantic import Field

from finflow.schema.fields import Count, Positive, Schema
from finflow.schema.roles import Was

Limit = Positive | None
"""Null switches the rule off."""


class Act(Schema):
    """What `mode: act` does: factors on learning rates and CQL, and how often."""

    lr_factor: Annotated[float, Field(gt=0, lt=1)]
    """Each lowering multiplies the learning rates by this."""
    cql_factor: Annotated[float, Field(gt=1)]
    """Each raising multiplies the weight of CQL by this."""
    cooldown: Annotated[Count, Was("settle")]
    """Updates that a measure is given to take effect."""
    patience: Annotated[int, Field(ge=0)]
    """Gentle measures for one rule before training goes back to the last good state."""
    max_interventions: Annotated[int, Field(ge=0), Was("most")]
    """Measures in one run; the next finding stops it with exit code 5."""


class MonitorConfig(Schema):
    """Thresholds of the rules in `training/rules.py`, and what a finding leads to."""

    mode: Literal["warn", "act", "off"]
    """What follows a finding; set by the option of `monitor`."""
    every: Count
    """Updates that a look averages over."""
    repeat: Count
    """Updates before the same rule speaks again."""
    q_value: Limit
    """Mean value of a batch's actions, either way."""
    actor_loss: Limit
    """Size of the policy's loss."""
    critic_loss: Limit
    """Quantile loss, an atom and critic."""
    sharpe: float | None
    """Sharpe ratio of the latest episodes, clearly below this."""
    validation_sharpe: float | None
    """Sharpe ratio on validation days, below this and below 1/N's."""
    entropy_gap: Limit
    """Nats a name that the entropy is below its target."""
    entropy_fall: Limit
    """Nats a name that the entropy falls within one look, beyond its target's own fall."""
    grad_norm: Limit
    """Gradients before clipping."""
    effective_assets: Limit
    """Fewer effective assets than these."""
    turnover: Limit
    """Notional traded a year on validation days."""
    reward_sigmas: Limit
    """Standard deviations of all rewards so far, of one reward."""
    dip: Limit
    """Sharpe ratio on validation days, below what phase 1 handed over."""
    act: Act
