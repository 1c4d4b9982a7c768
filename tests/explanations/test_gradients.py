"""Integrated gradients: known answers, completeness, and that they describe the network that decided."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from finflow.envs.simulator import State
from finflow.explanations.attribution import REGIME, Attribution, Input, average_day, integrated_gradients, named_inputs
from finflow.explanations.decision_trace import DecisionTrace, Subject

from .conftest import Linear, MakeSubject, spread_places

PLACE = 5


def attribution(
    scene: DecisionTrace, place: int = PLACE, actor: object = None, asset: int | None = None
) -> Attribution:
    change = np.abs(scene.target[place] - scene.track.drifted[place])[:-1]
    focus = int(change.argmax()) if asset is None else asset
    network = actor or scene.subject.actor
    return integrated_gradients(network, scene.subject, scene.state_at(place), lambda d: d.mean[:, focus])  # type: ignore[arg-type]


def test_linear_shares_are_coefficient_times_distance(
    scene: DecisionTrace, subject: Subject, linear: Callable[..., Linear]
) -> None:
    actor = linear([("assets", (1, 2), 0.3), ("market", (0,), -0.2), ("priors", (3, 0), 0.5)])
    found, state = attribution(scene, actor=actor), scene.state_at(PLACE)
    average = average_day(subject, state)
    names = [one.label for one in found.inputs]
    shares = dict(zip(names, found.shares.tolist(), strict=True))
    wanted = {
        f"{subject.assets[1]} {subject.spec.features[2]}": 0.3 * float(state.assets[0, 1, 2]),
        subject.spec.market_features[0]: -0.2 * float(state.market[0, 0]),
        f"prior:{subject.spec.experts[3]}": 0.5 * float(state.priors[0, 3, 0] - average.priors[0, 3, 0]),
    }
    assert {name: share for name, share in shares.items() if share != 0.0} == pytest.approx(wanted, abs=1e-7)
    assert found.residual == pytest.approx(0.0, abs=1e-6)


def test_a_kink_costs_steps_not_completeness(
    scene: DecisionTrace, subject: Subject, linear: Callable[..., Linear]
) -> None:
    """relu(a x + b y) from x = y = 0 changes slope nowhere but at the start unless a third input moves the kink."""
    state = scene.state_at(PLACE)
    value = float(state.assets[0, 0, 0])
    actor = linear([("assets", (0, 0), 1.0 / value), ("priors", (0, 0), 3.0)], kink=True)
    actor.priors[0, 1] = -2.7  # the average day stands on the flat side
    found = attribution(scene, actor=actor)
    assert abs(found.residual) < 1e-4


def test_completeness_over_a_window(scene: DecisionTrace) -> None:
    found = [attribution(scene, place) for place in spread_places(scene, 25)]
    assert max(abs(one.residual) for one in found) < 1e-4
    assert max(abs(one.residual) / np.abs(one.shares).sum() for one in found) < 1e-3
    for one in found:
        assert one.value == pytest.approx(one.average + one.shares.sum() + one.residual, abs=1e-12)


def test_an_average_day_has_nothing_to_explain(scene: DecisionTrace, subject: Subject) -> None:
    state = average_day(subject, scene.state_at(PLACE))
    found = integrated_gradients(subject.actor, subject, state, lambda d: d.mean[:, 0])
    np.testing.assert_array_equal(found.shares, 0.0)
    assert found.value == found.average


def test_the_average_day_is_that_of_train_rows(scene: DecisionTrace, subject: Subject) -> None:
    average = average_day(subject, scene.state_at(PLACE))
    rows = list(subject.fold.train.decisions)
    one = next(one for one in named_inputs(subject) if one.name == REGIME)
    shares = average.market[0, list(one.columns)]
    torch.testing.assert_close(shares, subject.world.market[rows][:, list(one.columns)].mean(0))
    assert float(shares.sum()) == pytest.approx(1.0)
    torch.testing.assert_close(average.priors.sum(-1), torch.ones(1, 6))
    torch.testing.assert_close(average.assets[..., -2:], scene.state_at(PLACE).assets[..., -2:])


def moved(scene: DecisionTrace, state: State, other: State) -> float:
    with torch.no_grad():
        actor = scene.subject.actor.eval()
        return float((actor(state).mean - actor(other).mean).abs().sum())


def at_average(state: State, average: State, inputs: Iterable[Input]) -> State:
    """`state` with these inputs set to those of `average`."""
    assets, market, priors = state.assets.clone(), state.market.clone(), state.priors.clone()
    for one in inputs:
        if one.is_prior:
            priors[:, one.place] = average.priors[:, one.place]
        elif one.asset is None:
            market[:, list(one.columns)] = average.market[:, list(one.columns)]
        else:
            assets[:, one.place, one.columns[0]] = average.assets[:, one.place, one.columns[0]]
    return state._replace(assets=assets, market=market, priors=priors)


def test_deleting_the_top_five_moves_the_weights_more_than_five_at_random(
    scene: DecisionTrace, subject: Subject
) -> None:
    rng, wins, places = np.random.default_rng(0), 0, spread_places(scene, 40)
    for place in places:
        found, state = attribution(scene, place), scene.state_at(place)
        average = average_day(subject, state)
        top = [found.inputs[p] for p in np.argsort(-np.abs(found.shares))[:5]]
        drawn = [found.inputs[p] for p in rng.choice(len(found.inputs), 5, replace=False)]
        wins += moved(scene, state, at_average(state, average, top)) > moved(
            scene, state, at_average(state, average, drawn)
        )
    assert wins >= 0.9 * len(places)


def test_a_randomised_network_changes_the_attributions(scene: DecisionTrace, make_subject: MakeSubject) -> None:
    other = make_subject(7).actor
    again, changed = [], []
    for place in spread_places(scene, 12):
        own = attribution(scene, place, asset=0).shares
        again.append(spearmanr(own, attribution(scene, place, asset=0).shares).statistic)
        changed.append(spearmanr(own, attribution(scene, place, other, 0).shares).statistic)
    assert np.mean(again) == 1.0
    assert np.mean(changed) < 0.5


def test_captum_agrees(scene: DecisionTrace, subject: Subject) -> None:
    """Captum's own integrated gradients, over the same inputs and path."""
    install = "pip install -c constraints.txt -e '.[captum]'"
    captum = pytest.importorskip("captum.attr", reason=f"captum is not installed: {install}")
    state = scene.state_at(PLACE)
    average = average_day(subject, state)

    def forward(assets: torch.Tensor, market: torch.Tensor, priors: torch.Tensor) -> torch.Tensor:
        count = len(assets)
        repeated = State(*(part.expand(count, *part.shape[1:]) for part in state))
        return subject.actor(repeated._replace(assets=assets, market=market, priors=priors)).mean[:, 0]

    subject.actor.eval()
    theirs = captum.IntegratedGradients(forward).attribute(
        (state.assets, state.market, state.priors), (average.assets, average.market, average.priors), n_steps=400
    )
    ours = attribution(scene, asset=0)
    from finflow.explanations.attribution import gather

    gathered = gather(ours.inputs, *(part.detach() for part in theirs))[0].double().numpy()
    np.testing.assert_allclose(ours.shares, gathered, atol=2e-6)
