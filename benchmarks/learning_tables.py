"""What the rows of `benchmarks/learning.py` say: tables over seeds, paired comparisons, and how soon it was learnt.

`python -m benchmarks.learning_tables` prints the table of the rows that are kept with the code.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import TRADING_YEAR as YEAR
from finflow.evaluation.study import summarise_seeds
from finflow.seeding import numpy_stream

Row = Mapping[str, Any]
LEAST_TE = 0.01
"""Yearly tracking error under which a share counts for nothing: a ratio has no scale, and who merely rebalances 1/N
less often has an active information ratio above 2 at a tracking error of .001."""
ABSTAINS, DEPLOYED = 0.25, 0.75
"""Kappa up to which a policy holds back, and from which it is deployed nearly whole."""
MARK = "†"
ORACLE, PIPELINE = "oracle", "bcell"
KEPT = Path(__file__).parent / "rows" / "learning.jsonl"
"""Rows of the reported seeds, without what single paths gave."""
ENOUGH = 0.9
"""Share of a learner's own final figure whose time is taken."""


def daily_file(out: Path, row: Row) -> Path:
    """Where a row's daily net returns on the fresh paths are, [PATHS, R]."""
    return (
        out
        / "daily"
        / f"{row['market']}-ic{row['ic']:g}-seed{row['seed']}-budget{row['budget']:g}-{row['learner']}.npy"
    )


def table(rows: list[Row]) -> str:
    """Interquartile means over seeds with their 95 % intervals, and the worst seed, as Markdown; TE and turnover are
    means.

    The gross share is of the oracle's ratio before costs, in which saved rebalancing does not count. Of rows at the
    full budget; empty where there are none.
    """
    heads = ("market", "IC", "learner", "seeds", "updates", "net active IR", "share of the oracle's", "worst share",
             "gross share", "TE a year", "gross IR", "turnover a year", "kappa", "CPU-seconds")  # fmt: skip
    lines = [_heads(heads)]
    for (market, ic), here in _markets(rows).items():
        best = {row["seed"]: row["gross"] for row in here if row["learner"] == ORACLE}
        for learner in _learners(here):
            mine = [row for row in here if row["learner"] == learner]
            ratio, share, gross = (_said(mine, key) for key in ("policy", "share", "gross"))
            worst = "-" if share == "-" else f"{min(row['share'] for row in mine):.2f}"
            before_costs = "-"
            if share != "-":
                before_costs = _interval(np.array([row["gross"] / best[row["seed"]] for row in mine]), "gross share")
            updates = max((row["updates"] for row in mine if row.get("updates")), default="-")
            turnover, spent = (np.mean([row[key] for row in mine]) for key in ("turnover", "train_seconds"))
            small = sum(row["te"] < LEAST_TE for row in mine)
            flagged = small and share != "-"
            lines.append(_cells(
                market, f"{ic:g}", learner, len(mine), updates, ratio, f"{share} {MARK}" if flagged else share, worst,
                before_costs, f"{np.mean([row['te'] for row in mine]):.1%}" + (f" ({small} small)" if small else ""),
                gross, f"{turnover:.1f}", _kappa(mine), f"{spent:.0f}",
            ))  # fmt: skip
    if any(MARK in line for line in lines):
        lines.append(
            f"\n{MARK} has seeds with a tracking error under {LEAST_TE:.0%} a year, whose share does not count."
        )
    return "\n".join(lines)


def gains(rows: list[Row], out: Path) -> str:
    """What the pipeline is above its parent and the other learners on the same paths, as Markdown.

    t is the mean difference of daily net returns in its own standard errors: over all seeds' days, and of the worst
    seed; a seed counts as behind below -1.
    """
    heads = ("market", "IC", f"{PIPELINE} less", "seeds", "net active IR", "net return a year", "t", "worst seed's t",
             "seeds behind")  # fmt: skip
    lines = [_heads(heads)]
    for (market, ic), here in _markets(rows).items():
        for other in (name for name in _learners(here) if name != PIPELINE):
            mine, theirs = ({row["seed"]: row for row in here if row["learner"] == who} for who in (PIPELINE, other))
            both = sorted(mine.keys() & theirs.keys())
            if not both:
                continue
            ratios = np.array([mine[seed]["policy"] - theirs[seed]["policy"] for seed in both])
            days = [daily_gain(mine[seed], theirs[seed], out) for seed in both]
            every, each = np.concatenate(days), [paired_t(one) for one in days]
            lines.append(_cells(
                market, f"{ic:g}", other, len(both), _interval(ratios, f"{market}/{ic}/{other}"),
                f"{every.mean() * YEAR:.2%}", f"{paired_t(every):.1f}", f"{min(each):.1f}", sum(t < -1 for t in each),
            ))  # fmt: skip
    return "\n".join(lines) if len(lines) > 1 else ""


def daily_gain(mine: Row, theirs: Row, out: Path) -> NDArray[np.float64]:
    """[PATHS * R] daily net returns of one learner less another's on the same days of the same paths."""
    one, two = (np.load(daily_file(out, row), allow_pickle=False) for row in (mine, theirs))
    return (one - two).ravel()


def paired_t(differences: NDArray[np.float64]) -> float:
    """Mean of [R] differences in its standard errors; 0 where they are all 0."""
    if not differences.any():
        return 0.0
    return float(differences.mean() / (differences.std(ddof=1) / np.sqrt(len(differences))))


def speed(rows: list[Row], parents: Mapping[str, str | None]) -> str:
    """CPU-seconds from nothing, parents included, of the smallest budget that earns `ENOUGH` of the full one's net
    active information ratio, seed by seed, as Markdown; empty without rows of other budgets.
    """
    heads = ("market", "IC", "learner", "seeds", f"CPU-seconds to {ENOUGH:.0%} of its own", "slowest seed", "whole")
    lines = [_heads(heads)]
    for (market, ic), here in _markets(rows, whole=False).items():
        for learner in _learners(here):
            runs = [
                r for r in (_spent(here, learner, parents, seed) for seed in sorted({x["seed"] for x in here})) if r
            ]
            if runs:
                soon, whole = (np.array(values) for values in zip(*runs, strict=True))
                said = summarise_seeds(soon, samples=1, rng=numpy_stream(0, "learning/speed")).middle
                lines.append(_cells(
                    market, f"{ic:g}", learner, len(runs), f"{said:.0f}", f"{soon.max():.0f}", f"{whole.mean():.0f}"
                ))  # fmt: skip
    return "\n".join(lines) if len(lines) > 1 else ""


def _spent(rows: list[Row], learner: str, parents: Mapping[str, str | None], seed: int) -> tuple[float, float] | None:
    """CPU-seconds of the smallest budget that is enough, and of the full one; None without both."""
    mine = {row["budget"]: row for row in rows if row["learner"] == learner and row["seed"] == seed}
    if 1.0 not in mine or len(mine) < 2 or mine[1.0]["policy"] <= 0:
        return None

    def seconds(budget: float) -> float:
        names, total = {row["learner"]: row for row in rows if row["seed"] == seed and row["budget"] == budget}, 0.0
        name: str | None = learner
        while name is not None:
            total, name = total + names[name]["train_seconds"], parents.get(name)
        return total

    enough = min(budget for budget, row in mine.items() if row["policy"] >= ENOUGH * mine[1.0]["policy"])
    return seconds(enough), seconds(1.0)


def _markets(rows: list[Row], *, whole: bool = True) -> dict[tuple[str, float], list[Row]]:
    """Rows by market and coefficient, in the order in which they stand in the file."""
    found: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        if row["budget"] == 1 or not whole:
            found.setdefault((row["market"], row["ic"]), []).append(row)
    return found


def _learners(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["learner"] for row in rows))


def _kappa(rows: list[Row]) -> str:
    """Mean kappa, and of how many seeds it is at most `ABSTAINS` and at least `DEPLOYED`."""
    found = np.array([row["kappa"] for row in rows if row.get("kappa") is not None])
    if not len(found):
        return "-"
    low, high = int((found <= ABSTAINS).sum()), int((found >= DEPLOYED).sum())
    return f"{found.mean():.2f} ({low} at most {ABSTAINS}, {high} at least {DEPLOYED})"


def _said(rows: list[Row], key: str) -> str:
    if any(row.get(key) is None for row in rows):
        return "-"
    return _interval(np.array([row[key] for row in rows]), key)


def _interval(scores: NDArray[np.float64], stream: str) -> str:
    found = summarise_seeds(scores, samples=10_000, rng=numpy_stream(0, f"learning/{stream}"))
    return f"{found.middle:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _heads(names: tuple[str, ...]) -> str:
    return f"{_cells(*names)}\n{'| --- ' * len(names)}|"


def _cells(*cells: object) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def main() -> None:
    """Print the table of the seeds that are reported; settings were chosen on those under 10."""
    rows: list[Row] = [json.loads(line) for line in KEPT.read_text().splitlines()]
    print(table([row for row in rows if row["seed"] >= 10]))


if __name__ == "__main__":
    main()
