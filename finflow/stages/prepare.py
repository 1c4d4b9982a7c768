"""The start of every stage: the market is loaded, then everything is fitted on the fold's train rows."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from finflow.allocators.priors import prior_portfolios
from finflow.data.build import build_market
from finflow.data.market import Fold, FoldDates, Market, fold_dates, make_fold
from finflow.data.market_features import FeatureScaling
from finflow.envs.ledger import Accounting, RewardModel, fit_reward
from finflow.envs.simulator import World
from finflow.errors import ConfigError
from finflow.evaluation.backtest import Task
from finflow.malloc import keep_freed_memory
from finflow.nn.layers import Computing
from finflow.nn.networks import ObservationSpec
from finflow.schema import Config
from finflow.schema.sections import Hardware
from finflow.tracking.sink import warn

Update = TypeVar("Update", bound=Callable[..., Any])


@dataclass(frozen=True)
class Prepared(Task):
    """One market, split and scaled, on one device; priors [T, K, n]."""

    dates: FoldDates
    priors: NDArray[np.float64]
    scaling: FeatureScaling
    spec: ObservationSpec
    world: World
    cache: Path


def use_hardware(hardware: Hardware) -> torch.device:
    """Set torch's threads and choose the device; results are the same from run to run on one machine.

    Raises
    ------
    ConfigError
        If there is no such device, or it cannot compute as asked.
    """
    cuda = torch.cuda.is_available()
    if hardware.device == "cuda" and not cuda:
        raise ConfigError("hardware.device=cuda: torch finds no CUDA device here; choose hardware=cpu")
    if hardware.precision == "fp16" and not (cuda and hardware.device != "cpu"):
        raise ConfigError("hardware.precision=fp16: for CUDA devices alone; choose bf16 or fp32")
    torch.set_num_threads(hardware.threads)
    keep_freed_memory()
    torch.set_deterministic_debug_mode("warn")  # as use_deterministic_algorithms, without a second of its imports
    # A debugging aid that costs a tenth of an update.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    if not cuda or hardware.device == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def computing_of(hardware: Hardware) -> Computing:
    """Precision and checkpointing of a training stage's networks."""
    half = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[hardware.precision]
    return Computing(half, recompute=hardware.gradient_checkpointing)


def compiled(update: Update, hardware: Hardware) -> Update:
    """An agent's `update`, compiled as a whole if `hardware.compile` is set."""
    if hardware.compile is None:
        return update
    return torch.compile(update, mode=hardware.compile)  # pyright: ignore[reportReturnType]


def load_market(config: Config) -> Market:
    """The market of `config`; its warnings are printed.

    Raises
    ------
    ConfigError, DataError, StorageError
        See `load_prices`.
    """
    market = build_market(config.env, cache_folder(config))
    for line in market.warnings:
        warn(line)
    return market


def cache_folder(config: Config) -> Path:
    """Where downloads and what is computed from a market are kept between runs."""
    return Path(config.output_root) / "cache"


def fit(
    config: Config,
    market: Market,
    device: torch.device,
    *,
    fold: Fold | None = None,
    scaling: FeatureScaling | None = None,
    reward: RewardModel | None = None,
) -> Prepared:
    """Fit what is not given on the train rows of the fold, and put the market on `device`.

    Parameters
    ----------
    fold : of an earlier run; else `config.fold` is cut anew.
    scaling, reward : kept with trained weights. The lambdas of `reward` are always the configuration's.
    """
    cache = cache_folder(config)
    fold = fold or make_fold(market, config.env, config.fold)
    priors = prior_portfolios(market, cache)
    scaling = scaling or FeatureScaling.fit(market, fold)
    accounting = Accounting.of(config.env)
    if reward is None:
        reward = fit_reward(market, priors, fold.train, config.reward)
    else:
        reward = RewardModel(reward.scale, reward.tail_threshold, **config.reward.model_dump())
    spec = ObservationSpec.of(market, config.algo)
    world = World.of(market, scaling.apply, priors, accounting, reward, device)
    return Prepared(market, fold, accounting, fold_dates(market, fold), priors, scaling, spec, world, cache)


def reward_facts(config: Config, prepared: Prepared) -> dict[str, Any]:
    """Facts that a value function depends on beside the market; a parent with other facts is refitted."""
    return {
        "reward": prepared.world.reward.to_dict(),
        "gamma": config.algo.gamma,
        "accounting": asdict(prepared.accounting),
        "rebalance": config.env.rebalance,
    }
