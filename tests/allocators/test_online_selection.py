"""Classical algorithms as baselines: the adapter, with a stand-in for universal-portfolios."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import get_args

import numpy as np
import pandas as pd
import pytest

import finflow
from finflow.allocators.baselines import _CLASS, online_selection_targets, require_online_selection
from finflow.data.market import ABSENT, Market
from finflow.errors import ConfigError
from finflow.evaluation.strategies import History
from finflow.evaluation.test_window_log import FILE_NAME
from finflow.schema import Config, OnlineSelection
from tests.allocators.conftest import market_of


class Follower:
    """Holds over a day, in proportion, what prices were at the close before; 1/N on the first day."""

    def run(self, prices: pd.DataFrame, log_progress: bool) -> SimpleNamespace:
        assert not log_progress
        before = prices.shift(1).fillna(1.0)
        return SimpleNamespace(B=before.div(before.sum(axis=1), axis=0))


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    algos = ModuleType("universal.algos")
    for name in _CLASS.values():
        setattr(algos, name, Follower)
    monkeypatch.setitem(sys.modules, "universal", ModuleType("universal"))
    monkeypatch.setitem(sys.modules, "universal.algos", algos)


@pytest.fixture
def market() -> Market:
    close = np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 1.0], [2.0, 4.0, np.nan], [2.0, 4.0, np.nan], [6.0, 4.0, np.nan]])
    return market_of(close)


def test_every_name_has_a_class_of_the_library() -> None:
    assert set(_CLASS) == set(get_args(OnlineSelection))


def test_a_row_is_decided_at_the_close_of_its_day(library: None, market: Market) -> None:
    targets = online_selection_targets(market, "olmar")
    assert targets.shape == (5, 4)
    np.testing.assert_allclose(targets[0], [1 / 3, 1 / 3, 1 / 3, 0])
    np.testing.assert_allclose(targets[1], [0.5, 0.25, 0.25, 0])
    np.testing.assert_allclose(targets[4], [0.6, 0.4, 0, 0])  # the last close decides too


def test_what_cannot_be_traded_goes_to_the_others_or_to_cash(library: None, market: Market) -> None:
    np.testing.assert_allclose(online_selection_targets(market, "eg")[2], [1 / 3, 2 / 3, 0, 0])
    status = market.status.copy()
    status[3, :-1] = ABSENT
    targets = online_selection_targets(replace(market, status=status), "eg")
    np.testing.assert_array_equal(targets[3], [0, 0, 0, 1])


def test_a_missing_library_is_refused_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    require_online_selection([])
    monkeypatch.setitem(sys.modules, "universal.algos", None)
    with pytest.raises(
        ConfigError, match=r"baselines=\[rmr\].*universal-portfolios is missing.*pip install universal-portfolios six"
    ):
        require_online_selection(["rmr"])


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.csv"
    steps = np.random.default_rng(3).normal(0.0003, 0.01, (1400, 3))
    table = pd.DataFrame(50 * np.exp(np.cumsum(steps, axis=0)), columns=["A", "B", "C"]).round(4)
    table.index = pd.Index(pd.bdate_range("2015-01-05", periods=1400).strftime("%Y-%m-%d"), name="date")
    table.to_csv(path)
    return path


def settings(prices: Path, root: Path) -> Config:
    return finflow.load(
        "judge",
        ["env=csv", f"env.path='{prices}'", f"output_root='{root}'", "evaluation.bootstrap_samples=200", "name=equal",
         "baselines=[olmar,pamr]"],
    )  # fmt: skip


def equal(history: History) -> list[float]:
    return [1 / 3, 1 / 3, 1 / 3, 0.0]


def test_they_stand_beside_the_baselines_of_a_report(library: None, prices: Path, tmp_path: Path) -> None:
    result = finflow.judge(equal, config=settings(prices, tmp_path / "out"))
    baselines = result.evaluation.baselines
    assert {"OLMAR", "PAMR", "buy and hold"} <= set(baselines)
    weights = baselines["OLMAR"].weights[:, :-1]
    close = pd.read_csv(prices, index_col=0)
    levels = (close / close.iloc[0]).to_numpy()[-len(weights) - 1 : -1]
    np.testing.assert_allclose(weights, levels / levels.sum(axis=1, keepdims=True), atol=1e-9)
    assert "OLMAR" in result.report.read_text()


def test_without_the_library_no_window_is_opened(monkeypatch: pytest.MonkeyPatch, prices: Path, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "universal.algos", None)
    with pytest.raises(ConfigError, match="universal-portfolios"):
        finflow.judge(equal, config=settings(prices, tmp_path / "out"))
    assert not list(tmp_path.rglob(FILE_NAME))


@pytest.mark.skipif(importlib.util.find_spec("universal") is None, reason="universal-portfolios is not installed")
def test_the_librarys_own_weights_are_causal() -> None:
    close = np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.02, (80, 4)), axis=0))
    changed = close.copy()
    changed[60:] *= [0.5, 1.0, 1.5, 2.0]
    for name in get_args(OnlineSelection):
        before, after = (online_selection_targets(market_of(prices), name) for prices in (close, changed))
        np.testing.assert_allclose(before[:60], after[:60], atol=1e-9)
        assert np.abs(before[60] - after[60]).max() > 1e-9, name
