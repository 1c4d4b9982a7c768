"""`hardware=multi_gpu`: two processes under torchrun, on the CPU by gloo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finflow.config.compose import load
from finflow.errors import ConfigError
from finflow.stages.torchrun import follow, joined

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "env=synthetic", "env.synthetic.days=2000", "env.synthetic.assets=3", "budget.collect_episodes=4",
    "budget.crossfit_updates=2",
    "budget.epochs=1", "budget.updates_per_epoch=4", "env.episode_days=42", "algo.network.hidden_dim=8",
    "algo.network.embed_dim=8", "algo.batch_size=32", "checkpoint.save_latest=true",
]  # fmt: skip
PRETRAIN = "experiments/pretrain.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def run(*words: str, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "WORLD_SIZE"} | {"OMP_NUM_THREADS": "1"} | more
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_two_processes_make_one_run_folder(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    done = run(*TORCHRUN, PRETRAIN, "hardware=multi_gpu", *TINY, f"output_root={root}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Run folder: ") == 1
    summaries = list(root.rglob("summary.json"))
    assert len(summaries) == 1
    folder = summaries[0].parent
    assert [path.parent for path in root.rglob("config.yaml")] == [folder]
    assert str(folder) in done.stdout
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
    assert len(list((folder / "checkpoints").glob("*.safetensors"))) == 1
    assert len(list((root / "pretrain" / "latest").glob("*.json"))) == 1
    assert "torchrun" not in done.stdout.split("Next: ")[1]
    assert "distributed" not in done.stdout.split("Next: ")[1]
    (folder / "summary.json").unlink()
    (checkpoint,) = (folder / "checkpoints").glob("*.safetensors")
    again = [str(ROOT / PRETRAIN), "hardware=multi_gpu", *TINY, f"output_root={root}", f"resume={checkpoint.name}"]
    done = run(*TORCHRUN, *again, cwd=checkpoint.parent)
    assert done.returncode == 0, done.stderr
    assert (folder / "summary.json").exists()


@pytest.mark.parametrize(
    ("typed", "copy"),
    [
        (".", "own"),
        ("./../run", "own"),
        ("checkpoints/1.safetensors", "own/checkpoints/1.safetensors"),
        ("../run/checkpoints/1.safetensors", "own/checkpoints/1.safetensors"),
        ("1.safetensors", "own/checkpoints/1.safetensors"),
    ],
)
def test_however_a_run_is_named_the_others_go_on_in_their_copy(
    typed: str, copy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    monkeypatch.chdir(checkpoints if "/" not in typed and typed != "." else checkpoints.parent)
    assert follow(load("pretrain", [f"resume={typed}"]), Path("own")).resume == copy


@pytest.mark.parametrize(
    ("stage", "changes", "size", "said"),
    [
        ("pretrain", ["hardware=multi_gpu"], None, "hardware.distributed=true: needs several processes: torchrun"),
        ("finetune", [], "2", "WORLD_SIZE=2: 2 processes of one run need hardware=multi_gpu"),
        ("evaluate", [], "2", "WORLD_SIZE=2: evaluate runs in one process"),
        ("pretrain", ["hardware=multi_gpu", "algo.batch_size=33"], "2", "algo.batch_size=33: should be a multiple"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    stage: str, changes: list[str], size: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size is not None:
        monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ConfigError, match=said) as refused, joined(load(stage, changes), None):
        pass
    assert "\n" not in str(refused.value)


def test_a_sweep_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    done = run(PRETRAIN, "-m", "hardware=multi_gpu", "seed=0,1", f"output_root={root}", WORLD_SIZE="2")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: WORLD_SIZE: torchrun starts one run")
    assert not root.exists()
