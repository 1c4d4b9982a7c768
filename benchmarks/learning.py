"""Planted alpha: what share of the oracle's net active information ratio each learner earns on a path it never saw.

`python -m benchmarks.learning` trains, for every information coefficient and seed, IQL, B-Cell from it, and SAC from
scratch at B-Cell's total of updates, each on a market of its own. The checkpoint that validation selects is run
over 20 fresh years, drawn anew with other names, and that five times: an information ratio of one such path has a
standard error of 1 / sqrt(20), a third of what is asked for. A seed's figure is the mean over its paths. A row also
holds what later validations are above the hand-over's own, in paired standard errors. `--ic 0`
plants nothing, and a fresh path is then the run's own train rows without their means, each day times a random sign:
there the gross active information ratio should be nought. (On a path with a premium whoever holds less of it than 1/N
falls behind.) Rows that stand in OUT/rows.jsonl are not made again; the table comes from them all.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import finflow
from finflow.agents.greedy import GreedyPolicy
from finflow.allocators.priors import prior_portfolios
from finflow.data.build import build_market, market_of
from finflow.data.market import Market, Window
from finflow.envs.world import World
from finflow.evaluation.audit.null_market import null_prices
from finflow.evaluation.backtest import backtest
from finflow.evaluation.baselines import equal_weight_track
from finflow.evaluation.metrics import active_information_ratio
from finflow.evaluation.oracle import fit_oracle, planted_signal, tilt
from finflow.evaluation.result import Track
from finflow.evaluation.seeds import summarise_seeds
from finflow.seeding import numpy_stream
from finflow.stages.run import METRICS
from finflow.stages.trained import Trained, load_trained
from finflow.stages.validation import Validator

WARM_UP, YEARS, YEAR = 260, 20, 252
PATHS = 5
FRESH = 1000  # added to a market's seed, once for each path that nobody trained on
MARKET = ["env=synthetic", "env.synthetic.assets=10", "env.synthetic.days=5040", "env.synthetic.persistence=0.97"]
SMALL = ["algo.network.hidden_dim=64", "algo.network.embed_dim=16", "algo.network.n_quantiles=16",
         "algo.batch_size=128", "tracking=none", "evaluation.objective=active_ir"]  # fmt: skip
SHARED = ["algo.lr=1e-3", "algo.gamma=0.9", "algo.network.state_noise=0.6", "budget.collect_episodes=200",
          "budget.epochs=5", "budget.updates_per_epoch=300"]  # fmt: skip
ONLINE = ["algo.risk_weight=0.5", "algo.entropy.sigma=[0.2,0.05]", "algo.anchor=[0.3,0.0]",
          "budget.frozen_episodes=4", "evaluation.every_episodes=32"]  # fmt: skip
LEARNERS: dict[str, list[str]] = {
    "iql": [],
    "bcell": ["algo.gate.lr_ratio=1.0", "algo.gate.balance=[0.0,0.0]",
              "budget.episodes=336", "budget.critic_updates=1500", *ONLINE],
    "sac": ["algo=sac", "init.weights=null", "budget.episodes=434", "budget.critic_updates=150", *ONLINE],
}  # fmt: skip


@contextmanager
def validations() -> Iterator[list[NDArray[np.float64]]]:
    """Daily net returns of every validation that ends within, in order."""
    nets: list[NDArray[np.float64]] = []
    original = Validator.track

    def spy(self: Validator) -> Track:
        track = original(self)
        nets.append(track.net)
        return track

    Validator.track = spy
    try:
        yield nets
    finally:
        Validator.track = original


def gains_over_first(nets: list[NDArray[np.float64]]) -> list[float]:
    """Mean of each later track's daily net return over the first one's, in standard errors of that difference.

    Paired, so that what both tracks share hides no dip; 0 where nothing differs: the policy is still frozen.
    """
    differences = [net - nets[0] for net in nets[1:]]
    return [float(each.mean() / (each.std(ddof=1) / np.sqrt(len(each)))) if each.any() else 0.0 for each in differences]


def fresh_market(trained: Trained, seed: int) -> Market:
    """20 years, after a warm-up, that nobody trained on: with alpha as the run's own market, without it a null one."""
    config, prepared = trained.config, trained.prepared
    synthetic = config.env.synthetic
    assert synthetic is not None
    days = WARM_UP + YEARS * YEAR
    if synthetic.ic == 0:
        rng = numpy_stream(seed, "learning/null market")
        return market_of(null_prices(prepared.market, prepared.fold.train, days, rng), config.env)
    changed = synthetic.model_copy(update={"seed": seed, "days": days})
    return build_market(config.env.model_copy(update={"synthetic": changed}), prepared.cache)


def fresh_path(trained: Trained, seed: int) -> dict[str, float]:
    """Active information ratios on the market of `seed`: the policy's, net and gross, and, where alpha was planted, the
    net one of the oracle that was fitted on the run's validation rows.
    """
    prepared, rebalance = trained.prepared, trained.config.env.rebalance
    market, accounting = fresh_market(trained, seed), prepared.accounting
    priors, home = prior_portfolios(market, prepared.cache), prepared.world
    world = World.of(market, prepared.scaling.apply, priors, accounting, home.reward, home.device)
    window = Window(WARM_UP, len(market.dates))
    strategies = {"policy": GreedyPolicy(trained.networks.actor, world, np.array([WARM_UP - 1])).act}
    if trained.config.env.synthetic and trained.config.env.synthetic.ic > 0:
        oracle = fit_oracle(prepared.market, prepared.fold.validation, accounting, rebalance)
        strategies["oracle"] = tilt(market, planted_signal(market), oracle.strength, oracle.rate)
    tracks = backtest(market, window, accounting, strategies)
    equal = equal_weight_track(market, window, accounting, rebalance)
    ratios = {name: active_information_ratio(track.net, equal.net) or 0.0 for name, track in tracks.items()}
    gross = active_information_ratio(tracks["policy"].gross, equal.gross) or 0.0
    return {**ratios, "gross": gross, "turnover": float(tracks["policy"].turnover.sum() / YEARS)}


def fresh_ratios(trained: Trained, seed: int) -> dict[str, Any]:
    """Means over the fresh paths, and `paths` with what each of them gave."""
    found = [fresh_path(trained, seed + FRESH * (path + 1)) for path in range(PATHS)]
    paths = {name: [each[name] for each in found] for name in found[0]}
    return {**{name: float(np.mean(each)) for name, each in paths.items()}, "paths": paths}


def train(learner: str, ic: float, seed: int, out: Path, changes: list[str]) -> dict[str, Any]:
    """One row: the run's validation figures and its share of the oracle on the fresh path."""
    began = time.process_time()
    root = out / "runs" / f"ic{ic:g}-seed{seed}"
    stage = "pretrain" if learner == "iql" else "finetune"
    line = [*MARKET, f"env.synthetic.ic={ic:g}", f"env.synthetic.seed={seed}", f"seed={seed}", f"output_root={root}"]
    line += [*SMALL, *SHARED, *LEARNERS[learner], *changes]
    folder = root / stage / learner
    shutil.rmtree(folder, ignore_errors=True)
    run: Callable[..., Any] = getattr(finflow, stage)
    with validations() as nets:
        result = run(finflow.load(stage, line), folder)
    ratios = fresh_ratios(load_trained(finflow.load("evaluate", [f"output_root={root}"]), str(folder)), seed)
    rows = [json.loads(text) for text in (folder / METRICS).read_text().splitlines()]
    updates = [int(row["updates"]) for row in rows if row.get("updates") is not None]
    return {
        "learner": learner, "ic": ic, "seed": seed, "changes": changes, **ratios,
        "share": ratios["policy"] / ratios["oracle"] if ic > 0 else None,
        "validation": result.metrics.get("validation_active_information_ratio"),
        "gains": gains_over_first(nets[:-1]) if learner == "bcell" else None,  # the last is of the weights kept
        "selected": getattr(result, "selected_episode", None),
        "updates": max(updates), "cpu_seconds": time.process_time() - began,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Interquartile means over seeds with their 95 % intervals, as Markdown."""
    heads = ("IC", "learner", "seeds", "updates", "net active IR", "share of the oracle's", "gross", "turnover a year")
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for ic in sorted({row["ic"] for row in rows}):
        for learner in LEARNERS:
            mine = [row for row in rows if row["ic"] == ic and row["learner"] == learner]
            if mine:
                ratio, share, gross = (_said(mine, key) for key in ("policy", "share", "gross"))
                updates = max(row["updates"] for row in mine)
                turnover = np.mean([row["turnover"] for row in mine])
                lines.append(
                    f"| {ic:g} | {learner} | {len(mine)} | {updates} | {ratio} | {share} | {gross} | {turnover:.1f} |"
                )
    return "\n".join(lines)


def gains(rows: list[dict[str, Any]]) -> str:
    """What B-Cell's net active information ratio is above another learner's, seed by seed, as Markdown."""
    lines = ["| IC | B-Cell less | seeds | net active IR |", "| --- | --- | --- | --- |"]
    for ic, other in product(sorted({row["ic"] for row in rows}), LEARNERS):
        mine, theirs = (
            {row["seed"]: row["policy"] for row in rows if row["ic"] == ic and row["learner"] == learner}
            for learner in ("bcell", other)
        )
        both = sorted(mine.keys() & theirs.keys())
        if other != "bcell" and both:
            gain = _interval(np.array([mine[seed] - theirs[seed] for seed in both]), f"{ic}/{other}")
            lines.append(f"| {ic:g} | {other} | {len(both)} | {gain} |")
    return "\n".join(lines)


def _said(rows: list[dict[str, Any]], key: str) -> str:
    if any(row.get(key) is None for row in rows):
        return "-"
    return _interval(np.array([row[key] for row in rows]), key)


def _interval(scores: NDArray[np.float64], stream: str) -> str:
    found = summarise_seeds(scores, samples=10_000, rng=numpy_stream(0, f"learning/{stream}"))
    return f"{found.middle:.2f} [{found.low:.2f}, {found.high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--ic", type=float, nargs="+", default=[0.1, 0.05])
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/learning"))
    parser.add_argument("changes", nargs="*", help="overrides of the configuration, for all learners")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "rows.jsonl"
    rows = [json.loads(text) for text in kept.read_text().splitlines()] if kept.exists() else []
    done = {(row["learner"], row["ic"], row["seed"]) for row in rows}
    for seed, ic, learner in product(options.seeds, options.ic, options.learners):
        if (learner, ic, seed) not in done:
            rows.append(train(learner, ic, seed, options.out, options.changes))
            with kept.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), flush=True)
    print(f"{table(rows)}\n\n{gains(rows)}\n\nRows: {kept}")


if __name__ == "__main__":
    main()
