"""`make olps`: classical online portfolio selection on six public sets, beside FinFlow's policies.

First the proof that the algorithms are the published ones: final wealth over a whole set, without costs, by the
library `universal-portfolios` alone. Then the last fifth of the days, net of costs, through FinFlow's ledger:
`finflow.judge` counts openings, and gives verdict, one day of lag and warnings. With `--seeds` both phases are trained
on the days before, with the default settings, for each set and seed.

Rows that stand in OUT/rows.jsonl are not made again.
"""

import argparse
import json
import logging
import math
import warnings
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from universal import algos

import finflow
from benchmarks.olps_page import draw_differences, draw_wealth, tables
from benchmarks.public_sets import FIRST_DAY, write_prices
from finflow.allocators.baselines import online_selection_targets
from finflow.data.build import build_market
from finflow.data.market import Market
from finflow.evaluation.metrics import sharpe_ratio
from finflow.evaluation.result import Evaluation, Metrics, Track
from finflow.schema import OnlineSelection

WHOLE = {
    "market": algos.BAH, "UCRP": algos.CRP, "BCRP": algos.BCRP, "EG": algos.EG, "ONS": algos.ONS,
    "ANTICOR": algos.Anticor, "PAMR": algos.PAMR, "CWMR": algos.CWMR, "OLMAR": algos.OLMAR, "RMR": algos.RMR,
}  # fmt: skip
PUBLISHED = {
    "msci": {"UCRP": 0.927, "BCRP": 1.506, "PAMR": 15.23},
    "djia": {"UCRP": 0.813, "BCRP": 1.240, "EG": 0.810, "ONS": 1.533, "PAMR": 0.680},
    "nyse_o": {"market": 14.50, "UCRP": 27.08, "BCRP": 250.6},
    "nyse_n": {"UCRP": 31.55, "PAMR": 1.25e6},
}
"""Final wealth over the whole set without costs, as the papers and the toolbox of Li, Sahoo and Hoi (2016) have it."""
SHORT = {"djia": ["env.min_history=60"]}
"""Two years of days: the default of a year before the first day would leave too few."""


def third_digit(figure: float) -> float:
    """What one more in the third significant digit is: published figures have no fewer."""
    return 10.0 ** (math.floor(math.log10(figure)) - 2)


def whole_horizon(name: str, prices: Path) -> list[dict[str, Any]]:
    """Final wealth of every algorithm over all days at no cost; each that was published has to be found again."""
    frame = pd.read_csv(prices, index_col=0, parse_dates=True)
    rows = list[dict[str, Any]]()
    for label, algorithm in WHOLE.items():
        wealth = float(algorithm().run(frame, log_progress=False).total_wealth)
        published = PUBLISHED.get(name, {}).get(label)
        if published is not None and abs(wealth - published) > third_digit(published) / 2:
            raise SystemExit(f"{name}: {label} ends at {wealth:.4g}, published is {published:g}: not that algorithm")
        rows.append({"set": name, "algorithm": label, "whole": wealth, "published": published})
    return rows


def write_targets(market: Market, algorithm: OnlineSelection, path: Path) -> Path:
    """Target weights of one algorithm as the file that `judge` reads; a row is decided at the close of its date."""
    targets = online_selection_targets(market, algorithm)
    pd.DataFrame(targets, pd.Index(market.dates, name="date"), list(market.assets)).to_csv(path)
    return path


def track_figures(track: Track, metrics: Metrics) -> dict[str, Any]:
    """Figures of one track over the test window, and its daily returns for the picture."""
    return {
        "sharpe": metrics.sharpe, "turnover": metrics.turnover, "wealth": metrics.final_nav,
        "gross_wealth": float(np.prod(1 + track.gross)), "gross_sharpe": sharpe_ratio(track.gross, track.year),
        "net": track.net.tolist(), "gross": track.gross.tolist(),
    }  # fmt: skip


def row_of(name: str, algorithm: str, evaluation: Evaluation) -> dict[str, Any]:
    """What the last fifth of the days gave a strategy that was judged."""
    verdict = evaluation.verdict
    return {
        "set": name, "algorithm": algorithm, **track_figures(evaluation.policy, evaluation.metrics["policy"]),
        "outcome": verdict.outcome, "difference": [verdict.difference, verdict.low, verdict.high],
        "opponent": verdict.opponent, "lagged": evaluation.scrutiny.lagged.sharpe,
        "warnings": list(evaluation.warnings),
    }  # fmt: skip


def benchmark_rows(name: str, evaluation: Evaluation) -> list[dict[str, Any]]:
    """1/N daily, which is UCRP, and buy and hold: they stand in every evaluation, and have no verdict."""
    found = {"UCRP": "1/N daily", "market": "buy and hold"}
    return [
        {"set": name, "algorithm": label, **track_figures(evaluation.baselines[at], evaluation.metrics[at])}
        for label, at in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=FIRST_DAY, default=list(FIRST_DAY))
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="train FinFlow's policies with these seeds")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/olps"))
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")  # the library's own, about pandas
    kept = options.out / "rows.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []

    def keep(*found: dict[str, Any]) -> None:
        with kept.open("a") as file:
            for row in found:
                rows.append(row)
                file.write(json.dumps(row) + "\n")

    def missing(name: str, algorithm: str, figure: str) -> bool:
        return not any(row["set"] == name and row["algorithm"] == algorithm and figure in row for row in rows)

    for name in options.sets:
        prices = write_prices(name, options.out)
        data = ["env=csv", f"env.path={prices}", f"output_root={options.out / 'runs'}", *SHORT.get(name, [])]
        if missing(name, "RMR", "whole"):
            keep(*whole_horizon(name, prices))
            print(f"{name}: whole horizon, {len(PUBLISHED.get(name, {}))} published figures found again", flush=True)
        market = build_market(finflow.load("judge", data).env, options.out / "runs" / "cache")
        for algorithm in get_args(OnlineSelection):
            label = algorithm.upper()
            if missing(name, label, "wealth"):
                weights = write_targets(market, algorithm, options.out / f"{name}-{algorithm}.csv")
                config = finflow.load("judge", [*data, f"weights={weights}", f"name={name}-{algorithm}"])
                evaluation = finflow.judge(config=config).evaluation
                keep(row_of(name, label, evaluation))
                if missing(name, "UCRP", "wealth"):
                    keep(*benchmark_rows(name, evaluation))
                print(f"{name} {label}: {evaluation.verdict.line()}", flush=True)
        for seed in options.seeds:
            if missing(name, f"FinFlow, seed {seed}", "wealth"):
                line = [*data, f"name={name}", f"seed={seed}", "tracking=none"]
                parent = finflow.pretrain(finflow.load("pretrain", line))
                run = finflow.finetune(finflow.load("finetune", [*line, f"init.weights={parent.run_dir}"]))
                asked = finflow.load("evaluate", [f"output_root={options.out / 'runs'}", f"run={run.run_dir}"])
                evaluation = finflow.evaluate(asked).evaluation
                keep(row_of(name, f"FinFlow, seed {seed}", evaluation))
                print(f"{name} FinFlow, seed {seed}: {evaluation.verdict.line()}", flush=True)
    print(tables(rows))
    pictures = [draw_differences(rows, options.out / "differences.svg")]
    if any("net" in row for row in rows):  # those that are kept with the code have no returns by day
        pictures.append(draw_wealth(rows, options.out / "wealth.png"))
    print(f"\nRows: {kept}\nPictures: {', '.join(map(str, pictures))}")


if __name__ == "__main__":
    main()
