"""Exit codes, closing lines, and that a wrong command line leaves nothing behind."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from finflow.cli.errors import exit_code
from finflow.errors import DataError, DivergedError, ParentError, StorageError

Command = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]
TOUCH = "folder.mkdir(parents=True, exist_ok=True); (folder / 'x').touch()"


def one_line(stderr: str) -> str:
    assert stderr.count("\n") == 1, stderr
    assert stderr.startswith("error: ")
    return stderr.removeprefix("error: ").strip()


@pytest.mark.parametrize(
    ("stage_name", "args", "fragment"),
    [
        ("pretrain", ["algo.lr=-1"], "algo.lr=-1: should be greater than 0"),
        ("pretrain", ["experiment=nope"], "experiment=nope: no such option; choose one of ablation"),
        ("pretrain", ["-"], "-: no such flag"),
        ("pretrain", ["--config-name=x"], "--config-name=x: no such configuration"),
        ("pretrain", ["-m", "seed=0,x"], "seed=x: should be a valid integer"),
        ("pretrain", ["-m", "seed=interval(0,1)"], "a grid needs values"),
        ("pretrain", ["-m", "seed=0,1", "hydra.run.dir=x"], "hydra.sweep.dir"),
        ("pretrain", ["hydra.sweep.dir=x"], "hydra.run.dir"),
        ("pretrain", ["hydra.run.dir="], "should not be empty"),
        ("finetune", ["+typo=1"], "+typo=1: unknown key"),
        ("finetune", ["env=csv"], "env.path: env=csv needs the file"),
        ("evaluate", ["budget.epochs=3"], "evaluate does not read budget.epochs"),
        ("collect", ["episodes=0"], "episodes=0: should be greater than or equal to 1"),
        ("decide", ["run="], "run='': should not be empty"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_leaves_nothing(
    stage: Command, tmp_path: Path, stage_name: str, args: list[str], fragment: str
) -> None:
    done = stage(stage_name, *args)
    assert done.returncode == 2
    assert fragment in one_line(done.stderr)
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["--help"], ["pretrain", "--help"], ["pretrain", "--cfg", "job"]])
def test_output_that_nobody_reads_ends_silently(words: list[str], tmp_path: Path) -> None:
    """As after `| head -1`, by a pipe whose reader is gone before anything is printed."""
    read, write = os.pipe()
    os.close(read)
    line = [sys.executable, "-m", "finflow", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_closing_lines_are_the_last_and_name_the_folder(stub: Command, tmp_path: Path) -> None:
    done = stub(f"{TOUCH}; print('work')", "output_root=here", "seed=4")
    assert (done.returncode, done.stderr) == (0, "")
    first, folder, command = done.stdout.splitlines()
    assert (first, command) == ("work", "Next: python next.py")
    run = Path(folder.removeprefix("Run folder: "))
    assert run.parts[:3] == ("here", "pretrain", "iql-sp500-all")
    assert run.name.endswith("-s4")
    assert [p.name for p in (tmp_path / run).iterdir()] == ["x"]  # nothing of Hydra's own


def test_printed_commands_work_where_the_venv_is_not_activated(
    stage: Command, stub: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where PATH has no Python at all."""
    monkeypatch.setenv("PATH", "/nowhere")
    (line,) = stage("evaluate").stderr.splitlines()
    command = line.partition("; run: ")[2]
    assert command == f"{sys.executable} experiments/finetune.py"
    last = stub("pass", "-m", "seed=0,1").stdout.splitlines()[-1]
    assert last.startswith(f"Next: {sys.executable} experiments/sweep.py dir=")


def test_run_dir_is_taken_as_given_when_new_or_empty(stub: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new/er", "empty", "a (b)=c"):
        done = stub(TOUCH, f'hydra.run.dir="{name}"')
        assert f"Run folder: {name}\n" in done.stdout, done.stderr
        assert (tmp_path / name / "x").exists()
    assert not (tmp_path / "outputs").exists()


def test_run_dir_with_anything_in_it_is_refused(stub: Command, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "weights").write_text("precious")
    assert "hydra.run.dir=full: not empty" in one_line(stub(TOUCH, "hydra.run.dir=full").stderr)
    assert "a file" in one_line(stub("pass", "hydra.run.dir=full/weights").stderr)
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["weights"]


@pytest.mark.parametrize(
    ("error", "code", "fragment"),
    [
        (DataError("prices.csv:3:2: text"), 2, "prices.csv:3:2"),
        (ParentError("no parent"), 2, "no parent"),
        (StorageError("full\nup"), 3, "full up"),
        (DivergedError("step 3"), 5, "step 3"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 3, "x: No space left"),
        (OSError(errno.EROFS, "Read-only file system", "y"), 3, "y: Read-only"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError("Unable to allocate 8 TiB"), 2, "out of memory (Unable to allocate 8 TiB); lower algo.batch_size"),
    ],
)
def test_failures_end_in_their_exit_code(
    error: BaseException, code: int, fragment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(error) == code
    assert fragment in one_line(capsys.readouterr().err)


def test_torch_asked_for_more_memory_than_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert exit_code(caught.value) == 2
    assert "out of memory" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(("body", "code"), [("raise ConfigError('a: b')", 2), ("raise KeyboardInterrupt", 130)])
def test_a_run_that_fails_before_it_writes_leaves_nothing(stub: Command, tmp_path: Path, body: str, code: int) -> None:
    done = stub(body)
    assert done.returncode == code
    one_line(done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_keeps_what_it_wrote(stub: Command, tmp_path: Path) -> None:
    assert stub(f"{TOUCH}\nraise DivergedError('nan')").returncode == 5
    assert len(list(tmp_path.glob("outputs/pretrain/*/*/x"))) == 1


@pytest.mark.parametrize("body", ["raise ValueError('odd')", "open('/nowhere/at/all')"])
def test_a_fault_of_ours_has_a_traceback_and_says_so(stub: Command, body: str) -> None:
    done = stub(body)
    assert done.returncode == 70
    assert "Traceback" in done.stderr
    assert "bug of FinFlow" in done.stderr.splitlines()[-1]


def test_a_place_that_cannot_be_written_is_a_storage_error(stub: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = stub(TOUCH, "output_root=file/below")
    assert done.returncode == 3
    assert "output_root" in one_line(done.stderr)
