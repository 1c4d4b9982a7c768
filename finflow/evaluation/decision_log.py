"""What a policy has decided, a `HashChain` `decisions/NAME-WEIGHTS.jsonl` under `output_root`, and what came of it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finflow.data.market import Market, Window
from finflow.envs.ledger import Accounting
from finflow.evaluation.backtest import Plan, backtest
from finflow.evaluation.result import Floats
from finflow.io.hash_chain import HashChain

FOLDER = "decisions"
FIELDS = ("when", "date", "fingerprint", "weights", "runs", "owned", "held", "target", "drawdown", "expected")
"""`date` of the close; `weights` SHA-256 of each run's; `owned`: whether a user's holdings, else the model portfolio's;
`held` and `target` weights by name; `expected`: see `Realised`."""


@dataclass(frozen=True)
class Realised:
    """What became of one decision up to the newest close, through the ledger, its costs paid; fractions.

    decided, equal, held : net return of what was decided, of 1/N bought instead, and of what was held before, each left
        alone since. closes : that have passed.
    expected_equal, expected_held : what the critic expected of the decision beyond 1/N and beyond holding, as an active
        log return: discounted, less the reward's penalties, and over all that follows; None where it was not logged.
    """

    date: str
    closes: int
    decided: float
    equal: float
    held: float
    expected_equal: float | None
    expected_held: float | None


def decision_log(output_root: str | Path, name: str, weights: Sequence[str]) -> HashChain:
    """The log of one policy: of a run, or of the runs that it averages.

    Parameters
    ----------
    name : of the run, for a reader. weights : SHA-256 of each run's, in any order.
    """
    told = weights[0] if len(weights) == 1 else hashlib.sha256("".join(sorted(weights)).encode()).hexdigest()
    words = ("the decision", "the log of decisions")
    return HashChain(Path(output_root) / FOLDER / f"{name}-{told[:12]}.jsonl", words, FIELDS)


def latest_by_date(entries: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The last decision logged for each close, closes in rising order."""
    found = {str(entry["date"]): entry for entry in entries}
    return {date: found[date] for date in sorted(found)}


def by_name(weights: Mapping[str, float], assets: Sequence[str]) -> Floats | None:
    """Logged weights in the order of `assets`, [n]; None where other names were logged."""
    return np.array([weights[name] for name in assets]) if set(weights) == set(assets) else None


def realised(entry: Mapping[str, Any], market: Market, accounting: Accounting) -> Realised | None:
    """What became of a logged decision; None where its close is the newest or unknown, or its names are others."""
    day = np.datetime64(str(entry["date"]), "D")
    row, last = int(np.searchsorted(market.dates, day)), len(market.dates) - 1
    held, target = (by_name(entry[name], market.assets) for name in ("held", "target"))
    if row >= last or market.dates[row] != day or held is None or target is None:
        return None
    equal = np.append(np.full(market.n - 1, 1.0 / (market.n - 1)), 0.0)  # the ledger leaves out what is not tradable
    wanted = {"decided": target, "equal": equal, "held": np.full(market.n, np.nan)}
    once = np.zeros(len(market.dates), dtype=np.bool_)
    once[row] = True
    plans = {name: Plan(np.tile(weights, (len(once), 1)), once) for name, weights in wanted.items()}
    tracks = backtest(market, Window(row + 1, last + 1), accounting, plans, held=held)
    net = {name: float(track.nav[-1] - 1.0) for name, track in tracks.items()}
    expected = entry["expected"] or {}
    return Realised(
        str(entry["date"]), last - row, net["decided"], net["equal"], net["held"],
        expected.get("beyond 1/N"), expected.get("beyond holding"),
    )  # fmt: skip
