"""Strategies from outside as policies: a function of the history, or a model that predicts from an observation.

Both see what is known at the close of the decision and nothing after it. They are called for several windows, so what
they answer must follow from what they are given alone.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import TRADABLE, Market
from finflow.envs.gym_env import Observations
from finflow.errors import DataError
from finflow.evaluation.backtest import Rows, Strategy
from finflow.evaluation.result import Floats

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
    """An answer as finite numbers [n]."""
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
