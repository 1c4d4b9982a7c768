"""What stands around a decision: tail risk by name, how usual the day was, and what else could have been done."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from finflow.envs.ledger import execute, traded
from finflow.evaluation.metrics import cvar
from finflow.explanations.card import outcome
from finflow.explanations.decision import DAYS, alternatives, tail
from finflow.explanations.decision_trace import DecisionTrace, Subject
from finflow.explanations.novelty import APART, TrainDays
from finflow.explanations.value_distribution import critic_atoms, value_distribution
from finflow.losses import lower_mean

from .conftest import spread_places

PLACE = 9


def test_parts_of_the_tail_sum_to_it_and_are_its_slope(scene: DecisionTrace) -> None:
    market, row, weights = scene.subject.market, int(scene.rows[PLACE]), scene.track.weights[PLACE]
    found = tail(market, row, weights, scene.track.drifted[PLACE])
    history = market.returns[row + 1 - DAYS : row + 1]
    assert found.cvar == pytest.approx(cvar(history @ weights, 0.05), abs=1e-15)
    assert found.cvar_before == pytest.approx(cvar(history @ scene.track.drifted[PLACE], 0.05), abs=1e-15)
    assert sum(found.parts) == pytest.approx(found.cvar, abs=1e-15)
    step = 1e-7
    for i in range(3):
        nudge = np.eye(len(weights))[i] * step
        slope = (cvar(history @ (weights + nudge), 0.05) - cvar(history @ (weights - nudge), 0.05)) / (2 * step)
        assert found.marginal[i] == pytest.approx(slope, rel=1e-4)


def test_the_tail_knows_nothing_of_later_days(scene: DecisionTrace) -> None:
    market, row = scene.subject.market, int(scene.rows[PLACE])
    later = market.returns.copy()
    later[row + 1 :] *= -7.0
    weights, before = scene.track.weights[PLACE], scene.track.drifted[PLACE]
    assert tail(replace(market, returns=later), row, weights, before) == tail(market, row, weights, before)


def test_train_days_are_usual_and_an_odd_day_is_not(subject: Subject) -> None:
    days = TrainDays(subject)
    rows = list(subject.fold.train.decisions)[60:-1:9]
    ranks = [days.novelty(row).percentile for row in rows]
    assert np.mean(ranks) == pytest.approx(50.0, abs=8.0)
    odd = subject.world.market.clone()
    odd[rows[5], 0] = 30.0
    strange = TrainDays(replace(subject, world=replace(subject.world, market=odd)))
    strange._mean, strange._std, strange._axes = days._mean, days._std, days._axes
    found = strange.novelty(rows[5])
    assert found.percentile == 100.0
    assert found.unusual[0][0] == subject.spec.market_features[0]


def test_nearest_days_are_apart_and_their_distance_is_a_distance(subject: Subject) -> None:
    days, row = TrainDays(subject), subject.fold.validation.start + 3
    found = days.novelty(row)
    near = np.array([np.datetime64(day) for day in found.nearest])
    places = np.searchsorted(subject.market.dates, near)
    assert len(places) == 3
    assert np.diff(np.sort(places)).min() > APART
    points = days._whitened(days._points(np.append(days._rows, row)))
    straight = np.sort(np.linalg.norm(points[:-1] - points[-1], axis=1))
    assert found.distance == pytest.approx(straight[:10].mean(), rel=1e-9)


def test_a_train_day_is_not_its_own_neighbour(subject: Subject) -> None:
    row = list(subject.fold.train.decisions)[200]
    near = [np.datetime64(day) for day in TrainDays(subject).novelty(row).nearest]
    assert np.abs(np.searchsorted(subject.market.dates, near) - row).min() > APART


def test_alternatives_go_through_the_same_ledger(scene: DecisionTrace) -> None:
    found = {one.name: one for one in alternatives(scene, PLACE)}
    track, market = scene.track, scene.subject.market
    assert list(found) == ["policy", *scene.subject.spec.experts, "1/N", "hold"]
    assert found["policy"].turnover == pytest.approx(track.turnover[PLACE], abs=1e-15)
    assert found["policy"].cost == pytest.approx(track.cost[PLACE], abs=1e-15)
    assert found["hold"].turnover == 0.0
    np.testing.assert_allclose(found["hold"].weights, track.drifted[PLACE])
    held, rate, k = track.drifted[PLACE], scene.rate[PLACE], 2
    alone = held + rate * (scene.experts[PLACE, k] - held)
    status = market.status[scene.rows[PLACE]]
    executed = execute(alone, held, status, np.array(True), scene.subject.world.accounting)
    np.testing.assert_allclose(found[scene.subject.spec.experts[k]].weights, executed, atol=1e-12)
    count = market.n - 1
    np.testing.assert_allclose(found["1/N"].weights, [1 / count] * count + [0.0], atol=1e-12)
    assert found["1/N"].turnover == pytest.approx(float(traded(np.full(count + 1, 1 / count), held)), abs=1e-12)
    atoms = critic_atoms(scene.subject, scene.state_at(PLACE), np.array(found["1/N"].weights)[None])
    own = critic_atoms(scene.subject, scene.state_at(PLACE), track.weights[PLACE][None])
    assert found["1/N"].advantage == pytest.approx(atoms.mean() - own.mean(), abs=1e-5)


def test_held_returns_by_hand(scene: DecisionTrace) -> None:
    found = outcome(scene, PLACE, alternatives(scene, PLACE))
    assert found is not None
    weights, returns = scene.track.weights[PLACE], scene.subject.market.returns
    row = int(scene.rows[PLACE])
    nav, held = 1.0, weights.copy()
    for day in range(found.days):
        nav *= 1.0 + held @ returns[row + 1 + day]
        held = held * (1 + returns[row + 1 + day]) / (1 + held @ returns[row + 1 + day])
    assert found.alternatives["policy"][1] == pytest.approx(nav - 1.0, abs=1e-14)


def test_the_value_distribution_is_that_of_the_lower_twin(scene: DecisionTrace) -> None:
    found = value_distribution(scene, PLACE)
    state, critic = scene.state_at(PLACE), scene.subject.critics[0]
    weights = state.drifted.new_tensor(scene.track.weights[PLACE][None, None]).float()
    with torch.no_grad():  # as the forecast does: with gradients other kernels round otherwise
        twins = critic.atoms(critic.embed(state), weights)
    np.testing.assert_allclose(found.mean, float(twins.mean(-1).amin()), rtol=1e-5)
    np.testing.assert_allclose(found.atoms, np.sort(lower_mean(twins)[0, 0].numpy()), rtol=1e-6)
    low, middle, high = found.quantiles.values()
    assert found.atoms[1] <= low <= found.atoms[2]  # 5 % lies between the atoms at 4.7 % and 7.8 %
    assert middle == pytest.approx((found.atoms[15] + found.atoms[16]) / 2)
    assert found.atoms[-3] <= high <= found.atoms[-2]


def test_atoms_of_a_whole_window_are_those_of_its_days(scene: DecisionTrace) -> None:
    whole = critic_atoms(scene.subject, scene.state, scene.track.weights)
    for place in spread_places(scene, 3):
        one = critic_atoms(scene.subject, scene.state_at(place), scene.track.weights[place : place + 1])
        np.testing.assert_allclose(whole[place], one[0], rtol=1e-4, atol=1e-4)
