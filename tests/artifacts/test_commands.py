import shlex
import sys
from pathlib import Path

import pytest

from finflow.artifacts.runs import command_for, command_under, typable
from finflow.config.compose import load

TYPED = [
    ("finetune", [], "pretrain", ""),
    ("finetune", ["market_regime=volatile", "budget.episodes=3"], "pretrain", ""),
    ("finetune", ["experiment=demo"], "pretrain", "experiment=demo"),
    ("pretrain", ["experiment=demo", "env=csv", "env.path=../p.csv"], "finetune", None),
    ("pretrain", ["env=synthetic", "env.synthetic.ic=0.1", "seed=3"], "finetune", None),
    ("pretrain", ["env=dow30", "env.tickers=[AAPL,BRK-B]"], "finetune", None),
    ("pretrain", ["experiment=demo", "env=csv", "env.path=p.csv", "output_root=o"], "evaluate", "output_root=o"),
    ("finetune", ["algo.network.hidden_dim=512", "fold=2013"], "pretrain", "fold=2013 algo.network.hidden_dim=512"),
]


@pytest.mark.parametrize(("stage", "typed", "target", "expected"), TYPED)
def test_what_was_typed_is_printed(stage: str, typed: list[str], target: str, expected: str | None) -> None:
    words = shlex.split(command_for(target, load(stage, typed)))
    assert words[:2] == ["python", f"experiments/{target}.py"]
    assert sorted(words[2:]) == sorted(typed if expected is None else expected.split())


def test_another_list_of_tickers_from_yahoo_comes_back() -> None:
    config = load("pretrain", ["env=etf", "env.end=null"])
    assert load("finetune", shlex.split(command_for("finetune", config))[2:]).env == config.env


def test_odd_texts_come_back_through_the_shell_and_hydra() -> None:
    config = load("pretrain", ["env=csv", "env.path=x"])
    odd = {"path": 'it"s (=x), [$y].csv', "benchmark": "1e3", "cash_yield": "é.csv"}
    changed = {"env": config.env.model_copy(update=odd), "fold": "007", "output_root": "null"}
    config = config.model_copy(update=changed)
    again = load("finetune", shlex.split(command_for("finetune", config))[2:])
    assert (again.env, again.fold, again.output_root) == (config.env, "007", "null")


ODD = [
    "my dir/run (1)/a=b",
    "it's",
    'say "hi"',
    "back\\",
    'both\\"',
    "${HOME}/x",
    "1e3",
    "a,b",
    "[x] {k:v}",
    " é ~ ",
]


@pytest.mark.parametrize("path", ODD)
def test_paths_are_read_back_as_they_were(path: str) -> None:
    line = command_for("evaluate", load("finetune"), {"run": Path(path)})
    assert load("evaluate", shlex.split(line)[2:]).run == path
    assert load("evaluate", shlex.split(command_for("evaluate", load("finetune"), {"run": [path, "b"]}))[2:]).run == [
        path,
        "b",
    ]
    assert load("evaluate", shlex.split(command_under("evaluate", path))[2:]).output_root == path


def test_a_plain_command_stays_plain() -> None:
    assert command_for("evaluate", load("finetune"), {"run": "a/b-s0"}) == "python experiments/evaluate.py run=a/b-s0"
    assert command_under("evaluate", "outputs") == "python experiments/evaluate.py"


def test_a_command_names_the_python_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python` where PATH leads to it, else the path of the interpreter, as short as it can be typed."""
    for name in ("my venv", "other"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin/python").symlink_to(sys.executable)  # one file: a venv's python is a link
    own = tmp_path / "my venv/bin"
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    text = "run: python experiments/pretrain.py seed=1"
    monkeypatch.setenv("PATH", str(own))
    assert typable(text) == text
    for elsewhere in (str(tmp_path / "other/bin"), "/nowhere"):
        monkeypatch.setenv("PATH", elsewhere)
        monkeypatch.chdir(tmp_path)
        assert typable(text) == "run: 'my venv/bin/python' experiments/pretrain.py seed=1"
        assert typable("python -m finflow pretrain") == "'my venv/bin/python' -m finflow pretrain"
        assert typable("finflow pretrain seed=1") == "'my venv/bin/finflow' pretrain seed=1"
        assert typable("none; run: finflow pretrain") == "none; run: 'my venv/bin/finflow' pretrain"
        monkeypatch.chdir(tmp_path / "other")
        assert typable(text) == f"run: '{own}/python' experiments/pretrain.py seed=1"
