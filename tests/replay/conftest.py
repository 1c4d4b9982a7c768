"""A market for the replay memory: twelve names over 300 days, one of which dies."""

import numpy as np
import pytest
import torch

from finflow.data.market import ABSENT, CASH, TRADABLE, Market
from finflow.envs.ledger import Accounting, RewardModel
from finflow.envs.simulator import World


@pytest.fixture(scope="session")
def market() -> Market:
    rng = np.random.default_rng(0)
    days, d = 300, 12
    returns = np.concatenate([rng.normal(0, 0.02, (days, d)), np.full((days, 1), 1e-4)], axis=1)
    status = np.full((days, d + 1), TRADABLE, dtype=np.int8)
    status[150:, 4], returns[151:, 4], returns[150, 4] = ABSENT, 0.0, -0.5
    return Market(
        dates=np.busday_offset("2015-01-01", np.arange(days), roll="forward").astype("datetime64[D]"),
        assets=(*(f"A{i}" for i in range(d)), CASH),
        close=100 * np.cumprod(1 + returns[:, :-1], axis=0),
        returns=returns,
        status=status,
        features=rng.normal(size=(days, d, 2)).astype(np.float32),
        feature_names=("x", "y"),
        market_features=rng.normal(size=(days, 3)).astype(np.float32),
        market_feature_names=("u", "v", "w"),
        regime=np.zeros(days, dtype=np.int8),
        decision=np.arange(days) % 4 != 3,
        benchmark=returns[:, :-1].mean(1),
        index=returns[:, :-1].mean(1),
        fingerprint="0123456789abcdef",
        warnings=(),
    )


@pytest.fixture(scope="session")
def world(market: Market) -> World:
    raw = np.random.default_rng(1).exponential(size=(300, 5, 13)) * (market.status[:, None] == TRADABLE)
    return World.of(
        market,
        lambda m: (m.features, m.market_features),
        raw / raw.sum(-1, keepdims=True),
        Accounting(0.0015, max_weight=0.5, no_trade_band=0.01),
        RewardModel(
            scale=200.0, tail_threshold=0.012, lambda_cvar=5.0, lambda_turn=0.1, lambda_dd=2.0, lambda_risk=0.4
        ),
        torch.device("cpu"),
    )
