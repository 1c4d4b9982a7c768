"""The environment of a configuration, for learners from other libraries."""

from typing import Literal, cast

import torch

from finflow.envs.gym_env import EpisodeSource, PortfolioEnv, PortfolioVectorEnv
from finflow.errors import ConfigError
from finflow.schema import Config
from finflow.stages.prepare import fit, load_market

Part = Literal["train", "validation"]


def make_env(config: Config, part: Part = "train") -> PortfolioEnv:
    """One portfolio through episodes of `env.episode_days`, under the reward and the rules of `config`.

    Parameters
    ----------
    part : of the fold; its features are scaled by train rows alone. The test window opens through `evaluate` and
        `judge` only.

    Raises
    ------
    ConfigError, DataError, StorageError
        One line each, see `finflow.errors`.
    """
    return PortfolioEnv(_source(config, part))


def make_vector_env(config: Config, num_envs: int | None = None, part: Part = "train") -> PortfolioVectorEnv:
    """`num_envs` portfolios side by side, `env.num_envs` by default; otherwise as `make_env`."""
    asked = cast("object", num_envs)
    if asked is not None and (not isinstance(asked, int) or asked < 1):  # before anything is prepared and cached
        raise ConfigError(f"num_envs={asked}: at least one portfolio is needed; leave it out for env.num_envs")
    source = _source(config, part)
    return PortfolioVectorEnv(source, config.env.num_envs if num_envs is None else num_envs)


def _source(config: object, part: Part) -> EpisodeSource:
    if not isinstance(config, Config):
        raise ConfigError(f'config={config!r:.80}: no configuration; take finflow.load("pretrain", [...])')
    if part not in ("train", "validation"):
        hint = "; the test window opens through evaluate and judge only" if part == "test" else ""
        raise ConfigError(f"part={part}: no such part; choose one of train, validation{hint}")
    prepared = fit(config, load_market(config), torch.device("cpu"))
    market, reward = prepared.market, prepared.world.reward
    window = prepared.fold.train if part == "train" else prepared.fold.validation
    days = market.calendar.rows(config.env.episode_days)
    return EpisodeSource(market, *prepared.scaling.apply(market), window, prepared.accounting, reward, days)
