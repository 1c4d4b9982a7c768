"""Six leaks, each of which would make backtests shine: the audit catches all six, and passes the untouched system."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import finflow
from finflow.allocators import priors as prior_room
from finflow.data import build, features
from finflow.data.build import load_prices
from finflow.data.features import FEATURES, FeatureScaling, label_regimes
from finflow.data.market import Calendar, Market
from finflow.data.prices import Prices
from finflow.envs.simulator import Simulator
from finflow.evaluation.audit.findings import Check, Findings
from finflow.evaluation.audit.leakage import compare_artefacts
from finflow.evaluation.audit.lookahead import perturb_futures, spread_rows
from finflow.schema import Config
from finflow.schema.sections import Regimes
from finflow.stages import audit as stage

from .conftest import LISTING, TINY, subject_of

ROWS, DEEP = 10, 3
Mutate = Callable[[pytest.MonkeyPatch], None]


def audited(prices: Prices, config: Config, dates: int = ROWS, deep: int = DEEP) -> dict[str, Check]:
    """All checks of the command but the file's, by default at fewer dates."""
    subject, _, fold = subject_of(prices, config)
    findings = Findings()
    rows = spread_rows(len(prices.dates), dates, np.random.default_rng(1))
    assert rows[0] < LISTING < rows[-1]
    perturb_futures(findings, subject, rows, deep, np.random.default_rng(2))
    compare_artefacts(findings, subject, config, fold, 0)
    return {check.name: check for check in findings.checks()}


def failed(checks: dict[str, Check]) -> dict[str, set[str]]:
    return {name: {d.subject for d in check.differences} for name, check in checks.items() if check.differences}


def same_bar_return(patch: pytest.MonkeyPatch) -> None:
    """The simulator pays the decision of t with the return of t."""
    honest = Simulator.__init__

    def early(self: Simulator, market: Market, *args: object) -> None:
        honest(self, replace(market, returns=np.roll(market.returns, 1, axis=0)), *args)  # type: ignore[arg-type]

    patch.setattr(Simulator, "__init__", early)


def off_by_one(patch: pytest.MonkeyPatch) -> None:
    """A feature of the day after."""
    honest = FEATURES["momentum_21"]
    patch.setitem(FEATURES, "momentum_21", lambda history: np.roll(honest(history), -1, axis=0))


def back_fill(patch: pytest.MonkeyPatch) -> None:
    """A name has its first price already before it lists."""
    honest = build.market_of

    def filled(prices: Prices, *args: object) -> Market:
        return honest(replace(prices, close=pd.DataFrame(prices.close).bfill().to_numpy()), *args)  # type: ignore[arg-type]

    patch.setattr(build, "market_of", filled)


def full_sample_scaler(patch: pytest.MonkeyPatch) -> None:
    """Scaling fitted on all rows."""
    honest = FeatureScaling.fit.__func__  # type: ignore[attr-defined]

    def fit(cls: type[FeatureScaling], market: Market, fold: object) -> FeatureScaling:
        return honest(cls, market, replace(fold, train=replace(fold.train, stop=len(market.dates))))  # type: ignore[attr-defined,type-var]

    patch.setattr(FeatureScaling, "fit", classmethod(fit))


def smoothed_regime(patch: pytest.MonkeyPatch) -> None:
    """Labels from a volatility centred on the day: ten days of it lie ahead."""

    def smoothed(index: np.ndarray, rules: Regimes, calendar: Calendar) -> tuple[np.ndarray, tuple[str, ...]]:
        return label_regimes(np.append(index[10:], np.zeros(10)), rules, calendar)

    patch.setattr(features, "label_regimes", smoothed)


def later_covariance(patch: pytest.MonkeyPatch) -> None:
    """Priors from the covariance of the last fifth of the data."""
    honest = prior_room.rolling_covariance

    def peeking(market: Market, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        covariance, mask = honest(market, rows)
        later, _ = honest(market, np.array([len(market.dates) - 1]))
        return np.where((mask[:, :, None] & mask[:, None, :]), later, covariance), mask

    patch.setattr(prior_room, "rolling_covariance", peeking)


MUTANTS: dict[str, tuple[Mutate, str, str]] = {
    "same-bar return": (same_bar_return, "accounting", "return earned by the decision"),
    "off by one": (off_by_one, "features", "feature momentum_21"),
    "back-fill": (back_fill, "prices", "price of T4"),
    "full-sample scaler": (full_sample_scaler, "fitted scaling", "scaling of feature return_1d"),
    "smoothed regime": (smoothed_regime, "regime labels", "regime label (stable, normal, volatile, crisis)"),
    "test-window covariance": (later_covariance, "priors", "prior correlation"),
}
"""Mutant -> what it does, the check that kills it first, and what that check names."""


def assert_passes(checks: dict[str, Check]) -> None:
    assert failed(checks) == {}
    assert all(check.comparisons > 0 for check in checks.values())
    assert len(checks) == 16


def test_the_untouched_system_passes(csv_prices: Prices, csv_config: Config) -> None:
    assert_passes(audited(csv_prices, csv_config))


def test_the_untouched_system_passes_with_a_delisting_monthly_decisions_and_one_regime(csv_prices: Prices) -> None:
    close = csv_prices.close.copy()
    close[900:, 0] = np.nan
    words = ["env=csv", "env.path=unread", "env.rebalance=monthly", "env.delist_return=-0.3", "market_regime=normal"]
    config = finflow.load("pretrain", [*words, *TINY])
    assert_passes(audited(replace(csv_prices, close=close), config))


@pytest.mark.slow
@pytest.mark.parametrize("source", ["sp500", "synthetic"])
def test_the_other_sources_pass_at_all_dates(source: str) -> None:
    config = finflow.load("pretrain", [f"env={source}", *TINY])
    prices = load_prices(config.env)
    assert_passes(audited(prices, config, stage.DATES, stage.DEEP_DATES))


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught_and_named(
    name: str, csv_prices: Prices, csv_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate, check, subject = MUTANTS[name]
    mutate(monkeypatch)
    found = failed(audited(csv_prices, csv_config))
    assert subject in found.get(check, set()), found
    if name == "off by one":
        assert found["features"] == {"feature momentum_21"}
    if name == "full-sample scaler":
        assert "priors" not in found
        assert "features" not in found
