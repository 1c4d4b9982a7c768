"""Two writers of one run folder, and signals: who is there is named, what was asked to stop can go on."""

import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from finflow.artifacts.checkpoints import FOLDER, Checkpoints
from finflow.cli.errors import end_at_once
from finflow.io.files import locked
from finflow.stages import run
from finflow.tracking import tracker
from finflow.tracking.sink import JsonlTracker, Sink

from .conftest import Tiny, at_pause, forked, tree_hash

Wanted = dict[str, dict[str, bytes]]


def test_a_second_writer_names_the_first_and_a_kill_frees_the_folder(
    tiny: Tiny, wanted: Wanted, cut: dict[str, Path], tmp_path: Path
) -> None:
    folder, ready = tmp_path / "run", tmp_path / "ready"
    shutil.copytree(cut["finetune"], folder)
    first = os.fork()
    if first == 0:
        with locked(folder):
            ready.touch()
            time.sleep(600)
        os._exit(0)
    try:
        while not ready.exists():
            time.sleep(0.01)
        before = tree_hash(folder)
        for changes in ({"resume": True}, {"resume": str(folder)}):
            second = forked(lambda changes=changes: tiny.train("finetune", folder, **changes))
            assert second.code == 4, second.said
            assert second.said.startswith(f"error: {folder}: in use by process {first} on ")
            assert second.said.endswith("; wait for it, or stop it\n")
        assert tree_hash(folder) == before
    finally:
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
    third = forked(lambda: tiny.train("finetune", folder, resume=True))
    assert third.code == 0, third.said
    assert tiny.results(folder) == wanted["finetune"]


def test_a_new_run_is_kept_out_as_well(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with locked(folder):
        second = forked(lambda: tiny.train("pretrain", folder))
    assert second.code == 4
    assert f"in use by process {os.getpid()} " in second.said


@pytest.mark.parametrize(
    ("stage", "unit", "progress", "number"),
    [
        ("pretrain", "epoch", 1, signal.SIGINT),
        ("finetune", "refit", 3, signal.SIGINT),
        ("finetune", "episode", 3, signal.SIGTERM),
    ],
)
def test_a_signal_saves_and_ends_and_the_run_goes_on(
    tiny: Tiny, wanted: Wanted, tmp_path: Path, stage: str, unit: str, progress: int, number: signal.Signals
) -> None:
    """It comes twice quickly, and once more while the checkpoint is written."""
    folder, asked = tmp_path / "run", tmp_path / "asked"

    def send() -> None:
        asked.touch()
        for _ in range(2):
            os.kill(os.getpid(), number)

    def work() -> None:
        end_at_once()  # as an entry point does
        save = Checkpoints.save

        def impatient(store: Checkpoints, *args: Any, **more: Any) -> Path:
            if asked.exists():
                os.kill(os.getpid(), number)
            return save(store, *args, **more)

        Checkpoints.save = impatient  # type: ignore[method-assign]
        at_pause(unit, progress, send, before=True)
        tiny.train(stage, folder)

    ended = forked(work)
    seconds = time.time() - asked.stat().st_mtime
    assert ended.code == 128 + number, ended.said
    assert seconds < 10
    said = ended.said.splitlines()[-1]
    pattern = rf"error: stopped by {number.name} at {unit} \d+, checkpoint (.+); to go on, give the same command and "
    found = re.fullmatch(pattern + "resume=true", said)
    assert found, said
    assert Path(found[1]).parent == folder / FOLDER
    assert Path(found[1]) == max((folder / FOLDER).glob("*.safetensors"))
    again = forked(lambda: tiny.train(stage, folder, resume=True))
    assert again.code == 0, again.said
    assert tiny.results(folder) == wanted[stage]


@pytest.mark.usefixtures("wanted")  # its parent
def test_neither_a_long_run_nor_a_sink_that_hangs_holds_up_the_end(tiny: Tiny, tmp_path: Path) -> None:
    """50,000 rows before the signal, and a sink that would be waited for 30 s at the end of a run."""
    folder, asked = tmp_path / "run", tmp_path / "asked"

    class Hanging(Sink):
        def close(self, *, failed: bool) -> None:
            time.sleep(60)

    def send() -> None:
        asked.touch()
        os.kill(os.getpid(), signal.SIGTERM)

    def work() -> None:
        end_at_once()
        tracker.SINKS, begin = {"hanging": lambda *_: Hanging}, JsonlTracker.__init__
        run.HURRY /= 10

        def long(self: JsonlTracker, *args: Any) -> None:
            begin(self, *args)
            for row in range(50_000):
                self.log("episode", -row, {"sharpe": 0.5})

        JsonlTracker.__init__ = long  # type: ignore[method-assign]
        at_pause("episode", 3, send, before=True)
        tiny.train("finetune", folder)

    ended = forked(work)
    assert ended.code == 143, ended.said
    seconds = time.time() - asked.stat().st_mtime
    assert "tracking.hanging: switched off" in ended.said
    assert len((folder / "metrics.jsonl").read_bytes().splitlines()) > 50_000
    assert seconds + run.HURRY < 10


def test_a_signal_before_the_first_update_leaves_no_folder(tiny: Tiny, tmp_path: Path) -> None:
    from finflow.stages import pretrain as stage

    def work() -> None:
        end_at_once()
        fit = stage.fit

        def slow(*args: Any, **more: Any) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            return fit(*args, **more)

        stage.fit = slow
        tiny.train("pretrain", tmp_path / "run")

    ended = forked(work)
    assert (ended.code, ended.said) == (143, "error: interrupted\n")
    assert not (tmp_path / "run").exists()
