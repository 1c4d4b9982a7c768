from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from finflow.agents.iql import IQL
from finflow.agents.learner import GreedyPolicy
from finflow.evaluation.metrics import OBJECTIVES
from finflow.nn.actor import Decision
from finflow.stages.prepare import Prepared
from finflow.stages.run import Selection, Validator, summarise_episode


def _score(value: float | None) -> dict[str, float | None]:
    return {"validation_sharpe": value, "validation_active_information_ratio": 0.0}


def _set(agent: IQL, value: float) -> None:
    with torch.no_grad():
        agent.networks.critic.out_bias.fill_(value)


def _series(ratio: float, seed: int = 0) -> NDArray[np.float64]:
    """Days whose mean is `ratio` standard errors of 400 days above 0; the noise of two of one seed is the same."""
    noise = np.random.default_rng(seed).normal(0, 1, 400)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    return noise + ratio / 20


def test_selection_keeps_the_latest_that_is_clearly_above_the_hand_over(iql: IQL) -> None:
    """Not the best of all: 1 beats 0 by chance's measure, 2 does not, 3 does again, though less than 1."""
    base, noise = _series(1.0), _series(0.0, seed=1)
    candidates = [base, base + 0.2 * noise + 0.08, base + 0.2 * noise + 0.001, base + 0.2 * noise + 0.04]
    selection, kept = Selection(iql.networks, "active_ir"), []
    for step, series in enumerate(candidates):
        _set(iql, float(step))
        kept.append(selection.consider(step, _score(float(step)), series))
    assert kept == [True, True, False, True]
    assert selection.at == 3
    assert selection.score == _score(3.0)
    assert (selection.weights["critic.out_bias"] == 3).all()
    assert set(selection.weights) == set(iql.networks.state_dict())
    assert [score["validation_sharpe"] for score in selection.scores] == [0.0, 1.0, 2.0, 3.0]


def test_doubt_counts_in_favour_of_the_hand_over(iql: IQL) -> None:
    """Half a standard error above it is not enough, one and a half are."""
    for gain, taken in ((0.5, False), (1.5, True)):
        selection, base, noise = Selection(iql.networks, "active_ir"), _series(0.0), _series(gain, seed=1)
        assert selection.consider(0, _score(0.0), base)
        assert selection.consider(1, _score(9.0), base + 0.05 * noise) is taken


def test_selection_goes_on_from_where_it_was(iql: IQL) -> None:
    first, second = Selection(iql.networks, "sharpe"), Selection(iql.networks, "sharpe")
    base, noise = _series(1.0), _series(2.0, seed=1)
    first.consider(0, _score(0.5), base)
    second.load_state_dict(first.state_dict())
    for selection in (first, second):
        assert not selection.consider(1, _score(0.5), base - 0.1 * noise)
        assert selection.consider(2, _score(0.5), base + 0.1 * noise)
    assert first.at == second.at == 2


@pytest.mark.parametrize("objective", ["sharpe", "active_ir"])
def test_the_series_is_that_of_the_objective(iql: IQL, prepared: Prepared, objective: str) -> None:
    policy = GreedyPolicy(iql.networks.actor, prepared.world)
    validate = Validator(policy, prepared)
    score, series = validate(), validate.series(objective)
    assert score[OBJECTIVES[objective]] == pytest.approx(series.mean() / series.std(ddof=1) * 252**0.5)


def test_validation_says_how_alive_gate_and_experts_are(iql: IQL, prepared: Prepared) -> None:
    """A fresh gate is the same on every day, so it says nothing of the regime; one that reads it does."""
    policy = GreedyPolicy(iql.networks.actor, prepared.world)
    validate = Validator(policy, prepared)
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
        def decide(self, rows: NDArray[np.int64], *held: Any, **changed: Any) -> Decision:
            asked.append(rows)
            return super().decide(rows, *held, **changed)

    fold, market = prepared.fold, prepared.market
    policy = Spy(iql.networks.actor, prepared.world)
    first = Validator(policy, prepared)()
    rows = np.unique(np.concatenate(asked))
    assert set(rows.tolist()) <= set(fold.validation.decisions)
    assert len(rows) == len(fold.validation)
    wild = market.returns.copy()
    wild[fold.test.start :] = 0.5
    other = Validator(policy, replace(prepared, market=replace(market, returns=wild)))()
    assert other == first
    assert first["validation_sharpe"] is not None
    assert first["validation_gate_entropy"] == pytest.approx(np.log(6), rel=1e-5)


def test_episode_figures_by_hand() -> None:
    net, turnover = np.array([0.1, -0.05, 0.02]), np.array([1.0, 0.0, 0.5])
    figures = summarise_episode(net, turnover)
    assert figures["days"] == 3.0
    assert figures["return"] == pytest.approx(1.1 * 0.95 * 1.02 - 1)
    assert figures["turnover"] == 1.5
    assert figures["sharpe"] == pytest.approx(net.mean() / net.std(ddof=1) * np.sqrt(252), rel=1e-6)
    assert figures["cvar"] == pytest.approx(0.05)
    assert summarise_episode(np.zeros(3), turnover)["sharpe"] is None
