"""Tables and pictures of `make olps`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

mpl.use("agg")
mpl.rcParams["svg.hashsalt"] = "finflow"  # the same picture, the same file
Rows = Sequence[dict[str, Any]]
COLOURS = plt.get_cmap("tab10").colors


def tables(rows: Rows) -> str:
    """Two tables in Markdown: whole sets without costs, and the last fifth of the days net of costs."""
    whole = [row for row in rows if "whole" in row]
    lines = ["| set | " + " | ".join(dict.fromkeys(row["algorithm"] for row in whole)) + " |"]
    lines.append("| --- |" + " --- |" * (lines[0].count("|") - 2))
    for name in dict.fromkeys(row["set"] for row in whole):
        lines.append(f"| {name} | " + " | ".join(_wealth(row) for row in whole if row["set"] == name) + " |")
    lines += [
        "",
        "| set | algorithm | wealth gross | wealth net | Sharpe gross | net | one close late | turnover a year "
        "| Sharpe less that of 1/N | verdict |",
        "| --- |" + " --- |" * 9,
    ]
    for row in (row for row in rows if "wealth" in row):
        late = "" if row.get("lagged") is None else f"{row['lagged']:.2f}"
        difference = "" if "difference" not in row else "{:+.2f} [{:.2f}, {:.2f}]".format(*row["difference"])
        lines.append(
            f"| {row['set']} | {row['algorithm']} | {row['gross_wealth']:.3g} | {row['wealth']:.3g} "
            f"| {row['gross_sharpe']:.2f} | {row['sharpe']:.2f} | {late} | {row['turnover']:.1f} "
            f"| {difference} | {row.get('outcome', '').removesuffix(' FROM').capitalize()} |"
        )
    return "\n".join(lines)


def _wealth(row: dict[str, Any]) -> str:
    shown = f"{row['whole']:.4g}"
    return shown if row["published"] is None else f"**{shown}** ({row['published']:g})"


def draw_wealth(rows: Rows, path: Path) -> Path:
    """Wealth over the last fifth of the days, a panel for each set: solid net of costs, dotted without."""
    tested = [row for row in rows if "net" in row]
    sets, colours = _of(tested, "set"), dict(zip(_of(tested, "algorithm"), COLOURS, strict=False))
    figure, axes = plt.subplots(2, -(-len(sets) // 2), figsize=(12, 7), squeeze=False, layout="constrained")
    for axis, name in zip(axes.flat, sets, strict=False):
        for row in (row for row in tested if row["set"] == name):
            ours = row["algorithm"].startswith("FinFlow")
            colour = "black" if ours else colours[row["algorithm"]]
            axis.plot(np.cumprod(1 + np.array(row["net"])), color=colour, label=row["algorithm"], lw=2 if ours else 1.2)
            axis.plot(np.cumprod(1 + np.array(row["gross"])), color=colour, lw=0.8, ls=":")
        axis.set(yscale="log", title=name, xlabel="days")
    shown = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    labels = list(shown)
    figure.legend(shown.values(), labels, ncols=len(labels), loc="outside lower center", frameon=False, fontsize=8)
    return _save(figure, path)


def draw_differences(rows: Rows, path: Path) -> Path:
    """Sharpe ratio less that of 1/N, net of costs, with its 95 % interval: a forest plot, a panel for each set."""
    tested = [row for row in rows if "difference" in row]
    sets = _of(tested, "set")
    figure, axes = plt.subplots(2, -(-len(sets) // 2), figsize=(12, 6), squeeze=False, layout="constrained")
    for axis, name in zip(axes.flat, sets, strict=False):
        mine = [row for row in tested if row["set"] == name][::-1]
        for place, row in enumerate(mine):
            middle, low, high = row["difference"]
            colour = "C1" if row["algorithm"].startswith("FinFlow") else "C0"
            axis.errorbar(middle, place, xerr=[[middle - low], [high - middle]], fmt="o", ms=4, capsize=2, color=colour)
        axis.axvline(0, color="grey", lw=0.8)
        axis.set_yticks(range(len(mine)), [row["algorithm"] for row in mine], fontsize=8)
        axis.set(title=name, xlabel="Sharpe ratio less that of 1/N")
    return _save(figure, path)


def _of(rows: Rows, key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=90, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
    if path.suffix == ".png":
        Image.open(path).quantize(64).save(path, optimize=True)  # a third of the size
    return path
