"""What the jobs of a sweep start from is settled when it begins."""

import json
from pathlib import Path

import pytest

import finflow
from finflow.config.compose import load
from finflow.errors import ParentError
from finflow.stages.parents import pin
from finflow.sweeps.plan import plan_of

from .tiny import SMALL, TUNE


def pretrained(root: Path, seed: int, *overrides: str) -> Path:
    words = [*SMALL, f"seed={seed}", f"output_root='{root}'", "budget.updates_per_epoch=1", "budget.epochs=1"]
    return finflow.pretrain(load("pretrain", [*words, *overrides])).run_dir


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs with pretrainings of seeds 0 and 1."""
    folder = tmp_path_factory.mktemp("pinning") / "out puts"
    for seed in (1, 0):
        pretrained(folder, seed)
    return folder


def line(root: Path, *overrides: str) -> list[str]:
    return [*SMALL, "budget.updates_per_epoch=1", "budget.epochs=1", f"output_root='{root}'", *overrides]


def test_seed_i_starts_from_pretrain_seed_i_and_others_from_the_newest(root: Path) -> None:
    plan = plan_of("finetune", line(root, "seed=0,1,7", "algo.lr=1e-4,3e-4"))
    pins = pin("finetune", plan)
    found = {(job.values["seed"], pins[job.name].parent, pins[job.name].seed) for job in plan.jobs}
    assert sorted((seed, parent) for seed, _, parent in found) == [("0", 0), ("1", 1), ("7", 0)]
    for job in plan.jobs:
        weights = Path(pins[job.name].overrides["init.weights"])
        assert json.loads((weights / "summary.json").read_text())["weights_sha256"] == pins[job.name].parent
    (data,) = {one.data for one in pins.values()}
    assert data == json.loads((weights / "run.json").read_text())["data_fingerprint"]


def test_a_single_expert_starts_from_the_experts_of_phase_one(root: Path) -> None:
    pins = pin("finetune", plan_of("finetune", line(root, "algo=sac", "seed=0,1")))
    assert sorted(str(one.seed) for one in pins.values()) == ["0", "1"]


def test_from_scratch_nothing_is_settled(root: Path) -> None:
    plan = plan_of("finetune", line(root, "seed=0,1", "init.weights=null"))
    assert pin("finetune", plan) == {}
    plan = plan_of("finetune", line(root, "ablation=none,from_scratch"))
    assert [job.values["ablation"] for job in plan.jobs if job.name in pin("finetune", plan)] == ["none"]


@pytest.mark.parametrize("key", ["algo.network.n_quantiles", "algo.actors"])
def test_what_shapes_the_parent_is_swept_in_pretraining_first(key: str, root: Path) -> None:
    plan = plan_of("finetune", line(root, *TUNE, f"{key}=8,16", "algo.lr=1e-4,3e-4"))
    with pytest.raises(ParentError) as caught:
        pin("finetune", plan)
    said, command = str(caught.value).rsplit(": ", 1)
    assert f"{key} is the parent's, so pretrain sweeps it first" in said
    assert command.startswith("python experiments/pretrain.py ")
    assert command.endswith(f" -m {key}=8,16")
    assert "algo.lr" not in command
    assert "budget.episodes" not in command


@pytest.mark.parametrize(
    ("swept", "published"),
    [
        (["seed=0,1"], True),
        (["fold=2008,2018", "algo.network.n_quantiles=8,16"], True),
        (["seed=0,1", "algo.gamma=0.9,0.95"], False),
        (["algo.gamma=0.9,0.95", "init.publish=true"], True),
        (["algo.actors=2,4"], True),
    ],
)
def test_trials_of_one_pretraining_do_not_replace_each_other_as_latest(swept: list[str], published: bool) -> None:
    plan = plan_of("pretrain", swept)
    pins = pin("pretrain", plan)
    assert ({name: dict(one.overrides) for name, one in pins.items()} == {}) is published
    if not published:
        assert all(pins[job.name].overrides == {"init.publish": False} for job in plan.jobs)
