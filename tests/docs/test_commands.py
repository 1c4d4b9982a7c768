"""Every command of README and docs can be typed: stages compose, targets, extras, tools and files are there."""

import re
import shlex
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from finflow.cli.sweep import params_of
from finflow.config.compose import load
from finflow.errors import ConfigError
from finflow.sweeps.folder import expanded
from finflow.sweeps.plan import plan_of

from .pages import LANGUAGES, REFUSED, ROOT, WALKED, Block, all_blocks, stage_of

BLOCKS = all_blocks()
TYPED = [b for b in BLOCKS if b.language == "bash" and (b.title or ROOT / b.page not in WALKED)]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)[0].split())
STAGE_TARGETS = dict.fromkeys(("train", "walkforward"), ("pretrain", "finetune"))
ENTRY_POINTS = {path.stem for path in (ROOT / "experiments").glob("*.py")}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SHELL = {"cat", "cd", "cmp", "cp", "git", "head", "mkdir", "source", "wandb", "tensorboard", "torchrun"}
TOOLS = {"wandb", "tensorboard", "torchrun"}
PRESET = "# @package _global_\nalgo:\n  lr: 1.0e-4\n"


def check(words: Sequence[str]) -> None:
    """Refuse a command that could not be typed as it stands."""
    while "=" in words[0] and words[0].split("=")[0].isidentifier():  # VARIABLE=value before a command
        words = words[1:]
    stage = stage_of(words)
    if stage is not None:
        composes(stage, words[2:])
    elif words[0] == "make":
        made(words[1:])
    elif words[:2] == ["python", "-m"]:
        runs_module(words[2:])
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), f"{words[1]}: no such file"
    else:
        assert words[0] in SHELL, f"{words[0]}: a command that this test knows nothing of"
        if words[0] in TOOLS:
            assert (Path(sys.executable).parent / words[0]).exists(), f"{words[0]}: not installed"


def composes(stage: str, typed: Sequence[str]) -> None:
    """A stage takes these words; each value of a sweep composes by itself."""
    assert stage in ENTRY_POINTS, f"{stage}: no such entry point"
    overrides = expanded([word for word in typed if word != "-m"])
    params = params_of(stage, overrides, "-m" in typed)
    if params is None:
        load(stage, overrides)
        return
    jobs = plan_of(stage, overrides, params).jobs
    assert len(jobs) > 1, "a sweep of one job"
    seen: set[tuple[str, str]] = set()
    for job in jobs:
        values = {(key, value) for key, value in job.values.items() if key != "seed" or job is jobs[-1]}
        if not values <= seen:
            load(stage, job.overrides)
            seen |= values


def made(words: Sequence[str]) -> None:
    """Targets are the Makefile's, variables are read there, and stages take what ARGS hold."""
    targets = [word for word in words if "=" not in word]
    assert set(targets) <= TARGETS, f"{targets}: no such target"
    for word in words:
        name, sep, value = word.partition("=")
        if not sep:
            continue
        assert re.search(rf"\b(?:{name} \?=|ifdef {name}\b|\$\(if \$\({name}\))", MAKEFILE), f"{name}: no such variable"
        for stage in _stages(targets, name):
            own = ["experiment=folds"] if "walkforward" in targets and "experiment=" not in value else []
            composes(stage, [*own, *shlex.split(value)])


def _stages(targets: Sequence[str], variable: str) -> tuple[str, ...]:
    if variable != "ARGS":
        stage = variable.removesuffix("_ARGS").lower()
        return (stage,) if stage in ENTRY_POINTS else ()
    return tuple(s for t in targets for s in STAGE_TARGETS.get(t, (t,) if t in ENTRY_POINTS else ()))


def runs_module(words: Sequence[str]) -> None:
    if words[0] == "pip":
        for named in re.findall(r"\[([\w,]+)\]", " ".join(words)):
            assert set(named.split(",")) <= set(EXTRAS), f"[{named}]: no such extra"
        return
    if words[0] == "pytest":
        paths = [word for word in words[1:] if word.startswith("tests")]
        assert [path for path in paths if not (ROOT / path.split("::")[0]).exists()] == []
        return
    path = ROOT / words[0].replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"{words[0]}: no such module"


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder with what placeholders name: DIR is a sweep's."""
    (tmp_path / "DIR").mkdir()
    (tmp_path / "DIR" / "best.yaml").write_text(PRESET)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("block", [b for b in TYPED if b.title != REFUSED], ids=lambda b: b.place)
def test_every_command_can_be_typed(block: Block) -> None:
    for words in block.commands():
        try:
            check(words)
        except (AssertionError, ConfigError) as error:
            pytest.fail(f"{block.place}: {shlex.join(words)}\n{error}")


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("block", [b for b in TYPED if b.title == REFUSED], ids=lambda b: b.place)
def test_what_is_refused_is_refused_in_these_words(block: Block) -> None:
    (words,) = block.commands()
    with pytest.raises(ConfigError) as caught:
        check(words)
    assert BLOCKS[BLOCKS.index(block) + 1].text.strip() == f"error: {caught.value}"


def test_every_block_says_its_language() -> None:
    assert [block.place for block in BLOCKS if block.language not in LANGUAGES] == []
    fences = sum(path.read_text().count("```") for path in {ROOT / block.page for block in BLOCKS})
    assert fences == 2 * len(BLOCKS), "a fence that is not closed, or not read"


def test_no_command_hides_in_a_block_of_text() -> None:
    lines = [(b.place, line) for b in BLOCKS if b.language == "text" for line in b.text.splitlines()]
    assert [(place, line) for place, line in lines if re.match(r"(\$ |python |make )", line)] == []


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(
    "line",
    [
        "python experiments/finetune.py algo.cql.alhpa=1",
        "python experiments/finetune.py algo.gamma=2",
        "python experiments/evaluate.py env=csv",
        "python experiments/train.py",
        "python experiments/finetune.py -m seed=0,1 algo.tau=0.1,7",
        "python experiments/finetune.py -m seed=0",
        'make train ARGS="market_regime=wild"',
        'make train FINETUNE_ARGS="budget.epoch=1"',
        'make train ARG="seed=1"',
        "make report",
        "python -m pip install -e '.[slumr]'",
        "python -m pytest tests/nothing",
        "python -m benchmarks.nothing",
        "finflow pretrain",
    ],
)
def test_a_command_that_could_not_be_typed_is_found(line: str) -> None:
    with pytest.raises((AssertionError, ConfigError)):
        check(shlex.split(line))
