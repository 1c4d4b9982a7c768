"""Sweeps as a user runs them; most of their jobs are the door of pretrain around a stage of a few lines."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]

FINISHED = "(folder / 'summary.json').write_text('{}')"


def write_stub(path: Path, body: str) -> Path:
    """A program whose stage is `body`, which sees `config` and `folder`."""
    lines = "\n    ".join(body.splitlines())
    path.write_text(
        f"import os, signal, sys, time; sys.path.insert(0, {str(ROOT / 'experiments')!r})\n"
        "import entry\nfrom pathlib import Path\nfrom finflow.errors import *\nfrom types import SimpleNamespace\n"
        f"def run(config, folder):\n    {lines}\n"
        "    return SimpleNamespace(run_dir=folder, next_command='python next.py')\n"
        "if __name__ == '__main__':\n    entry.main('pretrain', 'a stub', {}, run)\n"
    )
    return path


def call(place: Path, program: Path, *args: str, timeout: float = 300) -> "subprocess.CompletedProcess[str]":
    """Run `python PROGRAM ARGS` in `place`."""
    line = [sys.executable, str(program), *args]
    return subprocess.run(
        line,
        cwd=place,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def stub(tmp_path: Path) -> Command:
    """Run a stub of pretrain in `tmp_path`: its body, then the command line."""
    return lambda body, *args: call(tmp_path, write_stub(tmp_path.with_name(f"{tmp_path.name}-stub.py"), body), *args)
