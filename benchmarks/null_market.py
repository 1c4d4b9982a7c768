"""Prices of a market without predictability, made from those of a real one."""

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import Market, Window
from finflow.data.prices import Prices


def null_prices(market: Market, train: Window, days: int, rng: np.random.Generator) -> Prices:
    """Prices of `days` days whose expected simple return is 0 at every close, for every name, given any past.

    A path is the demeaned train rows in their order, again from the start where they run out, each day times one
    random sign for all names: correlations and clusters of volatility stay, and no portfolio has an edge. A block
    bootstrap alone would keep momentum inside the blocks. Names without a price on each train day are
    left out.

    Raises ValueError if fewer than two names have a price on every train day.
    """
    rows = slice(train.start, train.stop)
    whole: NDArray[np.bool_] = np.all(np.isfinite(market.close[train.start - 1 : train.stop]), axis=0)
    if whole.sum() < 2:
        raise ValueError(f"{int(whole.sum())} names with a price on each train day; a portfolio needs two")
    returns = market.returns[rows, :-1][:, whole]
    returns = returns - returns.mean(axis=0)
    signs = rng.choice([-1.0, 1.0], size=(days - 1, 1))
    path = returns[np.arange(days - 1) % len(returns)] * signs
    close = 100.0 * np.concatenate([np.ones((1, path.shape[1])), np.cumprod(1.0 + path, axis=0)])
    dates = np.busday_offset(market.dates[0], np.arange(days), roll="forward").astype("datetime64[D]")
    tickers = tuple(market.assets[column] for column in np.flatnonzero(whole))
    return Prices(dates, tickers, close)
