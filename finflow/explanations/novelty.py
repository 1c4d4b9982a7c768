"""Distance of a day from the days that the policy was trained on."""

from dataclasses import dataclass

import numpy as np

from finflow.data.features import REGIME_PREFIX
from finflow.data.market import TRADABLE
from finflow.evaluation.backtest import Rows
from finflow.evaluation.result import Floats
from finflow.explanations.decision_trace import Subject

NEIGHBOURS = 10
APART = 21
"""Trading days on either side of a day that are not its neighbours: they share its rolling windows."""
EVERY = 5
"""Every fifth train day is measured too, for the usual distances."""


@dataclass(frozen=True)
class Novelty:
    """Distance of one day from the train days.

    distance : mean distance to the ten nearest train days, in standard deviations along the principal axes of train.
    percentile : share of train days that lie nearer to theirs, 0 to 100.
    nearest : dates of the three nearest train days, at least 21 days apart.
    unusual : the coordinates furthest from the train mean, (name, standard deviations), the furthest first.
    """

    distance: float
    percentile: float
    nearest: tuple[str, ...]
    unusual: tuple[tuple[str, float], ...]


class TrainDays:
    """The train days of a subject, as points: market features, and mean and spread over names of each asset feature."""

    def __init__(self, subject: Subject) -> None:
        spec, self._dates = subject.spec, subject.market.dates
        self._columns = [m for m, name in enumerate(spec.market_features) if not name.startswith(REGIME_PREFIX)]
        self.names = (
            *(spec.market_features[m] for m in self._columns),
            *(f"mean {name}" for name in spec.features),
            *(f"spread {name}" for name in spec.features),
        )
        self._subject, self._apart = subject, subject.market.calendar.rows(APART)
        rows = np.arange(subject.fold.train.start - 1, subject.fold.train.stop - 1)
        points = self._points(rows)
        self._mean, spread = points.mean(0), points.std(0)
        self._std = np.where(spread > 0, spread, 1.0)
        values, axes = np.linalg.eigh(np.cov((points - self._mean) / self._std, rowvar=False))
        kept = values > 1e-6 * values.max()
        self._axes = axes[:, kept] / np.sqrt(values[kept])
        self._rows, self._known = rows, self._whitened(points)
        self._usual = np.sort(_nearest(self._far(self._known[::EVERY], rows[::EVERY])))

    def novelty(self, row: int) -> Novelty:
        """Place one decision row among the train days."""
        point = self._points(np.array([row]))
        far = self._far(self._whitened(point), np.array([row]))
        mean = float(_nearest(far)[0])
        standard = ((point - self._mean) / self._std)[0]
        order = np.argsort(-np.abs(standard), kind="stable")[:3]
        return Novelty(
            distance=mean,
            percentile=100.0 * float(np.searchsorted(self._usual, mean)) / len(self._usual),
            nearest=tuple(str(self._dates[self._rows[place]]) for place in self._spaced(far[0])),
            unusual=tuple((self.names[i], float(standard[i])) for i in order),
        )

    def _points(self, rows: Rows) -> Floats:
        world = self._subject.world
        market = world.market[rows][:, self._columns].double().cpu().numpy()
        features = world.features[rows][:, :-1, :-1].double().cpu().numpy()
        tradable = (self._subject.market.status[rows][:, :-1] == TRADABLE)[..., None]
        count = np.maximum(tradable.sum(1), 1)
        mean = (features * tradable).sum(1) / count
        spread = np.sqrt(((features - mean[:, None]) ** 2 * tradable).sum(1) / count)
        return np.concatenate([market, mean, spread], 1)

    def _whitened(self, points: Floats) -> Floats:
        return ((points - self._mean) / self._std) @ self._axes

    def _far(self, points: Floats, rows: Rows) -> Floats:
        """Distances to every train day, [B, N]; infinite to those too close in time."""
        known = self._known
        squared = (points**2).sum(1)[:, None] + (known**2).sum(1) - 2 * points @ known.T
        far = np.sqrt(np.maximum(squared, 0.0))
        far[np.abs(rows[:, None] - self._rows) <= self._apart] = np.inf
        return far

    def _spaced(self, far: Floats) -> list[int]:
        """Places of the nearest train days, none within the days around another."""
        found: list[int] = []
        for place in np.argsort(far, kind="stable").tolist():
            if all(abs(int(self._rows[place] - self._rows[other])) > self._apart for other in found):
                found.append(int(place))
            if len(found) == 3:
                break
        return found


def _nearest(far: Floats) -> Floats:
    """Mean distance to the nearest few, [B, N] -> [B]."""
    count = min(NEIGHBOURS, far.shape[1])
    return np.partition(far, count - 1, axis=1)[:, :count].mean(1)
