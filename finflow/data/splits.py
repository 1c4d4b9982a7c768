"""Finds splits that prices were not adjusted for: a move by a split's ratio on calm days while other names stand still.

A split changes a price by its ratio and the day's own return: the days around it are calm, and the other names do not
move. Neither holds in a crash by a half.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

RATIOS = tuple(sorted({r for a, b in ((1, 2), (1, 3), (2, 3), (3, 4), (1, 5), (1, 10)) for r in (a / b, b / a)}))
AROUND = 63
"""Rows on either side from which a name's usual move is measured."""
LEAST = 21
"""Fewest moves among them."""
FAR = 8.0
"""A move of this many usual moves is far beyond a name's volatility."""
NEAR = 4.0
"""Largest distance of a move from a ratio, in usual moves: the day's own return."""
CALM = 3.0
"""Largest average move, in usual moves, of the next rows and of the other names that day."""
AFTER = 5
_MAD = 1.4826
"""Standard deviations of a normal distribution in its median absolute deviation."""


def split_ratios(close: NDArray[np.float64]) -> NDArray[np.float64]:
    """[T, d] ratio of the split that a move from t-1 to t looks like, NaN where it looks like none.

    Rows after t are used too, which is safe: the result is a warning about a file and affects no trade.
    """
    found = np.full(close.shape, np.nan)
    if len(close) < LEAST + 1:
        return found
    with np.errstate(invalid="ignore", divide="ignore"):
        moves = np.diff(np.log(close), axis=0, prepend=np.nan)
    size = np.abs(moves)
    usual = _MAD * pd.DataFrame(size).rolling(2 * AROUND + 1, center=True, min_periods=LEAST).median().to_numpy()
    score = np.divide(size, usual, out=np.full(size.shape, np.nan), where=usual > 0)
    logs = np.log(RATIOS)
    for row, column in np.argwhere(score > FAR):
        distance = np.abs(logs - moves[row, column])
        nearest = int(np.argmin(distance))
        later = score[row + 1 : row + 1 + AFTER, column]
        others = np.delete(score[row], column)
        calm = not len(later) or float(np.nanmean(later)) < CALM
        alone = not np.isfinite(others).any() or float(np.nanmedian(others)) < CALM
        if distance[nearest] <= NEAR * usual[row, column] and calm and alone:
            found[row, column] = RATIOS[nearest]
    return found
