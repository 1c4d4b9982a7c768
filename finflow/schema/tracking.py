"""Sinks of a run's figures beside `metrics.jsonl`, which is always written."""

from typing import Literal

from finflow.schema.fields import Positive, Schema, Text


class Wandb(Schema):
    """Where Weights & Biases files a run; `group` null is the sweep that the run is a job of, if any."""

    project: Text
    entity: Text | None
    mode: Literal["offline", "online"]
    group: Text | None
    tags: list[Text]


class Tracking(Schema):
    """Which sinks there are, and how many seconds they may take at the end of a run before they are given up."""

    tensorboard: bool
    wandb: Wandb | None
    patience: Positive
