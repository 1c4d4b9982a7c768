"""Cross-fitted confidence: blocks are purged, the test window has no part in it, a tilt that pays is deployed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import finflow
from finflow.config.compose import load
from finflow.data.market import BLOCKS, REGIMES, Window
from finflow.schema import Config
from finflow.stages.crossfit import PURGE, blocks_of, confidence, crossfit, crossfit_settings, others
from finflow.stages.prepare import Prepared, fit, load_market
from tests.data.test_simultaneity import world

HORIZON = 4
TINY = [
    "env=synthetic", "env.synthetic.days=2000", "env.synthetic.assets=4", "env.synthetic.ic=0.3", "algo=direct",
    f"algo.horizon={HORIZON}", "algo.walkers=8", "algo.lr=3e-2", "algo.network.hidden_dim=8",
    "algo.network.embed_dim=8", "env.episode_days=42",
]  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    root = tmp_path_factory.mktemp("outputs")
    return load("pretrain", [*TINY, "budget.crossfit_updates=40", f"output_root='{root}'"])


@pytest.fixture(scope="module")
def prepared(config: Config) -> Prepared:
    return fit(config, load_market(config), torch.device("cpu"))


def test_a_block_is_judged_by_an_actor_that_never_saw_it(prepared: Prepared) -> None:
    train, market = prepared.fold.train, prepared.market
    blocks = blocks_of(market, train, HORIZON, "all")
    assert len(blocks) == BLOCKS
    assert blocks[0].start == train.start
    assert blocks[-1].stop == train.stop
    assert sum(len(block) for block in blocks) == len(train)
    for block in blocks:
        parts = others(market, train, block, HORIZON, "all")
        assert parts
        for part in parts:
            assert part.stop + PURGE + HORIZON <= block.start or part.start >= block.stop + PURGE + HORIZON
            assert train.start <= part.start < part.stop <= train.stop


def test_a_history_too_short_for_blocks_has_none(prepared: Prepared) -> None:
    assert blocks_of(prepared.market, Window(300, 600), HORIZON, "all") == []


def test_a_block_beside_which_no_day_of_the_regime_is_left_means_no_blocks(prepared: Prepared) -> None:
    train, regime = prepared.fold.train, np.full(len(prepared.market.dates), REGIMES.index("normal"), dtype=np.int8)
    regime[train.start : train.start + 40] = REGIMES.index("crisis")
    market = replace(prepared.market, regime=regime)
    assert len(blocks_of(market, train, HORIZON, "normal")) == BLOCKS
    assert blocks_of(market, train, HORIZON, "crisis") == []


def test_the_test_window_has_no_part_in_it(config: Config, prepared: Prepared) -> None:
    """Returns there that every tilt would profit from change nothing; those of train days do."""
    settings = crossfit_settings(config)
    assert settings is not None
    windows = blocks_of(prepared.market, prepared.fold.train, HORIZON, "all")
    few = config.model_copy(update={"budget": config.budget.model_copy(update={"crossfit_updates": 3})})

    def blocks(first: int, last: int) -> dict[str, np.ndarray]:
        returns = prepared.market.returns.copy()
        returns[first:last, 0] = 0.05
        market = replace(prepared.market, returns=returns)
        world = replace(prepared.world, returns=torch.from_numpy(returns))
        return crossfit(few, replace(prepared, market=market, world=world), settings, windows)

    start = prepared.fold.train.start + 50
    as_it_is, train = blocks(0, 0), blocks(start, start + 20)
    test = blocks(prepared.fold.test.start, len(prepared.market.dates))
    assert all(np.array_equal(as_it_is[name], test[name]) for name in as_it_is)
    assert not all(np.array_equal(as_it_is[name], train[name]) for name in as_it_is)


def test_a_signal_that_pays_is_deployed_and_made_once(config: Config, prepared: Prepared) -> None:
    """IC .3 is seen out of fold; the second time the blocks come from the cache, equal to the bit."""
    nothing = np.zeros(250)
    found = confidence(config, prepared, nothing)
    assert found.mode == "crossfit"
    assert len(found.parts) == BLOCKS + 1
    assert found.t is not None
    assert found.t > 3
    assert found.kappa == pytest.approx(1 - 1 / found.t**2)
    assert confidence(config, prepared, nothing) == found
    assert list(Path(config.output_root, "cache").glob("crossfit-*"))


def test_what_is_gone_a_close_later_is_not_deployed(tmp_path: Path) -> None:
    """Half of the markets close hours after the others: their last return tells the others' next one, at the first
    close alone."""
    prices = world(late=True, days=2600)
    file = tmp_path / "prices.csv"
    pd.DataFrame(prices.close, pd.Index(prices.dates, name="date"), list(prices.tickers)).to_csv(file)
    words = [*(word for word in TINY if "env=" not in word and "synthetic" not in word), "env=csv", f"env.path={file}"]
    words += ["tracking=none", "budget.epochs=1", "budget.updates_per_epoch=20", "budget.crossfit_updates=120"]
    config = load("pretrain", [*words, f"output_root={tmp_path / 'outputs'}"])
    found = finflow.pretrain(config).confidence
    assert found is not None
    assert found.late
    assert found.kappa == 0.0
    assert "traded one close late" in found.line()
    believed = confidence(config, fit(config, load_market(config), torch.device("cpu")), np.zeros(250))
    assert believed.kappa > 0.8


def test_a_horizon_longer_than_an_episode_is_cut(config: Config, prepared: Prepared) -> None:
    """As along training paths: a year of months has fewer rows than the default horizon."""
    env = config.env.model_copy(update={"episode_days": 21})
    algo = config.algo.model_copy(update={"horizon": 30})
    budget = config.budget.model_copy(update={"crossfit_updates": 2})
    found = confidence(config.model_copy(update={"env": env, "algo": algo, "budget": budget}), prepared, np.zeros(250))
    assert len(found.parts) == BLOCKS + 1


def test_without_value_gradients_validation_days_alone_count(config: Config, prepared: Prepared) -> None:
    plain = load("pretrain", [word for word in TINY if "algo" not in word] + ["algo.extraction=awr"])
    assert crossfit_settings(plain) is None
    own = np.random.default_rng(0).normal(1e-3, 2e-3, 250)
    found = confidence(plain, prepared, own)
    assert found.mode == "validation"
    assert list(found.parts) == ["validation"]
    alone = config.model_copy(update={"confidence": "validation"})
    assert confidence(alone, prepared, own) == found
