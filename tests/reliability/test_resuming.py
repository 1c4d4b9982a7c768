"""When a run is saved, from where it goes on, and what may change in between."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finflow.artifacts.checkpoints import FOLDER
from finflow.errors import ConfigError
from finflow.schema import Checkpoint, Config
from finflow.stages.place import placed, resumed_folder
from finflow.training.checkpointing import Checkpointer
from finflow.training.stopping import Stop

from .conftest import Tiny, forked

Wanted = dict[str, dict[str, bytes]]


class Kept:
    """A store that notes what it is asked to save: the progress, and `best` beside it."""

    def __init__(self) -> None:
        self.saved: list[int | tuple[int, str]] = []

    def save(self, unit: str, progress: int, state: Any, facts: Any, *, best: bool = False) -> Path:
        self.saved.append((progress, "best") if best else progress)
        return Path(f"{progress}")


@pytest.mark.parametrize(
    ("options", "step", "saved"),
    [
        ({}, 1, [10, 20, 30]),
        ({}, 4, [12, 20, 32]),  # several episodes end at once: the first pause past the tenth
        ({"interval": 100}, 1, []),
        ({"interval": 100, "save_latest": True}, 1, [32]),
        ({"save_latest": True}, 4, [12, 20, 32]),  # saved there already
        ({"save_best": True}, 1, [(4, "best"), 10, (20, "best"), (24, "best"), 30]),
        ({"interval": 100, "save_best": True, "save_latest": True}, 1, [(4, "best"), (20, "best"), (24, "best"), 32]),
    ],
)
def test_every_option_says_when_to_save(options: dict[str, Any], step: int, saved: list[Any]) -> None:
    settings = {"interval": 10, "save_best": False, "save_latest": False, "max_checkpoints": 5} | options
    store = Kept()
    keeper = Checkpointer(store, Checkpoint(**settings), Stop(), {}, dict, lambda: None)  # type: ignore[arg-type]
    for progress in range(step, 33, step):
        if progress in (4, 20, 24):
            keeper.found_best()
        keeper.pause("episode", progress)
    keeper.finish("episode", 32)
    assert store.saved == saved


def changed(config: Config, key: str, value: object) -> Config:
    """`config` with another value of a dotted key."""
    head, _, rest = key.partition(".")
    inner = getattr(config, head)
    return config.model_copy(update={head: changed(inner, rest, value) if rest else value})


@pytest.fixture
def copied(cut: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    def copy(stage: str) -> Path:
        shutil.copytree(cut[stage], tmp_path / stage)
        return tmp_path / stage

    return copy


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("pretrain", "algo.expectile", 0.8),
        ("pretrain", "seed", 1),
        ("pretrain", "budget.collect_episodes", 13),
        ("pretrain", "budget.epochs", 2),  # fewer
        ("finetune", "algo.cql.alpha", 1.0),
        ("finetune", "env.cost_bps", 3.0),
        ("finetune", "reward.lambda_turn", 0.2),
        ("finetune", "evaluation.every_episodes", 2),
        ("finetune", "init.weights", None),
        ("finetune", "budget.episodes", 5),  # fewer
    ],
)
def test_a_changed_setting_is_refused_by_name(
    tiny: Tiny, copied: Callable[[str], Path], stage: str, key: str, value: object
) -> None:
    folder = copied(stage)
    config = changed(tiny.configs[stage], key, value)
    said = rf"^resume: {folder} has {key}=.+ \(here {value}\); give the same, or start a new run without resume$"
    with pytest.raises(ConfigError, match=said), placed(changed(config, "resume", str(folder)), None):
        pass


def test_several_changed_settings_are_all_named(tiny: Tiny, copied: Callable[[str], Path]) -> None:
    config = changed(changed(tiny.configs["finetune"], "seed", 7), "env.slippage_bps", 9.0)
    with (
        pytest.raises(ConfigError, match=r"seed=0 \(here 7\), env.slippage_bps=5.0 \(here 9.0\); "),
        placed(changed(config, "resume", str(copied("finetune"))), None),
    ):
        pass


def test_budget_tracking_and_hardware_may_change_and_are_recorded(tiny: Tiny, copied: Callable[[str], Path]) -> None:
    folder = copied("finetune")
    newest = max((folder / FOLDER).glob("*.safetensors")).name
    config = tiny.configs["finetune"]
    new = {"budget.episodes": 8, "tracking.tensorboard": True, "hardware.threads": 2, "checkpoint.interval": 5}
    for key, value in new.items():
        config = changed(config, key, value)
    ended = forked(lambda: Tiny(tiny.root, {"finetune": config}).train("finetune", folder, resume=True))
    assert ended.code == 0, ended.said
    assert "warning: hardware.threads=2: the run began with 1; the bits may differ" in ended.said.splitlines()
    (resumed,) = json.loads((folder / "run.json").read_text())["resumed"]
    assert resumed["from"] == newest
    assert {key: values[1] for key, values in resumed["changed"].items()} == new
    assert resumed["changed"]["budget.episodes"] == [6, 8]
    assert len((folder / "metrics.jsonl").read_text().splitlines()) >= 8
    assert (folder / "tensorboard").is_dir()


def test_any_checkpoint_can_be_named(tiny: Tiny, wanted: Wanted, copied: Callable[[str], Path]) -> None:
    folder = copied("finetune")
    oldest, *_, newest = sorted((folder / FOLDER).glob("*.safetensors"))
    assert oldest != newest
    ended = forked(lambda: tiny.train("finetune", folder, resume=str(oldest)))
    assert ended.code == 0, ended.said
    assert json.loads((folder / "run.json").read_text())["resumed"][0]["from"] == oldest.name
    assert tiny.results(folder) == wanted["finetune"]


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_resume_true_finds_the_run_that_was_cut_off(tiny: Tiny, cut: dict[str, Path], stage: str) -> None:
    assert resumed_folder(changed(tiny.configs[stage], "resume", True), None) == cut[stage]
    with pytest.raises(ConfigError, match=r"no unfinished run of these settings; .+ has seed=0 \(here 5\)"):
        resumed_folder(changed(changed(tiny.configs[stage], "resume", True), "seed", 5), None)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_finished_run_is_not_resumed(tiny: Tiny, wanted: Wanted, stage: str) -> None:
    folder = tiny.root / stage / "whole" / "run"
    with (
        pytest.raises(ConfigError, match=f"^{folder}: finished"),
        placed(changed(tiny.configs[stage], "resume", str(folder)), None),
    ):
        pass
