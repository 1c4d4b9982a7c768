"""Other people's agents on the planted markets: PPO and SAC of Stable-Baselines3, TQC of sb3-contrib.

    python -m pip install -c constraints.txt -e '.[agents]'
    python -m benchmarks.agents [--market linear --ic 0.1 --seeds 10 11 12 13 14 --seconds 800]

Each is trained on `finflow.make_env` with its published default settings, and with one tuning chosen on seed 0, for a
number of CPU-seconds. At every doubling of the time its share of the oracle's net active information ratio is measured
on the fresh paths of `benchmarks.learning`; that time is not counted. Rows of as many seconds that stand in
OUT/rows.jsonl are not made again. `--judge SET` trains on the days before the test window of a public set, or of a
fold of the embedded market, and opens that window once for each agent and seed.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.wrappers import RescaleAction
from numpy.typing import NDArray
from sb3_contrib import TQC
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

import finflow
from benchmarks.learning import MARKETS, Case, FreshPaths, line_of, on_fresh_paths, oracle_on
from benchmarks.public_sets import FIRST_DAY, write_prices
from finflow.envs.gym_env import Observations
from finflow.evaluation.backtest import Strategy
from finflow.evaluation.study import summarise_seeds
from finflow.schema import Config
from finflow.seeding import numpy_stream
from finflow.stages.prepare import Prepared, fit, load_market, use_hardware

FIRST_MARK = 12.5  # CPU-seconds; then twice that, and so on
FOREVER = 10**9
HALF = 0.5


@dataclass(frozen=True)
class Agent:
    """An algorithm with changes to its published default settings."""

    algorithm: type[BaseAlgorithm]
    num_envs: int = 1
    scaled_reward: bool = False  # by VecNormalize: rewards of a day are small beside the entropy bonus
    settings: dict[str, Any] = field(default_factory=dict)

    def build(self, config: Config, seed: int) -> BaseAlgorithm:
        """A new one on train days; its actions are symmetric, as Stable-Baselines3 wants them: 0 is a score of 0.5."""
        env = make_vec_env(lambda: RescaleAction(finflow.make_env(config), -1.0, 1.0), self.num_envs, seed)
        if self.scaled_reward:
            env = VecNormalize(env, norm_obs=False, gamma=self.settings["gamma"])
        return self.algorithm("MlpPolicy", env, seed=seed, device="cpu", **self.settings)


AGENTS = {
    "PPO": Agent(PPO),
    "SAC": Agent(SAC),
    "TQC": Agent(TQC),
    "PPO, tuned": Agent(PPO, 16, True, {"gamma": 0.9, "n_steps": 256, "batch_size": 512, "gae_lambda": 0.9}),
    "SAC, tuned": Agent(
        SAC,
        8,
        True,
        {"gamma": 0.9, "batch_size": 512, "ent_coef": 0.01, "learning_rate": 1e-3, "gradient_steps": 4},
    ),
    "TQC, tuned": Agent(TQC, 1, True, {"gamma": 0.9, "batch_size": 256, "ent_coef": 0.001}),
}


class Marks(BaseCallback):
    """Measures an agent whenever it has trained for twice the CPU-seconds of the time before; ends the training."""

    def __init__(self, seconds: float, measure: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self._seconds, self._measure = seconds, measure
        self._mark, self._paused, self._began = FIRST_MARK, 0.0, 0.0
        self.found = list[dict[str, Any]]()

    def _on_training_start(self) -> None:
        self._began = time.process_time()

    def _on_step(self) -> bool:
        trained = time.process_time() - self._began - self._paused
        if trained < min(self._mark, self._seconds):
            return True
        paused = time.process_time()
        self.found.append({"seconds": trained, "steps": self.num_timesteps, **self._measure()})
        self._paused += time.process_time() - paused
        self._mark *= 2
        return trained < self._seconds


@dataclass(frozen=True)
class Scores:
    """What an agent does in the units of `finflow.make_env`: scores from 0 to 1."""

    model: BaseAlgorithm

    def predict(self, observation: NDArray[np.float32], *, deterministic: bool) -> NDArray[np.float64]:
        """Scores [n] or [E, n] of observations [D] or [E, D]."""
        action, _ = self.model.predict(observation, deterministic=deterministic)
        return (action.astype(np.float64) + 1) / 2


def act_on(model: BaseAlgorithm, prepared: Prepared, paths: FreshPaths) -> Strategy:
    """The agent's scores as target weights, on all paths at once."""
    seen = Observations(paths.joined, *prepared.scaling.apply(paths.joined))

    def act(rows: NDArray[Any], drifted: NDArray[np.float64], drawdown: NDArray[np.float64]) -> NDArray[np.float64]:
        scores = Scores(model).predict(seen.at(rows, drifted, drawdown), deterministic=True)
        total = scores.sum(1, keepdims=True)
        return np.where(total > 0, scores / np.maximum(total, 1e-12), np.eye(scores.shape[1])[-1])

    return act


def planted_row(case: Case, name: str, seconds: float, out: Path) -> dict[str, Any]:
    """What an agent earns on the fresh paths of a planted market, at each mark."""
    config = finflow.load("pretrain", line_of(case, "ols", out / "runs" / case.name, []))
    prepared = fit(config, load_market(config), use_hardware(config.hardware))
    oracle = on_fresh_paths(config, prepared, case.seed, oracle_on(config, prepared))[0]["policy"]
    model = AGENTS[name].build(config, case.seed)

    def measure() -> dict[str, Any]:
        found, _ = on_fresh_paths(config, prepared, case.seed, lambda paths: act_on(model, prepared, paths))
        share = found["policy"] / oracle if oracle else None
        return {key: found[key] for key in ("policy", "gross", "te", "turnover")} | {"share": share}

    marks = Marks(seconds, measure)
    model.learn(FOREVER, callback=marks)
    return {"marks": marks.found, **marks.found[-1]}


def judged_row(window: str, name: str, seed: int, seconds: float, out: Path) -> dict[str, Any]:
    """The verdict of an agent that was trained on the days before a test window, which is opened once."""
    data = [f"output_root={out / 'runs'}", f"name={window}-{name.replace(', ', '-').lower()}-s{seed}"]
    if window in FIRST_DAY:
        data += ["env=csv", f"env.path={write_prices(window, out)}"]
    else:
        data += ["env=sp500", f"fold={window}"]
    config = finflow.load("judge", data)
    model = AGENTS[name].build(config, seed)
    marks = Marks(seconds, dict)
    model.learn(FOREVER, callback=marks)
    evaluation = finflow.judge(Scores(model), name=name, config=config).evaluation
    verdict, metrics = evaluation.verdict, evaluation.metrics["policy"]
    return {
        **marks.found[-1], "outcome": verdict.outcome, "difference": [verdict.difference, verdict.low, verdict.high],
        "sharpe": metrics.sharpe, "turnover": metrics.turnover, "wealth": metrics.final_nav,
    }  # fmt: skip


def planted_table(rows: list[dict[str, Any]]) -> str:
    """Interquartile means over seeds with their 95 % intervals, as Markdown; the time is that to half of the oracle.

    Where the oracle earns nothing there is no share of it, and the net active information ratio says what was lost.
    """
    lines = ["| market | IC | agent | seeds | share of the oracle's | worst | net active IR | TE a year | "
             "turnover a year | steps | CPU-seconds to half |", "|" + " --- |" * 11]  # fmt: skip
    for at, mine in grouped(rows, "market", "ic", "agent").items():
        shares = np.array([row["share"] for row in mine], dtype=np.float64)  # None is NaN
        middle, worst, soon = "-", "-", "-"
        means = {key: float(np.mean([row[key] for row in mine])) for key in ("policy", "te", "turnover", "steps")}
        if np.isfinite(shares).all():
            said = summarise_seeds(shares, samples=2000, rng=numpy_stream(0, "/".join(map(str, at))))
            middle, worst = f"{said.middle:.2f} [{said.low:.2f}, {said.high:.2f}]", f"{shares.min():.2f}"
            half = [next((m["seconds"] for m in row["marks"] if m["share"] > HALF), None) for row in mine]
            reached = sorted(each for each in half if each is not None)
            soon = f"{np.mean(reached):.0f} ({len(reached)} of {len(mine)})" if reached else "none"
            soon += f", of {np.mean([row['seconds'] for row in mine]):.0f}"
        lines.append(
            f"| {at[0]} | {at[1]:g} | {at[2]} | {len(mine)} | {middle} | {worst} | {means['policy']:.2f} | "
            f"{means['te']:.1%} | {means['turnover']:.0f} | {means['steps']:,.0f} | {soon} |"
        )
    return "\n".join(lines)


def judged_table(rows: list[dict[str, Any]]) -> str:
    """Each seed's verdict on a test window, as Markdown."""
    lines = ["| window | agent | seed | Sharpe ratio | less that of 1/N | verdict | turnover a year | steps | "
             "CPU-seconds |", "|" + " --- |" * 9]  # fmt: skip
    for row in rows:
        difference, low, high = row["difference"]
        lines.append(
            f"| {row['window']} | {row['agent']} | {row['seed']} | {row['sharpe']:.2f} | "
            f"{difference:+.2f} [{low:.2f}, {high:.2f}] | {row['outcome'].capitalize()} | {row['turnover']:.0f} | "
            f"{row['steps']:,} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def grouped(rows: list[dict[str, Any]], *keys: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Rows by their values of `keys`, in the order in which these came first."""
    found = dict[tuple[Any, ...], list[dict[str, Any]]]()
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--market", nargs="*", choices=MARKETS, default=["linear"])
    parser.add_argument("--ic", type=float, nargs="+", default=[0.1])
    parser.add_argument(
        "--judge", nargs="+", default=[], metavar="WINDOW", help="nyse_o, ..., or a fold: 2000, 2008, ..."
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14])
    parser.add_argument("--agents", nargs="+", choices=AGENTS, default=list(AGENTS))
    parser.add_argument("--seconds", type=float, default=800.0, help="CPU-seconds of training for each")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/agents"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "rows.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    work = list[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]()
    for seed, name in product(options.seeds, options.agents):
        for window in options.judge:
            make = partial(judged_row, window, name, seed, options.seconds, options.out)
            work.append(({"window": window, "agent": name, "seed": seed, "asked": options.seconds}, make))
        for market, ic in () if options.judge else product(options.market, options.ic):
            case = Case(market, ic, seed, 1.0)
            make = partial(planted_row, case, name, options.seconds, options.out)
            work.append(({"agent": name, **vars(case), "asked": options.seconds}, make))
    for done, (at, make) in enumerate(work, 1):
        if not any(at.items() <= row.items() for row in rows):
            rows.append({**at, **make()})
            with kept.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
        print(f"[{done}/{len(work)}] {', '.join(map(str, at.values()))}", flush=True)
    planted, judged = [row for row in rows if "market" in row], [row for row in rows if "window" in row]
    print("\n\n".join([*([planted_table(planted)] if planted else []), *([judged_table(judged)] if judged else [])]))
    print(f"\nRows: {kept}")


if __name__ == "__main__":
    main()
