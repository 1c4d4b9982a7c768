"""What picking the best of several settings is worth: deflated Sharpe ratio and probability of overfitting."""

import math
from collections.abc import Mapping

import numpy as np

from finflow.evaluation.deflated import deflated_sharpe
from finflow.evaluation.overfitting import backtest_overfitting
from finflow.evaluation.result import Track
from finflow.evaluation.study import Selection


def selection_of(tracks: Mapping[str, Track], benchmark: Track) -> Selection:
    """Deflate the best of `tracks` (label -> track, the same days) by how many there are.

    On raw long-only returns the deflated ratio is useless, the market alone makes it 1: active returns are used.
    """
    labels = list(tracks)
    active = np.stack([track.net - benchmark.net for track in tracks.values()], axis=1)
    spread = active.std(0, ddof=1)
    ratios = np.where(spread > 0, active.mean(0) / np.where(spread > 0, spread, 1.0), -np.inf)
    best = int(np.argmax(ratios))
    found = deflated_sharpe(active, best, len(labels), benchmark.year)
    return Selection(
        best=labels[best],
        probabilistic=_defined(found.probabilistic),
        deflated=_defined(found.deflated),
        deflated_effective=_defined(found.deflated_effective),
        trials=found.trials,
        effective_trials=_defined(found.effective_trials),
        overfitting=_defined(backtest_overfitting(active).probability),
    )


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None
