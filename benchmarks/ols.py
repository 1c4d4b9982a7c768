"""The regression that learners have to beat: pooled least squares of the next day's active return on all features."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import Market
from finflow.evaluation.backtest import Strategy
from finflow.evaluation.oracle import fit_oracle, tilt
from finflow.schema import Config
from finflow.stages.prepare import Prepared


def fit_ols(config: Config, prepared: Prepared) -> Callable[[Market], Strategy]:
    """Fitted on train rows; how strongly and quickly 1/N is tilted by it was best on validation rows.

    1/N is held where no tilt earned anything there.
    """
    market, train = prepared.market, prepared.fold.train
    rows = np.asarray(train.decisions)
    returns = market.returns[rows + 1, :-1]
    features = prepared.scaling.apply(market)[0][rows].astype(np.float64).reshape(-1, len(market.feature_names))
    design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    active = (returns - returns.mean(axis=1, keepdims=True)).ravel()
    coefficients = np.linalg.lstsq(design, active, rcond=None)[0]
    spread = float(np.std(design @ coefficients))

    def scores(there: Market) -> NDArray[np.float64]:
        return (prepared.scaling.apply(there)[0] @ coefficients[:-1]) / spread

    best = fit_oracle(
        market, prepared.fold.validation, prepared.accounting, config.env.rebalance, signal=scores(market)
    )
    strength, rate = (best.strength, best.rate) if best.information_ratio > 0 else (0.0, 1.0)
    return lambda there: tilt(there, scores(there), strength, rate)
