"""What is not a learner: environment, features, priors, backtest, start-up; CPU seconds in this process."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import finflow
from finflow.allocators.priors import prior_portfolios
from finflow.data.build import build_market, load_prices, market_of
from finflow.data.market import Market, Window
from finflow.envs.ledger import Accounting
from finflow.evaluation.backtest import backtest
from finflow.schema import Config

ROOT = Path(__file__).resolve().parents[1]


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of `work`, and what it returned."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def environment(source: str) -> dict[str, float]:
    """Steps per CPU-second of 64 episodes side by side, observations included; 20 names."""
    changes = ["env.synthetic.assets=20"] if source == "synthetic" else []
    env = finflow.make_vector_env(finflow.load("finetune", ["init.weights=null", f"env={source}", *changes]), 64)
    rng = np.random.default_rng(0)
    scores = [rng.random(env.action_space.shape, dtype=np.float32) for _ in range(8)]
    env.reset(seed=0)
    rates: list[float] = []

    def year() -> None:
        for score in scores * 32:  # a learner takes what it needs of a step and drops the rest
            env.step(score)

    for _ in range(100):  # a year a time, so that every burst pays for its 64 new episodes
        took, _ = cpu(year)
        rates.append(len(scores) * 32 * 64 / took)
    return {"median": float(np.median(rates)), "fastest_decile": float(np.quantile(rates, 0.9))}


def synthetic(assets: int, days: int) -> Config:
    changes = [f"env.synthetic.assets={assets}", f"env.synthetic.days={days}", "env.synthetic.ic=0"]
    return finflow.load("pretrain", ["env=synthetic", *changes])


def features_and_priors(config: Config) -> dict[str, float]:
    """CPU seconds from prices to a market, and from there to the five priors; nothing cached."""
    prices = load_prices(config.env, None)
    features, market = cpu(lambda: market_of(prices, config.env))
    priors, _ = cpu(lambda: prior_portfolios(market))
    return {"days": len(market.dates), "assets": market.n - 1, "features": features, "priors": priors}


def backtest_of_one(market: Market) -> float:
    """CPU seconds of a callable policy through the last 25 years."""
    window = Window(len(market.dates) - 25 * 252, len(market.dates))
    hold = {"1/N": lambda rows, drifted, drawdown: np.full_like(drifted, 1.0 / drifted.shape[-1])}
    return cpu(lambda: backtest(market, window, Accounting(0.0015), hold))[0]


def start_up() -> dict[str, float]:
    """Wall seconds of `--help`, and of a pretraining of a single update with its data in the cache."""

    def run(*arguments: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
        return time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        one = [
            "experiments/pretrain.py", "experiment=demo", f"output_root={folder}", "budget.epochs=1",
            "budget.updates_per_epoch=1", "budget.collect_episodes=4",
        ]  # fmt: skip
        run(*one)
        return {"help": min(run("experiments/pretrain.py", "--help") for _ in range(3)), "one_update": run(*one)}


def parts() -> dict[str, Any]:
    """Every figure of this module."""
    embedded = finflow.load("pretrain", [])
    return {
        "environment_steps_per_cpu_second": {source: environment(source) for source in ("sp500", "synthetic")},
        "features_and_priors": [
            features_and_priors(config) for config in (embedded, synthetic(100, 5040), synthetic(500, 5040))
        ],
        "backtest_25_years": backtest_of_one(build_market(embedded.env)),
        "start_up": start_up(),
    }
