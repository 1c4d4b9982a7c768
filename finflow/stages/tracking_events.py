"""Reports of the stages to their sinks: start of a run, networks at a validation, end of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from finflow.artifacts.names import WEIGHTS
from finflow.io.files import read_lines
from finflow.nn.networks import Networks
from finflow.schema import READS, Config, role_of
from finflow.schema.roles import Role
from finflow.sweeps.folder import SweepFolder
from finflow.tracking.jsonl import METRICS
from finflow.tracking.sink import RunOutcome, Start
from finflow.tracking.tracker import CompositeTracker

_UNTOLD = {Role.OUTPUT, Role.TRACKING}  # they shape no result


def start_of(config: Config, folder: Path, record: Mapping[str, Any]) -> Start:
    """How a run begins: the sections of its configuration that its stage reads, and its `run.json`."""
    read = {key.split(".")[0] for key in READS[config.stage] if role_of(key) not in _UNTOLD} - {"stage"}
    settings = {key: value for key, value in config.model_dump(mode="json").items() if key in read}
    sweep = SweepFolder(folder.resolve().parent)
    if not sweep.exists:
        return Start(config.stage, config.name, settings, record)
    own = (job.values for job in sweep.manifest().jobs if job.name == folder.resolve().name)
    return Start(config.stage, config.name, settings, record, sweep.path.name, next(own, {}))


def show_networks(
    tracker: CompositeTracker, step_name: str, step: int, networks: Networks, gate: Mapping[str, NDArray[np.float64]]
) -> None:
    """Histograms of the weights of every part of actor and critic, and of the gate's share for each expert.

    Parameters
    ----------
    gate : by expert, its share on each validation day.
    """
    if not tracker.listening:
        return
    for whole, network in (("actor", networks.actor), ("critic", networks.critic)):
        for part, weights in _weights(network).items():
            tracker.histogram(step_name, step, f"weights/{whole}.{part}", weights)
    for expert, share in gate.items():
        tracker.histogram(step_name, step, f"gate/{expert}", share)


def _weights(network: nn.Module) -> dict[str, NDArray[np.float64]]:
    """Weights of each part, flattened; a part is what the network calls by a name of its own."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    for name, weight in network.named_parameters():
        found.setdefault(name.split(".")[0], []).append(weight.detach().double().cpu().numpy().ravel())
    return {part: np.concatenate(weights) for part, weights in found.items()}


def outcome_of(folder: Path, stage: str, summary: Mapping[str, Any]) -> RunOutcome:
    """How a training run ended: its summary, its weights, and the curves of the report."""

    def figures() -> dict[str, Any]:
        from finflow.report.learning_curves import training_charts

        rows, step = read_lines(folder / METRICS), "epoch" if stage == "pretrain" else "episode"
        return {f"curves/{chart.key}": chart.figure for chart in training_charts(rows, step)}

    return RunOutcome(summary, {"weights": folder / WEIGHTS}, figures=figures)
