"""Sinks of a run's figures beside `metrics.jsonl`, which is always written."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from finflow.schema.fields import Positive, Schema, Text
from finflow.schema.roles import Added, Was


def _wandb_name(value: str) -> str:
    if set(value) & set("/\\#?%:"):
        raise ValueError("a name on W&B has none of / \\ # ? % : in it; leave them out")
    return value


WandbName = Annotated[Text, AfterValidator(_wandb_name)]


class Wandb(Schema):
    """Where Weights & Biases files a run; `group` null is the sweep that the run is a job of, if any."""

    project: WandbName
    """Project of the run."""
    entity: WandbName | None
    """User or team; null: the account's own."""
    mode: Literal["offline", "online"]
    """offline: into the run's folder; online needs a key."""
    group: Text | None
    """Group of the run; null: the sweep that it is a job of, if any."""
    tags: list[Text]
    """Tags of the run."""


class Tracking(Schema):
    """Which sinks there are, and how many seconds they may take at the end of a run before they are given up."""

    tensorboard: bool
    """Whether TensorBoard files are written."""
    sinks: Annotated[list[Text], Added()]
    """Sinks of plugins, beside these."""
    wandb: Wandb | None
    """Weights & Biases, of tracking=wandb; null: not at all."""
    close_timeout: Annotated[Positive, Was("patience")]
    """Seconds that sinks may take at the end of a run, to write or send what is left."""
