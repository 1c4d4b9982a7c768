import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from finflow.errors import StorageError
from finflow.schema.sections import Tracking
from finflow.tracking import sink
from finflow.tracking.sink import JsonlTracker, Row, RunOutcome, Sink, Start, Tracker
from finflow.tracking.tensorboard import TensorBoardSink
from finflow.tracking.tracker import CompositeTracker, make_tracker


@pytest.fixture(autouse=True)
def _fresh_warnings() -> None:
    sink._said.clear()


class Spy(Sink):
    """Notes its calls, and fails from call number `fails_at` on."""

    def __init__(self, fails_at: int = 1_000) -> None:
        self.calls: list[str] = []
        self._fails_at = fails_at

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if len(self.calls) > self._fails_at:
            raise RuntimeError("the\nnetwork is down")

    def log(self, step_name: str, step: int, row: Row) -> None:
        self._note(f"log {step_name} {step} {dict(row)}")

    def histogram(self, step_name: str, step: int, name: str, values: NDArray[np.float64]) -> None:
        self._note(f"histogram {name}")

    def alert(self, step_name: str, step: int, message: str) -> None:
        self._note(f"alert {message}")

    def close(self, *, failed: bool = False) -> None:
        self._note("close")


def tracking(*, tensorboard: bool = False) -> Tracking:
    return Tracking(tensorboard=tensorboard, sinks=[], wandb=None, close_timeout=30.0)


def drive(tracker: Tracker, outcome: RunOutcome | None = None) -> None:
    generator = np.random.default_rng(0)
    for epoch in range(3):
        tracker.log("epoch", epoch, {"v_loss": float(generator.normal()), "sharpe": None})
        tracker.histogram("epoch", epoch, "gate", generator.random((4, 5)))
    tracker.alert("epoch", 2, "entropy\ncollapsed")
    if outcome is not None:
        assert isinstance(tracker, CompositeTracker)
        tracker.finish(outcome)
    tracker.close()
    tracker.close()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_row_a_line_keys_in_order_floats_to_the_bit(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    values = [0.1 + 0.2, 5e-324, -0.0, 1e308, float(np.float32(0.1))]
    row = {"z": values[0], "a": values[1], "m": values[2], "b": values[3], "f": np.float32(0.1), "t": torch.tensor(0.5)}
    tracker.log("episode", 7, {**row, "n": np.int64(3)})
    (line,) = lines(tmp_path / "metrics.jsonl")  # before close: it is on its way already
    back = json.loads(line)
    assert list(back) == ["episode", "z", "a", "m", "b", "f", "t", "n"]
    assert [float(back[key]).hex() for key in "zambf"] == [value.hex() for value in values]
    assert (back["episode"], back["t"]) == (7, 0.5)
    assert line.endswith('"n": 3}')


def test_what_is_undefined_is_null(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    tracker.log("epoch", 0, {"a": None, "b": float("nan"), "c": float("-inf"), "d": np.float32("nan")})
    assert lines(tmp_path / "metrics.jsonl") == ['{"epoch": 0, "a": null, "b": null, "c": null, "d": null}']


def test_alerts_are_a_file_of_their_own_made_when_needed(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    assert not (tmp_path / "alerts.jsonl").exists()
    tracker.alert("episode", 4, "Q exploded\nbadly")
    assert lines(tmp_path / "alerts.jsonl") == ['{"episode": 4, "message": "Q exploded badly"}']
    assert lines(tmp_path / "metrics.jsonl") == []


def test_an_earlier_attempt_in_the_folder_is_begun_anew(tmp_path: Path) -> None:
    drive(JsonlTracker(tmp_path))
    first = (tmp_path / "metrics.jsonl").read_bytes()
    drive(JsonlTracker(tmp_path))
    assert (tmp_path / "metrics.jsonl").read_bytes() == first
    JsonlTracker(tmp_path).close()
    assert sorted(os.listdir(tmp_path)) == ["metrics.jsonl"]


def test_a_full_disk_is_a_storage_error_and_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = JsonlTracker(tmp_path)
    tracker.log("epoch", 0, {"a": 1.0})
    write, calls = os.write, [0]

    def filling(descriptor: int, data: memoryview) -> int:
        calls[0] += 1
        if calls[0] > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:4])

    monkeypatch.setattr(os, "write", filling)
    with pytest.raises(StorageError, match=r"metrics\.jsonl: cannot be written: disk full"):
        tracker.log("epoch", 1, {"a": 2.0})
    monkeypatch.undo()
    tracker.log("epoch", 1, {"a": 3.0})
    assert [json.loads(line)["a"] for line in lines(tmp_path / "metrics.jsonl")] == [1.0, 3.0]


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(StorageError, match=r"metrics\.jsonl: cannot be written"):
        make_tracker(tracking(), tmp_path / "run")


def test_the_failure_of_the_truth_is_not_swallowed() -> None:
    tracker = CompositeTracker(Spy(fails_at=0), {"sink": Spy}, 30.0)
    with pytest.raises(RuntimeError):
        tracker.log("epoch", 0, {})


@pytest.mark.parametrize("fails_at", range(9))
def test_a_failing_sink_is_dropped_with_one_warning(fails_at: int, capsys: pytest.CaptureFixture[str]) -> None:
    truth, bad, good = Spy(), Spy(fails_at), Spy()
    drive(CompositeTracker(truth, {"bad": lambda: bad, "good": lambda: good}, 30.0))
    assert truth.calls == good.calls
    assert len(truth.calls) == 8
    assert len(bad.calls) == min(fails_at + 1, 8)
    captured = capsys.readouterr()
    warning = "warning: tracking.bad: switched off for the rest of the run (the network is down); metrics.jsonl goes on"
    assert captured.err.splitlines() == ([warning] if fails_at < 8 else [])
    assert captured.out == ""


def test_a_sink_that_cannot_start_is_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    tracker = make_tracker(tracking(tensorboard=True), tmp_path)
    drive(tracker)
    assert len(lines(tmp_path / "metrics.jsonl")) == 3
    assert capsys.readouterr().err.count("warning: tracking.tensorboard") == 1


def test_a_missing_library_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    drive(make_tracker(tracking(tensorboard=True), tmp_path))
    assert len(lines(tmp_path / "metrics.jsonl")) == 3
    assert capsys.readouterr().err.count("warning:") == 1


def test_turning_a_sink_off_changes_nothing(tmp_path: Path) -> None:
    states = []
    for on in (False, True):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - to see that no global stream moves
        random.seed(0)
        drive(make_tracker(tracking(tensorboard=on), tmp_path / str(on)))
        states.append((torch.rand(1).item(), np.random.rand(), random.random()))  # noqa: NPY002
    assert states[0] == states[1]
    for name in ("metrics.jsonl", "alerts.jsonl"):
        assert (tmp_path / "False" / name).read_bytes() == (tmp_path / "True" / name).read_bytes()
    assert not (tmp_path / "False" / "tensorboard").exists()


def test_tensorboard_files_read_back(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    sink = TensorBoardSink(tmp_path)
    settings = {"algo": {"name": "iql", "lr": 3e-4, "betas": [0.9, 1.0]}, "seed": 2}
    sink.begin(Start("pretrain", "iql", settings, {}, "sweep-1", {"algo.betas": "[0.9,1.0]", "algo.lr": "3e-4"}))
    outcome = RunOutcome({"metrics": {"validation_sharpe": 0.5, "v_loss": 0.1, "validation_x": None}, "transitions": 3})
    drive(CompositeTracker(Spy(), {"tensorboard": lambda: sink}, 30.0), outcome)
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = events.Tags()
    # Two files of one second are read in the order of the writers' numbers as text: 99 after 100.
    assert sorted(tags["scalars"]) == ["epoch/v_loss", "result/validation_sharpe"]
    assert events.Scalars("result/validation_sharpe")[0].value == 0.5
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    told = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert set(told) == {"algo.betas", "algo.lr"}
    assert told["algo.betas"].string_value == "[0.9,1.0]"
    assert told["algo.lr"].number_value == 3e-4
    assert tags["histograms"] == ["epoch_gate"]
    assert [event.step for event in events.Scalars("epoch/v_loss")] == [0, 1, 2]
    expected = float(np.random.default_rng(0).normal())
    assert events.Scalars("epoch/v_loss")[0].value == pytest.approx(expected, rel=1e-6)


def test_a_run_without_tensorboard_does_not_import_it(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from finflow.schema.sections import Tracking\n"
        "from finflow.tracking.tracker import make_tracker\n"
        "nothing = Tracking(tensorboard=False, sinks=[], wandb=None, close_timeout=1.0)\n"
        "make_tracker(nothing, pathlib.Path(sys.argv[1])).close()\n"
        "sys.exit(any(name.split('.')[0] in ('tensorboard', 'wandb') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
