"""Sweeps as a user runs them; most of their jobs are pretrain with a stage of a few lines in its place."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]

FINISHED = "(folder / 'summary.json').write_text('{}')"
COUNTED = """import json
days = [f'2015-{month:02d}-{day:02d}' for month in range(1, 13) for day in range(1, 29)]
rows = [f'{date},{(k * (config.seed + 3) % 19 - 9) / 1e3},{(k % 7 - 3) / 1e3}' for k, date in enumerate(days)]
(folder / 'validation.csv').write_text('\\n'.join(['date,policy,benchmark', *rows]) + '\\n')
(folder / 'config.yaml').write_text(json.dumps(config.model_dump()))
(folder / 'run.json').write_text(json.dumps({'data_fingerprint': 'd', 'parent': None}))
figures = {'validation_sharpe': config.seed / 10, 'validation_active_information_ratio': 0.1}
(folder / 'summary.json').write_text(json.dumps({'selected': figures}))"""
"""A run that leaves what the table of its sweep reads, its figures made from its seed."""


def write_stub(path: Path, body: str) -> Path:
    """A program whose stage is `body`, which sees `config` and `folder`."""
    lines = "\n    ".join(body.splitlines())
    path.write_text(
        "import os, signal, sys, time\nfrom pathlib import Path\nfrom types import SimpleNamespace\n"
        "from finflow.cli.commands import COMMANDS, Command\nfrom finflow.cli.main import main\n"
        "from finflow.errors import *\n"
        f"def run(config, folder):\n    folder.mkdir(parents=True, exist_ok=True)\n    {lines}\n"
        "    return SimpleNamespace(run_dir=folder, next_command='python next.py')\n"
        "COMMANDS['pretrain'] = Command('a stub', run, {})\nif __name__ == '__main__':\n    main('pretrain')\n"
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
