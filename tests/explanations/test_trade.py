"""A trade is the sum of what the experts asked for and what the desk's rules made of it, exactly."""

from types import SimpleNamespace

import numpy as np
import pytest

from finflow.errors import StorageError
from finflow.explanations.decision import trade_parts
from finflow.explanations.decision_trace import DecisionTrace, Subject, make_scene

from .conftest import MakeScene, MakeSubject


def test_parts_sum_to_the_trade(scene: DecisionTrace) -> None:
    parts, track = trade_parts(scene), scene.track
    np.testing.assert_allclose(parts.experts.sum(1) + parts.execution, track.weights - track.drifted, atol=1e-15)
    assert np.abs((parts.experts.sum(1) + parts.execution)[1:]).max() > 1e-3
    assert np.abs(parts.execution).max() < 1e-6  # no rule binds: float32 alone
    np.testing.assert_allclose(parts.experts.sum((1, 2)), 0.0, atol=1e-6)  # what is bought is paid for


def test_the_first_purchase_is_the_whole_aim(scene: DecisionTrace) -> None:
    assert scene.rate[0] == 1.0
    np.testing.assert_allclose(scene.target[0], scene.aim[0])
    assert (scene.rate[1:] < 1.0).all()
    np.testing.assert_allclose(scene.track.weights[0], scene.aim[0], atol=1e-6)


def test_by_hand() -> None:
    experts = np.array([[[0.6, 0.4], [0.2, 0.8]]])
    track = SimpleNamespace(drifted=np.array([[0.5, 0.5]]), weights=np.array([[0.5, 0.5]]))
    scene = SimpleNamespace(gate=np.array([[0.75, 0.25]]), experts=experts, rate=np.array([0.1]), track=track)
    np.testing.assert_allclose(trade_parts(scene).experts[0], [[0.0075, -0.0075], [-0.0075, 0.0075]])


def test_what_a_cap_takes_stands_under_execution(make_subject: MakeSubject, make_track_scene: MakeScene) -> None:
    cap = 0.15
    scene = make_track_scene(make_subject(max_weight=cap))
    parts = trade_parts(scene)
    bound = scene.target[:, :-1] > cap + 1e-6
    assert bound.any()
    np.testing.assert_allclose(parts.execution[:, :-1][bound], cap - scene.target[:, :-1][bound], atol=1e-6)
    np.testing.assert_allclose(
        parts.experts.sum(1) + parts.execution, scene.track.weights - scene.track.drifted, atol=1e-15
    )


def test_a_track_of_other_weights_is_refused(scene: DecisionTrace, make_subject: MakeSubject, subject: Subject) -> None:
    with pytest.raises(StorageError, match="from the stored one; evaluate again"):
        make_scene(make_subject(1), scene.window, scene.track)
    with pytest.raises(StorageError, match="days are not those"):
        make_scene(subject, subject.fold.train, scene.track)
