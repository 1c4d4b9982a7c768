"""Why a holding is as large as it is: all its parts sum to it, and the rules are those of the ledger."""

import numpy as np
import pytest

from finflow.explanations.decision import holding, rule_parts, trade_parts
from finflow.explanations.decision_trace import DecisionTrace

from .conftest import MakeScene, MakeSubject, spread_places


def test_parts_of_a_holding_sum_to_it(scene: DecisionTrace) -> None:
    for place in [0, *spread_places(scene, 6)]:
        for asset in range(3):
            found = holding(scene, place, asset)
            assert sum(found.asked.values()) == pytest.approx(found.weight, abs=1e-12)
            assert found.start + found.traded + found.drift == pytest.approx(found.weight, abs=1e-12)
            assert found.target + sum(found.rules.values()) == pytest.approx(found.weight, abs=1e-12)
            assert found.before + found.rate * (found.aim - found.before) == pytest.approx(found.target, abs=1e-6)
            assert sum(share * own for share, own in found.experts.values()) == pytest.approx(found.aim, abs=1e-6)


def test_trades_and_costs_are_those_of_the_track(scene: DecisionTrace) -> None:
    found, track = holding(scene, 40, 1), scene.track
    changes = (track.weights - track.drifted)[:41, 1]
    assert found.traded == pytest.approx(changes.sum())
    assert found.cost_since == pytest.approx(found.cost_rate * np.abs(changes).sum())
    assert found.cost == pytest.approx(found.cost_rate * abs(changes[-1]))


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ({"max_weight": 0.12}, "cap of a name"),
        ({"min_cash": 0.5}, "least cash"),
        ({"no_trade_band": 0.5}, "no-trade band"),
        ({"max_turnover": 0.001}, "turnover cap"),
    ],
)
def test_the_rule_that_binds_is_the_one_that_is_named(
    rule: dict[str, float], name: str, make_subject: MakeSubject, make_track_scene: MakeScene
) -> None:
    trace = make_track_scene(make_subject(**rule))
    execution = trade_parts(trace).execution
    bound = 0
    for place in range(1, 60):
        parts = {rule: np.abs(part).max() for rule, part in rule_parts(trace, place).items()}
        np.testing.assert_allclose(sum(rule_parts(trace, place).values()), execution[place], atol=1e-6)
        if np.abs(execution[place]).max() > 1e-4:
            bound += 1
            assert max(parts, key=lambda one: parts[one]) == name
    assert bound > 0
