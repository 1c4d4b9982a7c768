"""The real W&B client, kept from the user's own files and, but for a loopback server, from any network."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEY = "d0" * 43 + "secret"
SMALL = [
    "env=synthetic", "env.synthetic.days=1500", "env.synthetic.assets=4", "env.episode_days=42", "env.num_envs=4",
    "budget.collect_episodes=8", "confidence=none",
    "budget.epochs=2", "budget.updates_per_epoch=4", "algo.network.hidden_dim=16",
    "algo.network.embed_dim=8", "hardware.threads=1",
]  # fmt: skip
TUNE = [
    "budget.episodes=4", "budget.warmup_episodes=1", "budget.critic_warmup_updates=2", "budget.refit_updates=2",
    "evaluation.every_episodes=2", "algo.batch_size=32",
    "monitor.every=1", "monitor.actor_loss=1e-9", "monitor.critic_loss=1e-9",
]  # fmt: skip
"""Any loss is too high for the monitor, so that there are alerts."""
Client = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Variables of a process whose W&B files lie under `home`, and which reaches nothing but this machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    own = {f"WANDB_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "CACHE", "DATA")}
    names = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "NETRC": str(home / "netrc"), "HOME": str(home)}
    return {**kept, **nowhere, **own, **names, "WANDB_BASE_URL": "http://127.0.0.1:9", **more}


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def python(home: Path) -> Client:
    """Run `python ARGS` with the variables of `environment`, and those given."""

    def call(*args: object, **variables: str) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, *map(str, args)]
        return subprocess.run(
            line, cwd=home, env=environment(home, **variables), capture_output=True, text=True, timeout=600, check=False
        )

    return call


@pytest.fixture(scope="session")
def records(python: Client) -> Callable[[Path], list[dict[str, Any]]]:
    """Records of an offline run, in order, as the client's own reader gives them."""

    def read(place: Path) -> list[dict[str, Any]]:
        done = python("-m", "wandb", "leet", "inspect", "--json", place)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return read


@pytest.fixture(scope="session")
def summary(python: Client) -> Callable[[Path], dict[str, Any]]:
    """What `wandb leet inspect --summary --json` says of an offline run."""

    def read(place: Path) -> dict[str, Any]:
        done = python("-m", "wandb", "leet", "inspect", "--summary", "--json", place)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return read


def kinds(found: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in found if record["type"] == kind]


def rows_of(found: Sequence[Mapping[str, Any]], step_name: str) -> list[dict[str, Any]]:
    """Rows of the history that are figures of a step, without what the client and other media add."""
    items = [record["item"] for record in kinds(found, "history")]
    plain = [{k: v for k, v in item.items() if not k.startswith("_") and "/" not in k} for item in items]
    return [{k: v for k, v in item.items() if "." not in k} for item in plain if step_name in item]


def truth(path: Path) -> list[dict[str, Any]]:
    """Rows of a `metrics.jsonl` with their defined figures."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def offline_runs(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "wandb").glob("offline-run-*"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of two real runs with TensorBoard, by the step that they count."""
    import finflow

    root = f"output_root={tmp_path_factory.mktemp('trained')}"
    pretrained = finflow.pretrain(finflow.load("pretrain", [root, *SMALL]))
    tuned = finflow.finetune(finflow.load("finetune", [root, *SMALL, *TUNE]))
    return {"epoch": pretrained.run_dir, "episode": tuned.run_dir}
