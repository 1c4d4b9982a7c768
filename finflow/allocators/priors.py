"""The experts' five prior portfolios, what they read at the close of t, and the long-only optimisers.

They read returns and volatilities, covariance (Ledoit-Wolf) and cross-sectional momentum, 12-1 months (Jegadeesh &
Titman 1993), plain and with a trend filter (Faber 2007).

The optimisers turn a covariance into portfolios, one per row of a batch: [B, d, d] and a mask [B, d] to weights
[B, d], non-negative, zero outside the mask, with sum 1 (a row without names is all zero: the rest is cash). They work
in correlation space, y = sigma * w, where matrices are well conditioned whatever the volatilities.

Minimum variance, maximum diversification and long-only Kelly are all `min 1/2 y'Ay - b'y, y >= 0` after a change of
variables, a strictly convex QP that is solved exactly: a whole history takes a handful of batched linear solves.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import FROZEN, SPREAD, TRADABLE, TRADING_YEAR, Market
from finflow.data.series import equal_weight
from finflow.errors import DataError
from finflow.io.weights import cached_arrays

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Rows = NDArray[np.intp]


def priced_returns(market: Market) -> Mask:
    """[T, d] bool: the return of day t lies between two prices."""
    priced = np.isfinite(market.close)
    both = np.zeros_like(priced)
    both[1:] = priced[1:] & priced[:-1]
    return both


def ewma_volatility(market: Market, decay: float) -> Floats:
    """Exponentially weighted daily volatility, sqrt of v[t] = decay v[t-1] + (1 - decay) r[t]^2 (RiskMetrics 1996).

    Days without a return, and those on which a frozen price stood still, leave it as it was: [T, d], NaN before a
    name's first return.
    """
    risky = market.close.shape[1]
    returns = market.returns[:, :risky]
    counted = priced_returns(market) & ~((market.status[:, :risky] == FROZEN) & (returns == 0))
    variance = np.full(returns.shape, np.nan)
    last = np.full(risky, np.nan)
    for t, (square, counts) in enumerate(zip(returns**2, counted, strict=True)):
        mixed = np.where(np.isnan(last), square, decay * last + (1 - decay) * square)
        last = np.where(counts, mixed, last)
        variance[t] = last
    return np.sqrt(variance)


def equal_weight_returns(market: Market) -> Floats:
    """[T] return from t-1 to t of 1/N over the names tradable at t-1, rebalanced daily, gross; 0 without names."""
    held = market.status[:, :-1] == TRADABLE
    return equal_weight(market.returns[:, :-1], held, np.zeros(len(held)))


def equal_weights(chosen: Mask) -> Floats:
    """1/N of the chosen names, all cash where there is none, [..., d] -> [..., n]."""
    count = chosen.sum(axis=-1, keepdims=True)
    return np.concatenate([chosen / np.maximum(count, 1), count == 0], axis=-1)


def rolling_drawdown(returns: Floats, days: int) -> Floats:
    """[T] fraction lost since the highest of the last `days` + 1 closes, compounding `returns`; >= 0."""
    log_nav = np.cumsum(np.log1p(np.maximum(returns, -1 + 1e-12)))  # finite after a total loss, too
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([np.full(days, -np.inf), log_nav]), days + 1)
    return -np.expm1(log_nav - windows.max(axis=1))


def rolling_mean(values: Floats, counted: Mask, days: int) -> Floats:
    """[T, d] mean of the `values` that are counted among the last `days`; NaN where none is."""
    total, count = rolling_sum(np.where(counted, values, 0.0), days), rolling_sum(counted, days)
    return np.divide(total, count, out=np.full(values.shape, np.nan), where=count > 0)


def rolling_sum(values: Floats | Mask, days: int) -> Floats:
    """[T, d] sum over the last `days` rows, over fewer at the start."""
    total = np.cumsum(values, axis=0, dtype=np.float64)
    lagged = np.zeros_like(total)
    lagged[days:] = total[:-days]
    return total - lagged


LOOKBACK = 252
"""Trading days behind an estimate: one year, as in the table of baselines, in the rows of the market's calendar."""

CHUNK_BYTES = 64_000_000
"""Working memory of one chunk of windows; larger chunks leave the cache and are slower."""


def usable_names(market: Market, rows: Rows) -> Mask:
    """[B, d] names with enough history to estimate a covariance at the close of each of the `rows` [B].

    A name is usable if it may be traded at t, has a price on the last `year_of(market)` + 1 days (so that every
    return of the window is one) and moved on at least half of them: a price that mostly stands still has no
    measurable risk, and minimum variance would put everything into it.
    """
    d, lookback = market.close.shape[1], year_of(market)
    priced, moved = np.isfinite(market.close), priced_returns(market)
    moved[1:] &= market.close[1:] != market.close[:-1]
    counts = np.zeros((2, len(priced) + 1, d), dtype=np.int64)
    np.cumsum(priced, axis=0, out=counts[0, 1:])
    np.cumsum(moved, axis=0, out=counts[1, 1:])
    enough = rows >= lookback
    first = np.where(enough, rows - lookback, 0)
    complete = counts[0, rows + 1] - counts[0, first] == lookback + 1
    moving = 2 * (counts[1, rows + 1] - counts[1, first + 1]) >= lookback
    return (market.status[rows, :d] == TRADABLE) & complete & moving & enough[:, None]


def ledoit_wolf(returns: Floats, mask: Mask) -> Floats:
    """Covariance [B, d, d] shrunk to a multiple of the identity by the optimal weight of Ledoit & Wolf (2004).

    Equal to `sklearn.covariance.LedoitWolf(assume_centered=False)` on the names in the mask [B, d], per day (ddof 0);
    rows and columns outside it are those of the identity, and `returns` [B, L, d] any finite values.
    """
    length = returns.shape[1]
    centred = np.where(mask[:, None, :], returns - returns.mean(axis=1, keepdims=True), 0.0)
    sample = centred.transpose(0, 2, 1) @ centred / length
    count = np.maximum(mask.sum(axis=1), 1)
    scale = np.trace(sample, axis1=1, axis2=2) / count
    # d * b2 and d * d2 of the paper: error of the sample covariance, and its distance from the target.
    norm = (sample**2).sum(axis=(1, 2))
    error = (((centred**2).sum(axis=2) ** 2).sum(axis=1) / length - norm) / length
    distance = norm - count * scale**2
    shrinkage = np.divide(np.minimum(error, distance), distance, out=np.zeros_like(error), where=distance > 0)
    shrunk = (1 - shrinkage)[:, None, None] * sample
    diagonal = np.where(mask, (shrinkage * scale)[:, None], 1.0)
    d = mask.shape[1]
    shrunk[:, range(d), range(d)] += diagonal
    return shrunk


def year_of(market: Market) -> int:
    """Rows of `LOOKBACK`."""
    return market.calendar.rows(LOOKBACK)


def rolling_covariance(market: Market, rows: Rows) -> tuple[Floats, Mask]:
    """Ledoit-Wolf covariance [B, d, d] of the year of daily returns that ends at each row, and `usable_names` [B, d].

    It is the identity outside those names; d * d numbers a row, so pass long ranges in chunks.
    """
    d, lookback = market.close.shape[1], year_of(market)
    mask = usable_names(market, rows)
    covariance = np.empty((len(rows), d, d))
    for part in chunks(len(rows), 8 * lookback * d):
        covariance[part] = ledoit_wolf(_windows(market, rows[part], lookback), mask[part])
    return covariance, mask


def rolling_volatility(market: Market, rows: Rows) -> Floats:
    """[B, d] sample standard deviation (ddof 1) of the year of returns that ends at each row, for `usable_names`."""
    lookback = year_of(market)
    volatility = np.empty((len(rows), market.close.shape[1]))
    for part in chunks(len(rows), 8 * lookback * volatility.shape[1]):
        volatility[part] = _windows(market, rows[part], lookback).std(axis=1, ddof=1)
    return volatility


def _windows(market: Market, rows: Rows, lookback: int) -> Floats:
    """Returns [B, L, d] of the days ending at each row; whatever is there where no whole window is."""
    days = np.maximum(rows[:, None] + np.arange(1 - lookback, 1), 0)
    return market.returns[days, : market.close.shape[1]]


def chunks(total: int, bytes_each: int) -> list[slice]:
    """Slices of `range(total)` whose items, of `bytes_each`, fill about `CHUNK_BYTES`."""
    size = max(1, CHUNK_BYTES // (4 * bytes_each))
    return [slice(i, min(i + size, total)) for i in range(0, total, size)]


SKIP = 21
"""Trading days: the last month is left out: over so short a time prices tend to revert."""

TOP = 5
"""Names held, as in the table of baselines."""

TREND_DAYS = 200
"""Trading days of the moving average that separates a rising price from a falling one."""


def momentum_scores(market: Market, rows: Rows) -> Floats:
    """[B, d] return from close t-252 to close t-21, NaN where the name is not usable at t (see `usable_names`)."""
    year, skip = year_of(market), market.calendar.rows(SKIP)
    mask = usable_names(market, rows)
    enough = rows >= year
    recent, old = market.close[np.where(enough, rows - skip, 0)], market.close[np.where(enough, rows - year, 0)]
    return np.divide(recent, old, out=np.full(mask.shape, np.nan), where=mask) - 1


def momentum_top(market: Market, rows: Rows) -> Floats:
    """[B, d] the five names of highest 12-1 momentum, or as many as are usable, equally weighted."""
    chosen = _top(momentum_scores(market, rows))
    return chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1)


def momentum_trend(market: Market, rows: Rows) -> Floats:
    """[B, d] the same five, but only those that rise: positive momentum and a price above its 200-day mean.

    A name that fails leaves its share to cash, so exposure falls as trends break, to none in a falling market.
    """
    scores = momentum_scores(market, rows)
    chosen = _top(scores)
    mean = np.full(scores.shape, np.nan)
    trend = market.calendar.rows(TREND_DAYS)
    for row, t in enumerate(rows):
        if t >= trend:
            mean[row] = market.close[t - trend + 1 : t + 1].mean(axis=0)
    with np.errstate(invalid="ignore"):
        rising = (scores > 0) & (market.close[rows] > mean)
    return (chosen & rising) / np.maximum(chosen.sum(axis=1, keepdims=True), 1)


def _top(scores: Floats) -> Mask:
    """The `TOP` highest finite scores of each row, ties to the earlier name."""
    order = np.argsort(np.where(np.isnan(scores), np.inf, -scores), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    return (rank < TOP) & np.isfinite(scores)


TOLERANCE = 1e-11
"""Violation of a sign, relative to the largest entry, that counts as rounding."""

FULL_EXCHANGES = 3
"""Exchanges of all infeasible names without progress before falling back to one at a time."""

FEW = 64
"""Names up to which a whole system is solved at once, not that of the names held alone."""


def nonnegative_qp(a: Floats, b: Floats, mask: Mask, plane: Floats | None = None) -> Floats:
    """Minimise `1/2 y'Ay - b'y` over y >= 0, y = 0 outside the mask, and `plane'y = 1` if given, for each row.

    Block principal pivoting (Judice & Pires 1994; Kim & Park 2011): guess the support, solve the linear system on
    it, exchange the names whose sign is wrong; where that stalls, exchange only the last such name, which is
    Murty's rule and ends for any positive definite A. The answer solves the KKT conditions to rounding.

    The plane changes nothing in that: on it, A + c ss' - bs' - sb' with s = `plane` has the same minimiser, is
    positive definite for large c, and leads through the same supports; the bordered system is its stable form.

    Parameters
    ----------
    a : [B, d, d] symmetric positive definite on the mask.
    b : [B, d].
    mask : [B, d] names that may be held; at least one in each row if there is a plane.
    plane : [B, d] positive, or None.
    """
    d = b.shape[1]
    y = np.zeros_like(b)
    open_rows = np.arange(len(b))
    support = mask.copy() if d <= FEW else _likely(a, b, mask)
    fewest = np.full(len(b), d + 1)
    patience = np.full(len(b), FULL_EXCHANGES)
    for _ in range(100 + 10 * d * d):
        if not len(open_rows):
            return y
        border = None if plane is None else plane[open_rows]
        solution, wrong = _guess(a, open_rows, b[open_rows], mask[open_rows], support[open_rows], border)
        count = wrong.sum(axis=1)
        y[open_rows[count == 0]] = solution[count == 0]
        open_rows, wrong, count = open_rows[count > 0], wrong[count > 0], count[count > 0]
        better = count < fewest[open_rows]
        patience[open_rows] = np.where(better, FULL_EXCHANGES, patience[open_rows] - 1)
        fewest[open_rows] = np.minimum(fewest[open_rows], count)
        last = d - 1 - np.argmax(wrong[:, ::-1], axis=1)
        one = wrong & (np.arange(d) == last[:, None])
        support[open_rows] ^= np.where((patience[open_rows] >= 0)[:, None], wrong, one)
    raise AssertionError("principal pivoting ends for a positive definite matrix")


def _likely(a: Floats, b: Floats, mask: Mask) -> Mask:
    """An eighth of the names [B, d]: those that gain most from where the best multiple of b itself stands."""
    b = np.where(mask, b, 0.0)
    start = np.maximum(b, 0.0)
    slope = np.where(mask, (start[:, None, :] @ np.where(mask[:, :, None], a, 0.0))[:, 0, :], 0.0)
    height, curve = ((start * each).sum(axis=1, keepdims=True) for each in (b, slope))
    gain = np.where(mask, b - slope * np.divide(height, curve, out=np.zeros_like(curve), where=curve > 0), -np.inf)
    return mask & (gain >= -np.partition(-gain, b.shape[1] // 8, axis=1)[:, b.shape[1] // 8, None])


def _guess(a: Floats, rows: Rows, b: Floats, mask: Mask, support: Mask, plane: Floats | None) -> tuple[Floats, Mask]:
    """Solution [B, d] if `support` is the right one, and the names [B, d] that show it is not.

    Only the rows of `a` [., d, d] are read that belong to some name of a support.
    """
    d = b.shape[1]
    most = d if d <= FEW else max(int(support.sum(axis=1).max()), 1)
    names = np.sort(np.argsort(~support, axis=1, kind="stable")[:, :most], axis=1)
    held = np.take_along_axis(support, names, axis=1)
    reach = a[rows[:, None], names]
    pair = held[:, :, None] & held[:, None, :]
    system = np.where(pair, np.take_along_axis(reach, names[:, None, :], axis=2), np.eye(most))
    target = np.where(held, np.take_along_axis(b, names, axis=1), 0.0)
    if plane is None:
        solved, pull = np.linalg.solve(system, target[:, :, None])[:, :, 0], b
    else:
        solved, price = _bordered(system, target, np.where(held, np.take_along_axis(plane, names, axis=1), 0.0))
        pull = b - price[:, None] * plane
    solved = np.where(held, solved, 0.0)
    y = np.zeros_like(b)
    np.put_along_axis(y, names, solved, axis=1)
    slope = (solved[:, None, :] @ np.where(held[:, :, None], reach, 0.0))[:, 0, :]
    rounding = TOLERANCE * np.where(mask, np.abs(b) + np.abs(pull - b), 0.0).max(axis=1, keepdims=True)
    negative = support & (y < -TOLERANCE * np.abs(y).max(axis=1, keepdims=True))
    missing = mask & ~support & (slope - pull < -rounding)
    return np.maximum(y, 0.0), negative | missing


def _bordered(system: Floats, target: Floats, plane: Floats) -> tuple[Floats, Floats]:
    """Solve `system y + price plane = target`, `plane'y = 1`: y [B, d] and the price [B].

    The plane is 0 outside a support that is never empty: on it some y is positive, so exchanges leave a name.
    """
    size = plane.max(axis=1)
    unit = plane / size[:, None]
    matrix = np.zeros((len(system), system.shape[1] + 1, system.shape[1] + 1))
    matrix[:, :-1, :-1] = system
    matrix[:, :-1, -1] = matrix[:, -1, :-1] = unit
    right = np.concatenate([target, 1 / size[:, None]], axis=1)
    solution = np.asarray(np.linalg.solve(matrix, right[:, :, None])[:, :, 0], dtype=np.float64)
    return solution[:, :-1], solution[:, -1] / size


def inverse_volatility(volatility: Floats, mask: Mask) -> Floats:
    """Weights proportional to 1 / `volatility` [B, d], which is positive on the mask."""
    return normalise(np.divide(1.0, volatility, out=np.zeros_like(volatility), where=mask))


def minimum_variance(covariance: Floats, mask: Mask) -> Floats:
    """Weights of least variance (Markowitz 1952): the ray of `min 1/2 w'Sw - 1'w`, w >= 0."""
    sigma, correlation = standardise(covariance, mask)
    return normalise(nonnegative_qp(correlation, 1 / sigma, mask) / sigma)


def maximum_diversification(covariance: Floats, mask: Mask) -> Floats:
    """Weights of the largest ratio of mean volatility to volatility, sigma'w / sqrt(w'Sw) (Choueifaty 2008).

    The ratio does not change along a ray, so it is a minimum variance problem in correlation space.
    """
    sigma, correlation = standardise(covariance, mask)
    return normalise(nonnegative_qp(correlation, np.ones_like(sigma), mask) / sigma)


def kelly(mean: Floats, covariance: Floats, mask: Mask) -> Floats:
    """Growth-optimal weights `max m'w - 1/2 w'Sw`, w >= 0, sum w <= 1; what is left of 1 is cash.

    Second-order expansion of E ln(1 + w'r) (Kelly 1956; Thorp 2006), `mean` [B, d] in excess of cash, in the
    covariance's unit of time. A fraction f of Kelly is the same problem with the mean times f.
    """
    sigma, correlation = standardise(covariance, mask)
    sharpe = np.where(mask, mean, 0.0) / sigma
    weights = nonnegative_qp(correlation, sharpe, mask) / sigma
    rows = np.flatnonzero(weights.sum(axis=1) > 1.0)
    if len(rows):  # no cash is left: the same on the plane sum w = 1
        rays = nonnegative_qp(correlation[rows], sharpe[rows], mask[rows], 1 / sigma[rows])
        weights[rows] = normalise(rays / sigma[rows])
    return weights


def standardise(covariance: Floats, mask: Mask) -> tuple[Floats, Floats]:
    """Volatilities [B, d] and correlations [B, d, d], 1 and identity outside the mask.

    A DataError where a name in the mask has no positive, finite variance.
    """
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    bad = mask & ~((variance > 0) & np.isfinite(variance))
    if bad.any():
        row, name = np.argwhere(bad)[0]
        raise DataError(
            f"covariance[{row}]: variance of name {name} is {variance[row, name]}; mask names without a positive one"
        )
    sigma = np.sqrt(np.where(mask, variance, 1.0))
    pair = mask[:, :, None] & mask[:, None, :]
    scaled = covariance / (sigma[:, :, None] * sigma[:, None, :])
    return sigma, np.where(pair, scaled, np.eye(mask.shape[1]))


def normalise(weights: Floats) -> Floats:
    """Each row of [B, d] divided by its sum; rows of zeros stay."""
    total = weights.sum(axis=1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


MEAN_DAYS = 756
"""Trading days of the sample means, or what there is of them (a year at the least): the estimate's error falls only
with the length of time, and the year that momentum looks at would make it a second momentum."""


def shrunk_means(market: Market) -> Callable[[Rows, Floats, Mask], Floats]:
    """Daily expected returns in excess of cash, by Bayes-Stein shrinkage (Jorion 1986) to their common mean.

    mean_i = level + (1 - w) (m_i - mean m), w = (N + 2) / (N + 2 + L q), with m the sample means over L days of N
    names, q the quadratic form of m - mean m in the inverse covariance. The level is 1/N's mean over *all* days up
    to t: what a market pays shows over decades, not over three years.

    Returns
    -------
    Function of (rows [B], covariance [B, d, d] of daily returns, mask [B, d]) to means [B, d], 0 outside the mask.
    """
    risky = market.close.shape[1]
    cash = market.returns[:, risky]
    counted = priced_returns(market)
    window = market.calendar.rows(MEAN_DAYS)
    sample = rolling_mean(market.returns[:, :risky] - cash[:, None], counted, window)
    lengths = rolling_sum(counted, window)
    days = np.maximum(np.cumsum(counted.any(axis=1)), 1)
    level = np.cumsum(np.where(counted.any(axis=1), equal_weight_returns(market) - cash, 0.0)) / days

    def at(rows: Rows, covariance: Floats, mask: Mask) -> Floats:
        names = mask.sum(axis=1)
        own = np.where(mask, sample[rows], 0.0)
        centre = own.sum(axis=1) / np.maximum(names, 1)
        spread = np.where(mask, own - centre[:, None], 0.0)
        length = np.where(mask, lengths[rows], 0.0).sum(axis=1) / np.maximum(names, 1)
        sigma, correlation = standardise(covariance, mask)
        scores = spread / sigma
        form = (scores * np.linalg.solve(correlation, scores[:, :, None])[:, :, 0]).sum(axis=1)
        kept = length * form / (names + 2 + length * form)
        return np.where(mask, level[rows, None] + kept[:, None] * spread, 0.0)

    return at


PRIORS = ("volatility", "correlation", "momentum", "defensive", "growth")

BENCHMARK = "benchmark"
"""Name of the expert that starts at e, the benchmark's portfolio."""

EXPERTS = (*PRIORS, BENCHMARK)

VERSION = 2
"""Part of the cache key: raise it with every change that moves a weight."""

TARGET_VOLATILITY = 0.10
"""Of the volatility prior, a year: that of a balanced fund, and below a stock portfolio's 15-20 % on most days, so
that its cash is a view on risk nearly always."""

EWMA_DECAY = 0.97
"""Half-life of 23 trading days (RiskMetrics' monthly value): 0.94 costs 1.8 times the turnover at the same
Sharpe ratio."""

CALM_VOLATILITY = 0.15
"""Yearly volatility of 1/N above which the defensive prior moves to cash: the long-run level of a stock index."""

DEEPEST_DRAWDOWN = 0.40
"""Drawdown of 1/N from its high of a year at which the defensive prior is all in cash: a great bear market."""

KELLY_FRACTION = 0.5
"""Half of Kelly: three quarters of the growth at a quarter of the variance, and a margin for errors of the mean."""

Allocator = Callable[[Rows, Floats, Mask], Floats]


def prior_portfolios(market: Market, cache_dir: Path | None = None) -> Floats:
    """Prior portfolios P[t, k, :] of the experts in `EXPERTS`, decided at the close of t; the last is e.

    e is 1/N of the names tradable at t, all cash where there is none. A benchmark of the user's own is known by its
    returns alone; e stays 1/N beside it.

    Covariances, volatilities and momentum look back over the year ending at t, on `usable_names`; all others get 0.
    With no such name a prior is all in cash, as every prior is over the first 252 days.

    Parameters
    ----------
    cache_dir : folder of cached arrays, or None to compute.

    Returns
    -------
    [T, K, n] float64, cash last, each row on the simplex.
    """
    key = f"priors-v{VERSION}-{market.fingerprint}"
    weights = cached_arrays(cache_dir, key, lambda: {"weights": _build(market)})["weights"]
    return np.concatenate([weights, equal_weights(market.status[:, :-1] == TRADABLE)[:, None]], axis=1)


def _build(market: Market) -> Floats:
    allocators = _allocators(market)
    total, d = market.close.shape
    weights = np.empty((total, len(PRIORS), d + 1))
    for part in chunks(total, 8 * d * d):
        rows = np.arange(part.start, part.stop)
        covariance, mask = rolling_covariance(market, rows)
        for k, name in enumerate(PRIORS):
            weights[part, k, :d] = allocators[name](rows, covariance, mask)
    weights[:, :, d] = np.maximum(1 - weights[:, :, :d].sum(axis=2), 0.0)
    return weights / weights.sum(axis=2, keepdims=True)


def _allocators(market: Market) -> dict[str, Allocator]:
    """Each prior as a function of (rows, covariance [B, d, d], mask [B, d]) to risky weights [B, d], sum <= 1."""
    year = market.calendar.year
    sigma = ewma_volatility(market, EWMA_DECAY if year == TRADING_YEAR else EWMA_DECAY ** (TRADING_YEAR / year))
    share = invested_share(market)
    mean = shrunk_means(market)

    def volatility(rows: Rows, covariance: Floats, mask: Mask) -> Floats:
        recent = np.where(mask, sigma[rows], 1.0)
        risk = recent[:, :, None] * standardise(covariance, mask)[1] * recent[:, None, :]
        return scale_to(TARGET_VOLATILITY / np.sqrt(year), inverse_volatility(recent, mask), risk)

    return {
        "volatility": volatility,
        "correlation": lambda _rows, covariance, mask: maximum_diversification(covariance, mask),
        "momentum": lambda rows, _covariance, _mask: momentum_trend(market, rows),
        "defensive": lambda rows, covariance, mask: share[rows, None] * minimum_variance(covariance, mask),
        "growth": lambda rows, covariance, mask: kelly(KELLY_FRACTION * mean(rows, covariance, mask), covariance, mask),
    }


def scale_to(target: float, weights: Floats, covariance: Floats) -> Floats:
    """Risky weights [B, d] scaled down where their volatility exceeds `target` (same unit of time); never up."""
    variance = ((weights[:, None, :] @ covariance)[:, 0, :] * weights).sum(axis=1)
    volatility = np.sqrt(np.maximum(variance, 0.0))
    return weights * (target / np.maximum(volatility, target))[:, None]


def invested_share(market: Market) -> Floats:
    """Share [T] of the defensive prior that is not cash: falls with the volatility and the drawdown of 1/N.

    min(1, calm / volatility of 21 days) * max(0, 1 - drawdown from the year's high / deepest).
    """
    returns = equal_weight_returns(market)
    calendar = market.calendar
    rows = calendar.rows(21, SPREAD)
    padded = np.concatenate([np.zeros(rows - 1), returns])
    month = np.lib.stride_tricks.sliding_window_view(padded, rows).std(axis=1, ddof=1) * np.sqrt(calendar.year)
    drawdown = rolling_drawdown(returns, calendar.rows(TRADING_YEAR))
    return CALM_VOLATILITY / np.maximum(month, CALM_VOLATILITY) * np.maximum(0.0, 1 - drawdown / DEEPEST_DRAWDOWN)
