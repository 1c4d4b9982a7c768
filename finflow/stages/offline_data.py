"""Offline data of a run: collected and cached, or read from the file that `collect.py` wrote."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from finflow.envs.collect import Dataset, collect, load_dataset
from finflow.envs.simulator import World
from finflow.io.weights import cached_arrays
from finflow.schema import Config
from finflow.schema.fields import digest
from finflow.stages.prepare import Prepared

COLLECT_VERSION = 2
"""Raised whenever behaviours or their storage change."""


def dataset_facts(config: Config, prepared: Prepared) -> dict[str, Any]:
    """Facts that identify offline data, stored in the file: market, training window, accounting."""
    return {
        "data_fingerprint": prepared.market.fingerprint,
        "train": list(prepared.dates["train"]),
        "accounting": asdict(prepared.accounting),
        "rebalance": config.env.rebalance,
        "assets": list(prepared.market.assets),
    }


def offline_data(config: Config, prepared: Prepared) -> Dataset:
    """The dataset that `config.offline` asks for."""
    facts = dataset_facts(config, prepared)
    if config.offline.dataset is not None:
        return load_dataset(Path(config.offline.dataset), facts)
    shape = {
        "version": COLLECT_VERSION,
        "episodes": config.budget.collect_episodes,
        "days": prepared.market.calendar.rows(config.env.episode_days),
        "bootstrap": config.offline.bootstrap_fraction,
        "seed": config.seed,
    }
    key = f"offline-{digest(facts | shape)}"
    arrays = cached_arrays(
        prepared.cache, key, lambda: collected(config, prepared, config.budget.collect_episodes).arrays()
    )
    return Dataset(**arrays, facts=facts)


def collected(config: Config, prepared: Prepared, episodes: int) -> Dataset:
    """Collect so many episodes, without the cache."""
    world = prepared.world
    if world.device.type != "cpu":  # behaviours step the simulator, which lives on the CPU
        world = World.of(
            prepared.market,
            prepared.scaling.apply,
            prepared.priors,
            prepared.accounting,
            world.reward,
            torch.device("cpu"),
        )
    return collect(
        prepared.market,
        world,
        prepared.fold.train,
        episodes,
        prepared.market.calendar.rows(config.env.episode_days),
        config.offline.bootstrap_fraction,
        config.seed,
        dataset_facts(config, prepared),
    )
