"""SIGKILL anywhere, the same command with `resume=true`, and the results are the uninterrupted run's, to the byte."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finflow.artifacts.checkpoints import Checkpoints
from finflow.stages.finetune import FinetuneSession

from .conftest import Tiny, forked, killed_after

CALLS = ("write", "fsync", "replace", "unlink", "ftruncate")
OUTSIDE = 0
"""Number of the save that an event belongs to, where it belongs to none."""


class Shim:
    """Stands before every call that changes the disk: notes it, and kills the process before a chosen one.

    Parameters
    ----------
    kill_at : number of the call before which to kill; a write is first done by half.
    """

    def __init__(self, kill_at: int | None = None) -> None:
        self.kill_at, self.events, self.save = kill_at, list[tuple[str, int]](), OUTSIDE
        self.saves = 0
        for name in CALLS:
            setattr(os, name, self._watched(name, getattr(os, name)))
        save = Checkpoints.save

        def watched(store: Checkpoints, *args: Any, **more: Any) -> Path:
            self.saves += 1
            self.save = self.saves
            try:
                return save(store, *args, **more)
            finally:
                self.save = OUTSIDE

        Checkpoints.save = watched  # type: ignore[method-assign]

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **more: Any) -> Any:
            if len(self.events) == self.kill_at:
                if name == "write":
                    call(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            self.events.append((name, self.save))
            return call(*args, **more)

        return watched


def events(tiny: Tiny, stage: str, folder: Path, **changes: object) -> list[tuple[str, int]]:
    """Every call of a run that changes the disk."""
    noted = folder.with_suffix(".json")

    def work() -> None:
        shim = Shim()
        tiny.train(stage, folder, **changes)
        found = list(shim.events)
        noted.write_text(json.dumps(found))

    assert forked(work).code == 0
    return [(name, save) for name, save in json.loads(noted.read_text())]


def kill(tiny: Tiny, stage: str, folder: Path, at: int, **changes: object) -> None:
    def work() -> None:
        Shim(at)
        tiny.train(stage, folder, **changes)

    assert forked(work).code == -signal.SIGKILL


def check(tiny: Tiny, wanted: dict[str, dict[str, bytes]], stage: str, folder: Path) -> None:
    ended = forked(lambda: tiny.train(stage, folder, resume=True))
    assert ended.code == 0, ended.said
    assert tiny.results(folder) == wanted[stage]
    assert not any(path.name.startswith(".tmp") for path in folder.rglob("*"))


def test_killed_at_every_boundary_of_the_first_checkpoint(
    tiny: Tiny, wanted: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """Before its rename there is nothing to go on from: the run starts over in its folder."""
    found = events(tiny, "finetune", tmp_path / "dry")
    for k in [k for k, (_, number) in enumerate(found) if number == 1]:
        kill(tiny, "finetune", tmp_path / str(k), k)
        check(tiny, wanted, "finetune", tmp_path / str(k))


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_killed_at_every_boundary_of_the_last_checkpoint_and_every_rename_after_it(
    tiny: Tiny, wanted: dict[str, dict[str, bytes]], tmp_path: Path, stage: str
) -> None:
    """An older checkpoint goes for the last one; weights, `validation.csv`, `run.json` follow, `summary.json` last."""
    found = events(tiny, stage, tmp_path / "dry")
    last = max(number for _, number in found)
    base = tmp_path / "base"
    kill(tiny, stage, base, min(k for k, (_, number) in enumerate(found) if number == last))
    shutil.copytree(base, tmp_path / "again")
    found = events(tiny, stage, tmp_path / "again", resume=True)
    first = min(k for k, (_, number) in enumerate(found) if number != OUTSIDE)
    within = [name for name, number in found if number != OUTSIDE]
    assert within == ["write", "fsync", "replace", "fsync"] * 2 + ["unlink"]  # checkpoint, manifest, one that goes
    assert [name for name, _ in found[first + len(within) :]].count("replace") == (5 if stage == "pretrain" else 4)
    for k in range(first, len(found)):
        if found[k][1] == OUTSIDE and found[k][0] != "replace":
            continue  # `test_killed_at_every_boundary_of_a_run` takes these as well
        folder = tmp_path / str(k)
        shutil.copytree(base, folder)
        kill(tiny, stage, folder, k, resume=True)
        if (folder / "summary.json").exists():
            assert tiny.results(folder) == wanted[stage]
        else:
            check(tiny, wanted, stage, folder)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_killed_at_every_boundary_of_a_run(
    tiny: Tiny, wanted: dict[str, dict[str, bytes]], tmp_path: Path, stage: str
) -> None:
    for k in range(len(events(tiny, stage, tmp_path / "dry"))):
        folder = tmp_path / str(k)
        kill(tiny, stage, folder, k)
        if (folder / "summary.json").exists():
            assert tiny.results(folder) == wanted[stage]
        else:
            check(tiny, wanted, stage, folder)


@pytest.fixture(scope="module")
def lasting(
    tiny: Tiny, wanted: dict[str, dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, float]:
    """Seconds by the clock that a fork of each stage takes on this machine."""
    found = dict[str, float]()
    for stage in wanted:
        begin, folder = time.monotonic(), tmp_path_factory.mktemp(stage) / "run"
        assert forked(partial(tiny.train, stage, folder)).code == 0
        found[stage] = time.monotonic() - begin
    return found


def check_random_kills(
    tiny: Tiny, wanted: dict[str, dict[str, bytes]], stage: str, folder: Path, moments: list[float]
) -> None:
    for resume, moment in enumerate(moments):
        work: Callable[[], object] = lambda: tiny.train(stage, folder, resume=bool(resume) or None)  # noqa: B023, E731
        assert forked(work, wait=killed_after(moment)).code in (0, 2, -signal.SIGKILL)
    forked(lambda: tiny.train(stage, folder, resume=True))
    assert tiny.results(folder) == wanted[stage]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_killed_at_random_times(
    tiny: Tiny, wanted: dict[str, dict[str, bytes]], lasting: dict[str, float], tmp_path: Path, stage: str, seed: int
) -> None:
    """One kill in each third of the run."""
    moment = (seed + np.random.default_rng(seed).uniform()) / 3 * lasting[stage]
    check_random_kills(tiny, wanted, stage, tmp_path / "run", [moment])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_killed_again_and_again(
    tiny: Tiny, wanted: dict[str, dict[str, bytes]], lasting: dict[str, float], tmp_path: Path, stage: str, seed: int
) -> None:
    rng = np.random.default_rng(100 + seed)
    check_random_kills(tiny, wanted, stage, tmp_path / "run", list(rng.uniform(0.0, 1.0, 3) * lasting[stage]))


def test_killed_within_the_refit_and_before_any_checkpoint(
    tiny: Tiny, wanted: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """There is nothing to go on from: the run starts over in its folder, with the parent that it began with."""

    def work() -> None:
        def killed(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        FinetuneSession.measure_scales = killed  # type: ignore[method-assign]
        tiny.train("finetune", tmp_path / "run")

    assert forked(work).code == -signal.SIGKILL
    assert (tmp_path / "run" / "config.yaml").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert forked(lambda: tiny.train("finetune", tmp_path / "run", resume=True)).code == 0
    assert tiny.results(tmp_path / "run") == wanted["finetune"]
