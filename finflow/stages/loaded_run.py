"""Loads a finished run: its configuration, its policy, and the current market."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finflow.agents.learner import GreedyPolicy
from finflow.artifacts.checkpoints import StoredPolicy, read_policy
from finflow.artifacts.provenance import Stopwatch, run_record
from finflow.artifacts.runs import RUN, SUMMARY, WEIGHTS, resolve_run, stored_config
from finflow.data.market import CALENDAR, NOMINAL, TRADING_YEAR, fold_from_dates
from finflow.errors import ConfigError, DataError
from finflow.evaluation.metrics import Confidence
from finflow.io.files import read_json
from finflow.io.weights import load_weights
from finflow.nn.networks import Networks
from finflow.schema import Config
from finflow.stages.prepare import Past, Prepared, compare_past, fit, load_market, use_hardware
from finflow.tracking.sink import warn


@dataclass(frozen=True)
class Trained:
    """One run: `config` is the run's own, with the hardware and output root of the stage that loads it.

    `past` compares the data that `prepared` holds with those of training.
    """

    folder: Path
    config: Config
    record: dict[str, Any]
    summary: dict[str, Any]
    stored: StoredPolicy
    prepared: Prepared
    networks: Networks
    policy: GreedyPolicy
    past: Past

    @property
    def confidence(self) -> Confidence | None:
        """Evidence behind the part of the tilt that is deployed; None for weights that are deployed whole."""
        return None if self.stored.confidence is None else Confidence.from_dict(dict(self.stored.confidence))


def load_trained(config: Config, run: str, end: str | None = None) -> Trained:
    """Load one run (`latest` or a run folder), checking the hash of its weights; `config` is the loading stage's.

    Parameters
    ----------
    end : last day of the data; None for the run's own `env.end`.

    Raises
    ------
    ConfigError
        If there is no such finished run.
    DataError
        If it was trained on other features than there are now.
    StorageError
        If its files are damaged.
    """
    folder = resolve_run(config.output_root, run)
    own = stored_config(folder).model_copy(update={"hardware": config.hardware, "output_root": config.output_root})
    record, summary = read_json(folder / RUN), read_json(folder / SUMMARY)
    if own.env.periods_per_year == "auto":  # as counted in training: more rows may count otherwise
        year = int(record[CALENDAR]["rows_a_year"]) if CALENDAR in record else TRADING_YEAR
        if year not in NOMINAL:
            own = own.model_copy(update={"env": own.env.model_copy(update={"periods_per_year": year})})
    if end is not None:
        own = own.model_copy(update={"env": own.env.model_copy(update={"end": end})})
    stored = read_policy(*load_weights(folder / WEIGHTS, summary.get("weights_sha256")))
    device = use_hardware(config.hardware)
    market = load_market(own)
    fold = fold_from_dates(market, record["fold"])
    prepared = fit(own, market, device, fold=fold, scaling=stored.scaling, reward=stored.reward)
    networks = stored.build(device)
    for what in ("features", "assets"):
        if getattr(stored.spec, what) != getattr(prepared.spec, what):
            raise DataError(f"run={folder}: trained on other {what} than the data have now; train again")
    policy = GreedyPolicy(networks.actor.eval(), prepared.world, prepared.fold.entries)
    if run == "latest" and own.stage == "pretrain":
        warn(f"run=latest: the newest finished run is a pretraining run, {folder}; name a fine-tuned one with run=DIR")
    past = compare_past(record, prepared.market, prepared.cache)
    if past.readjusted is not None:
        warn(f"run={folder}: closes were re-adjusted since training ({past.readjusted}); returns are unchanged")
    return Trained(folder, own, record, summary, stored, prepared, networks, policy, past)


def require_same_past(trained: Trained) -> None:
    """Refuse data that are no longer those of training by a `DataError`; they may have grown."""
    if trained.past.changed is not None:
        raise DataError(f"{_other_data(trained)}; restore them, or train again")


def tell_other_data(trained: Trained) -> None:
    """Warn where the data are no longer those of training."""
    if trained.past.changed is not None:
        warn(_other_data(trained))


def _other_data(trained: Trained) -> str:
    return f"run={trained.folder}: trained on other data: the {trained.past.changed} changed since"


def named_after(config: Config, first: Trained) -> Config:
    """Configuration of a stage that loads runs, under the name and seed of the first: its draws use that seed."""
    return config.model_copy(update={"name": first.config.name, "seed": first.config.seed})


def record_of(config: Config, first: Trained, stopwatch: Stopwatch, facts: Mapping[str, Any]) -> dict[str, Any]:
    """`run_record` of a stage that loads runs: with the data, fold and parent of the first run."""
    prepared = first.prepared
    return run_record(config, prepared.market, prepared.dates, first.record.get("parent"), stopwatch, facts)


def single_run(config: Config) -> str:
    """The one run that `config.run` names; `ConfigError` if it names several."""
    run, *others = [config.run] if isinstance(config.run, str) else config.run
    if others:
        taker = "audit=true" if config.stage == "evaluate" else config.stage
        raise ConfigError(f"run={config.run}: {taker} takes one run; name one")
    return run
