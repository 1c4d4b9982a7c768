"""Entry points as a user runs them: a process of their own, in an empty folder."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run `python ARGS` in `tmp_path`."""

    def call(*args: str) -> "subprocess.CompletedProcess[str]":
        line: Sequence[str] = [sys.executable, *args]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    return call


@pytest.fixture
def stage(command: Command) -> Command:
    """Run `python experiments/STAGE.py ARGS`."""
    return lambda name, *args: command(str(ROOT / "experiments" / f"{name}.py"), *args)


@pytest.fixture
def stub(command: Command, tmp_path: Path) -> Command:
    """Run pretrain with a stage of a few lines in its place; `body` sees `config` and `folder`."""

    def call(body: str, *args: str) -> "subprocess.CompletedProcess[str]":
        lines = "\n    ".join(body.splitlines())
        program = (
            "from finflow.cli.commands import COMMANDS, Command\nfrom finflow.cli.main import main\n"
            "from finflow.errors import *\nfrom types import SimpleNamespace\n"
            f"def run(config, folder):\n    {lines}\n"
            "    return SimpleNamespace(run_dir=folder, next_command='python next.py')\n"
            "COMMANDS['pretrain'] = Command('a stub', run, {})\nmain('pretrain')\n"
        )
        path = tmp_path.with_name(f"{tmp_path.name}-stub.py")  # the jobs of a sweep start it again
        path.write_text(program)
        return command(str(path), *args)

    return call
