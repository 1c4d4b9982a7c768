"""The picture of `benchmarks.agents`: share of the oracle's against CPU-seconds of training, FinFlow's phase 1 beside.

    python -m benchmarks.agents_figure [--agents ROWS --learning ROWS --market linear --ic 0.1 --out PICTURE]

FinFlow's points are whole trainings at a part of the budget (`benchmarks.learning --budgets`), data, offline episodes
and the cross-fit of the confidence included.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

mpl.use("agg")
mpl.rcParams["svg.hashsalt"] = "finflow"  # the same picture, the same file
KEPT = Path("benchmarks/rows")
Curve = dict[float, list[tuple[float, float]]]
"""Mark, or part of the budget -> CPU-seconds and share of each seed."""


def curves(agents: list[dict[str, Any]], learning: list[dict[str, Any]], market: str, ic: float) -> dict[str, Curve]:
    """A curve for each agent, and one for FinFlow, from the rows of one market."""
    found = dict[str, Curve]()
    for row in (row for row in agents if (row.get("market"), row.get("ic")) == (market, ic)):
        for number, mark in enumerate(row["marks"]):
            at = found.setdefault(row["agent"], {}).setdefault(number, [])
            at.append((mark["seconds"], mark["share"]))
    seeds = {row["seed"] for row in agents if (row.get("market"), row.get("ic")) == (market, ic)}
    for row in learning:
        if (row["market"], row["ic"], row["learner"]) == (market, ic, "iql") and row["seed"] in seeds:
            at = found.setdefault("FinFlow, phase 1", {}).setdefault(row["budget"], [])
            at.append((row["train_seconds"], row["share"]))
    return found


def draw(found: dict[str, Curve], path: Path) -> Path:
    """Mean over the seeds as a line, lowest to highest seed as an area."""
    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, curve in found.items():
        points = [np.array(seeds) for _, seeds in sorted(curve.items())]
        seconds, mean = np.array([each.mean(0) for each in points]).T
        low, high = (np.array([end(each[:, 1]) for each in points]) for end in (np.min, np.max))
        ours = name.startswith("FinFlow")
        style = "-" if ours else "--" if name.endswith("tuned") else ":"
        (line,) = axis.plot(seconds, mean, style, marker="o", ms=4, lw=2 if ours else 1.3, label=name)
        axis.fill_between(seconds, low, high, color=line.get_color(), alpha=0.12, lw=0)
    for height, label in ((0.0, "1/N"), (0.5, "half of the oracle's"), (1.0, "the oracle's")):
        axis.axhline(height, color="grey", lw=0.8)
        axis.annotate(label, (1, height), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="grey")
    axis.set(xscale="log", ylim=(None, 1.1), xlabel="CPU-seconds", ylabel="share of the oracle's net active IR")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xticks([12.5 * 2**doubling for doubling in range(8)])
    axis.minorticks_off()
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--agents", type=Path, default=KEPT / "agents_long.jsonl")
    parser.add_argument("--learning", type=Path, default=KEPT / "agents_finflow.jsonl", help="made on the same machine")
    parser.add_argument("--market", default="linear")
    parser.add_argument("--ic", type=float, default=0.1)
    parser.add_argument("--out", type=Path, default=Path("docs/images/agents.svg"))
    options = parser.parse_args()
    agents, learning = (
        [json.loads(line) for line in path.read_text().splitlines()] for path in (options.agents, options.learning)
    )
    print(f"Picture: {draw(curves(agents, learning, options.market, options.ic), options.out)}")


if __name__ == "__main__":
    main()
