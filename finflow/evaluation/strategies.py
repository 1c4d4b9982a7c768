"""Strategies from outside: a function of the history, a model that predicts from an observation, or a file.

Function and model see what is known at the close of the decision and nothing after it. They are called for several
windows, so what they answer must follow from what they are given alone. The ledger books the weights of a file; its
returns are taken as given.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from finflow.data.csv_table import CsvTable, read_table
from finflow.data.market import CASH, TRADABLE, Market, Window
from finflow.envs.gym_env import Observations
from finflow.errors import DataError
from finflow.evaluation.backtest import POLICY, Rows, Strategy, Task
from finflow.evaluation.result import Floats, Track

ROUNDING = 1e-6
"""How far the sum of weights may lie from 1, and one weight below 0: float32 computes no closer."""


@dataclass(frozen=True)
class History:
    """What a function sees at the close of its decision; every array is a copy that ends with that day.

    t + 1 days up to the decision, d risky assets, n = d + 1 assets with cash last.

    Attributes
    ----------
    assets : n names.
    dates : [t + 1] datetime64[D]; the last is the day of the decision.
    close : [t + 1, d] closes, NaN where there is none.
    returns : [t + 1, n] simple returns from the close before.
    tradable : [n] whether the asset can be traded at this close; what is asked of others waits.
    held : [n] weights before the decision.
    drawdown : ln(peak / net asset value) so far, at least 0.
    observation : what `make_env` shows at this close.
    """

    assets: tuple[str, ...]
    dates: NDArray[np.datetime64]
    close: Floats
    returns: Floats
    tradable: NDArray[np.bool_]
    held: Floats
    drawdown: float
    observation: NDArray[np.float32]


Function = Callable[[History], Sequence[float] | NDArray[Any]]
"""Target weights [n] of a history: at least 0, summing to 1, cash last."""


@runtime_checkable
class Model(Protocol):
    """A model in the manner of Stable-Baselines3."""

    def predict(self, observation: Any, *, deterministic: bool) -> Any:
        """Scores [n], as the action of `make_env`, or a tuple that begins with them."""
        ...


@dataclass(frozen=True)
class Outsider:
    """A strategy of which nothing is known but what it does, as a `Policy` without experts."""

    strategy: Strategy

    def act(self, rows: Rows, drifted: Floats, drawdown: Floats) -> Floats:
        """Target weights [E, n], see `Policy`."""
        return self.strategy(rows, drifted, drawdown)

    def explain(self, rows: Rows, drifted: Floats, drawdown: Floats) -> tuple[Floats, Floats]:
        """No gate [E, 0], and an unknown trading rate [E]."""
        del drifted, drawdown
        return np.zeros((len(rows), 0)), np.full(len(rows), np.nan)


def _is_model(strategy: Model) -> bool:
    """Whether its `predict` takes an observation and `deterministic`: scikit-learn's does not."""
    try:
        inspect.signature(strategy.predict).bind(None, deterministic=True)
    except TypeError:
        return False
    return True


def outsider(strategy: Function | Model, market: Market, observations: Observations) -> Outsider:
    """A function or a model as a policy.

    Raises
    ------
    DataError
        If it is neither, or a model of another environment; when it acts, if it asks for what is no long-only
        portfolio.
    """
    if isinstance(strategy, Model) and not isinstance(strategy, type) and _is_model(strategy):
        return _model(strategy, market, observations)
    if isinstance(strategy, type) or not callable(strategy):
        raise DataError(
            f"strategy: a {type(strategy).__name__} can neither be called with a history, nor does it have "
            "predict(observation, deterministic=True); give one of these, or weights=FILE or returns=FILE"
        )

    def act(rows: Rows, drifted: Floats, drawdown: Floats) -> Floats:
        t = int(rows[0])
        history = History(
            market.assets,
            market.dates[: t + 1].copy(),
            market.close[: t + 1].copy(),
            market.returns[: t + 1].copy(),
            market.status[t] == TRADABLE,
            drifted[0].copy(),
            float(drawdown[0]),
            _seen(observations, rows, drifted, drawdown),
        )
        where = f"strategy, {market.dates[t]}"
        return long_only(_vector(strategy(history), market, where), market.assets, where)[None]

    return Outsider(act)


def _model(model: Model, market: Market, observations: Observations) -> Outsider:
    shape = getattr(getattr(model, "observation_space", None), "shape", None)
    if shape is not None and shape != observations.space.shape:
        raise DataError(
            f"strategy: observes {shape}, this market shows {observations.space.shape}; judge a model with the "
            "settings of env and fold that it was trained with"
        )

    def act(rows: Rows, drifted: Floats, drawdown: Floats) -> Floats:
        answer = model.predict(_seen(observations, rows, drifted, drawdown), deterministic=True)
        where = f"strategy, {market.dates[rows[0]]}"
        scores = _vector(answer[0] if isinstance(answer, tuple) else answer, market, where).clip(0.0)
        total = scores.sum()
        return (scores / total if total > 0 else np.eye(market.n)[-1])[None]

    return Outsider(act)


def _seen(observations: Observations, rows: Rows, drifted: Floats, drawdown: Floats) -> NDArray[np.float32]:
    observation = observations.at(rows, drifted, drawdown)[0]
    observation[-1] = 1.0  # the first close of a window decides, whatever its calendar says
    return observation


def _vector(answer: Any, market: Market, where: str) -> Floats:
    try:
        values = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{where}: {answer!r} is no array of numbers; return a weight per asset, cash last") from None
    if values.shape != (market.n,):
        raise DataError(
            f"{where}: an answer of shape {values.shape}; return {market.n} weights, one per name and cash last"
        )
    finite = np.isfinite(values)
    if not finite.all():
        raise DataError(f"{where}, {market.assets[int(np.argmin(finite))]}: weight is not finite; return numbers")
    return values


def long_only(weights: Floats, names: Sequence[str], where: str) -> Floats:
    """Weights [n] that are at least 0 and sum to 1, rounding aside.

    Raises
    ------
    DataError
        Beginning with `where`, if they are short, borrowed, or leave something over.
    """
    least, total = int(np.argmin(weights)), float(weights.sum())
    if weights[least] < -ROUNDING:
        raise DataError(
            f"{where}, {names[least]}: weight {weights[least]:.6g} is short; portfolios are long-only, give 0 or more"
        )
    if total > 1 + ROUNDING:
        raise DataError(
            f"{where}: weights sum to {total:.6g}, more than there is; nothing is borrowed, make them sum to 1"
        )
    if total < 1 - ROUNDING:
        raise DataError(f"{where}: weights sum to {total:.6g}; make them sum to 1, what is left over in {names[-1]}")
    return weights.clip(0.0)


_SHOWN = 3
_LARGEST_RETURN = 10.0


def read_weights(path: Path, task: Task) -> tuple[Outsider, bool]:
    """A file of weights as a policy, and whether it decides on all train rows too.

    The row of a date is decided at its close and earns from there on. Rows stand on decision days (`env.rebalance`),
    the first of the test window among them; a row without any weight holds. A name without a column has no weight; a
    column `CASH` may be left out, and what the others leave is then cash.

    Raises
    ------
    DataError
        In one line, if a decision day of the test window has no row, a row stands on another day, a name is unknown,
        or weights are short, borrowed, or leave something over.
    """
    table, market = read_table(path, remedy="write a number, or leave the whole row blank to hold"), task.market
    fold = task.fold
    places = _columns(table, market)
    needed = _decision_rows(market, fold.test)
    remedy = f"add them, or choose env.rebalance (now {market.rebalance})"
    other = f"no decision day of env.rebalance={market.rebalance}"
    _require_days(table, market, needed, "decision day", remedy, other)
    train = _decision_rows(market, fold.train)
    first = table.values[table.dates == market.dates[train[0]]]
    scalable = bool(np.isin(market.dates[train], table.dates).all() and not np.isnan(first).any())
    targets = np.full((len(market.dates), market.n), np.nan)
    for row in np.concatenate([train, needed]) if scalable else needed:
        at = int(np.searchsorted(table.dates, market.dates[row]))
        values = table.values[at]
        if np.isnan(values).all() and row != needed[0]:
            continue
        if np.isnan(values).any():
            what = "a blank weight; give a number" if row != needed[0] else "no weight to begin with; give a number"
            raise table.error(at, int(np.argmax(np.isnan(values))), what)
        weights = np.zeros(market.n)
        weights[places] = values
        if CASH not in table.header:
            left = 1.0 - values.sum()
            weights[-1] = left if left > ROUNDING else 0.0
        targets[row] = long_only(weights, market.assets, f"{path}:{table.lines[at]}")

    def act(rows: Rows, drifted: Floats, drawdown: Floats) -> Floats:
        del drawdown
        wanted = targets[rows]
        return np.where(np.isnan(wanted), drifted, wanted)

    return Outsider(act), scalable


def read_returns(path: Path, task: Task) -> Track:
    """A file of returns, date and return in two columns, as the track of the test window.

    Raises
    ------
    DataError
        In one line, if it does not hold each day of the window and no other between them, or a return is blank or
        below -1 or above 10.
    """
    table, market, window = read_table(path, remedy="write 1 % as 0.01"), task.market, task.fold.test
    if len(table.header) != 2:
        raise DataError(f"{path}:1:{table.header[2]}: a second column of returns; keep date and return alone")
    rows = np.arange(window.start, window.stop)
    remedy = "add them, or choose the fold that the file covers"
    _require_days(table, market, rows, "day", remedy, "no day of the prices")
    at = np.searchsorted(table.dates, market.dates[rows])
    net = table.values[at, 0]
    wrongs = (
        (np.isnan(net), "a blank return; give a number"),
        (net < -1, "a loss of more than everything"),
        (net > _LARGEST_RETURN, f"a gain of more than {100 * _LARGEST_RETURN:.0f} % on one day"),
    )
    for wrong, what in wrongs:
        if wrong.any():
            raise table.error(int(at[np.argmax(wrong)]), 0, f"{what}; write 1 % as 0.01")
    unknown, nothing = np.full(len(net), np.nan), np.zeros((len(net), 0))
    return Track(
        POLICY, market.dates[rows], nothing, nothing, unknown, unknown, net, net, closures=0, year=market.calendar.year
    )


def _decision_rows(market: Market, window: Window) -> NDArray[np.int64]:
    """Rows of a window's decisions: the first, and those that `env.rebalance` asks for."""
    rows = np.asarray(window.decisions, dtype=np.int64)
    return rows[market.decision[rows] | (rows == rows[0])]


def _columns(table: CsvTable, market: Market) -> list[int]:
    for name in table.header[1:]:
        if name not in market.assets:
            known = ", ".join(market.assets[:_SHOWN]) + ", ..."
            raise DataError(f"{table.path}:1:{name}: not a name of this market ({known}); rename or remove the column")
    return [market.assets.index(name) for name in table.header[1:]]


def _require_days(table: CsvTable, market: Market, rows: Rows, what: str, remedy: str, other: str) -> None:
    """Refuse a table without a row on one of the days `rows`, or with a row on another day between them."""
    days = market.dates[rows]
    missing = days[~np.isin(days, table.dates)]
    if len(missing):
        shown = ", ".join(str(day) for day in missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise DataError(
            f"{table.path}: {len(missing)} of the {len(rows)} {what}s of the test window have no row "
            f"({shown}); {remedy}"
        )
    inside = (table.dates >= days[0]) & (table.dates <= days[-1])
    others = np.flatnonzero(inside & ~np.isin(table.dates, days))
    if len(others):
        at = int(others[0])
        raise DataError(
            f"{table.path}:{table.lines[at]}:{table.header[0]}: {table.dates[at]} is {other}; remove the row"
            f"{'' if len(others) == 1 else f' and {len(others) - 1} others'}"
        )
