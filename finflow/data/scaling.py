"""Standardisation of features, fitted on train rows alone and stored with the weights."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import ABSENT, TRADABLE, Fold, Market
from finflow.data.market_features import REGIME_PREFIX
from finflow.errors import DataError

CLIP = 5.0
MIN_STD = 1e-3
"""Features are of order one: a smaller spread on train rows is treated as a constant and not scaled up."""


@dataclass(frozen=True)
class FeatureScaling:
    """Mean and standard deviation of each feature on the train rows.

    Attributes
    ----------
    mean, std : [F] float64, over the tradable cells.
    market_mean, market_std : [M] float64; 0 and 1 for one-hots.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    market_mean: NDArray[np.float64]
    market_std: NDArray[np.float64]

    @classmethod
    def fit(cls, market: Market, fold: Fold) -> "FeatureScaling":
        """Fit on the decision rows of `fold.train`; no other row is used."""
        rows = slice(fold.train.decisions.start, fold.train.decisions.stop)
        cells = market.status[rows, :-1] == TRADABLE
        mean, std = _moments(market.features[rows][cells])
        market_mean, market_std = _moments(market.market_features[rows])
        one_hot = np.array([name.startswith(REGIME_PREFIX) for name in market.market_feature_names])
        return cls(mean, std, np.where(one_hot, 0.0, market_mean), np.where(one_hot, 1.0, market_std))

    def apply(self, market: Market) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Standardised features [T, d, F] and market features [T, M], within +-`CLIP`, float32.

        Cells without a price are 0, the train average.

        Raises
        ------
        DataError
            If the market has other features than the scaling was fitted on.
        """
        found = (market.features.shape[-1], market.market_features.shape[-1])
        if found != (len(self.mean), len(self.market_mean)):
            raise DataError(
                f"features: {found[0]} per asset and {found[1]} of the market, the scaling was fitted on "
                f"{len(self.mean)} and {len(self.market_mean)}; use the data and signals of the training run"
            )
        features = _standardised(market.features, self.mean, self.std)
        features[market.status[:, :-1] == ABSENT] = 0.0
        return features, _standardised(market.market_features, self.market_mean, self.market_std)

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Plain arrays by name, for the file of the weights."""
        return {
            "mean": self.mean,
            "std": self.std,
            "market_mean": self.market_mean,
            "market_std": self.market_std,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> "FeatureScaling":
        """Inverse of `to_arrays`."""
        return cls(arrays["mean"], arrays["std"], arrays["market_mean"], arrays["market_std"])


def _moments(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    wide = values.astype(np.float64)
    return wide.mean(axis=0), np.maximum(wide.std(axis=0), MIN_STD)


def _standardised(
    values: NDArray[np.float32], mean: NDArray[np.float64], std: NDArray[np.float64]
) -> NDArray[np.float32]:
    return np.clip((values - mean.astype(np.float32)) / std.astype(np.float32), -CLIP, CLIP)
