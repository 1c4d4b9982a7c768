"""Files of an evaluation, from which every figure can be computed again.

`returns.csv`  date, then the net return of the policy and of each baseline on that date, and that of cash; the
    product of 1 + return is the final NAV.
`weights.csv`  date, then the policy's executed weights that earned that date's return; they were decided at the
    close of the trading day before.
`ledger.csv`   date of the decision, ticker, weight_before, weight_after, trade = after - before, cost as a
    fraction of NAV, reason: `trade`, or `closed: price ended`. Drift is no trade; nor is less than 1e-12.
`validation.csv` of a training run: date, then the net return of its policy and of 1/N at the policy's frequency.
`metrics.json` verdicts, metrics, by-regime table, costs; null is undefined.
`evaluation.safetensors` the whole, so that its page can be made again without the test window being opened again.
Numbers are written with all their digits.
"""

import csv
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import ABSENT, Market, Window
from finflow.envs.ledger import book
from finflow.errors import StorageError
from finflow.evaluation.backtest import POLICY, Task
from finflow.evaluation.result import Evaluation, Floats, Track
from finflow.evaluation.study import Study
from finflow.io.files import atomic_csv, atomic_json, storage_errors
from finflow.io.weights import load_weights, pack, save_weights, unpack

SMALLEST_TRADE = 1e-12
SAME = 1e-9
TRADE, CLOSED = "trade", "closed: price ended"


def write_evaluation(folder: Path, evaluation: Evaluation, task: Task | None) -> None:
    """Write the files of an evaluation into `folder`, each whole or not at all; of given returns two of the four.

    task : without one, as of several folds stitched together, there is no ledger.

    Raises StorageError if the folder cannot be written.
    """
    policy, days = evaluation.policy, evaluation.policy.dates
    tracks = {"policy": policy, **evaluation.baselines}
    returns = np.stack([*(track.net for track in tracks.values()), evaluation.cash], axis=1)
    _write_by_day(folder / "returns.csv", days, (*tracks, "cash"), returns)
    if policy.booked:
        _write_by_day(folder / "weights.csv", days, evaluation.assets, policy.weights)
    if policy.booked and task is not None:
        header = ("date", "ticker", "weight_before", "weight_after", "trade", "cost", "reason")
        atomic_csv(folder / "ledger.csv", [header, *trades(policy, task.market, task.fold.test)])
    atomic_json(folder / "metrics.json", figures(evaluation))


def _write_by_day(path: Path, dates: NDArray[np.datetime64], names: Sequence[str], columns: Floats) -> None:
    """A row per date of `columns` [R, names]."""
    rows = ((str(date), *row.tolist()) for date, row in zip(dates, columns, strict=True))
    atomic_csv(path, [("date", *names), *rows])


def read_validation(path: Path) -> tuple[NDArray[np.datetime64], Floats, Floats]:
    """Dates [R] of `validation.csv`, and the net returns [R] of policy and benchmark.

    Raises StorageError if it is missing or damaged.
    """
    with storage_errors(path, "read"):
        data = path.read_bytes()
    try:
        header, *rows = csv.reader(data.decode().splitlines())
        columns = np.array([[float(x) for x in row[1:]] for row in rows]).reshape(len(rows), 2)
        dates = np.array([row[0] for row in rows], dtype="datetime64[D]")
    except (ValueError, IndexError) as error:
        raise StorageError(f"{path}: damaged ({error}); run its job again") from error
    if header != ["date", "policy", "benchmark"]:
        raise StorageError(f"{path}: not a run's validation returns; run its job again")
    return dates, columns[:, 0], columns[:, 1]


def trades(track: Track, market: Market, window: Window) -> list[tuple[str, str, float, float, float, float, str]]:
    """Rows of `ledger.csv`; the costs of one date sum to the track's cost of that decision."""
    change = (track.weights - track.drifted)[:, :-1]
    decisions = np.asarray(window.decisions)
    rows: list[tuple[str, str, float, float, float, float, str]] = []
    for at, asset in np.argwhere(np.abs(change) >= SMALLEST_TRADE).tolist():
        before, after, trade = (float(part[at, asset]) for part in (track.drifted, track.weights, change))
        rate = float(track.cost[at] / track.turnover[at]) if track.turnover[at] > 0 else 0.0
        reason = CLOSED if market.status[decisions[at], asset] == ABSENT else TRADE
        day = str(market.dates[decisions[at]])
        rows.append((day, market.assets[asset], before, after, trade, rate * abs(trade), reason))
    return rows


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """All numbers of an evaluation as plain data; how often the window was opened is left out, since it varies."""
    scaled, benchmark = evaluation.scaled_verdict, evaluation.benchmark
    return plain(
        {
            "verdict": {"line": evaluation.verdict.line(), **asdict(evaluation.verdict)},
            "scaled_verdict": scaled and {**asdict(scaled), "leveraged": scaled.leveraged},
            "benchmark_verdict": benchmark and {"line": benchmark.line(), **asdict(benchmark)},
            "metrics": {name: asdict(m) for name, m in evaluation.metrics.items()},
            "by_regime": {r: {k: asdict(m) for k, m in table.items()} for r, table in evaluation.by_regime.items()},
            "regime_days": evaluation.regime_days,
            "scrutiny": asdict(evaluation.scrutiny),
            "costs": [asdict(row) for row in evaluation.costs],
            "break_even_bps": evaluation.break_even_bps,
            "closures": evaluation.policy.closures,
            "diagnostics": evaluation.diagnostics,
            "warnings": list(evaluation.warnings),
        }
    )


def plain(value: Any) -> Any:
    """Plain data with None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def read_track(folder: Path, market: Market, window: Window, cost_rate: float) -> Track:
    """The policy's track over `window` from `weights.csv` and `returns.csv` in `folder`.

    Raises StorageError if a file is missing or damaged, or the weights, booked again, do not earn the returns beside
    them.
    """
    dates = [str(day) for day in market.dates[window.start : window.stop]]
    weights = _read(folder / "weights.csv", dates, market.assets)
    net = _read(folder / "returns.csv", dates, (POLICY,))[:, 0]
    track = _booked(weights, market, window, cost_rate)
    if not np.allclose(track.net, net, rtol=0.0, atol=SAME):
        raise StorageError(f"{folder}: weights.csv does not earn what returns.csv says; evaluate again")
    return track


def _read(path: Path, dates: Sequence[str], columns: Sequence[str]) -> Floats:
    """Columns of a table with a row per date, to the bit; `float` reads back what was written with all its digits."""
    with storage_errors(path, "read"), path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = list(csv.reader(file))
    header = rows[0] if rows else []
    if any(name not in header for name in columns) or [row[:1] for row in rows[1:]] != [[day] for day in dates]:
        raise StorageError(f"{path}: not a table of this market and window; evaluate again")
    places = [header.index(name) for name in columns]
    try:
        return np.array([[float(row[place]) for place in places] for row in rows[1:]])
    except (ValueError, IndexError) as error:
        raise StorageError(f"{path}: damaged ({error}); evaluate again") from error


def _booked(weights: Floats, market: Market, window: Window, cost_rate: float) -> Track:
    rows = np.asarray(window.decisions)
    drifted = np.zeros_like(weights)
    drifted[0, -1] = 1.0
    booked = []
    for t, row in enumerate(rows):
        booked.append(book(weights[t], drifted[t], market.returns[row + 1], cost_rate))
        if t + 1 < len(rows):
            drifted[t + 1] = booked[-1].drifted
    figures = (np.array([getattr(day, name) for day in booked]) for name in ("turnover", "cost", "gross", "net"))
    return Track(POLICY, market.dates[rows + 1], weights, drifted, *figures, closures=0, year=market.calendar.year)


STORED = "evaluation.safetensors"
"""Its name in the folder of an evaluation."""


@dataclass(frozen=True)
class Stored:
    """What was found: the page's evaluation, those of single folds where several were stitched, and the study."""

    evaluation: Evaluation
    folds: tuple[Evaluation, ...]
    study: Study | None


def store(path: Path, found: Stored) -> None:
    """Write `found` to `path`, whole or not at all.

    Of the baselines only the verdict's 1/N keeps its weights, which the page shows; the others' have no columns.

    Raises StorageError if it cannot be written.
    """
    slim = Stored(_slim(found.evaluation), tuple(_slim(fold) for fold in found.folds), found.study)
    tensors, plain = pack(_days_as_numbers(asdict(slim)))
    save_weights(path, tensors, {"stored": plain})


def read_stored(path: Path) -> Stored:
    """What `store` wrote, to the bit.

    Raises StorageError if the file is missing or damaged, or was written by a version with other records.
    """
    tensors, metadata = load_weights(path)
    try:
        return _built(Stored, unpack(tensors, metadata["stored"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{path}: not an evaluation of this version ({error}); evaluate again") from error


def _slim(evaluation: Evaluation) -> Evaluation:
    shown, none = evaluation.verdict.opponent, np.zeros((len(evaluation.policy.net), 0))
    baselines = {
        k: t if k == shown else replace(t, weights=none, drifted=none) for k, t in evaluation.baselines.items()
    }
    return replace(evaluation, baselines=baselines)


def _days_as_numbers(value: Any) -> Any:
    """The same with dates as whole days, since tensors have no dates."""
    if isinstance(value, Mapping):
        return {key: _days_as_numbers(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_days_as_numbers(part) for part in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "M":
        return value.astype("datetime64[D]").astype(np.int64)
    return value


def _built(hint: Any, value: Any) -> Any:
    """`value` as `hint` says: dictionaries become the records that they were."""
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        if set(value) != set(hints):
            raise TypeError(f"fields {', '.join(sorted(set(value) ^ set(hints)))} differ")
        return hint(**{name: _built(hints[name], part) for name, part in value.items()})  # pyright: ignore[reportCallIssue]
    if hint == NDArray[np.datetime64]:
        return value.astype("datetime64[D]")
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _built(next(arg for arg in args if arg is not types.NoneType), value)
    if origin is dict:
        return {key: _built(args[1], part) for key, part in value.items()}
    if origin is list:
        return [_built(args[0], part) for part in value]
    if origin is tuple:
        each = args[:1] * len(value) if args[-1] is Ellipsis else args
        return tuple(_built(arg, part) for arg, part in zip(each, value, strict=True))
    return value
