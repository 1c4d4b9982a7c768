"""Planted alpha: what share of the oracle's net active information ratio each learner earns on a path it never saw.

`python -m benchmarks.learning` trains, for every market, information coefficient and seed, phase 1 (IQL), the
pipeline (B-Cell from it), and SAC from scratch, each with the settings that a user gets but for BUDGETS and the small
network SMALL, and fits a regression beside them (ols). What came of it is run over 20 fresh years, drawn anew with
other names, and that five times: an information ratio of one such path has a standard error of 1 / sqrt(20), a third
of what is asked for. A seed's figure is the mean over its paths; all learners of a seed are run on the same ones.

Markets: `linear`, `nonlinear` and `regime` are those of env.synthetic.signal; in `costly` what is planted is real, and
not worth its costs; in `null` nothing is planted, and a fresh path is the run's own train rows without their means,
each day times a random sign: there the gross active information ratio should be nought. (On a path with a premium
whoever holds less of it than 1/N falls behind.)

Settings are chosen on seeds 0 to 2 (`--choose`), figures are reported of seeds 10 to 29. Rows that stand in
OUT/rows.jsonl are not made again; the tables come from them all.
"""

import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import finflow
from benchmarks.learning_tables import ORACLE, daily_file, gains, paired_t, speed, table
from benchmarks.null_market import null_prices
from finflow.agents.learner import GreedyPolicy
from finflow.allocators.priors import prior_portfolios
from finflow.data.build import build_market, expected, market_of
from finflow.data.market import TRADING_YEAR as YEAR
from finflow.data.market import Market, Window
from finflow.envs.ledger import Accounting, Booked
from finflow.envs.simulator import Simulator, World
from finflow.evaluation.backtest import Strategy, backtest, equal_weight_track
from finflow.evaluation.linear_tilt import fit_linear_tilt, fit_oracle, planted_signal, tilt
from finflow.evaluation.metrics import active_information_ratio
from finflow.evaluation.result import Track
from finflow.schema import Config
from finflow.seeding import numpy_stream
from finflow.stages.loaded_run import Trained, load_trained
from finflow.stages.prepare import Prepared, fit, load_market, use_hardware
from finflow.stages.run import Validator
from finflow.tracking.sink import METRICS

WARM_UP, YEARS = 260, 20
PATHS = 5
FRESH = 1000  # added to a market's seed, once for each path that nobody trained on
REPORTED, CHOOSING = range(10, 30), range(3)
BASE = ["env=synthetic", "env.synthetic.assets=10", "env.synthetic.days=5040", "env.synthetic.persistence=0.97"]
MARKETS: dict[str, list[str]] = {
    "linear": ["env.synthetic.signal=linear"],
    "nonlinear": ["env.synthetic.signal=nonlinear"],
    "regime": ["env.synthetic.signal=regime"],
    "costly": ["env.synthetic.persistence=0", "env.cost_bps=45"],  # gone after a day, at 50 bp a trade
    "null": [],
}
SMALL = ["algo.network.hidden_dim=64", "algo.network.embed_dim=16", "algo.network.n_quantiles=16",
         "algo.batch_size=128", "tracking=none"]  # fmt: skip
BUDGETS: dict[str, dict[str, int]] = {
    "iql": {"budget.collect_episodes": 200, "budget.epochs": 5, "budget.updates_per_epoch": 120,
            "budget.crossfit_updates": 300},
    "bcell": {"budget.episodes": 96, "budget.critic_warmup_updates": 60, "budget.warmup_episodes": 4,
              "evaluation.every_episodes": 32},
    "sac": {"budget.episodes": 192, "budget.critic_warmup_updates": 150, "budget.warmup_episodes": 4,
            "evaluation.every_episodes": 32},
}  # fmt: skip
"""By learner; iql's goes to all, as phase 2 asks that its parent had the same. Nothing but budgets belongs here."""
GROWING = {"budget.updates_per_epoch", "budget.episodes", "budget.critic_warmup_updates"}
"""What `--budgets` multiplies."""


@dataclass(frozen=True)
class Learner:
    """The stage that trains it, None for what needs no training; overrides that name it; what it starts from."""

    stage: str | None
    changes: tuple[str, ...] = ()
    parent: str | None = None


ROWS = "rows.jsonl"
LEARNERS = {
    "ols": Learner(None),
    "direct": Learner("pretrain", ("algo=direct",)),
    "iql": Learner("pretrain"),
    "bcell": Learner("finetune", parent="iql"),
    "sac": Learner("finetune", ("algo=sac", "init.weights=null")),
}
StrategyOn = Callable[["FreshPaths"], Strategy]


@dataclass(frozen=True)
class FreshPaths:
    """Markets of one length, and the same one after another in one market: strategies live in all side by side."""

    apart: list[Market]
    joined: Market

    @classmethod
    def of(cls, markets: list[Market]) -> "FreshPaths":
        """Join markets of the same assets; each of them has a warm-up."""
        arrays = ("close", "returns", "status", "features", "market_features", "regime", "decision", "benchmark")
        together = {name: np.concatenate([getattr(market, name) for market in markets]) for name in arrays}
        return cls(markets, replace(markets[0], dates=np.concatenate([m.dates for m in markets]), **together))

    @property
    def entries(self) -> NDArray[np.int64]:
        """Rows of the joined market at which the paths are entered, [P]."""
        return np.arange(len(self.apart)) * len(self.apart[0].dates) + WARM_UP - 1


class Lived(NamedTuple):
    """Daily net and gross returns and turnover, [R] of one path or [P, R] of all."""

    net: NDArray[np.float64]
    gross: NDArray[np.float64]
    turnover: NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One market of one seed, and the part of the full budget that learners are given."""

    market: str
    ic: float
    seed: int
    budget: float

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.market}-ic{self.ic:g}-seed{self.seed}" + (f"-budget{self.budget:g}" if self.budget != 1 else "")


@contextmanager
def validations() -> Iterator[list[NDArray[np.float64]]]:
    """Daily net returns of every validation that ends within, in order."""
    nets: list[NDArray[np.float64]] = []
    original = Validator.__call__

    def spy(self: Validator) -> dict[str, float | None]:
        score = original(self)
        nets.append(self.latest.net)
        return score

    Validator.__call__ = spy
    try:
        yield nets
    finally:
        Validator.__call__ = original


def gains_over_first(nets: list[NDArray[np.float64]]) -> list[float]:
    """Mean of each later track's daily net return over the first one's, in standard errors of that difference.

    Paired, so that what both tracks share hides no dip; 0 where nothing differs: the policy is still frozen.
    """
    return [paired_t(net - nets[0]) for net in nets[1:]]


def hold(paths: FreshPaths) -> Strategy:
    """1/N at every decision: the benchmark itself."""
    return tilt(paths.joined, np.zeros(paths.joined.features.shape[:2]), 0.0, 1.0)


def oracle_on(config: Config, prepared: Prepared) -> StrategyOn:
    """Tilts by the true expectation, as strongly and quickly as was best on validation rows, net of costs.

    It holds 1/N where that tilt earned less there than none at the same rate: to rebalance slowly is a gain over daily
    1/N by itself, and nothing that was predicted.
    """
    synthetic = config.env.synthetic
    assert synthetic is not None
    if synthetic.ic == 0:
        return hold

    def scores(market: Market) -> NDArray[np.float64]:
        return expected(synthetic.signal, planted_signal(market), market.regime)

    market, window, accounting = prepared.market, prepared.fold.validation, prepared.accounting
    true = scores(market)
    best = fit_oracle(market, window, accounting, signal=true)
    both = {"tilt": best.act, "none": tilt(market, true, 0.0, best.rate)}
    earned = {name: track.net.mean() for name, track in backtest(market, window, accounting, both).items()}
    if earned["tilt"] <= earned["none"]:
        return hold
    return lambda paths: tilt(paths.joined, scores(paths.joined), best.strength, best.rate)


def ols_on(prepared: Prepared) -> StrategyOn:
    """The sceptic's regression on the same features, fitted on train rows."""
    fitted = fit_linear_tilt(prepared, prepared.scaling)
    return lambda paths: fitted.strategy(paths.joined)


def policy_on(trained: Trained) -> StrategyOn:
    """A trained policy as it is deployed."""
    prepared = trained.prepared

    def on(paths: FreshPaths) -> Strategy:
        priors = np.concatenate([prior_portfolios(market, prepared.cache) for market in paths.apart])
        home = prepared.world
        world = World.of(paths.joined, prepared.scaling.apply, priors, prepared.accounting, home.reward, home.device)
        return GreedyPolicy(trained.networks.actor, world, paths.entries).act

    return on


def fresh_market(config: Config, prepared: Prepared, seed: int) -> Market:
    """20 years, after a warm-up, that nobody trained on: with alpha as the run's own market, without it a null one."""
    synthetic = config.env.synthetic
    assert synthetic is not None
    days = WARM_UP + YEARS * YEAR
    if synthetic.ic == 0:
        rng = numpy_stream(seed, "learning/null market")
        return market_of(null_prices(prepared.market, prepared.fold.train, days, rng), config.env)
    changed = synthetic.model_copy(update={"seed": seed, "days": days})
    return build_market(config.env.model_copy(update={"synthetic": changed}), prepared.cache)


def figures(track: Lived | Track, equal: Track) -> dict[str, float]:
    """Active information ratios net and gross, yearly tracking error (a fraction) and turnover against 1/N."""
    return {
        "policy": active_information_ratio(track.net, equal.net) or 0.0,
        "gross": active_information_ratio(track.gross, equal.gross) or 0.0,
        "te": float(np.std(track.net - equal.net, ddof=1) * np.sqrt(YEAR)),
        "turnover": float(track.turnover.sum() / len(track.net) * YEAR),
    }


def live(paths: FreshPaths, accounting: Accounting, strategy: Strategy) -> Lived:
    """Live through all paths side by side, each from cash; it is entered on its first day, whatever the calendar."""
    decision = paths.joined.decision.copy()
    decision[paths.entries] = True
    simulator = Simulator(replace(paths.joined, decision=decision), accounting)
    days = len(paths.apart[0].dates) - WARM_UP
    simulator.reset(paths.entries[:, None] + np.arange(days))
    booked: list[Booked] = []
    for _ in range(days):
        booked.append(simulator.step(strategy(simulator.row, simulator.drifted, simulator.drawdown)).booked)
    net, gross, turnover = (np.array([getattr(b, name) for b in booked]).T for name in Lived._fields)
    return Lived(net, gross, turnover)


def on_fresh_paths(
    config: Config, prepared: Prepared, seed: int, on: StrategyOn
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Means over the fresh paths, with `paths` what each of them gave; and daily net returns [PATHS, R]."""
    paths = FreshPaths.of([fresh_market(config, prepared, seed + FRESH * (path + 1)) for path in range(PATHS)])
    lived = live(paths, prepared.accounting, on(paths))
    window = Window(WARM_UP, len(paths.apart[0].dates))
    found = [
        figures(mine, equal_weight_track(market, window, prepared.accounting))
        for mine, market in zip(map(Lived, *lived), paths.apart, strict=True)
    ]
    apart = {name: [each[name] for each in found] for name in found[0]}
    return {**{name: float(np.mean(each)) for name, each in apart.items()}, "paths": apart}, lived.net


def line_of(case: Case, learner: str, root: Path, changes: list[str]) -> list[str]:
    """Overrides of one run: its market, its budget, the small network, and `changes`."""
    budget = BUDGETS["iql"] | BUDGETS.get(learner, {})
    parts = {key: max(1, round(n * case.budget)) if key in GROWING else n for key, n in budget.items()}
    market = [*BASE, *MARKETS[case.market], f"env.synthetic.ic={case.ic:g}", f"env.synthetic.seed={case.seed}"]
    wanted = LEARNERS[learner] if learner in LEARNERS else Learner(None)
    small = [word for word in SMALL if learner != "direct" or not word.startswith("algo.batch_size")]  # it has none
    return [*market, f"seed={case.seed}", f"output_root={root}", *small, *wanted.changes,
            *(f"{key}={n}" for key, n in parts.items()), *changes]  # fmt: skip


def row_of(case: Case, learner: str, oracle: float | None, out: Path, changes: list[str]) -> dict[str, Any]:
    """One row: what the learner earns on the fresh paths, and what it took to train it.

    Parameters
    ----------
    oracle : net active information ratio of the oracle on the same paths; None for the oracle's own row.
    """
    root = out / "runs" / case.name
    stage = LEARNERS[learner].stage if learner in LEARNERS else None
    line, facts = line_of(case, learner, root, changes), dict[str, Any]()
    began = _cpu()
    if stage is None:
        config = finflow.load("pretrain", line)
        prepared = fit(config, load_market(config), use_hardware(config.hardware))
        on = oracle_on(config, prepared) if learner == ORACLE else ols_on(prepared)
        facts["train_seconds"] = _cpu() - began
    else:
        folder = root / stage / learner
        shutil.rmtree(folder, ignore_errors=True)
        run: Callable[..., Any] = getattr(finflow, stage)
        with validations() as nets:
            result = run(finflow.load(stage, line), folder)
        facts["train_seconds"] = _cpu() - began
        trained = load_trained(finflow.load("evaluate", [f"output_root={root}"]), str(folder))
        config, prepared, on = trained.config, trained.prepared, policy_on(trained)
        metrics = [json.loads(text) for text in (folder / METRICS).read_text().splitlines()]
        facts |= {
            "validation": result.figures.get("validation_active_information_ratio"),
            "gains": gains_over_first(nets) if learner == "bcell" else None,
            "selected": getattr(result, "selected_episode", None),
            "updates": max(int(each["updates"]) for each in metrics if each.get("updates") is not None),
            "kappa": (trained.summary.get("confidence") or {}).get("kappa"),
        }
    found, daily = on_fresh_paths(config, prepared, case.seed, on)
    row = {"learner": learner, **vars(case), "changes": changes, **found, **facts}
    row["share"] = found["policy"] / oracle if oracle else None
    file = daily_file(out, row)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, daily, allow_pickle=False)
    return row


def _cpu() -> float:
    """CPU seconds of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def run_case(case: Case, learners: list[str], out: Path, changes: list[str]) -> None:
    """Make the rows of one case that are not there, the oracle's first; each is added to the file, and told, at once.

    What the stages say goes to a file beside their runs.
    """
    rows = {row["learner"]: row for row in read_rows(out, changes) if vars(case).items() <= row.items()}
    log = out / "runs" / f"{case.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    for learner in (ORACLE, *learners):
        if learner not in rows:
            oracle = None if learner == ORACLE else rows[ORACLE]["policy"]
            with log.open("a") as file, redirect_stdout(file), redirect_stderr(file):
                row = rows[learner] = row_of(case, learner, oracle, out, changes)
            with (out / ROWS).open("a") as file:
                file.write(json.dumps(row) + "\n")
            share = "" if row["share"] is None else f", share {row['share']:.2f}"
            took = f"{row['train_seconds']:.0f} CPU-seconds"
            told = f"{case.name} {learner}: net active IR {row['policy']:.2f}{share}, TE {row['te']:.1%}, {took}"
            print(told, flush=True)


def read_rows(out: Path, changes: list[str]) -> list[dict[str, Any]]:
    """Rows that were made before, all with these changes: a learner's daily returns have one file a folder."""
    kept = out / ROWS
    rows = [json.loads(text) for text in kept.read_text().splitlines()] if kept.exists() else []
    if any("market" not in row or row["changes"] != changes for row in rows):
        raise SystemExit(f"{kept}: rows of other settings; name another --out")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--market", nargs="+", choices=MARKETS, default=list(MARKETS))
    parser.add_argument("--ic", type=float, nargs="+", default=[0.1, 0.05], help="not read by --market null")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seeds", type=int, nargs="+", default=list(REPORTED))
    seeds.add_argument("--choose", action="store_const", dest="seeds", const=list(CHOOSING), help="seeds 0 to 2")
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    parser.add_argument("--budgets", type=float, nargs="+", default=[1.0], help="0.25 0.5 1: how soon it is learnt")
    parser.add_argument("--jobs", type=int, default=1, help="cases side by side, a process and a thread each")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/learning"))
    parser.add_argument("changes", nargs="*", help="overrides of the configuration, for all learners")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    read_rows(options.out, options.changes)
    cases = [
        Case(market, ic, seed, budget)
        for seed, market, budget in product(options.seeds, options.market, sorted(options.budgets))
        for ic in ([0.0] if market == "null" else options.ic)
    ]
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started now
    failed = list[str]()
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        wait: dict[Future[None], Case] = {
            pool.submit(run_case, case, options.learners, options.out, options.changes): case for case in cases
        }
        for done, future in enumerate(as_completed(wait), 1):
            error = future.exception()
            failed += [] if error is None else [f"{wait[future].name}: {error!r}"]
            print(f"[{done}/{len(cases)}] {failed[-1] if error else wait[future].name}", flush=True)
    rows = read_rows(options.out, options.changes)
    parents = {name: each.parent for name, each in LEARNERS.items()}
    print("\n\n".join(part for part in (table(rows), gains(rows, options.out), speed(rows, parents)) if part))
    print("\n".join(["", *(f"FAILED {text}" for text in failed), f"Rows: {options.out / ROWS}"]))
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
