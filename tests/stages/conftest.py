"""A user's own prices: 30 daily tickers, one back-filled flat until it lists, one delisted, blank to the end."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from finflow.data.build import SOURCES, load_synthetic
from finflow.data.prices import Prices
from finflow.io.weights import load_weights, save_weights
from finflow.schema.sections import Env

LISTED, DELISTED = "LATE", "GONE"
DAYS, LISTING, DELISTING = 1400, 900, 1330


def write_prices(path: Path, seed: int = 3) -> None:
    rng = np.random.default_rng(seed)
    market = rng.normal(0.0004, 0.009, (DAYS, 1))
    log_prices = np.cumsum(market * rng.uniform(0.6, 1.4, 30) + rng.normal(0, 0.012, (DAYS, 30)), axis=0)
    names = [f"T{i:02d}" for i in range(28)] + [LISTED, DELISTED]
    prices = pd.DataFrame(50 * np.exp(log_prices), columns=names).round(4)
    prices.index = pd.Index(pd.bdate_range("2015-01-05", periods=DAYS).strftime("%Y-%m-%d"), name="Date")
    prices.iloc[:LISTING, 28] = prices.iloc[LISTING, 28]
    prices.iloc[DELISTING:, 29] = np.nan
    prices.to_csv(path)


@pytest.fixture(scope="session")
def own_prices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prices") / "own prices.csv"
    write_prices(path)
    return path


TINY = [
    "budget.collect_episodes=12",
    "confidence=none",
    "budget.epochs=2",
    "budget.updates_per_epoch=12",
    "env.episode_days=42",
    "env.num_envs=4",
    "algo.network.hidden_dim=16",
    "algo.network.embed_dim=8",
    "algo.horizon=4",
]
TUNE = ["budget.episodes=8", "budget.warmup_episodes=1", "budget.critic_warmup_updates=5", "budget.refit_updates=8",
        "evaluation.every_episodes=4", "algo.batch_size=32", "algo.update_interval=1"]  # fmt: skip


def move_actor(run: Path, seed: int, **summary: object) -> None:
    """Move a run's policy away from where its training left it, and write `summary` over its own."""
    tensors, stored = load_weights(run / "weights.safetensors")
    generator = torch.Generator().manual_seed(seed)
    moved = {
        name: tensor + 0.3 * torch.randn(tensor.shape, generator=generator) if "actor" in name else tensor
        for name, tensor in tensors.items()
    }
    kept = json.loads((run / "summary.json").read_text()) | summary
    kept["weights_sha256"] = save_weights(run / "weights.safetensors", moved, stored)
    (run / "summary.json").write_text(json.dumps(kept))


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Env]:
    """A list that grows with each reading of synthetic prices."""
    reads: list[Env] = []

    def read(env: Env, _cache: Path | None) -> Prices:
        reads.append(env)
        return load_synthetic(env)

    monkeypatch.setitem(SOURCES, "synthetic", read)
    return reads
