"""Both training stages on a small synthetic market: exact transfer, movement, labels, determinism, refusals."""

import html
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import finflow
from finflow.agents.bcell import BCell
from finflow.artifacts.checkpoints import read_policy
from finflow.data.market import REGIMES
from finflow.envs.collect import labels
from finflow.errors import ConfigError, DataError, DivergedError, ParentError
from finflow.io.weights import load_weights
from finflow.stages import finetune as finetune_stage
from finflow.stages.explain import explain
from finflow.stages.loaded_run import load_trained
from finflow.stages.prepare import fit, load_market, use_hardware
from finflow.stages.results import FinetuneResult, PretrainResult
from finflow.training.replay_buffer import ReplayBuffer

from .conftest import TINY, TUNE, count_reads

MARKET = ["env=synthetic", "env.synthetic.days=2600", "env.synthetic.assets=5", *TINY]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def pretrained(root: Path) -> PretrainResult:
    return finflow.pretrain(finflow.load("pretrain", [*MARKET, f"output_root={root}"]))


@pytest.fixture(scope="module")
def tuned(root: Path, pretrained: PretrainResult) -> FinetuneResult:
    return finflow.finetune(finflow.load("finetune", [*MARKET, *TUNE, f"output_root={root}"]))


def rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_pretraining_logs_a_row_an_epoch_and_returns_its_losses(pretrained: PretrainResult) -> None:
    logged = rows(pretrained.metrics_path)
    assert [row["epoch"] for row in logged] == [1, 2]
    assert {"v_loss", "q_loss", "policy_loss"} <= set(logged[0])
    assert pretrained.v_loss == logged[-1]["v_loss"]
    assert (pretrained.run_dir / "summary.json").exists()


def test_fine_tuning_logs_a_row_an_episode(tuned: FinetuneResult) -> None:
    logged = rows(tuned.metrics_path)
    assert [row["episode"] for row in logged] == list(range(1, 9))
    assert {"return", "sharpe", "cvar", "critic_loss", "actor_loss"} <= set(logged[-1])
    assert logged[-1]["actor_loss"] is not None


def test_weights_and_gate_are_shown_at_every_validation(pretrained: PretrainResult, tuned: FinetuneResult) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for result, unit, validated in ((pretrained, "epoch", [2]), (tuned, "episode", [0, 4, 8])):
        events = EventAccumulator(str(result.run_dir / "tensorboard"), size_guidance={"histograms": 0}).Reload()
        parts = {tag.removeprefix(f"{unit}_") for tag in events.Tags()["histograms"]}
        assert {"weights/actor.gate", "weights/actor.experts", "weights/critic.out", "gate/momentum"} <= parts
        for tag in ("weights/actor.gate", "gate/momentum"):
            assert [event.step for event in events.Histograms(f"{unit}_{tag}")] == validated
        share = events.Histograms(f"{unit}_gate/momentum")[-1].histogram_value
        assert 0 <= share.min <= share.max <= 1
        hparams = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        assert b"algo.name" in hparams
        assert b"algo.network.hidden_dim" not in hparams  # outside a sweep nothing but algorithm and seed varies


def handed_over(line: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The networks that phase 2 begins with, before its first step."""
    seen: dict[str, torch.Tensor] = {}

    class Stop(Exception):
        pass

    def capture(agent: BCell, *_args: object, **_kwargs: object) -> None:
        seen.update({name: tensor.clone() for name, tensor in agent.networks.state_dict().items()})
        raise Stop

    monkeypatch.setattr(finetune_stage, "train_online", capture)
    with pytest.raises(Stop):
        finflow.finetune(finflow.load("finetune", line))
    return seen


def test_phase_two_starts_from_phase_one_to_the_bit(
    root: Path, pretrained: PretrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = handed_over([*MARKET, *TUNE, f"output_root={root}"], monkeypatch)
    stored = read_policy(*load_weights(pretrained.weights)).networks
    assert stored.keys() == seen.keys()
    assert any("target" in name for name in seen)
    assert all(torch.equal(stored[name], seen[name]) for name in stored)


def test_fine_tuning_reads_its_prices_once(
    root: Path, pretrained: PretrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = count_reads(monkeypatch)
    handed_over([*MARKET, *TUNE, f"output_root={root}"], monkeypatch)
    assert len(reads) == 1


def test_gate_and_residuals_move_in_phase_two(pretrained: PretrainResult, tuned: FinetuneResult) -> None:
    assert tuned.diagnostics_at_end["gate_entropy_change"] != 0
    assert tuned.diagnostics_at_end["expert_distance_change"] != 0
    assert {"gate_entropy", "expert_distance"} <= set(tuned.diagnostics)
    if tuned.selected_episode == 0:
        assert tuned.diagnostics["gate_entropy_change"] == 0


def test_the_same_seed_gives_the_same_weights_and_numbers(root: Path, tuned: FinetuneResult) -> None:
    again = finflow.finetune(finflow.load("finetune", [*MARKET, *TUNE, f"output_root={root}"]))
    assert again.run_dir != tuned.run_dir
    for name in ("weights.safetensors", "metrics.jsonl", "summary.json"):
        assert (again.run_dir / name).read_bytes() == (tuned.run_dir / name).read_bytes(), name
    other = finflow.finetune(finflow.load("finetune", [*MARKET, *TUNE, f"output_root={root}", "seed=1"]))
    assert (other.run_dir / "metrics.jsonl").read_bytes() != (tuned.run_dir / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("regime", ["stable", "volatile"])
def test_days_trained_on_carry_the_label(
    root: Path, pretrained: PretrainResult, monkeypatch: pytest.MonkeyPatch, regime: str
) -> None:
    """Counts the labels of every row that an update sampled, offline and online."""
    sampled: list[np.ndarray] = []
    original = ReplayBuffer.sample

    def spy(self: ReplayBuffer, count: int, generator: torch.Generator) -> object:
        logged = original(self, count, generator)
        sampled.append(logged.row.numpy())
        return logged

    monkeypatch.setattr(ReplayBuffer, "sample", spy)
    config = finflow.load("finetune", [*MARKET, *TUNE, f"output_root={root}", f"market_regime={regime}"])
    finflow.finetune(config)
    market = fit(config, load_market(config), use_hardware(config.hardware)).market
    days = labels(market)[np.concatenate(sampled)]
    assert len(days) > 500
    assert (days == REGIMES.index(regime)).mean() >= 0.95


def test_a_changed_reward_is_refitted_and_said(root: Path, pretrained: PretrainResult) -> None:
    result = finflow.finetune(
        finflow.load("finetune", [*MARKET, *TUNE, f"output_root={root}", "reward.lambda_turn=0.5"])
    )
    alerts = (result.run_dir / "alerts.jsonl").read_text()
    assert "refitted for 8 updates" in alerts


def test_from_scratch_needs_no_parent(tmp_path: Path) -> None:
    result = finflow.finetune(
        finflow.load("finetune", [*MARKET, *TUNE, f"output_root={tmp_path}", "init.weights=null"])
    )
    assert json.loads((result.run_dir / "summary.json").read_text())["parent_sha256"] is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("algo.network.hidden_dim=8", "hidden_dim"),
        ("algo.network.kind=mlp", r"network\.kind='mlp' \(newest has 'portfolio'\)"),
        ("env.synthetic.seed=9", r"env\.synthetic\.seed=9"),
        ("budget.epochs=3", "budget.epochs"),
    ],
)
def test_a_parent_that_does_not_fit_is_refused_by_the_field(
    root: Path, pretrained: PretrainResult, change: str, named: str
) -> None:
    with pytest.raises(ParentError, match=named) as refused:
        finflow.finetune(finflow.load("finetune", [*MARKET, *TUNE, f"output_root={root}", change]))
    assert "\n" not in str(refused.value)
    assert "experiments/pretrain.py" in str(refused.value)


def test_plain_networks_go_through_all_stages_and_stay_with_their_names(tmp_path: Path) -> None:
    line = [*MARKET, f"output_root={tmp_path}", "algo.network.kind=mlp"]
    parent = finflow.pretrain(finflow.load("pretrain", line))
    run = finflow.finetune(finflow.load("finetune", [*line, *TUNE, "budget.episodes=4"]))
    assert run.diagnostics_at_end["expert_distance_change"] != 0
    trained = load_trained(finflow.load("evaluate", [f"output_root={tmp_path}"]), str(run.run_dir))
    assert trained.stored.spec.assets == trained.prepared.market.assets
    row = np.array([trained.prepared.fold.test.start])
    assert np.isclose(trained.policy.act(row, np.eye(6)[-1:], np.zeros(1)).sum(), 1.0)
    other = ["env.synthetic.assets=4", f"init.weights='{parent.run_dir}'"]
    with pytest.raises(ParentError, match=r"feature_spec\.assets\.\d="):
        finflow.finetune(finflow.load("finetune", [*line, *TUNE, *other]))


def test_without_a_parent_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(ParentError, match="nothing is published"):
        finflow.finetune(finflow.load("finetune", [*MARKET, *TUNE, f"output_root={tmp_path}"]))
    assert not (tmp_path / "finetune").exists()


def test_a_collected_file_is_read_by_pretraining(tmp_path: Path) -> None:
    data = [word for word in MARKET if not word.startswith(("algo.", "budget.epochs", "budget.updates", "confidence"))]
    out = tmp_path / "by hand.npz"
    collected = finflow.collect(
        finflow.load("collect", [*data, f"output_root={tmp_path}", "episodes=5", f"out='{out}'"])
    )
    assert collected.transitions == 5 * 42
    line = [*MARKET, f"output_root={tmp_path}", f"offline.dataset='{out}'"]
    result = finflow.pretrain(finflow.load("pretrain", line))
    assert json.loads((result.run_dir / "summary.json").read_text())["transitions"] == 5 * 42
    with pytest.raises(DataError, match="data_fingerprint"):
        finflow.pretrain(finflow.load("pretrain", [*line, "env.synthetic.seed=4"]))


def test_a_stage_refuses_the_algorithm_of_another(root: Path) -> None:
    config = finflow.load("pretrain", [*MARKET, f"output_root={root}"])
    with pytest.raises(ConfigError, match="not an algorithm of finetune"):
        finflow.finetune(config.model_copy(update={"stage": "finetune"}))


def test_a_regime_without_days_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    line = [*TINY, *TUNE, f"output_root={tmp_path}", "fold=2000", "market_regime=crisis", "init.weights=null"]
    with pytest.raises(DataError, match="market_regime=crisis: no stretch"):
        finflow.finetune(finflow.load("finetune", line))
    assert not (tmp_path / "finetune").exists()


def test_an_infinite_weight_is_found_before_it_is_judged(root: Path) -> None:
    """One update is too few for the look at the losses; the weights themselves are looked at."""
    line = [*MARKET, f"output_root={root}", "budget.updates_per_epoch=1", "budget.epochs=1", "algo.critic_lr=1e38"]
    with pytest.raises(DivergedError, match="not finite"):
        finflow.pretrain(finflow.load("pretrain", line))


def test_a_window_is_entered_from_cash_at_once(pretrained: PretrainResult, root: Path) -> None:
    trained = load_trained(finflow.load("evaluate", [f"output_root={root}"]), str(pretrained.run_dir))
    policy, fold = trained.policy, trained.prepared.fold
    cash = np.eye(trained.prepared.market.n)[-1:]
    entry, later = (np.array([row]) for row in (fold.test.start - 1, fold.test.start))
    decision = policy.decide(entry, cash, np.zeros(1))
    np.testing.assert_array_equal(policy.act(entry, cash, np.zeros(1)), decision.aim.double().numpy())
    slow = policy.act(later, cash, np.zeros(1))
    assert slow[0, -1] > policy.act(entry, cash, np.zeros(1))[0, -1]
    held = np.full_like(cash, 1 / cash.shape[1])
    np.testing.assert_array_equal(
        policy.act(entry, held, np.zeros(1)), policy.decide(entry, held, np.zeros(1)).mean.double().numpy()
    )


@pytest.mark.parametrize("weights", ["latest", "null"])
def test_sac_is_trained_from_the_same_parent_or_from_nothing(
    pretrained: PretrainResult, tmp_path: Path, weights: str
) -> None:
    """One expert, no gate, no CQL; its run is judged and explained as any other."""
    for part in ("cache", "pretrain"):
        shutil.copytree(pretrained.run_dir.parents[2] / part, tmp_path / part)
    overrides = [*MARKET, *TUNE, f"output_root={tmp_path}", "algo=sac", "algo.horizon=0", f"init.weights={weights}"]
    done = finflow.finetune(finflow.load("finetune", overrides))
    logged = rows(done.metrics_path)
    assert logged[-1]["actor_loss"] is not None
    assert all("cql" not in row and row.get("gate_entropy", 0.0) == 0.0 for row in logged)
    alerts = done.run_dir / "alerts.jsonl"
    said = alerts.exists() and "the gate is not handed over" in alerts.read_text()
    assert said == (weights == "latest")
    if weights == "null":
        return
    again = finflow.finetune(finflow.load("finetune", [*overrides, f"init.weights='{done.run_dir}'", "seed=1"]))
    assert json.loads((again.run_dir / "run.json").read_text())["parent"]["facts"]["algo"] == "sac"
    judge = [f"output_root={tmp_path}", f"run={done.run_dir}"]
    evaluated = finflow.evaluate(finflow.load("evaluate", [*judge, "evaluation.bootstrap_samples=100"]))
    assert evaluated.evaluation.expert_names == ("single",)
    assert "'s prior" not in html.unescape(evaluated.report.read_text())
    explained = explain(finflow.load("explain", [*judge, "top=1"]))
    assert "One expert, no gate" in explained.pages[0].read_text()


def test_td3bc_hands_over_the_same_set_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    market = [*MARKET, f"output_root={tmp_path}"]
    pathless = [word for word in market if not word.startswith("algo.horizon")]
    done = finflow.pretrain(finflow.load("pretrain", [*pathless, "algo=td3bc"]))
    assert {"v_loss", "q_loss", "policy_loss", "cloning_kl"} <= set(rows(done.metrics_path)[-1])
    seen = handed_over([*market, *TUNE], monkeypatch)
    stored = read_policy(*load_weights(done.weights))
    assert stored.scales is not None
    assert stored.networks.keys() == seen.keys()
    assert all(torch.equal(stored.networks[name], seen[name]) for name in seen)


def test_results_show_a_line_a_table_and_curves(pretrained: PretrainResult, tuned: FinetuneResult) -> None:
    losses = f"v_loss {pretrained.v_loss:.3g}, q_loss {pretrained.q_loss:.3g}, policy_loss {pretrained.policy_loss:.3g}"
    assert repr(pretrained) == f"PretrainResult({losses}, {pretrained.run_dir})"
    assert repr(tuned) == f"FinetuneResult(kept from episode {tuned.selected_episode}, {tuned.run_dir})"
    for result, step in ((pretrained, "epoch"), (tuned, "episode")):
        logged = rows(result.metrics_path)
        assert (result.curve.index.name, result.curve.index.tolist()) == (step, [row[step] for row in logged])
        assert result.curve["q_loss" if step == "epoch" else "return"].tolist() == [
            row["q_loss" if step == "epoch" else "return"] for row in logged
        ]
        known = {name: value for name, value in result.figures.items() if value is not None}
        assert result.metrics.dropna().to_dict() == known
        assert result.metrics.index.tolist() == list(result.figures)
        page = result._repr_html_()
        assert html.escape(result.line()) in page
        assert all(f"<th>{name}</th>" in page for name in known)
    titles = [note.text for note in tuned.plot().layout.annotations]
    assert titles[:2] == ["Episode return", "Episode Sharpe"]
    assert "Gate entropy" in titles
    drawn = next(trace for trace in pretrained.plot().data if trace.name == "value loss")
    assert list(drawn.y) == [round(row["v_loss"], 6) for row in rows(pretrained.metrics_path)]
