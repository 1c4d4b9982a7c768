"""`--help` tells what can be changed, and is there at once."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from finflow.cli.commands import COMMANDS
from finflow.config.compose import group_choices, load
from finflow.schema import STAGES

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]


STANDS_FOR = {"DIR": "some/run", "[DIR,DIR]": "[some/run,other/run]"}


@pytest.mark.parametrize("name", STAGES)
def test_help_shows_every_group_and_option(stage: Command, name: str) -> None:
    done = stage(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for group, choices in group_choices(name).items():
        line = next(line for line in done.stdout.splitlines() if line.split()[:1] == [group])
        assert line.replace("*", "").split(maxsplit=1)[1] == ", ".join(choices)
    assert f"python experiments/{name}.py" in done.stdout


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_loads_nothing_heavy(command: Command, flag: str) -> None:
    program = (
        f"import runpy, sys; sys.argv = ['finetune.py', 'seed=x', {flag!r}]\n"
        f"try: runpy.run_path({str(ROOT / 'experiments/finetune.py')!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "print({'torch', 'pandas', 'scipy', 'plotly', 'skfolio'} & set(sys.modules))"
    )
    done = command("-c", program)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


@pytest.mark.parametrize("name", ["pretrain", "finetune", "look"])
def test_training_and_looking_load_no_statistics(command: Command, name: str) -> None:
    found = "{'scipy.stats', 'sklearn', 'arch', 'skfolio'} & set(sys.modules)"
    charts = "{'plotly'} & set(sys.modules)" if name == "look" else "set()"
    done = command("-c", f"import sys, finflow.stages.{name}; print({found} | {charts})")
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize("name", STAGES)
def test_every_example_of_the_help_is_a_command_line(name: str) -> None:
    for example in COMMANDS[name].examples:
        overrides = [
            o.split("=")[0] + "=" + STANDS_FOR.get(o.split("=", 1)[1], o.split("=", 1)[1]) for o in example.split()
        ]
        load(name, overrides)


@pytest.mark.parametrize("name", STAGES)
def test_entry_points_stay_thin(name: str) -> None:
    assert len((ROOT / "experiments" / f"{name}.py").read_text().splitlines()) <= 10
