"""NYSE(O), 36 New York stocks from 1962 to 1984, by the default settings: does a policy beat 1/N where an effect lives?

    .venv/bin/python -m benchmarks.nyse [--seeds 0 1 2 3 4]

Both phases are trained for each seed, and the last fifth of the days, the test window, is opened once for each and
once for their average, net of the default costs; openings are counted as ever.
"""

import argparse
import json
from pathlib import Path

import finflow
from benchmarks.public_sets import write_prices


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/nyse"))
    parser.add_argument("changes", nargs="*", help="overrides of the configuration, for both phases")
    options = parser.parse_args()
    data = ["env=csv", f"env.path={write_prices('nyse_o', options.out)}", f"output_root={options.out}", "tracking=none"]
    folders = list[Path]()
    for seed in options.seeds:
        line = [*data, f"seed={seed}", *options.changes]
        parent = finflow.pretrain(finflow.load("pretrain", line))
        tuned = finflow.finetune(finflow.load("finetune", [*line, f"init.weights={parent.run_dir}"]))
        folders.append(tuned.run_dir)
        print(f"seed {seed}: {tuned.run_dir}", flush=True)
    named = ",".join(map(str, folders))
    for run in [*map(str, folders), *([f"[{named}]"] if len(folders) > 1 else [])]:
        result = finflow.evaluate(finflow.load("evaluate", [f"output_root={options.out}", f"run={run}"]))
        verdict, policy = result.evaluation.verdict, result.evaluation.metrics["policy"]
        lagged = result.evaluation.scrutiny.lagged
        figures = {
            "outcome": verdict.outcome, "difference": verdict.difference, "interval": [verdict.low, verdict.high],
            "sharpe": policy.sharpe, "one_day_late": lagged.sharpe, "turnover": policy.turnover,
            "confidence": result.confidence, "report": str(result.report),
        }  # fmt: skip
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
