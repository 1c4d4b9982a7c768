from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from finflow.agents.greedy import GreedyPolicy
from finflow.agents.iql import IQL
from finflow.stages.prepare import Prepared
from finflow.stages.validation import Selection, Validator, summarise_episode


def _score(value: float | None) -> dict[str, float | None]:
    return {"validation_sharpe": value, "validation_active_information_ratio": 0.0}


def _set(agent: IQL, value: float) -> None:
    with torch.no_grad():
        agent.networks.critic.out_bias.fill_(value)


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([0.5, 0.7, 0.6], 1),
        ([0.5, 0.5, 0.5], 0),
        ([None, -1.0, None], 1),
        ([-2.0, None], 0),
        ([None, None], 0),
        ([0.1, 0.9, 0.9], 1),
    ],
)
def test_selection_keeps_the_first_best_weights(iql: IQL, scores: list[float | None], kept: int) -> None:
    selection = Selection(iql.networks, "sharpe")
    for step, score in enumerate(scores):
        _set(iql, float(step))
        selection.consider(step, _score(score))
    assert selection.at == kept
    assert selection.score == _score(scores[kept])
    assert (selection.weights["critic.out_bias"] == kept).all()
    assert set(selection.weights) == set(iql.networks.state_dict())


def test_selection_by_active_information_ratio(iql: IQL) -> None:
    selection = Selection(iql.networks, "active_ir")
    assert selection.consider(0, {"validation_sharpe": 9.0, "validation_active_information_ratio": -1.0})
    assert selection.consider(1, {"validation_sharpe": -9.0, "validation_active_information_ratio": 0.5})
    assert not selection.consider(2, {"validation_sharpe": 9.0, "validation_active_information_ratio": 0.4})


def test_validation_says_how_alive_gate_and_experts_are(iql: IQL, prepared: Prepared) -> None:
    """A fresh gate is the same on every day, so it says nothing of the regime; one that reads it does."""
    policy = GreedyPolicy(iql.networks.actor, prepared.world)
    validate = Validator(policy, prepared.market, prepared.fold, prepared.accounting, "daily")
    fresh = validate()
    assert {"validation_gate_entropy", "validation_expert_distance"} <= set(fresh)
    assert fresh["validation_gate_regime_information"] == pytest.approx(0.0, abs=1e-9)
    with torch.no_grad():
        iql.networks.actor.gate[2].weight.normal_(std=3.0, generator=torch.Generator().manual_seed(0))
    assert (validate()["validation_gate_regime_information"] or 0.0) > 0.01


def test_validation_looks_at_validation_rows_alone(iql: IQL, prepared: Prepared) -> None:
    """The policy decides on these rows, and returns of the test window may be anything."""
    asked: list[NDArray[np.int64]] = []

    class Spy(GreedyPolicy):
        def decide(self, rows: NDArray[np.int64], drifted: object, drawdown: object) -> object:  # type: ignore[override]
            asked.append(rows)
            return super().decide(rows, drifted, drawdown)  # type: ignore[arg-type]

    fold, market = prepared.fold, prepared.market
    policy = Spy(iql.networks.actor, prepared.world)
    first = Validator(policy, market, fold, prepared.accounting, "monthly")()
    rows = np.unique(np.concatenate(asked))
    assert set(rows.tolist()) <= set(fold.validation.decisions)
    assert len(rows) == len(fold.validation)
    wild = market.returns.copy()
    wild[fold.test.start :] = 0.5
    other = Validator(policy, replace(market, returns=wild), fold, prepared.accounting, "monthly")()
    assert other == first
    assert first["validation_sharpe"] is not None
    assert first["validation_gate_entropy"] == pytest.approx(np.log(5), rel=1e-5)


def test_episode_figures_by_hand() -> None:
    net, turnover = np.array([0.1, -0.05, 0.02]), np.array([1.0, 0.0, 0.5])
    figures = summarise_episode(net, turnover)
    assert figures["days"] == 3.0
    assert figures["return"] == pytest.approx(1.1 * 0.95 * 1.02 - 1)
    assert figures["turnover"] == 1.5
    assert figures["sharpe"] == pytest.approx(net.mean() / net.std(ddof=1) * np.sqrt(252), rel=1e-6)
    assert figures["cvar"] == pytest.approx(0.05)
    assert summarise_episode(np.zeros(3), turnover)["sharpe"] is None
