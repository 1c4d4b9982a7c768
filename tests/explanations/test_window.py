"""Return and risk of a window by expert and by name: every part traced, all parts summing to the whole."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student

from finflow.data.market import REGIMES
from finflow.evaluation.backtest import Plan, backtest
from finflow.evaluation.metrics import decision_regimes, measure
from finflow.explanations.attribution import importance
from finflow.explanations.decision_trace import DecisionTrace, make_scene
from finflow.explanations.overview import gate_by_regime, overview
from finflow.explanations.performance import EXECUTION, contributions, name_parts, sleeves

from .conftest import MakeScene, MakeSubject


def test_experts_sum_to_return_cost_and_risk(scene: DecisionTrace) -> None:
    parts, track = sleeves([scene]), scene.track
    np.testing.assert_allclose((parts.earned - parts.cost).sum(1), track.net, atol=1e-15)
    np.testing.assert_allclose(parts.cost.sum(1), track.cost, atol=1e-15)
    np.testing.assert_allclose(parts.share.sum(1), 1.0, atol=1e-12)
    found = contributions(parts, track.net)
    figures = measure(track.net, track.turnover, track.weights)
    assert sum(one.total for one in found) == pytest.approx(track.nav[-1] - 1.0, abs=1e-12)
    assert sum(one.risk for one in found) == pytest.approx(figures.volatility, abs=1e-12)
    assert [one.name for one in found] == [*scene.subject.spec.experts, EXECUTION]
    assert abs(found[-1].share) < 1e-4  # no rule binds
    assert min(one.share for one in found[:-1]) > 0.01


def test_a_first_day_by_hand(scene: DecisionTrace) -> None:
    """Entered from cash: expert k owns g_k e_k, and pays for what it bought."""
    parts, track = sleeves([scene]), scene.track
    owned = scene.gate[0][:, None] * scene.experts[0]
    earned = (1 - track.cost[0]) * owned @ scene.subject.market.returns[scene.rows[0] + 1]
    np.testing.assert_allclose(parts.earned[0, :-1], earned, atol=1e-9)
    rate = scene.subject.world.accounting.cost_rate
    np.testing.assert_allclose(parts.cost[0, :-1], rate * owned[:, :-1].sum(1), atol=1e-9)


def test_a_gate_on_one_expert_gives_it_everything(scene: DecisionTrace) -> None:
    gate = scene.decision.gate.new_tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0]).expand_as(scene.decision.gate)
    alone = replace(scene, decision=scene.decision._replace(gate=gate))
    targets = np.full((len(scene.subject.market.dates), scene.subject.market.n), np.nan)
    held = scene.track.drifted[0]
    for place, row in enumerate(scene.rows):  # follow expert 2 at the policy's rate, by hand
        target = held + scene.rate[place] * (scene.experts[place, 2] - held)
        targets[row] = target / target.sum()
        grown = targets[row] * (1 + scene.subject.market.returns[row + 1])
        held = grown / grown.sum()
    always = np.ones(len(targets), dtype=bool)
    accounting = scene.subject.world.accounting
    track = backtest(scene.subject.market, scene.window, accounting, {"policy": Plan(targets, always)})["policy"]
    found = contributions(sleeves([replace(alone, track=track)]), track.net)
    assert found[2].total == pytest.approx(track.nav[-1] - 1.0, abs=1e-5)
    assert all(abs(one.total) < 1e-5 for k, one in enumerate(found) if k != 2)


def test_what_a_cap_earns_stands_under_execution(make_subject: MakeSubject, make_track_scene: MakeScene) -> None:
    scene = make_track_scene(make_subject(max_weight=0.15))
    parts = sleeves([scene])
    assert np.abs(parts.earned[:, -1]).max() > 1e-5
    np.testing.assert_allclose((parts.earned - parts.cost).sum(1), scene.track.net, atol=1e-15)


def test_names_sum_to_return_and_risk(scene: DecisionTrace) -> None:
    found, track = name_parts([scene]), scene.track
    figures = measure(track.net, track.turnover, track.weights)
    assert sum(one.total for one in found) == pytest.approx(track.nav[-1] - 1.0, abs=1e-12)
    assert sum(one.risk for one in found) == pytest.approx(figures.volatility, abs=1e-12)
    nav = np.concatenate([[1.0], track.nav[:-1]])
    assert sum(one.cost for one in found) == pytest.approx(nav @ track.cost, abs=1e-12)
    assert found[-1].cost == 0.0


def test_buy_and_hold_is_all_drift(scene: DecisionTrace) -> None:
    targets = np.full((len(scene.subject.market.dates), scene.subject.market.n), np.nan)
    targets[scene.rows[0]] = scene.aim[0] / scene.aim[0].sum()
    plan = Plan(targets, np.ones(len(targets), dtype=bool))
    accounting = scene.subject.world.accounting
    track = backtest(scene.subject.market, scene.window, accounting, {"policy": plan})["policy"]
    found = name_parts([replace(scene, track=track)])
    assert max(abs(one.trading) for one in found) < 1e-12
    assert sum(one.drift - one.cost for one in found) == pytest.approx(track.nav[-1] - 1.0, abs=1e-12)


def test_windows_end_to_end_compound(scene: DecisionTrace, make_track_scene: MakeScene) -> None:
    second = make_track_scene(window="train")
    found = overview([[scene], [second]], {}, 0)
    whole = scene.track.nav[-1] * second.track.nav[-1] - 1.0
    assert found.net == pytest.approx(whole)
    assert sum(one.total for one in found.contributions) == pytest.approx(whole, abs=1e-9)
    assert sum(one.total for one in found.names) == pytest.approx(whole, abs=1e-9)
    assert sum(one.risk for one in found.names) == pytest.approx(found.volatility)
    assert sum(row.days for row in found.gate) == len(scene.rows) + len(second.rows)


def test_averaged_runs_share_a_track(scene: DecisionTrace, make_subject: MakeSubject) -> None:
    others = [make_scene(make_subject(seed), scene.window, scene.track, check=False) for seed in (1, 2)]
    parts = sleeves([scene, *others])
    np.testing.assert_allclose((parts.earned - parts.cost).sum(1), scene.track.net, atol=1e-15)
    rows = gate_by_regime([[scene, *others]])
    mean = np.mean([one.gate for one in (scene, *others)], axis=0)
    labels = decision_regimes(scene.subject.market, scene.window)
    for row in rows:
        np.testing.assert_allclose(row.gate, mean[labels == REGIMES.index(row.regime)].mean(0))


def test_importance_is_a_share_with_an_interval_over_runs(
    scene: DecisionTrace, make_subject: MakeSubject, make_track_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finflow.explanations.attribution.DAYS", 4)
    alone = importance([scene])
    assert sum(alone.share) == pytest.approx(1.0)
    assert alone.low is None
    assert list(alone.share) == sorted(alone.share, reverse=True)
    scenes = [scene, make_track_scene(make_subject(1)), make_track_scene(make_subject(2))]
    found = importance(scenes)
    each = [dict(zip(one.names, one.share, strict=True)) for one in (importance([s]) for s in scenes)]
    name = found.names[0]
    values = np.array([one[name] for one in each])
    half = student.ppf(0.975, 2) * values.std(ddof=1) / 3**0.5
    assert found.low is not None
    assert found.high is not None
    assert found.share[0] == pytest.approx(values.mean())
    assert found.low[0] == pytest.approx(max(values.mean() - half, 0.0))
    assert found.high[0] == pytest.approx(min(values.mean() + half, 1.0))
    assert (found.runs, found.days) == (3, 4)
