"""A market without alpha: nothing is found there, unless something leaks; and what is planted elsewhere is found."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import finflow
from benchmarks.null_market import null_prices
from finflow.data.build import load_prices, market_of
from finflow.data.market import Fold, Market, Window, decision_days, make_fold
from finflow.envs.ledger import Accounting
from finflow.evaluation.audit.lookahead import Subject
from finflow.evaluation.backtest import Bootstrap, Plan, Strategy, backtest, equal_weight_plan, equal_weight_track
from finflow.evaluation.linear_tilt import tilt
from finflow.evaluation.verdict import verdict_of
from finflow.schema import Config
from finflow.seeding import numpy_stream
from finflow.stages.loaded_run import load_trained
from tests.shapes import gross_active_t

from .conftest import TINY, subject_of, write_prices
from .test_mutants import same_bar_return

COUNT, DAYS = 20, 560
WINDOW = Window(300, DAYS)
COSTS = Accounting(0.0015)
FREE = Accounting(0.0)


@pytest.fixture(scope="module")
def synthetic() -> tuple[Config, Market, Fold]:
    config = finflow.load("pretrain", ["env=synthetic", "env.synthetic.days=1400", "env.synthetic.assets=5",
                                       "env.synthetic.ic=0", *TINY])  # fmt: skip
    market = market_of(load_prices(config.env), config.env)
    return config, market, make_fold(market, config.env, "auto")


@pytest.fixture(scope="module")
def markets(synthetic: tuple[Config, Market, Fold]) -> list[Market]:
    config, market, fold = synthetic
    return [
        market_of(null_prices(market, fold.train, DAYS, numpy_stream(seed, "null market")), config.env)
        for seed in range(COUNT)
    ]


def verdicts(markets: list[Market], strategy: Callable[[Market], Strategy]) -> list[str]:
    """Outcome of each market against 1/N, daily or monthly, whichever did better: daily alone pays more than most."""
    outcomes: list[str] = []
    for seed, market in enumerate(markets):
        equal = equal_weight_plan(market)
        monthly = Plan(equal.targets, decision_days(market.dates, "monthly") | (np.arange(DAYS) == WINDOW.start - 1))
        plans = {"policy": strategy(market), "daily": equal, "monthly": monthly}
        tracks = backtest(market, WINDOW, COSTS, plans)
        opponents = {name: tracks[name] for name in ("daily", "monthly")}
        outcomes.append(verdict_of(tracks["policy"], opponents, Bootstrap(200, 21, seed)).outcome)
    return outcomes


def test_null_returns_keep_all_but_the_mean(synthetic: tuple[Config, Market, Fold]) -> None:
    _, market, fold = synthetic
    train = market.returns[fold.train.start : fold.train.stop, :-1]
    length = len(fold.train)
    prices = null_prices(market, fold.train, 2 * length + 1, numpy_stream(0, "test"))
    returns = prices.close[1:] / prices.close[:-1] - 1
    demeaned = train - train.mean(axis=0)
    for half in (returns[:length], returns[length:]):
        signs = np.sign(half / demeaned)
        assert (signs == signs[:, :1]).all(), "one sign a day, common to all names"
        np.testing.assert_allclose(half, signs * demeaned, rtol=0, atol=1e-14)
        assert abs(signs[:, 0].mean()) < 4 / length**0.5
    assert (np.sign(returns[:length, 0]) != np.sign(returns[length:, 0])).any(), "tossed anew on the second lap"


def test_a_name_without_all_its_train_prices_is_left_out(synthetic: tuple[Config, Market, Fold]) -> None:
    _, market, fold = synthetic
    close = market.close.copy()
    close[fold.train.start + 5, 1] = np.nan
    prices = null_prices(replace(market, close=close), fold.train, 100, numpy_stream(0, "test"))
    assert prices.tickers == tuple(name for name in market.assets[:-1] if name != market.assets[1])
    close[:, 1:] = np.nan
    with pytest.raises(ValueError, match="1 names with a price"):
        null_prices(replace(market, close=close), fold.train, 100, numpy_stream(0, "test"))


def test_an_untrained_network_beats_nothing(synthetic: tuple[Config, Market, Fold], markets: list[Market]) -> None:
    config = synthetic[0]
    subject, _, _ = subject_of(load_prices(config.env), config)

    def untrained(market: Market) -> Strategy:
        return subject.policy(market, subject.priors(market)).act

    assert verdicts(markets, untrained).count("BEATS") <= 1


def test_a_slight_tilt_off_equal_weight_beats_nothing(markets: list[Market]) -> None:
    def towards_the_first(market: Market) -> Strategy:
        return tilt(market, np.tile(np.arange(5.0), (DAYS, 1)), 0.1, 0.1)

    assert verdicts(markets, towards_the_first).count("BEATS") <= 1


def last_return(market: Market) -> np.ndarray:
    """[T, d] the day's return, in units of a percent."""
    return 100.0 * market.returns[:, :-1]


def pooled(values: list[float]) -> float:
    """One t statistic out of several independent ones."""
    return float(np.sum(values)) / len(values) ** 0.5


def reversal_t(markets: list[Market]) -> float:
    """Gross active t of buying what has risen today, over all markets together."""
    ratios: list[float] = []
    for market in markets:
        tracks = backtest(market, WINDOW, FREE, {
            "policy": tilt(market, last_return(market), 1.0, 1.0), "1/N": equal_weight_plan(market)
        })  # fmt: skip
        ratios.append(gross_active_t(tracks["policy"], tracks["1/N"]))
    return pooled(ratios)


def test_chasing_the_day_earns_nothing_and_a_same_bar_return_shows(
    markets: list[Market], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second way to catch the first mutant: in a null market only a leak pays."""
    assert abs(reversal_t(markets[:6])) < 3
    same_bar_return(monkeypatch)
    assert reversal_t(markets[:6]) > 20


def test_a_policy_trained_on_a_null_market_has_no_edge_on_others(
    synthetic: tuple[Config, Market, Fold], tmp_path: Path
) -> None:
    _, market, fold = synthetic
    close = null_prices(market, fold.train, 1250, numpy_stream(99, "null market")).close
    write_prices(tmp_path / "prices.csv", close)
    data = ["env=csv", f"env.path={tmp_path}/prices.csv", f"output_root={tmp_path}/out", *TINY]
    config = finflow.load("pretrain", [*data, "budget.updates_per_epoch=60"])
    finflow.pretrain(config)
    trained = load_trained(finflow.load("evaluate", [f"output_root={tmp_path}/out"]), "latest")
    prepared = trained.prepared
    test = prepared.fold.test
    own = backtest(prepared.market, test, FREE, {"policy": trained.policy.act})["policy"]
    ratios = [gross_active_t(own, equal_weight_track(prepared.market, test, FREE))]
    subject = Subject(
        prices=load_prices(config.env), env=config.env, actor=trained.policy.actor, scaling=prepared.scaling,
        accounting=FREE, reward=prepared.world.reward, device=prepared.world.device,
    )  # fmt: skip
    for seed in range(4):
        other = market_of(null_prices(market, fold.train, DAYS, numpy_stream(seed, "other")), config.env)
        plans = {"policy": subject.policy(other, subject.priors(other)).act, "1/N": equal_weight_plan(other)}
        tracks = backtest(other, WINDOW, FREE, plans)
        assert np.abs(tracks["policy"].weights - tracks["1/N"].weights).max() > 0.02, "it does hold views"
        ratios.append(gross_active_t(tracks["policy"], tracks["1/N"]))
    assert all(abs(ratio) < 3 for ratio in ratios), ratios
    assert abs(pooled(ratios)) < 3
