"""Daily prices as a source returns them, nothing filled or repaired; trading status, warnings, test of simultaneity.

Warnings name listings, stale stretches, splits and gaps, one line per name and finding.

Closes that are not simultaneous make returns look predictable although nobody can trade on them. A signal that a
portfolio could earn from fades over days. One that is strong for the next row and gone a row later comes from closes
taken at different hours: when the later close is known, the earlier market has already moved.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finflow.data import market as markets
from finflow.data.market import ABSENT, BUSINESS, FROZEN, TRADABLE, Calendar, Dates, Floats, Market, Window
from finflow.errors import some
from finflow.schema.sections import Env


@dataclass(frozen=True)
class Prices:
    """Closes of d names on T days.

    Attributes
    ----------
    dates : [T] datetime64[D], strictly increasing.
    tickers : d names.
    close : [T, d] float64, adjusted closes; NaN where there is no price.
    volume : [T, d] float64, or None where the source has none.
    signals : name -> [T, d] float64, a user's own signals, row t known at the close of t; NaN where missing.
    files : contents of the user's files beside the prices, by key; empty where they still have to be read.
    warnings : one line each.
    layout : how they were laid out, in words; empty where a source has but one way.
    """

    dates: Dates
    tickers: tuple[str, ...]
    close: Floats
    volume: Floats | None = None
    signals: Mapping[str, Floats] = field(default_factory=dict[str, Floats])
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    warnings: tuple[str, ...] = ()
    layout: str = ""

    def of(self, tickers: Sequence[str]) -> "Prices":
        """The same days of some of the names, in the order of `tickers`."""
        columns = [self.tickers.index(ticker) for ticker in tickers]
        return replace(self._each(lambda values: values[:, columns]), tickers=tuple(tickers))

    def on(self, days: NDArray[np.bool_]) -> "Prices":
        """The days marked in `days` [T]."""
        return replace(self._each(lambda values: values[days]), dates=self.dates[days])

    def _each(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> "Prices":
        return replace(
            self,
            close=change(self.close),
            volume=None if self.volume is None else change(self.volume),
            signals={name: change(values) for name, values in self.signals.items()},
        )


def gaps(close: Floats) -> NDArray[np.bool_]:
    """[T, d] blanks between a name's first price and its last."""
    present = np.isfinite(close)
    begun, unended = np.maximum.accumulate(present), np.maximum.accumulate(present[::-1])[::-1]
    return ~present & begun & unended


class Trading(NamedTuple):
    """State of each name at each close, [T, d].

    present : a price exists.
    live : a price exists and has moved since the first one, so that it is not a back-fill.
    stale : the last `stale_run` or more closes are equal.
    status : ABSENT, FROZEN or TRADABLE, int8.
    """

    present: NDArray[np.bool_]
    live: NDArray[np.bool_]
    stale: NDArray[np.bool_]
    status: NDArray[np.int8]


def equal_run(close: Floats) -> NDArray[np.int64]:
    """Length of the run of equal closes that ends at each close, [T, d]; 0 where there is no price."""
    rows = np.arange(len(close))[:, None]
    fresh = np.ones(close.shape, dtype=np.bool_)
    fresh[1:] = close[1:] != close[:-1]  # NaN differs from everything: a blank starts a new run
    begun = np.maximum.accumulate(np.where(fresh, rows, 0), axis=0)
    return np.where(np.isfinite(close), rows - begun + 1, 0)


def trading(close: Floats, stale_run: int, min_history: int) -> Trading:
    """Judge every cell of `close` [T, d] by its own column up to its own row.

    A name is TRADABLE when its run of equal closes is under `stale_run` and it has `min_history` priced days since
    its first move: a ticker back-filled flat until its listing is frozen all along the flat stretch, its first days
    included, and for as long afterwards as the lookbacks of features and priors need.
    """
    present = np.isfinite(close)
    moved = np.zeros(close.shape, dtype=np.bool_)
    moved[1:] = present[1:] & present[:-1] & (close[1:] != close[:-1])
    live = present & np.maximum.accumulate(moved, axis=0)
    stale = equal_run(close) >= stale_run
    ready = np.cumsum(live, axis=0) >= min_history
    status = np.where(live & ready & ~stale, TRADABLE, np.where(present, FROZEN, ABSENT))
    return Trading(present, live, stale, status.astype(np.int8))


def simple_returns(close: Floats, delist_return: float) -> Floats:
    """Return from close t-1 to close t, [T, d]; row 0 is 0.

    0 where either price is missing, but `delist_return` on the first day without a price after one with: known on
    that day, whether or not prices come back. A last price in the last row has no such day.
    """
    returns = np.zeros(close.shape)
    present = np.isfinite(close)
    both = present[1:] & present[:-1]
    np.divide(close[1:], close[:-1], out=returns[1:], where=both)
    returns[1:][both] -= 1.0
    returns[1:][present[:-1] & ~present[1:]] = delist_return
    return returns


VETTED = ("sp500",)
"""Sources whose oddities docs/data.md lists."""
NAMED = 8
"""With this many names of one finding, one line sums them up."""
REPEATED = 0.05
"""A name that repeats its close on this share of the days on which others move looks filled."""
_MOVING = 0.5
"""Share of the names that must move on a day for it to count."""
_LEVEL = 0.5
"""Values this close to 1 that hardly resemble those of the row before look like 1 + return, not prices."""
_SPLITS = ((2, 1), (3, 1), (3, 2), (4, 3), (5, 1), (10, 1), (1, 2), (1, 3), (2, 3), (3, 4), (1, 5), (1, 10))
RATIOS = {old / new: f"{new}:{old}" for new, old in _SPLITS}
"""What a price is multiplied by -> new shares for old ones: one that halves is of 2:1."""
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


def price_warnings(prices: Prices, env: Env, calendar: Calendar = BUSINESS) -> tuple[str, ...]:
    """Findings about `prices` from `env.start` on, none of them an error, in the order of the tickers."""
    if env.source in VETTED:
        return ()
    begin = 0 if env.start is None else int(np.searchsorted(prices.dates, np.datetime64(env.start, "D")))
    found = list(_findings(prices, env, begin))
    counts, said = Counter(kind for _, kind, _ in found), Counter[str]()
    lines: list[str] = []
    summed: dict[str, list[str]] = {}
    for ticker, kind, text in found:
        said[kind] += 1
        if counts[kind] <= NAMED or said[kind] <= 3:
            lines.append(f"{ticker}: {text}")
        else:
            summed.setdefault(kind, []).append(ticker)
    lines += [f"{len(names)} other names ({some(names)}): {kind} too" for kind, names in summed.items()]
    return (*lines, *_of_all(prices, calendar, begin))


def _findings(prices: Prices, env: Env, begin: int) -> Iterator[tuple[str, str, str]]:
    """(name, kind, what is said of it) of each finding, name by name."""
    shares, ratios = _repeated(prices.close[begin:]), split_ratios(prices.close)
    threshold = -math.log1p(-env.split_jump) if env.split_jump < 1 else math.inf  # .5: a fall by half, or a doubling
    with np.errstate(invalid="ignore"):
        jumps = np.abs(np.diff(np.log(prices.close), axis=0, prepend=np.nan)) > threshold
    for column, ticker in enumerate(prices.tickers):
        for kind, text in _of_name(prices, env, column, begin, float(shares[column])):
            yield ticker, kind, text
        rows = begin + np.flatnonzero((jumps | np.isfinite(ratios))[begin:, column])
        if len(rows):
            row = int(rows[0])
            change = prices.close[row, column] / prices.close[row - 1, column] - 1
            like = f" of {RATIOS[ratios[row, column]]}" if ratios[row, column] in RATIOS else ""
            rest = f", the first of {len(rows)} such moves" if len(rows) > 1 else ""
            text = (
                f"price moves by {100 * change:+.0f} % on {prices.dates[row]}, like an unadjusted split{like}{rest}; "
                "check that prices are adjusted (kept as it is)"
            )
            yield ticker, "moves like unadjusted splits", text


def _of_name(prices: Prices, env: Env, column: int, begin: int, share: float) -> Iterator[tuple[str, str]]:
    """Listing, end and stale stretches of one name, whose close is that of the row before on a `share` of days."""
    close, dates = prices.close[:, column], prices.dates
    days = np.flatnonzero(np.isfinite(close))
    if not len(days):
        return
    first, last = int(days[0]), int(days[-1])
    newest = len(dates) - 1
    if first > begin:
        yield "no price at first", f"no price before {dates[first]}; untradable until then"
    if last == newest - 1:
        yield (
            "no price in the newest row",
            f"no price on {dates[newest]}, the newest row: not quoted yet, or delisted? decide holds it as it is; "
            f"env.end={dates[last]} leaves the row out",
        )
    elif begin <= last < newest:
        yield (
            "no price to the end",
            f"last price on {dates[last]}, blank to the end; treated as delisted at a return of {env.delist_return:g}",
        )
    run = equal_run(prices.close[:, [column]])[:, 0]
    ends = np.flatnonzero((run >= env.stale_run) & (np.append(run[1:], 0) <= run))
    stretches = [(int(end - run[end] + 1), int(end)) for end in ends if end >= begin]
    if stretches:
        yield "stretches of equal closes", _stale_text(prices, stretches, env.stale_run)
    if share > REPEATED and not stretches:
        yield (
            "repeated closes",
            f"repeats its close on {100 * share:.0f} % of the days on which others move, as filled-in holidays and "
            "weekends do; leave such cells blank and add env.calendar=common",
        )


def _of_all(prices: Prices, calendar: Calendar, begin: int) -> Iterator[str]:
    """Gaps of the dates, rows a year that were counted, and values that are no prices."""
    dates, close = prices.dates[begin:], prices.close[begin:]
    gaps = np.diff(dates).astype(np.int64)
    usual = {"daily": markets.LONG_GAP, "weekly": 7 + markets.LONG_GAP, "monthly": 31 + markets.LONG_GAP}[calendar.kind]
    long = np.flatnonzero(gaps > usual)
    if len(long):
        widest = int(long[np.argmax(gaps[long])])
        yield (
            f"dates: {len(long)} gap{'' if len(long) == 1 else 's'} of more than {usual} days, the widest from "
            f"{dates[widest]} to {dates[widest + 1]}; the return over it counts as one {calendar.unit}'s"
        )
    if calendar.year not in markets.NOMINAL:
        yield (
            f"dates: {calendar.year} rows a year, by which figures are annualised; env.periods_per_year=252 takes "
            "another number"
        )
    present = np.isfinite(close)
    if len(close) > 1 and (np.abs(close[present] - 1) < _LEVEL).mean() > 0.99:
        pairs = [(c[1:][ok], c[:-1][ok]) for c in close.T for ok in [np.isfinite(c[1:]) & np.isfinite(c[:-1])]]
        likeness = [np.corrcoef(a, b)[0, 1] for a, b in pairs if len(a) > 2 and np.ptp(a) > 0 and np.ptp(b) > 0]
        if likeness and float(np.median(likeness)) < _LEVEL:
            yield (
                "prices: values near 1 that do not follow each other: 1 + return, not prices? compound them "
                "(pandas: frame.cumprod())"
            )


def _repeated(close: Floats) -> Floats:
    """[d] share of the days on which most other names move that a name's close is that of the row before."""
    both = np.isfinite(close[1:]) & np.isfinite(close[:-1])
    moved = both & (close[1:] != close[:-1])
    count, known = (cells.sum(axis=1, keepdims=True) - cells for cells in (moved, both))
    moving = both & (known > 1) & (count >= _MOVING * known)
    return (moving & ~moved).sum(axis=0) / np.maximum(moving.sum(axis=0), 1)


def _stale_text(prices: Prices, stretches: list[tuple[int, int]], stale_run: int) -> str:
    first, last = max(stretches, key=lambda s: s[1] - s[0])
    longest = f"{prices.dates[first]} to {prices.dates[last]} ({last - first + 1} rows)"
    if len(stretches) == 1:
        return f"equal closes from {longest}; masked as untradable"
    begin, end = prices.dates[stretches[0][0]], prices.dates[stretches[-1][1]]
    return (
        f"{len(stretches)} stretches of {stale_run} or more equal closes between {begin} and {end}, the longest from "
        f"{longest}; masked as untradable"
    )


def split_ratios(close: Floats) -> Floats:
    """[T, d] ratio of the split that a move from t-1 to t looks like, NaN where it looks like none.

    A split changes a price by its ratio and the day's own return: the days around it are calm, and the other names do
    not move. Neither holds in a crash by a half.

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
    ratios = np.array(sorted(RATIOS))
    for row, column in np.argwhere(score > FAR):
        distance = np.abs(np.log(ratios) - moves[row, column])
        nearest = int(np.argmin(distance))
        later = score[row + 1 : row + 1 + AFTER, column]
        others = np.delete(score[row], column)
        calm = not len(later) or float(np.nanmean(later)) < CALM
        alone = not np.isfinite(others).any() or float(np.nanmedian(others)) < CALM
        if distance[nearest] <= NEAR * usual[row, column] and calm and alone:
            found[row, column] = ratios[nearest]
    return found


STRONG = 0.05
"""A mean rank correlation with the next row that prices of one exchange do not reach."""
SURE = 5.0
"""Its least distance from 0 in standard errors."""
GONE = 1 / 3
"""The largest share of it that may be left at two rows."""
LEAST_NAMES, LEAST_ROWS = 4, 60


def faded_warnings(market: Market, window: Window) -> tuple[str, ...]:
    """A warning of the feature whose correlation with returns fades most suspiciously within two rows of `window`."""
    rows = np.asarray(window.decisions, dtype=np.int64)
    rows = rows[rows + 2 < window.stop]
    if len(rows) < LEAST_ROWS:
        return ()
    returns = market.returns[:, :-1]
    usable = (market.status[rows][:, :-1] == TRADABLE) & np.isfinite(market.close[rows + 2])
    found: list[tuple[str, float, float]] = []
    for number, name in enumerate(market.feature_names):
        values = np.where(usable, market.features[rows, :, number], np.nan)
        first, error = _mean_correlation(values, np.where(usable, returns[rows + 1], np.nan))
        if abs(first) < STRONG or abs(first) < SURE * error:
            continue
        second, _ = _mean_correlation(values, np.where(usable, returns[rows + 2], np.nan))
        if np.sign(first) * second <= GONE * abs(first):
            found.append((name, first, second))
    if not found:
        return ()
    name, first, second = max(found, key=lambda each: abs(each[1]))
    return (
        f"closes may not be simultaneous: {name} ranks the next return with a correlation of {first:+.3f} and the one "
        f"after with {second:+.3f}; no one can trade that, use closes of one hour, or rows of weeks",
    )


def _mean_correlation(values: Floats, returns: Floats) -> tuple[float, float]:
    """Mean over rows of the rank correlation across names [R, d], and its standard error; 0, inf without any."""
    ranks = [pd.DataFrame(cells).rank(axis=1).to_numpy() for cells in (values, returns)]
    ranks = [cells - np.nanmean(cells, axis=1, keepdims=True) for cells in ranks if np.isfinite(cells).any()]
    if len(ranks) < 2:
        return 0.0, np.inf
    enough = np.isfinite(values).sum(axis=1) >= LEAST_NAMES
    spread = np.sqrt(np.nansum(ranks[0] ** 2, axis=1) * np.nansum(ranks[1] ** 2, axis=1))
    known = enough & (spread > 0)
    if known.sum() < LEAST_ROWS:
        return 0.0, np.inf
    found = np.nansum(ranks[0] * ranks[1], axis=1)[known] / spread[known]
    return float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found)))
