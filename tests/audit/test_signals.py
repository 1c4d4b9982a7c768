"""A user's signals under audit: honest ones pass; a loader that looks ahead and a signal made with the future fail."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import finflow
from finflow.data import series
from finflow.data.build import load_prices
from finflow.data.prices import Prices
from finflow.evaluation.audit.findings import Findings
from finflow.evaluation.audit.leakage import CHECK, SIGNALS, compare_foresight, perturb_signals
from finflow.schema import Config
from finflow.schema.sections import Env
from finflow.stages import audit as stage

from .conftest import TINY, subject_of

ROWS = np.array([100, 600, 1200])


def config_with(own_csv: Path, folder: Path, values: np.ndarray, lag: int = 1) -> Config:
    """A run's configuration with one signal `value` [T, names] on the days of the prices."""
    prices = pd.read_csv(own_csv, index_col=0)
    pd.DataFrame(values, index=prices.index, columns=prices.columns).to_csv(folder / "value.csv")
    own = [f"env.signals={folder}/value.csv", f"env.signals_lag={lag}"]
    return finflow.load("pretrain", ["env=csv", f"env.path={own_csv}", *own, *TINY])


def noise(own_csv: Path) -> np.ndarray:
    return np.random.default_rng(0).normal(size=pd.read_csv(own_csv, index_col=0).shape)


def tomorrow(own_csv: Path) -> np.ndarray:
    return pd.read_csv(own_csv, index_col=0).pct_change().shift(-1).to_numpy()


def found_in(config: Config) -> dict[str, list[str]]:
    prices, findings = load_prices(config.env), Findings()
    perturb_signals(findings, prices, config.env, ROWS, np.random.default_rng(0))
    _, market, fold = subject_of(prices, config)
    compare_foresight(findings, prices, market, fold, ["value"])
    return {check.name: [difference.line() for difference in check.differences] for check in findings.checks()}


@pytest.mark.parametrize("lag", [0, 1])
def test_an_honest_signal_passes(lag: int, own_csv: Path, tmp_path: Path) -> None:
    assert found_in(config_with(own_csv, tmp_path, noise(own_csv), lag)) == {SIGNALS: [], CHECK: []}


def test_a_loader_that_standardises_by_the_whole_file_is_named(
    own_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = series.add_signals

    def scaled(prices: Prices, env: Env) -> Prices:
        loaded = honest(prices, env)
        return replace(loaded, signals={name: v / np.nanstd(v) for name, v in loaded.signals.items()})

    config = config_with(own_csv, tmp_path, noise(own_csv))
    monkeypatch.setattr(series, "add_signals", scaled)
    found = found_in(config)[SIGNALS]
    assert "signal value of T0 on 2015-01-06 changes when the rows of signals after" in found[0]


def test_a_signal_that_is_tomorrows_return_is_named_unless_the_lag_makes_it_yesterdays(
    own_csv: Path, tmp_path: Path
) -> None:
    (line,) = found_in(config_with(own_csv, tmp_path, tomorrow(own_csv), lag=0))[CHECK]
    assert line.startswith("signal value on 20")
    assert "the next day's return does (rank correlation 1.00 on train days)" in line
    assert found_in(config_with(own_csv, tmp_path, tomorrow(own_csv), lag=1))[CHECK] == []


def test_the_audit_of_a_run_asks_the_signals_too(
    own_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "DATES", 6)
    monkeypatch.setattr(stage, "DEEP_DATES", 1)
    config = config_with(own_csv, tmp_path, noise(own_csv))
    finflow.pretrain(config.model_copy(update={"output_root": str(tmp_path / "out")}))
    result = finflow.audit(finflow.load("evaluate", ["audit=true", f"output_root={tmp_path}/out"]))
    assert {SIGNALS, CHECK} <= {check.name for check in result.checks}
    assert result.passed, result.line()
