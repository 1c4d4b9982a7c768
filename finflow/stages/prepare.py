"""The start of every stage: the market is loaded, then everything is fitted on the fold's train rows.

Offline data are collected and cached, or read from the file that `collect.py` wrote. Data are compared with those of
training: the same, grown since, with another past, or re-adjusted, where a dividend or split has rescaled all earlier
closes of its name by one factor; returns stay as they were then.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from finflow.allocators.priors import prior_portfolios
from finflow.data.build import build_market, prefix_fingerprint
from finflow.data.features import SIGNAL_PREFIX, FeatureScaling
from finflow.data.market import Fold, FoldDates, Market, fold_dates, make_fold
from finflow.envs.collect import Dataset, collect, load_dataset
from finflow.envs.ledger import Accounting, RewardModel, fit_reward
from finflow.envs.simulator import World
from finflow.errors import ConfigError
from finflow.evaluation.backtest import Task
from finflow.io.weights import Arrays, cached_arrays, content_hash, read_cached
from finflow.nn.actor import Computing
from finflow.nn.networks import ObservationSpec
from finflow.schema import Config
from finflow.schema.fields import digest
from finflow.schema.sections import Hardware
from finflow.tracking.sink import warn

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
LARGEST = 32 << 20  # bytes; above it glibc takes no threshold
KEPT = 1 << 30
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


@cache
def keep_freed_memory() -> bool:
    """Keep what is freed for the next tensor, up to 1 GiB, instead of giving it back to the kernel; whether that is so.

    By default a tensor of a few MiB that ends an update is unmapped, and the next update pays a page fault for each of
    its 4 KiB: a sixth of the time of an update with CQL. Only glibc has these switches; elsewhere nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((MMAP_THRESHOLD, LARGEST), (TRIM_THRESHOLD, KEPT), (TOP_PAD, LARGEST))
    return all(mallopt(switch, value) == 1 for switch, value in wanted)


def use_hardware(hardware: Hardware) -> torch.device:
    """Set torch's threads and choose the device; results are the same from run to run on one machine."""
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
    """The market of `config`; its warnings are printed. What is raised: see `load_prices`."""
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
    key, episodes = f"offline-{digest(facts | shape)}", config.budget.collect_episodes
    arrays = cached_arrays(prepared.cache, key, lambda: collected(config, prepared, episodes).arrays())
    return Dataset(**arrays, facts=facts)


def collected(config: Config, prepared: Prepared, episodes: int) -> Dataset:
    """Collect so many episodes, without the cache."""
    world = prepared.world
    if world.device.type != "cpu":  # behaviours step the simulator, which lives on the CPU
        world = World.of(
            prepared.market, prepared.scaling.apply, prepared.priors, prepared.accounting, world.reward,
            torch.device("cpu"),
        )  # fmt: skip
    days = prepared.market.calendar.rows(config.env.episode_days)
    return collect(
        prepared.market, world, prepared.fold.train, episodes, days, config.offline.bootstrap_fraction, config.seed,
        dataset_facts(config, prepared),
    )  # fmt: skip


PAST = "past"
ROUNDING = 1e-5
"""A rescaled close differs by so much, relatively, from the close times the factor, beside its printed decimals."""
SHOWN = 3  # re-adjusted names that are printed
_CAUSAL = ("returns", "status", "features", "market_features", "regime", "benchmark")
"""Arrays whose rows depend on what comes before them alone; they also hold volume, signals, rates and benchmark."""


@dataclass(frozen=True)
class Past:
    """Data compared with those of training.

    new_days : added since; changed : the data that differ, with dates, None where the past is the same.
    readjusted : names whose earlier closes were all rescaled by one factor, in words; None where there are none.
    """

    new_days: int
    changed: str | None
    readjusted: str | None = None


def past_facts(market: Market, cache: Path) -> dict[str, str]:
    """A run's record of its data: first and last day, and hashes that do not change when days are added.

    The closes themselves are kept in `cache`.
    """
    last = str(market.dates[-1])
    cached_arrays(cache, f"closes-{market.fingerprint}", lambda: _inputs(market, len(market.dates)))
    return {"first": str(market.dates[0]), "last": last, **_hashes(market, last)}


def compare_past(record: Mapping[str, Any], market: Market, cache: Path) -> Past:
    """Compare `market` with what `record`, a run's `run.json`, says of the data that it was trained on."""
    then = str(record.get("data_fingerprint"))
    if market.fingerprint == then:
        return Past(0, None)
    noted = record.get(PAST)
    if not isinstance(noted, dict):
        return Past(0, f"data (fingerprint {then}, now {market.fingerprint})")
    first, last = str(noted["first"]), str(noted["last"])
    rows, hashes = _rows(market, last), _hashes(market, last)
    new_days = len(market.dates) - rows
    if hashes["prices"] != noted["prices"]:
        path = cache / f"closes-{then}.safetensors"
        known = read_cached(path) if path.exists() else None
        found = None if known is None else _readjusted(known, _inputs(market, rows), market.assets)
        return Past(new_days, None if found else f"prices from {first} to {last}", found)
    if hashes["arrays"] != noted["arrays"]:
        return Past(new_days, f"volume, signals, cash yield, benchmark or features from {first} to {last}")
    return Past(new_days, None)


def _inputs(market: Market, rows: int) -> Arrays:
    """Closes of the first `rows` days, and what else shapes the days but volume, which a split rescales, too."""
    signals = [name.startswith(SIGNAL_PREFIX) for name in market.feature_names]
    arrays = {
        "dates": market.dates.astype(np.int64), "close": market.close, "cash": market.returns[:, -1],
        "benchmark": market.benchmark, "signals": market.features[..., np.array(signals, dtype=bool)],
    }  # fmt: skip
    return {name: array[:rows] for name, array in arrays.items()}


def _readjusted(then: Arrays, now: Arrays, names: Sequence[str]) -> str | None:
    """Names whose closes are all those of `then` times one factor, with it; None where anything else differs."""
    if any(then[name].shape != array.shape for name, array in now.items()):
        return None
    if not np.array_equal(np.isnan(then["close"]), np.isnan(now["close"])):
        return None
    factor = np.nansum(now["close"], axis=0) / np.maximum(np.nansum(then["close"], axis=0), np.finfo(float).tiny)
    rounding = _half_unit(now["close"]) + factor * _half_unit(then["close"])
    allowed = 1.01 * rounding + ROUNDING * now["close"]
    if (np.abs(now["close"] - factor * then["close"]) > allowed).any():
        return None
    # 1/N, where that is the benchmark, moves with the closes' rounding.
    loose = {"benchmark": 4.0 * float(np.nanmax(allowed / now["close"]))}
    others = [name for name in now if name != "close"]
    if not all(np.allclose(then[name], now[name], 1e-5, loose.get(name, 1e-8), equal_nan=True) for name in others):
        return None
    factors = zip(names, factor.tolist(), strict=False)  # cash, the last name, has no close
    moved = [f"{name} by {each:.4g}" for name, each in factors if each and abs(each - 1.0) > ROUNDING]
    rest = len(moved) - SHOWN
    return ", ".join([*moved[:SHOWN], *([f"{rest} more"] if rest > 0 else [])]) or None


def _half_unit(close: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half of the last decimal that each name's closes are printed with, [n]; 0 from seven decimals on."""
    found = np.zeros(close.shape[1])
    for decimals in reversed(range(7)):
        whole = (np.isnan(close) | (np.abs(np.round(close, decimals) - close) <= 1e-9)).all(axis=0)
        found[whole] = 0.5 * 10.0**-decimals
    return found


def _rows(market: Market, last: str) -> int:
    return int(np.searchsorted(market.dates, np.datetime64(last, "D"), side="right"))


def _hashes(market: Market, last: str) -> dict[str, str]:
    """Of the prices up to the day `last`, and of the arrays that depend on them alone."""
    arrays = {name: getattr(market, name)[: _rows(market, last)] for name in _CAUSAL}
    return {"prices": prefix_fingerprint(market, date.fromisoformat(last)), "arrays": content_hash(arrays)[:16]}
