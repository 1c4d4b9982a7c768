"""The smallest change that flips a decision: exact for a linear gate, verified on networks."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from finflow.agents.learner import GreedyPolicy
from finflow.data.market import REGIMES
from finflow.explanations.counterfactual import Search, leader_margin, leaders_by_regime, trade_margin
from finflow.explanations.decision_trace import DecisionTrace, Subject

from .conftest import Linear, spread_places

PLACE = 5


def searched(scene: DecisionTrace, actor: Linear) -> Search:
    found = Search(scene.subject, scene.state_at(PLACE))
    found._actor = actor  # type: ignore[assignment]
    return found


def test_a_linear_gate_has_known_answers(scene: DecisionTrace, linear: Callable[..., Linear]) -> None:
    """Score a x + b y + c: the boundary is |score| / max(|a|, |b|) away along an axis, |score| / hypot(a, b) in all."""
    state = scene.state_at(PLACE)
    a, b = 2.0, -1.0
    actor = linear([("market", (0,), a), ("assets", (1, 2), b), ("priors", (0, 0), 4.0)])
    score = float(actor(state).rate[0])
    flip = searched(scene, actor).flip("?", leader_margin(0 if score > 0 else 1))
    assert flip.single is not None
    assert flip.joint is not None
    assert flip.single.label == scene.subject.spec.market_features[0]
    assert flip.single.before == pytest.approx(float(state.market[0, 0]))
    assert flip.single.size == pytest.approx(abs(score) / abs(a), abs=1e-3)
    assert flip.joint == pytest.approx(abs(score) / np.hypot(a, b), rel=0.05)
    assert flip.joint >= abs(score) / np.hypot(a, b) - 1e-4
    assert flip.parts[0].label == flip.single.label


def test_out_of_bounds_is_said(scene: DecisionTrace, linear: Callable[..., Linear]) -> None:
    """A boundary that lies beyond +-5 is not reached, nor is one that no feature moves."""
    far = linear([("market", (0,), 0.01), ("priors", (0, 0), 1e3)])
    flip = searched(scene, far).flip("?", leader_margin(0))
    assert (flip.single, flip.joint, flip.parts) == (None, None, ())
    fixed = linear([("priors", (0, 0), 1e3)])
    flip = searched(scene, fixed).flip("?", leader_margin(0))
    assert (flip.single, flip.joint) == (None, None)


def again(search: Search, moves: dict[str, float]) -> torch.Tensor:
    point, labels = search.start.clone(), [one.label for one in search.inputs]
    for label, value in moves.items():
        point[labels.index(label)] = value
    return point[None]


@torch.no_grad()
def test_every_flip_is_one(scene: DecisionTrace) -> None:
    """Made again from scratch, a single move flips the decision, and nine tenths of it do not."""
    subject, flipped = scene.subject, 0
    for place in spread_places(scene, 8):
        search = Search(subject, scene.state_at(place))
        change = (scene.target[place] - scene.track.drifted[place])[:-1]
        focus = int(np.abs(change).argmax())
        held = float(scene.track.drifted[place, focus])
        leader = int(scene.gate[place].argmax())
        for margin in (leader_margin(leader), trade_margin(focus, held, bool(change[focus] > 0))):
            assert float(search.margin(search.start[None], margin)[0]) > 0
            flip = search.flip("?", margin)
            if flip.single is None:
                continue
            flipped += 1
            move = flip.single
            assert abs(move.after) <= 5.0
            assert float(search.margin(again(search, {move.label: move.after}), margin)[0]) < 0
            near = move.before + 0.9 * (move.after - move.before)
            assert float(search.margin(again(search, {move.label: near}), margin)[0]) > 0
            assert flip.joint is None or flip.joint < 1.5 * move.size + 1e-3
    assert flipped >= 6


def test_the_single_move_is_the_smallest_of_a_scan(scene: DecisionTrace) -> None:
    """No other input flips the gate within nine tenths of the distance, on a fine grid of every axis."""
    for place in spread_places(scene, 20):
        search, leader = Search(scene.subject, scene.state_at(place)), int(scene.gate[place].argmax())
        flip = search.flip("?", leader_margin(leader))
        if flip.single is not None:
            break
    assert flip.single is not None
    reach = 0.9 * flip.single.size
    for place in range(len(search.inputs)):
        points = search.start.repeat(41, 1)
        points[:, place] = (points[:, place] + torch.linspace(-reach, reach, 41)).clamp(-5, 5)
        with torch.no_grad():
            assert bool((search.margin(points, leader_margin(leader)) > 0).all())


def test_untradable_names_do_not_move(scene: DecisionTrace, subject: Subject) -> None:
    state = scene.state_at(PLACE)
    barred = state.tradable.clone()
    barred[0, 1] = False
    names = {one.asset for one in Search(subject, state._replace(tradable=barred)).inputs}
    assert names == {None, *(name for i, name in enumerate(subject.assets[:-1]) if i != 1)}


def test_leaders_by_regime_put_one_label_in_place_of_another(scene: DecisionTrace, subject: Subject) -> None:
    found = leaders_by_regime(subject, scene.state_at(PLACE))
    assert list(found) == list(REGIMES)
    label = REGIMES[int(subject.market.regime[scene.rows[PLACE]])]
    assert found[label] == subject.spec.experts[int(scene.gate[PLACE].argmax())]


def test_a_gate_on_the_label_alone_follows_it(
    scene: DecisionTrace, subject: Subject, linear: Callable[..., Linear]
) -> None:
    column = subject.spec.market_features.index("regime:crisis")
    state = scene.state_at(PLACE)
    actor = linear([("market", (column,), 8.0), ("priors", (0, 0), 0.0)])
    actor.market[subject.spec.market_features.index("regime:stable")] = -8.0
    policy = GreedyPolicy(actor, subject.world)  # type: ignore[arg-type]
    found = leaders_by_regime(replace(subject, policy=policy), state)
    first, second = subject.spec.experts[:2]
    assert found["crisis"] == first
    assert found["stable"] == second
