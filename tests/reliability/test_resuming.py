"""When a run is saved, from where it goes on, and what may change in between."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from finflow.artifacts.checkpoints import FOLDER, MANIFEST
from finflow.artifacts.provenance import Stopwatch
from finflow.errors import ConfigError
from finflow.schema import Config
from finflow.schema.sections import Checkpoint
from finflow.stages.run import placed, resumed_folder
from finflow.training.session import Checkpointer, Stop

from .conftest import Tiny, at_pause, forked, tree_hash

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
    keeper = Checkpointer(store, Checkpoint(**settings), Stop(), {}, dict, lambda: None, Stopwatch().phase)  # type: ignore[arg-type]
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


@pytest.fixture(scope="module")
def keeping(tiny: Tiny, wanted: Wanted, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder of a run of each stage that was killed at its end, with every checkpoint it made; to be copied."""
    found = dict[str, Path]()
    for stage, (unit, last) in {"pretrain": ("epoch", 3), "finetune": ("episode", 6)}.items():
        keep_all = tiny.configs[stage].checkpoint.model_copy(update={"max_checkpoints": 9})
        folder = tmp_path_factory.mktemp(stage) / "run"

        def work(stage: str, unit: str, last: int, folder: Path, keep_all: Checkpoint) -> None:
            at_pause(unit, last, lambda: os.kill(os.getpid(), signal.SIGKILL))
            tiny.train(stage, folder, checkpoint=keep_all)

        assert forked(partial(work, stage, unit, last, folder, keep_all)).code == -signal.SIGKILL
        found[stage] = folder
    return found


@pytest.mark.parametrize(
    ("stage", "kind", "written"),
    [
        ("pretrain", "oldest", "within the run"),
        ("pretrain", "best", "absolute"),
        ("pretrain", "latest", "from elsewhere"),
        ("finetune", "oldest", "beside it"),
        ("finetune", "middle", "from elsewhere"),
        ("finetune", "latest", "absolute"),
    ],
)
def test_any_checkpoint_can_be_named(
    tiny: Tiny, wanted: Wanted, keeping: dict[str, Path], tmp_path: Path, stage: str, kind: str, written: str
) -> None:
    """From wherever the command is typed, the end is the uninterrupted run's, to the byte.

    The best of pretraining is neither its first nor its last; that of fine-tuning is the last.
    """
    folder = tmp_path / "run"
    shutil.copytree(keeping[stage], folder)
    listed = json.loads((folder / FOLDER / MANIFEST).read_text())["checkpoints"]
    names, best = [one["name"] for one in listed], [one["name"] for one in listed if one["best"]]
    kinds = {"oldest": names[0], "middle": names[1], "best": best[-1], "latest": names[-1]}
    path = folder / FOLDER / kinds[kind]
    assert len(set(kinds.values())) == len(names) == 3
    there, named = {
        "absolute": (tmp_path, path),
        "from elsewhere": (tmp_path, path.relative_to(tmp_path)),
        "within the run": (folder, path.relative_to(folder)),
        "beside it": (folder / FOLDER, Path(path.name)),
    }[written]

    def work() -> None:
        os.chdir(there)
        tiny.train(stage, None, resume=str(named))

    ended = forked(work)
    assert ended.code == 0, ended.said
    assert json.loads((folder / "run.json").read_text())["resumed"][-1]["from"] == path.name
    assert tiny.results(folder) == wanted[stage]


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    path.write_bytes(content)


Made = Callable[[Path, dict[str, Path]], tuple[Path, dict[str, object]]]


def named_and_damaged(folder: Path, _: dict[str, Path]) -> tuple[Path, dict[str, object]]:
    flipped(newest := max((folder / FOLDER).glob("*.safetensors")))
    return newest, {}


def of_another_run(folder: Path, keeping: dict[str, Path]) -> tuple[Path, dict[str, object]]:
    """Whole, and of equal settings, but not this run's own."""
    name = "00099-episode-3.safetensors"
    shutil.copy(max((keeping["finetune"] / FOLDER).glob("*.safetensors")), folder / FOLDER / name)
    return folder / FOLDER / name, {}


def under_a_name_of_this_run(folder: Path, keeping: dict[str, Path]) -> tuple[Path, dict[str, object]]:
    newest = max((folder / FOLDER).glob("*.safetensors"))
    shutil.copy(min((keeping["finetune"] / FOLDER).glob("*.safetensors")), newest)
    return newest, {}


def of_another_stage(_: Path, keeping: dict[str, Path]) -> tuple[Path, dict[str, object]]:
    return max((keeping["pretrain"] / FOLDER).glob("*.safetensors")), {}


def of_other_settings(folder: Path, _: dict[str, Path]) -> tuple[Path, dict[str, object]]:
    return max((folder / FOLDER).glob("*.safetensors")), {"seed": 7}


def the_manifest(folder: Path, _: dict[str, Path]) -> tuple[Path, dict[str, object]]:
    return folder / FOLDER / MANIFEST, {}


def one_that_went(folder: Path, _: dict[str, Path]) -> tuple[Path, dict[str, object]]:
    return folder / FOLDER / "00001-episode-1.safetensors.gone", {}


def another_file(folder: Path, _: dict[str, Path]) -> tuple[Path, dict[str, object]]:
    return folder / "metrics.jsonl", {}


def an_empty_folder(folder: Path, _: dict[str, Path]) -> tuple[Path, dict[str, object]]:
    (folder.parent / "none").mkdir()
    return folder.parent / "none", {}


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (named_and_damaged, 3, "{path}: damaged"),
        (under_a_name_of_this_run, 3, "{path}: damaged"),
        (of_another_run, 2, "resume={path}: no checkpoint that manifest.json lists; name another"),
        (the_manifest, 2, "resume={path}: no checkpoint that manifest.json lists; name another"),
        (of_another_stage, 2, "is a run of pretrain, not of finetune; name another"),
        (of_other_settings, 2, "has seed=0 (here 7); give the same"),
        (one_that_went, 2, "resume={path}: no run folder and no checkpoint of one; name one"),
        (another_file, 2, "resume={path}: no run folder and no checkpoint of one; name one"),
        (an_empty_folder, 2, "resume={path}: no run folder and no checkpoint of one; name one"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_no_checkpoint_of_this_run_is_refused_and_left_alone(
    tiny: Tiny, keeping: dict[str, Path], copied: Callable[[str], Path], make: Made, code: int, said: str
) -> None:
    folder = copied("finetune")
    path, changes = make(folder, keeping)
    before = tree_hash(folder.parent, keeping["pretrain"])
    ended = forked(lambda: tiny.train("finetune", None, resume=str(path), **changes))
    assert ended.code == code, ended.said
    (line,) = ended.said.splitlines()
    assert line.startswith("error: ")
    assert said.format(path=path) in line
    assert "; " in line
    assert tree_hash(folder.parent, keeping["pretrain"]) == before


def test_a_named_checkpoint_goes_on_in_no_other_folder(tiny: Tiny, copied: Callable[[str], Path]) -> None:
    folder = copied("finetune")
    before = tree_hash(folder.parent)
    newest = max((folder / FOLDER).glob("*.safetensors"))
    ended = forked(lambda: tiny.train("finetune", folder.parent / "new", resume=str(newest)))
    assert ended.code == 2
    assert f"goes on in its own folder, {folder}; leave out the folder {folder.parent / 'new'}" in ended.said
    assert tree_hash(folder.parent) == before


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_resume_true_finds_the_run_that_was_cut_off(tiny: Tiny, cut: dict[str, Path], stage: str) -> None:
    assert resumed_folder(changed(tiny.configs[stage], "resume", True), None) == cut[stage]
    with pytest.raises(ConfigError, match=r"no unfinished run of these settings under .+; name the folder"):
        resumed_folder(changed(changed(tiny.configs[stage], "resume", True), "seed", 5), None)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_finished_run_is_not_resumed(tiny: Tiny, wanted: Wanted, stage: str) -> None:
    folder = tiny.root / stage / "whole" / "run"
    with (
        pytest.raises(ConfigError, match=f"^{folder}: finished"),
        placed(changed(tiny.configs[stage], "resume", str(folder)), None),
    ):
        pass
