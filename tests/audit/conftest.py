"""A small CSV of prices, runs trained on it, and features that are plugged in for one test."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import finflow
from finflow.allocators.priors import prior_portfolios
from finflow.data import build
from finflow.data.csv_source import load_csv
from finflow.data.features import FEATURE_GROUPS, FEATURES, Feature, FeatureScaling, feature, group_of
from finflow.data.market import Fold, Market, make_fold
from finflow.data.prices import Prices
from finflow.envs.ledger import Accounting, fit_reward
from finflow.evaluation.audit.lookahead import Subject
from finflow.nn.networks import ObservationSpec, build_networks
from finflow.schema import Config

DAYS, LISTING, NAMES = 1250, 700, 5
TINY = [
    "budget.collect_episodes=8", "confidence=none",
    "budget.epochs=1", "budget.updates_per_epoch=6", "env.episode_days=42",
    "env.num_envs=4", "algo.network.hidden_dim=8", "algo.network.embed_dim=4", "algo.batch_size=32",
]  # fmt: skip
TUNE = ["budget.episodes=4", "budget.warmup_episodes=1", "budget.critic_warmup_updates=3", "budget.refit_updates=3",
        "evaluation.every_episodes=2"]  # fmt: skip

PlugIn = Callable[[str, Feature], AbstractContextManager[None]]


def write_prices(path: Path, close: np.ndarray) -> None:
    index = pd.Index(pd.bdate_range("2015-01-05", periods=len(close)).strftime("%Y-%m-%d"), name="Date")
    pd.DataFrame(close, columns=[f"T{i}" for i in range(close.shape[1])], index=index).to_csv(path)


def random_close(seed: int = 5) -> np.ndarray:
    """[DAYS, NAMES]: calm and wild stretches, a fall that makes a crisis; the last name lists at LISTING."""
    rng = np.random.default_rng(seed)
    wild = 1.0 + 1.5 * (np.arange(DAYS) % 300 > 220)[:, None]
    steps = wild * (rng.normal(3e-4, 0.007, (DAYS, 1)) + rng.normal(0, 0.008, (DAYS, NAMES)))
    close = np.round(50 * np.exp(np.cumsum(steps, axis=0)), 4)
    close[:LISTING, -1] = np.nan
    return close


@pytest.fixture(scope="session")
def own_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prices") / "prices.csv"
    write_prices(path, random_close())
    return path


@contextmanager
def plugged_in(name: str, function: Feature) -> Iterator[None]:
    """One more feature, registered as any is, and taken out again."""
    feature(name, "momentum")(function)
    try:
        yield
    finally:
        del FEATURES[name], FEATURE_GROUPS[name]


@pytest.fixture(scope="session")
def plug_in() -> PlugIn:
    return plugged_in


@pytest.fixture(scope="session")
def csv_config(own_csv: Path) -> Config:
    return finflow.load("pretrain", ["env=csv", f"env.path={own_csv}", *TINY])


@pytest.fixture(scope="session")
def csv_prices(csv_config: Config) -> Prices:
    return load_csv(csv_config.env)


def subject_of(prices: Prices, config: Config) -> tuple[Subject, Market, Fold]:
    """An untrained actor and all that its market is made of, as a run would have it."""
    market = build.market_of(prices, config.env)
    fold = make_fold(market, config.env, "auto")
    spec = ObservationSpec(
        features=market.feature_names,
        feature_groups=tuple(group_of(name) for name in market.feature_names),
        market_features=market.market_feature_names,
        experts=("volatility", "correlation", "momentum", "defensive", "growth", "benchmark"),
    )
    cpu = torch.device("cpu")
    subject = Subject(
        prices=prices,
        env=config.env,
        actor=build_networks(spec, config.algo.network, 0, cpu).actor,
        scaling=FeatureScaling.fit(market, fold),
        accounting=Accounting.of(config.env),
        reward=fit_reward(market, prior_portfolios(market), fold.train, config.reward),
        device=cpu,
    )
    return subject, market, fold
