"""Figures of 1/N on a user's file, computed a second time with loops of its own from the file alone, to 1e-9."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finflow.config.compose import load
from finflow.data.build import build_market
from finflow.data.market import Window
from finflow.envs.ledger import Accounting
from finflow.evaluation.backtest import backtest, equal_weight_plan
from finflow.evaluation.metrics import track_metrics

SUN_THU = pd.offsets.CustomBusinessDay(weekmask="Sun Mon Tue Wed Thu")
ROWS = {"B": 760, "D": 1200, "W-FRI": 480, "ME": 300, "SunThu": 760}
YEARS = {"B": 252, "D": 365, "W-FRI": 52, "ME": 12, "SunThu": 252}
FILES = [
    ("B", "daily", "plain"), ("B", "weekly", "plain"), ("B", "monthly", "delisted"), ("B", "daily", "listed later"),
    ("B", "monthly", "cash"), ("D", "daily", "plain"), ("D", "weekly", "cash"), ("D", "monthly", "delisted"),
    ("W-FRI", "weekly", "plain"), ("W-FRI", "monthly", "listed later"), ("W-FRI", "daily", "cash"),
    ("ME", "monthly", "plain"), ("ME", "daily", "cash"), ("SunThu", "weekly", "delisted"),
]  # fmt: skip
COST, CASH = 15e-4, 0.04


def write(path: Path, frequency: str, quirk: str) -> None:
    rows = ROWS[frequency]
    days = pd.date_range("2001-01-05", periods=rows, freq=SUN_THU if frequency == "SunThu" else frequency)
    steps = np.random.default_rng(len(quirk) + rows).normal(5e-4, 0.015, (rows, 4))
    prices = pd.DataFrame(40 * np.exp(steps.cumsum(axis=0)), days, ["AA", "BB", "CC", "DD"])
    if quirk == "delisted":
        prices.iloc[rows - 60 :, 1] = np.nan
    if quirk == "listed later":
        prices.iloc[:40, 2] = np.nan
    prices.to_csv(path, index_label="Date")


def period(day: pd.Timestamp, rebalance: str, first: int) -> object:
    if rebalance == "monthly":
        return (day.year, day.month)
    if rebalance == "weekly":
        return (day - pd.Timestamp("1999-01-04") - pd.Timedelta(days=first)).days // 7  # which was a Monday
    return day


def simulate(path: Path, rebalance: str, year: int, start: int, cash: float, sunday: bool) -> dict[str, float]:
    """1/N by hand: decide at a close, earn the next return, pay for what is traded."""
    table = pd.read_csv(path, index_col=0, parse_dates=True)
    close, days = table.to_numpy(), list(table.index)
    rows, names = close.shape
    held, nets, turnovers = [0.0] * names + [1.0], [], []
    for t in range(start, rows - 1):
        moved = [
            sum(
                close[k, i] != close[k - 1, i]
                for k in range(1, t + 1)
                if close[k, i] == close[k, i] and close[k - 1, i] == close[k - 1, i]
            )
            for i in range(names)
        ]
        tradable = [i for i in range(names) if close[t, i] == close[t, i] and moved[i] >= year]
        first = -1 if sunday else 0
        decides = t == start or period(days[t], rebalance, first) != period(days[t + 1], rebalance, first)
        target = list(held)
        gone = [i for i in range(names) if close[t, i] != close[t, i] and held[i] > 0]
        if decides:
            target = [0.0] * names + [0.0 if tradable else 1.0]
            for i in tradable:
                target[i] = 1 / len(tradable)
        for i in gone:
            if not decides:
                target[names] += target[i]
                target[i] = 0.0
        turnover = sum(abs(target[i] - held[i]) for i in range(names))
        returns = []
        for i in range(names):
            both = close[t, i] == close[t, i] and close[t + 1, i] == close[t + 1, i]
            returns.append(close[t + 1, i] / close[t, i] - 1 if both else 0.0)
        returns.append((1 + cash) ** (1 / year) - 1)
        gross = sum(w * r for w, r in zip(target, returns, strict=True))
        nets.append((1 - COST * turnover) * (1 + gross) - 1)
        turnovers.append(turnover)
        held = [w * (1 + r) / (1 + gross) for w, r in zip(target, returns, strict=True)]
    count, wealth, peak, deepest = len(nets), 1.0, 1.0, 0.0
    for net in nets:
        wealth *= 1 + net
        peak = max(peak, wealth)
        deepest = max(deepest, 1 - wealth / peak)
    mean = sum(nets) / count
    deviation = math.sqrt(sum((net - mean) ** 2 for net in nets) / (count - 1))
    worst = sorted(nets)[: math.ceil(count / 20)]
    return {
        "annual_return": wealth ** (year / count) - 1,
        "volatility": deviation * math.sqrt(year),
        "sharpe": mean / deviation * math.sqrt(year),
        "max_drawdown": deepest,
        "turnover": sum(turnovers[1:]) / (count - 1) * year,
        "cvar95": -sum(worst) / len(worst),
    }


@pytest.mark.parametrize(("frequency", "rebalance", "quirk"), FILES)
def test_figures_are_those_of_the_file(frequency: str, rebalance: str, quirk: str, tmp_path: Path) -> None:
    path, year = tmp_path / "prices.csv", YEARS[frequency]
    write(path, frequency, quirk)
    cash = CASH if quirk == "cash" else 0.0
    words = ["env=csv", f"env.path='{path}'", f"env.rebalance={rebalance}", f"env.cash_yield={cash}"]
    env = load("pretrain", words).env
    market = build_market(env)
    start = len(market.dates) - 130
    window = Window(start + 1, len(market.dates))
    track = backtest(market, window, Accounting.of(env), {"1/N": equal_weight_plan(market)})["1/N"]
    found = track_metrics(track)
    expected = simulate(path, rebalance, year, start, cash, frequency == "SunThu")
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=0, abs=1e-9), name
