"""A finished run, loaded again: its configuration, its policy and the market it was trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finflow.agents.greedy import GreedyPolicy
from finflow.artifacts.files import read_json
from finflow.artifacts.policy_file import StoredPolicy, read_policy
from finflow.artifacts.provenance import CONFIG, RUN, WEIGHTS, read_summary
from finflow.artifacts.runs import resolve_run
from finflow.artifacts.weights import load_weights
from finflow.config import from_yaml
from finflow.errors import ConfigError, StorageError
from finflow.schema import Config
from finflow.stages.prepare import Prepared, prepare, use_hardware


@dataclass(frozen=True)
class Trained:
    """One run: `config` is the run's own, with the hardware and output root of the stage that loads it."""

    folder: Path
    config: Config
    record: dict[str, Any]
    summary: dict[str, Any]
    stored: StoredPolicy
    prepared: Prepared
    policy: GreedyPolicy


def load_trained(config: Config, run: str) -> Trained:
    """Load one run (`latest` or a run folder), checking the hash of its weights; `config` is the loading stage's.

    Raises
    ------
    ConfigError
        If there is no such finished run.
    StorageError
        If its files are damaged.
    """
    folder = resolve_run(config.output_root, run)
    own = from_yaml(folder / CONFIG).model_copy(update={"hardware": config.hardware, "output_root": config.output_root})
    record, summary = read_json(folder / RUN), read_summary(folder)
    stored = read_policy(*load_weights(folder / WEIGHTS, summary.get("weights_sha256")))
    dates = record.get("fold")
    if not isinstance(dates, dict):
        raise StorageError(f"{folder / RUN}: damaged (no fold in it); train the run again")
    device = use_hardware(config.hardware)
    prepared = prepare(own, device, dates=dates, scaling=stored.scaling, reward=stored.reward)  # pyright: ignore[reportArgumentType]
    networks = stored.build(device)
    return Trained(folder, own, record, summary, stored, prepared, GreedyPolicy(networks.actor, prepared.world))


def single_run(config: Config) -> str:
    """The one run that `config.run` names.

    Raises
    ------
    ConfigError
        If it names several.
    """
    if isinstance(config.run, str):
        return config.run
    if len(config.run) != 1:
        raise ConfigError(f"run={config.run}: {config.stage} takes one run; name one")
    return config.run[0]
