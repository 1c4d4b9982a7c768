"""Leaks that no perturbation of features shows: into fitted values, and through a user's files of prices and signals.

Fitted values must keep their bytes when all data after the train window are noise. Files with other later rows must
give the same past prices and signals. A signal that predicts the next return too well was made with future data.
"""

import csv
import io
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from finflow.data import build, series
from finflow.data.csv_source import read_sheet
from finflow.data.csv_table import CsvTable
from finflow.data.features import FeatureScaling
from finflow.data.market import NO_LABEL, REGIMES, TRADABLE, Fold, Market
from finflow.data.prices import Prices
from finflow.envs.collect import MEAN_BLOCK, bootstrapped, collect, historical, in_regime, padded, starting_portfolios
from finflow.envs.ledger import fit_reward
from finflow.envs.simulator import World
from finflow.errors import DataError
from finflow.evaluation.audit.findings import Difference, Findings, Watched
from finflow.evaluation.audit.lookahead import Rows, Subject
from finflow.evaluation.audit.perturbations import JITTER, noise_after
from finflow.io.files import csv_text
from finflow.schema import Config
from finflow.schema.sections import PLAIN, Env
from finflow.seeding import numpy_stream

EPISODES = 32
"""Offline and training episodes drawn by the audit: enough to visit most train days."""
CHECK = "signals' foresight"
TOO_GOOD = 0.25
"""Suspicious rank correlation with the next day's return; honest daily signals have a tenth of it."""
LEAST = 500
"""Fewest cells for a correlation: three standard deviations of chance are below .15 then."""

Artefacts = dict[str, dict[str, NDArray[Any]]]
"""Row of the table -> name of a thing -> its array."""


def compare_artefacts(findings: Findings, subject: Subject, config: Config, fold: Fold, seed: int) -> None:
    """Fit everything of `fold` twice, on the prices as they are and with noise after the last train day."""
    last = fold.train.stop - 1
    rng = numpy_stream(seed, "audit/noise")
    ours = fold_artefacts(subject, config, subject.market(subject.prices), fold)
    theirs = fold_artefacts(subject, config, subject.market(noise_after(subject.prices, last, rng)), fold)
    day = str(subject.prices.dates[last])
    cause = f"all prices after {day}, the end of train, are noise"
    for check, arrays in ours.items():
        for name, array in arrays.items():
            findings.count(check)
            if name not in theirs[check] or not _same(array, theirs[check][name]):
                findings.add(check, Difference(name, day, cause))


def _same(first: NDArray[Any], second: NDArray[Any]) -> bool:
    return (first.dtype, first.shape, first.tobytes()) == (second.dtype, second.shape, second.tobytes())


def fold_artefacts(subject: Subject, config: Config, market: Market, fold: Fold) -> Artefacts:
    """Everything that is fitted on, or drawn from, the train rows of `fold`."""
    priors = subject.priors(market)
    scaling = FeatureScaling.fit(market, fold)
    reward = fit_reward(market, priors, fold.train, config.reward)
    world = World.of(market, scaling.apply, priors, subject.accounting, reward, torch.device("cpu"))
    days, fraction, seed = config.env.episode_days, config.offline.bootstrap_fraction, config.seed
    dataset = collect(market, world, fold.train, EPISODES, days, fraction, seed, facts={})
    return {
        "fitted scaling": _scaling(scaling, market),
        "reward scale, VaR": {
            "reward scale c": np.array(reward.scale),
            "VaR threshold of the reward": np.array(reward.tail_threshold),
        },
        "offline data": {f"offline data, {name}": array for name, array in dataset.arrays().items()},
        "episodes": _episodes(config, market, fold, priors),
    }


def _scaling(scaling: FeatureScaling, market: Market) -> dict[str, NDArray[Any]]:
    named = {
        "feature": (market.feature_names, scaling.mean, scaling.std),
        "market feature": (market.market_feature_names, scaling.market_mean, scaling.market_std),
    }
    return {
        f"scaling of {noun} {name}": np.array([mean, std])
        for noun, (names, means, stds) in named.items()
        for name, mean, std in zip(names, means, stds, strict=True)
    }


def _episodes(config: Config, market: Market, fold: Fold, priors: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Days that episodes live through, of history, of the bootstrap and of each regime that train has enough of."""
    rng = numpy_stream(config.seed, "audit/episodes")
    days, block = market.calendar.rows(config.env.episode_days), market.calendar.rows(MEAN_BLOCK)
    drawn = {
        "historical episodes": historical(fold.train, days, EPISODES, rng),
        "bootstrapped episodes": bootstrapped(fold.train, days, EPISODES, rng, block),
    }
    for regime in REGIMES:
        with suppress(DataError):  # too few days of it
            drawn[f"{regime} episodes"] = in_regime(market, fold.train, regime, days, EPISODES, rng)
    starts = starting_portfolios(market, priors, drawn["historical episodes"], rng)
    train = slice(fold.train.decisions.start, fold.train.decisions.stop)
    labels = np.bincount(market.regime[train] - NO_LABEL, minlength=len(REGIMES) + 1)
    arrays: dict[str, NDArray[Any]] = {name: padded(rows) for name, rows in drawn.items()}
    return arrays | {"starting portfolios": starts, "train days by regime": labels}


def compare_foresight(findings: Findings, prices: Prices, market: Market, fold: Fold, names: list[str]) -> None:
    """Correlate each signal of `names`, as it is used, with the next day's return, on train rows alone.

    No perturbation of files shows what a user did before writing them: standardised by the whole history, say, or
    dated a day too early.
    """
    days = np.asarray(fold.train.decisions)
    tradable = market.status[days, :-1] == TRADABLE
    following = market.returns[days + 1, :-1]
    for name in names:
        values = prices.signals[name][days]
        known = tradable & np.isfinite(values)
        findings.count(CHECK)
        if known.sum() < LEAST:
            continue
        correlation = float(np.corrcoef(rankdata(values[known]), rankdata(following[known]))[0, 1])
        if abs(correlation) > TOO_GOOD:
            cause = f"the next day's return does (rank correlation {correlation:.2f} on train days)"
            findings.add(CHECK, Difference(f"signal {name}", str(market.dates[days[0]]), cause))


FILE, SIGNALS = "prices file", "signals files"


def perturb_file(findings: Findings, prices: Prices, env: Env, rows: Rows, rng: np.random.Generator) -> None:
    """Write the closes of `env.path` with those after each of `rows` scaled, read them and compare the past."""
    assert env.path is not None, "the schema asks for it"
    text = wide_text(read_sheet(Path(env.path), env.format).close)
    plain = {"format": PLAIN, "volume": None}
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "prices.csv"
        for t in rows.tolist():
            other.write_text(scaled_text(text, str(prices.dates[t]), rng), encoding="utf-8")
            read = build.load_prices(env.model_copy(update={**plain, "path": str(other)}))
            cause = f"prices after {prices.dates[t]} are scaled in the file"
            close = Watched(FILE, prices.close, "price of", prices.tickers)
            dates = Watched(FILE, prices.dates.astype(np.int64), "date")
            findings.compare(close, read.close, t + 1, prices.dates, cause)
            findings.compare(dates, read.dates.astype(np.int64), t + 1, prices.dates, cause)


def perturb_signals(findings: Findings, prices: Prices, env: Env, rows: Rows, rng: np.random.Generator) -> None:
    """Write the files of `env.signals` anew with the rows after each of `rows` scaled, read them, compare the past.

    The comparison includes the lag: signals up to the close of a day must depend on rows up to that day alone.
    """
    assert env.signals is not None, "asked for only then"
    texts = {
        name: path.read_text(encoding="utf-8-sig") for name, path in series.signal_files(Path(env.signals)).items()
    }
    bare = replace(prices, signals={name: v for name, v in prices.signals.items() if name not in texts})
    with tempfile.TemporaryDirectory() as folder:
        for t in rows.tolist():
            for name, text in texts.items():
                later = scaled_text(text, str(prices.dates[t]), rng)
                (Path(folder) / f"{name}.csv").write_text(later, encoding="utf-8")
            read = series.add_signals(bare, env.model_copy(update={"signals": folder}))
            cause = f"the rows of signals after {prices.dates[t]} are scaled in the files"
            for name in texts:
                watched = Watched(SIGNALS, prices.signals[name], f"signal {name} of", prices.tickers)
                findings.compare(watched, read.signals[name], t + 1, prices.dates, cause)


def wide_text(table: CsvTable) -> str:
    """Closes as a CSV with a column per ticker, each number with all its digits."""
    rows = zip(table.dates, table.values.tolist(), strict=True)
    return csv_text(
        [table.header, *([day, *(None if price != price else price for price in row)] for day, row in rows)]
    )


def scaled_text(text: str, day: str, rng: np.random.Generator) -> str:
    """The CSV with every number of the rows after `day` times a factor of its own; the rest as it was."""
    rows: list[list[str]] = []
    for number, cells in enumerate(csv.reader(io.StringIO(text, newline=""))):
        if number and cells and cells[0].strip() > day:
            factors = np.exp(JITTER * rng.standard_normal(len(cells)))
            pairs = zip(cells[1:], factors[1:].tolist(), strict=True)
            scaled = [repr(float(cell) * factor) if cell.strip() else "" for cell, factor in pairs]
            cells = [cells[0], *scaled]
        rows.append(cells)
    return csv_text(rows)
