"""The reward's terms by hand, and the constants that are fitted on train rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from finflow.config.compose import load
from finflow.data.market import Market, Window
from finflow.envs.ledger import RUIN, RewardModel, fit_reward

MODEL = RewardModel(scale=200.0, tail_threshold=0.02, lambda_cvar=5.0, lambda_turn=0.1, lambda_dd=3.0, lambda_risk=0.4)


def terms(net: Any, turnover: Any = 0.0, benchmark: Any = 0.0, drawdown: Any = 0.0) -> tuple[dict[str, Any], Any]:
    raw = net, turnover, np.log1p(benchmark), drawdown
    columns = [np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in raw]
    return MODEL.components(*columns)


def test_a_bad_day_by_hand() -> None:
    found, after = terms(-0.03, 0.4, -0.01, 0.05)
    loss = -np.log(0.97)
    assert_allclose(found["active"], 200 * (np.log(0.97) - np.log(0.99)), rtol=1e-14)
    assert_allclose(found["risk"], -0.2 * (200 * (np.log(0.97) - np.log(0.99))) ** 2, rtol=1e-13)
    assert_allclose(found["tail"], -5 * (loss - 0.02), rtol=1e-13)
    assert_allclose(found["turnover"], -0.04, rtol=1e-14)
    assert_allclose(found["drawdown"], -3 * loss, rtol=1e-13)
    assert_allclose(after, 0.05 + loss, rtol=1e-14)


def test_the_tail_is_silent_up_to_the_threshold() -> None:
    found, _ = terms([0.05, 0.0, -0.01, np.expm1(-0.02) + 1e-12, np.expm1(-0.02) - 1e-9])
    assert (found["tail"][:4] == 0).all()
    assert found["tail"][4] < 0


def test_the_tail_is_the_portfolios_own_loss_whatever_the_benchmark_did() -> None:
    found, _ = terms([-0.05, -0.05, 0.01], benchmark=[-0.20, 0.05, -0.20])
    assert found["tail"][0] == found["tail"][1] < 0 == found["tail"][2]


def test_only_new_drawdown_is_charged() -> None:
    rise, after = terms(0.01, drawdown=0.05)
    assert rise["drawdown"] == 0
    assert_allclose(after, 0.05 - np.log(1.01), rtol=1e-14)
    peak, after = terms(0.10, drawdown=0.05)
    assert peak["drawdown"] == after == 0


def test_drawdown_without_a_weight_is_followed_and_costs_nothing() -> None:
    columns = [np.array(c) for c in ([-0.03, 0.01], [0.4, 0.0], [0.0, 0.0], [0.05, 0.05])]
    weighted, after = MODEL.components(*columns)
    free, after_free = replace(MODEL, lambda_dd=0.0).components(*columns)
    assert (free.pop("drawdown") == 0).all()
    assert (weighted.pop("drawdown") < 0).tolist() == [True, False]
    np.testing.assert_equal((free, after_free), (weighted, after))


def test_drawdown_follows_the_nav() -> None:
    rng = np.random.default_rng(0)
    nav, drawdown = [1.0], np.zeros(1)
    for net in rng.normal(0, 0.03, 300):
        _, drawdown = terms(net, drawdown=drawdown)
        nav.append(nav[-1] * (1 + net))
        assert_allclose(drawdown[0], np.log(max(nav) / nav[-1]), rtol=0, atol=1e-12)


def test_keeping_up_with_the_benchmark_earns_nothing() -> None:
    found, _ = terms([0.013, -0.004], benchmark=[0.013, -0.004])
    assert_allclose(found["active"], 0.0, rtol=0, atol=1e-12)


def test_ruin_is_finite() -> None:
    found, after = terms([-1.0, -1.5])
    assert_allclose(found["active"], 200 * np.log(RUIN), rtol=1e-14)
    assert np.isfinite(after).all()


@pytest.mark.parametrize("name", ["active", "risk", "tail", "turnover", "drawdown"])
def test_torch_gives_the_same_terms(name: str) -> None:
    rng = np.random.default_rng(1)
    columns = rng.normal(0, 0.04, 500), rng.uniform(0, 2, 500), rng.normal(0, 0.02, 500), rng.exponential(0.1, 500)
    here, after = MODEL.components(*columns)
    there, after_there = MODEL.components(*(torch.from_numpy(c) for c in columns))
    assert_allclose(there[name].numpy(), here[name], rtol=1e-13, atol=1e-15)
    assert_allclose(after_there.numpy(), after, rtol=1e-13, atol=1e-15)


def test_constants_in_closed_form(lively: Market, priors: NDArray[np.float64], train: Window) -> None:
    weights = load("pretrain", ["reward.lambda_dd=0.5", "reward.lambda_risk=0.2", "market_regime=volatile"]).reward
    model = fit_reward(lively, priors, train, weights)
    active, losses = [], []
    for row in range(train.start, train.stop):  # rows of returns; the decision was taken the day before
        losses.append(-np.log(1 + lively.benchmark[row]))
        for k in range(priors.shape[1] - 1):  # the last is the benchmark's own
            growth = 1 + sum(priors[row - 1, k, i] * lively.returns[row, i] for i in range(lively.n))
            active.append(np.log(growth) - np.log(1 + lively.benchmark[row]))
    assert_allclose(model.scale, 1 / np.std(active), rtol=1e-12)
    ordered = np.sort(losses)
    position = 0.95 * (len(ordered) - 1)
    low = int(position)
    assert_allclose(
        model.tail_threshold, ordered[low] + (position - low) * (ordered[low + 1] - ordered[low]), rtol=1e-12
    )
    assert (model.lambda_cvar, model.lambda_turn, model.lambda_dd, model.lambda_risk) == (10.0, 0.5, 0.5, 0.2)
    assert set(model.to_dict()) == {"scale", "tail_threshold", "lambda_cvar", "lambda_turn", "lambda_dd", "lambda_risk"}


def test_one_day_in_twenty_of_the_benchmark_lies_in_the_tail(
    lively: Market, priors: NDArray[np.float64], train: Window
) -> None:
    model = fit_reward(lively, priors, train, load("pretrain").reward)
    net = lively.benchmark[train.start : train.stop]
    found, _ = model.components(net, np.zeros_like(net), np.log1p(net), np.zeros_like(net))
    assert_allclose((found["tail"] < 0).mean(), 0.05, rtol=0, atol=0.003)


def test_rows_outside_the_training_window_are_never_looked_at(
    lively: Market, priors: NDArray[np.float64], train: Window
) -> None:
    weights = load("pretrain").reward
    fitted = fit_reward(lively, priors, train, weights)
    inside = np.zeros(len(lively.dates), dtype=np.bool_)
    inside[train.start : train.stop] = True
    noise = np.random.default_rng(2).normal(0, 0.3, lively.returns.shape)
    other = replace(
        lively,
        returns=np.where(inside[:, None], lively.returns, noise),
        benchmark=np.where(inside, lively.benchmark, noise[:, 0]),
    )
    decided = np.roll(inside, -1)
    portfolios = np.where(decided[:, None, None], priors, priors[::-1])
    assert fit_reward(other, portfolios, train, weights) == fitted
    moved = replace(lively, returns=np.where(inside[:, None], noise, lively.returns))
    assert fit_reward(moved, priors, train, weights) != fitted
