"""Markets made by hand, so that every number of this room can be traced."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from finflow.data.market import ABSENT, CASH, FROZEN, NO_LABEL, TRADABLE, Market, Window
from finflow.envs.ledger import Accounting, RewardModel
from finflow.envs.simulator import World

MakeMarket = Callable[..., Market]
MakeWorld = Callable[..., World]

REWARD = RewardModel(
    scale=200.0, tail_threshold=0.012, lambda_cvar=5.0, lambda_turn=0.1, lambda_dd=2.0, lambda_risk=0.4
)


@pytest.fixture(scope="session")
def reward() -> RewardModel:
    return REWARD


@pytest.fixture(scope="session")
def make_market() -> MakeMarket:
    def make(
        risky: NDArray[np.float64],
        *,
        cash: NDArray[np.float64] | float = 0.0,
        status: NDArray[np.int8] | None = None,
        decision: NDArray[np.bool_] | None = None,
        regime: NDArray[np.int8] | None = None,
        benchmark: NDArray[np.float64] | None = None,
        features: NDArray[np.float32] | None = None,
    ) -> Market:
        """A market of [T, d] risky returns; every name tradable and every day a decision unless said otherwise."""
        days, d = risky.shape
        returns = np.concatenate([risky, np.broadcast_to(cash, (days,))[:, None]], axis=1)
        returns[0] = 0.0
        return Market(
            dates=np.busday_offset("2015-01-01", np.arange(days), roll="forward").astype("datetime64[D]"),
            assets=(*(f"A{i}" for i in range(d)), CASH),
            close=100 * np.cumprod(1 + returns[:, :-1], axis=0),
            returns=returns,
            status=np.full((days, d + 1), TRADABLE, dtype=np.int8) if status is None else status,
            features=np.zeros((days, d, 2), dtype=np.float32) if features is None else features,
            feature_names=("x", "y"),
            market_features=np.linspace(-1, 1, 3 * days, dtype=np.float32).reshape(days, 3),
            market_feature_names=("u", "v", "w"),
            regime=np.full(days, NO_LABEL, dtype=np.int8) if regime is None else regime,
            decision=np.ones(days, dtype=np.bool_) if decision is None else decision,
            benchmark=returns[:, :-1].mean(1) if benchmark is None else benchmark,
            index=returns[:, :-1].mean(1),
            fingerprint="0123456789abcdef",
            warnings=(),
        )

    return make


@pytest.fixture(scope="session")
def lively(make_market: MakeMarket) -> Market:
    """600 days, 20 names, decisions on three days of five; one lists late, one dies at -30 %, one is frozen twice."""
    rng = np.random.default_rng(7)
    days, d = 600, 20
    risky = rng.normal(3e-4, 0.015, (days, d)) + rng.normal(0, 0.01, (days, 1))
    status = np.full((days, d + 1), TRADABLE, dtype=np.int8)
    status[:120, 2], risky[:121, 2] = ABSENT, 0.0
    status[350:, 5], risky[351:, 5], risky[350, 5] = ABSENT, 0.0, -0.3
    for start in (200, 420):
        status[start : start + 40, 9] = FROZEN
    regime = np.repeat(np.array([-1, 1, 2, 3, 0, 2, 1, 2], dtype=np.int8), [50, 100, 30, 15, 105, 100, 190, 10])
    return make_market(
        risky,
        cash=np.full(days, 1e-4),
        status=status,
        decision=np.arange(days) % 5 < 3,
        regime=regime,
        features=rng.normal(size=(days, d, 2)).astype(np.float32),
    )


@pytest.fixture(scope="session")
def priors(lively: Market) -> NDArray[np.float64]:
    """Five random portfolios a day [T, 5, n], some very concentrated, zero on what cannot be traded."""
    rng = np.random.default_rng(8)
    raw = rng.exponential(size=(600, 5, lively.n)) ** 2 * (lively.status[:, None] == TRADABLE)
    raw[:, 1, -1] = 0.0
    return raw / raw.sum(-1, keepdims=True)


@pytest.fixture(scope="session")
def train() -> Window:
    return Window(101, 501)


@pytest.fixture(scope="session")
def desk() -> Accounting:
    """Every rule at once."""
    return Accounting(cost_rate=0.0015, max_weight=0.35, min_cash=0.02, no_trade_band=0.01, max_turnover=0.8)


@pytest.fixture(scope="session")
def make_world(priors: NDArray[np.float64]) -> MakeWorld:
    def make(market: Market, accounting: Accounting, reward: RewardModel = REWARD) -> World:
        """The market on the CPU, features unscaled."""
        return World.of(
            market, lambda m: (m.features, m.market_features), priors, accounting, reward, torch.device("cpu")
        )

    return make


@pytest.fixture(scope="session")
def episodes() -> list[NDArray[np.int64]]:
    """Stretches over a listing, a delisting, a freeze, and one that jumps about."""
    jumps = np.concatenate([np.arange(340, 360), np.arange(190, 245), np.arange(410, 450), [500, 130, 131]])
    return [np.arange(100, 218), np.arange(300, 418), jumps]


@pytest.fixture(scope="session")
def targets(lively: Market) -> NDArray[np.float64]:
    rng = np.random.default_rng(3)
    raw = rng.exponential(size=(118, 3, lively.n)) ** 3
    return raw / raw.sum(-1, keepdims=True)


@pytest.fixture(scope="session")
def starts(lively: Market) -> NDArray[np.float64]:
    return np.random.default_rng(4).dirichlet(np.ones(lively.n), size=3)
