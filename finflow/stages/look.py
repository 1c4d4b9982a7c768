"""A dry look at the data: names, calendar, windows, masks and warnings; nothing is trained, nothing is written."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from finflow.artifacts.runs import check_arguments
from finflow.data.build import load_prices, market_of
from finflow.data.market import TRADABLE, Fold, Market, Window, fold_dates, make_fold
from finflow.data.prices import Prices, faded_warnings
from finflow.schema import Config
from finflow.stages.shown import Shown, table_of

_SHOWN = 8


@dataclass(frozen=True, repr=False)
class LookResult(Shown):
    """A description of the data, one line each; the stages repeat the warnings."""

    lines: tuple[str, ...]
    warnings: tuple[str, ...]

    def line(self) -> str:
        """Its names and dates."""
        names, dates = self.lines[1:3]
        return f"{names}; {dates}; {len(self.warnings)} warnings"

    def frame(self) -> pd.DataFrame:
        """All lines, and the warnings."""
        rows = [line.partition(": ")[::2] for line in self.lines]
        return table_of([*rows, *(("Warning", line) for line in self.warnings)], ("what", "found"))


def look(config: Config) -> LookResult:
    """Read the prices of `config.env` and describe them; of the test window its dates alone.

    Raises
    ------
    ConfigError, DataError, StorageError
        One line each, see `finflow.errors`.
    """
    check_arguments(config, "look")
    env = config.env
    if env.snapshot is not None and not Path(env.snapshot).exists():
        env = env.model_copy(update={"snapshot": None})  # a look makes no file
    read = env.path if env.snapshot is None else f"frozen in {env.snapshot}"
    cache = Path(config.output_root) / "cache" if env.source == "yahoo" else None  # downloaded once
    prices = load_prices(env, cache)
    market = market_of(prices, env)
    fold = make_fold(market, env, config.fold)
    lines = (
        f"Prices: {env.source}{'' if read is None else f', {read}'}{prices.layout and f': {prices.layout}'}",
        f"Names: {len(prices.tickers)}, {_some(prices.tickers)}",
        f"Dates: {market.dates[0]} to {market.dates[-1]}, {len(market.dates):,} rows",
        f"Calendar: {market.calendar.line()}",
        f"Decisions: {env.rebalance}, {int(market.decision.sum()):,} of the rows; the newest is "
        f"{'one' if market.decision[-1] else 'none'}",
        f"Volumes: {'no' if prices.volume is None else 'yes'}; signals: {_some(tuple(prices.signals)) or 'none'}",
        *_listings(prices, market),
        *_windows(market, fold),
    )
    return LookResult(lines, (*market.warnings, *faded_warnings(market, fold.train)))


def _listings(prices: Prices, market: Market) -> tuple[str, str]:
    present = np.isfinite(prices.close)
    later, sooner = (
        tuple(name for name, here in zip(prices.tickers, present[row], strict=True) if not here) for row in (0, -1)
    )
    share = float((market.status[:, :-1] != TRADABLE).mean())
    return (
        f"Listings: {len(later)} begin later ({_some(later) or '-'}), {len(sooner)} end sooner "
        f"({_some(sooner) or '-'})",
        f"Masks: {100 * share:.1f} % of the cells are untradable (unlisted, too young, stale or ended); "
        f"{int((market.status[-1, :-1] == TRADABLE).sum())} names are tradable at the newest row",
    )


def _windows(market: Market, fold: Fold) -> tuple[str, ...]:
    dates, unit = fold_dates(market, fold), market.calendar.unit
    windows: dict[str, Window] = {"train": fold.train, "validation": fold.validation, "test": fold.test}
    return tuple(
        f"Fold {fold.name}, {name}: {dates[name][0]} to {dates[name][1]}, {len(window):,} {unit}s"
        + (" (stays shut)" if name == "test" else "")
        for name, window in windows.items()
    )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
