import numpy as np
import pytest

from finflow.allocators.baselines import BASELINES, baseline_targets
from finflow.data.market import TRADABLE

COST = 0.001
TABLE = {  # 2018-22, monthly: Sharpe, CVaR95 %, drawdown %, two-way turnover a year after the first purchase
    "1/N": (0.90, 3.2, 32, 0.7),
    "buy and hold": (0.78, 3.5, 30, 0.0),
    "inverse volatility": (0.85, 3.0, 31, 0.6),
    "minimum variance": (0.68, 2.6, 25, 2.4),
    "maximum diversification": (1.04, 3.0, 26, 2.6),
    "equal risk contribution": (0.90, 3.0, 30, 0.7),
    "momentum 12-1 top 5": (0.86, 4.1, 35, 5.3),
}


def month_ends(dates):
    months = dates.astype("datetime64[M]")
    return np.flatnonzero(np.append(months[1:] != months[:-1], True))


@pytest.fixture(scope="module")
def years(sp500):
    """Rows of 2018-22 (start, stop) and the baselines decided at its month ends, the first before it starts."""
    start, stop = np.searchsorted(sp500.dates, np.array(["2018-01-01", "2023-01-01"], dtype="datetime64[D]"))
    ends = month_ends(sp500.dates)
    return start, stop, baseline_targets(sp500, ends[(ends >= start - 1) & (ends < stop - 1)])


def account(targets, returns, start, stop):
    """Net returns and turnovers of one strategy; NaN rows drift."""
    held, net, turnover = np.eye(returns.shape[1])[-1], [], []
    for t in range(start - 1, stop - 1):
        wanted = held if np.isnan(targets[t, 0]) else targets[t]
        traded = np.abs(wanted - held)[:-1].sum()
        gross = wanted @ returns[t + 1]
        net.append((1 - COST * traded) * (1 + gross) - 1)
        turnover.append(traded)
        held = wanted * (1 + returns[t + 1]) / (1 + gross)
    return np.array(net), np.array(turnover)


@pytest.mark.parametrize("name", TABLE)
def test_published_table_is_reproduced_to_rounding(sp500, years, name):
    start, stop, targets = years
    net, turnover = account(targets[name], sp500.returns, start, stop)
    worst = np.sort(net)[: int(np.ceil(0.05 * len(net)))]
    nav = np.cumprod(np.append(1, 1 + net))
    sharpe, cvar, drawdown, traded = TABLE[name]
    assert net.mean() / net.std(ddof=1) * np.sqrt(252) == pytest.approx(sharpe, abs=0.006)
    assert -100 * worst.mean() == pytest.approx(cvar, abs=0.06)
    assert 100 * (1 - nav / np.maximum.accumulate(nav)).max() == pytest.approx(drawdown, abs=0.6)
    assert turnover[1:].sum() * 252 / len(net) == pytest.approx(traded, abs=0.06)


def test_only_the_rows_asked_for_are_filled_with_portfolios(gappy):
    rows = np.array([100, 350, 520, 695])
    targets = baseline_targets(gappy, rows)
    assert tuple(targets) == BASELINES
    for name, weights in targets.items():
        filled = rows[:1] if name == "buy and hold" else rows
        assert np.flatnonzero(np.isfinite(weights).all(axis=1)).tolist() == filled.tolist()
        assert np.isnan(np.delete(weights, filled, axis=0)).all()
        assert (weights[filled] >= 0).all()
        np.testing.assert_allclose(weights[filled].sum(axis=1), 1, atol=1e-12)
        assert (weights[filled][gappy.status[filled] != TRADABLE] == 0).all()
    assert targets["1/N"][100].tolist() == [0.2, 0, 0.2, 0.2, 0.2, 0.2, 0]
    assert (targets["buy and hold"][100] == targets["1/N"][100]).all()
    assert targets["minimum variance"][100, -1] == 1  # no name has a year behind it: cash


def test_targets_do_not_depend_on_the_other_rows(sp500):
    rows = np.array([3000, 5000, 7000])
    together = baseline_targets(sp500, rows)
    for name in set(BASELINES) - {"buy and hold"}:
        assert (baseline_targets(sp500, rows[1:2])[name][5000] == together[name][5000]).all()
