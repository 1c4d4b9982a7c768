"""Environments from a configuration."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from finflow.config.compose import load
from finflow.errors import ConfigError
from finflow.schema import Config
from finflow.stages.environment import make_env, make_vector_env
from finflow.stages.prepare import fit, load_market

SMALL = ["env=synthetic", "env.synthetic.days=1400", "env.synthetic.assets=3", "hardware=cpu", "env.episode_days=21"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return load("pretrain", [*SMALL, f"output_root={tmp_path_factory.mktemp('outputs')}"])


def dates_lived(env: Any) -> list[int]:
    env.reset(seed=0)
    found = []
    for _ in range(60):
        for _ in range(21):
            found.append(int(env.step(env.action_space.sample())[-1]["date"]))
        env.reset()
    return found


@pytest.mark.filterwarnings("ignore:.*Box observation space.*", "ignore:.*spec.*")
def test_an_environment_of_a_configuration(config: Config) -> None:
    prepared = fit(config, load_market(config), torch.device("cpu"))
    env = make_env(config)
    check_env(env, skip_render_check=True)
    market, fold = prepared.market, prepared.fold
    assert env.action_space.shape == (market.n,)
    for part, window in (("train", fold.train), ("validation", fold.validation)):
        lived = dates_lived(make_env(config, part))
        assert min(lived) >= market.dates[window.start].astype(int)
        assert max(lived) <= market.dates[window.stop - 1].astype(int)


def test_a_vector_environment_of_a_configuration(config: Config) -> None:
    env = make_vector_env(config)
    assert env.num_envs == config.env.num_envs
    found, _ = make_vector_env(config, 3).reset(seed=7)
    assert found.shape[0] == 3
    for slot in range(3):
        np.testing.assert_array_equal(found[slot], make_env(config).reset(seed=7 + slot)[0])


@pytest.mark.parametrize("part", ["test", "all"])
def test_the_test_window_stays_shut(config: Config, part: Any) -> None:
    with pytest.raises(ConfigError, match=rf"part={part}: .*choose one of train, validation"):
        make_env(config, part)


def test_no_portfolio_at_all(config: Config) -> None:
    with pytest.raises(ConfigError, match="num_envs=0: "):
        make_vector_env(config, 0)


def test_nothing_is_written_but_the_cache(config: Config) -> None:
    assert {path.name for path in Path(config.output_root).iterdir()} == {"cache"}
