"""Every knob of the training guide reaches the learner: turned, other weights come out; left alone, the same ones."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import finflow
from finflow.io.weights import load_weights

TINY = [
    "env=synthetic", "env.synthetic.days=2000", "env.synthetic.assets=3", "env.episode_days=21", "env.num_envs=4",
    "budget.collect_episodes=6", "confidence=none",
    "algo.network.hidden_dim=8", "algo.network.embed_dim=8", "algo.batch_size=16",
    "tracking=none",
]  # fmt: skip
STAGE = {
    "pretrain": ["budget.epochs=1", "budget.updates_per_epoch=4"],
    "finetune": [
        "budget.episodes=8", "budget.warmup_episodes=0", "budget.critic_warmup_updates=1",
        "evaluation.every_episodes=4", "evaluation.objective=active_ir", "init.weights=null", "algo.cql.n_actions=2",
    ],
}  # fmt: skip
NETWORK = [
    "hidden_dim=9", "embed_dim=6", "n_quantiles=16", "dropout=0.1", "state_noise=0.01", "kind=mlp", "layer_norm=false",
]  # fmt: skip
BOTH = [
    "actor_lr=1e-4", "critic_lr=1e-4", "tau=0.01", "gamma=0.9", "batch_size=20", "grad_clip=0.01",
    "relabel_fraction=0.9",
]  # fmt: skip
KNOBS = {
    "pretrain": [
        *(f"network.{change}" for change in NETWORK), *BOTH, "lr=1e-4", "horizon=8", "walkers=4", "actors=2",
        "expectile=0.8", "prior_kl_coef=1", "extraction=awr", "extraction=q_gradient",
    ],
    "finetune": [
        *BOTH, "network.dropout=0.1", "network.state_noise=0.01", "buffer_size=24", "alpha_init=0.5",
        "alpha_lr=1e-3", "prior_kl_coef=[2,2]", "risk_weight=0.5", "mixing_ratio=[0.9,0.9]", "bootstrap_fraction=0.9",
        "entropy.target_sigma=[0.2,0.1]", "cql.alpha=10", "cql.n_actions=3", "cql.batch_fraction=1", "cql.anneal=[1,1]",
        "gate.temperature=[2,1]", "gate.load_balance_coef=[1,1]", "gate.expert_dropout=0.4",
        "gate.lr_ratio=0.1", "top_quantiles_dropped=2", "horizon=8", "horizon=0", "walkers=4", "actors=2",
    ],
}  # fmt: skip
QUICK = {("pretrain", change) for change in KNOBS["pretrain"] if change.startswith("network") or change in BOTH[:5]} | {
    ("finetune", change) for change in ("batch_size=20", "buffer_size=24", "risk_weight=0.5", "cql.alpha=10")
}
CASES = [
    pytest.param(stage, change, marks=[] if (stage, change) in QUICK else pytest.mark.slow)
    for stage, changes in KNOBS.items()
    for change in changes
]


REGRESSION = ["beta=1.0", "max_weight=1.0", "normalise_advantage=false"]
"""Knobs of `extraction=awr` alone."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


def trained(root: Path, stage: str, *changes: str) -> dict[str, Tensor]:
    """Networks as training left them: of fine-tuning, not those that validation selects."""
    config = finflow.load(stage, [*TINY, *STAGE[stage], *changes, f"output_root={root}"])
    run = getattr(finflow, stage)(config).run_dir
    if stage == "pretrain":
        tensors, _ = load_weights(run / "weights.safetensors")
        return {name: tensor for name, tensor in tensors.items() if name.startswith("networks.")}
    newest = sorted((run / "checkpoints").glob("*.safetensors"))[-1]
    tensors, _ = load_weights(newest)
    return {name: tensor for name, tensor in tensors.items() if "agent" in name and "networks" in name}


@pytest.fixture(scope="module")
def untouched(root: Path) -> dict[str, dict[str, Tensor]]:
    return {}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_nothing_turned_gives_the_same_weights(stage: str, root: Path, untouched: dict[str, dict[str, Tensor]]) -> None:
    untouched[stage] = trained(root, stage)
    assert len(untouched[stage]) > 20
    assert same(trained(root, stage), untouched[stage])


@pytest.mark.parametrize(("stage", "change"), CASES)
def test_a_knob_changes_the_weights(
    stage: str, change: str, root: Path, untouched: dict[str, dict[str, Tensor]]
) -> None:
    if stage not in untouched:
        untouched[stage] = trained(root, stage)
    assert not same(trained(root, stage, f"algo.{change}"), untouched[stage])


@pytest.mark.slow
@pytest.mark.parametrize("change", ["cql.calibrate=false", "expectile=0.8"])
def test_a_knob_of_runs_with_a_parent_changes_the_weights(change: str, root: Path) -> None:
    """Its V bounds CQL, and is refitted to another reward."""
    trained(root, "pretrain")
    parent = [f"init.weights={max(root.glob('pretrain/*/*-s0'))}", "env.cost_bps=5", "budget.refit_updates=4"]
    assert not same(trained(root, "finetune", *parent), trained(root, "finetune", *parent, f"algo.{change}"))


@pytest.mark.slow
@pytest.mark.parametrize("change", REGRESSION)
def test_a_knob_of_weighted_regression_changes_the_weights(
    change: str, root: Path, untouched: dict[str, dict[str, Tensor]]
) -> None:
    if "awr" not in untouched:
        untouched["awr"] = trained(root, "pretrain", "algo.extraction=awr")
    assert not same(trained(root, "pretrain", "algo.extraction=awr", f"algo.{change}"), untouched["awr"])
