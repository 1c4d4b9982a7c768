"""Every command of README and docs is run, at a small budget, in a copy of the checkout with prices beside it.

What the walks of `test_extending.py` type is run there. What cannot be run here is listed in `LEFT` with its reason; it
is composed all the same, see `test_commands.py`. A command that is new on a page is run without further ado.
"""

import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from finflow.cli.sweep import params_of
from finflow.config.compose import load
from finflow.data.build import SOURCES
from finflow.schema import READS
from finflow.sweeps.folder import expanded
from finflow.sweeps.plan import plan_of

from .conftest import Shell, prices, python_of
from .pages import ROOT, stage_of, typed
from .small import small

LEFT: Mapping[str, str] = {
    "env=dow30": "asks Yahoo; a loopback one stands in for it in tests/yahoo/test_command.py",
    "env=etf": "asks Yahoo; a loopback one stands in for it in tests/yahoo/test_source.py",
    "hydra/launcher=": "wants an extra, a cluster or both; see tests/sweeps/test_launchers.py",
    "tracking.wandb.mode=online": "wants a key; a loopback W&B stands in for it in tests/tracking/test_wandb_server.py",
    "hardware=gpu": "wants a GPU; what of it a CPU can do is in tests/training",
    "benchmarks.gpu": "wants a GPU: without one it takes minutes, and says nothing of use",
    "pip": "installs from the network; the extras' names are checked in tests/docs/test_commands.py",
    "experiments/export.py": "wants an extra; see tests/stages/test_export.py",
    "torchrun": "starts two whole processes; see tests/entry/test_torchrun.py",
    "tensorboard": "serves until it is stopped; what it reads is tested in tests/tracking",
    "wandb": "a program of W&B; what it reads, and a sync to a loopback server, are in tests/tracking",
    "pytest": "tests, some of them hours long; their paths are checked in tests/docs/test_commands.py",
    "benchmarks.learning": "hours; its learners are those of tests/agents",
    "benchmarks.agents": "hours; one agent is trained and judged in tests/docs/test_agents.py",
    "baselines=": "wants universal-portfolios, as does olps",
    "judge": "names no file to judge; those that do are run",
    "STAGE": "stands for any stage",
    "walkforward": "both phases of four folds at full size: an hour; the small one is in tests/entry/test_make.py",
    "setup": "installs from the network; see tests/entry/test_make.py",
    "test": "runs this very test",
    "lint": "minutes of types; CI runs it beside the tests",
    "docs": "needs the tools of the site; the same build runs in tests/docs/test_site.py",
    "mutations": "the formulas of all learners one by one: an hour; see tests/losses/test_mutations.py",
    "parity": "installs d3rlpy into a venv of its own; the tests are those of tests/parity",
    "olps": "installs universal-portfolios into a venv of its own; the adapter's tests are in tests/allocators",
    "bench": "minutes on a quiet machine, and with PEERS=1 a venv of its own; no figure of it is asserted in tests",
    "clean": "takes the venv away; see tests/entry/test_make.py",
    "dir=outputs/plan/": "reads what a sweep on a cluster wrote; of other sweeps it is run",
    "growth": "minutes on a quiet machine; no figure of it is asserted in tests",
}
"""A word, or what it begins with, up to a `=` or a `/` -> why commands with it are not run, and what is."""
HEAVY = {
    "-m", "experiment=seeds", "experiment=tune_bcell", "audit=true", "date=2008-10-15", "ARGS=fold=2008",
    "configuration", "profile", "train", *READS,
}  # fmt: skip
"""Words of commands of the README that are run with `-m slow`, as are those of the other pages, which vary settings."""
PRICES = ("env=csv", "env.path=prices.csv")
"""Stands in for the embedded prices, which are larger, where no command names other ones."""
MOST_JOBS = 6
"""Jobs of a sweep that is run; of a larger one it is said what it would take."""


def reason(words: Sequence[str]) -> str | None:
    """Why a command is not run; None where it is."""
    found = (
        why for key, why in LEFT.items() for word in words if word == key or (key[-1] in "=/" and word.startswith(key))
    )
    return next(found, None)


def cases() -> list[object]:
    """Each command of a page once, in its order."""
    found: list[object] = []
    for page, commands in typed().items():
        for line, words in {shlex.join(words): words for words in commands if reason(words) is None}.items():
            quick = page == "README.md" and (not HEAVY & set(words) or "sweep.dry_run=true" in words)
            found.append(pytest.param(words, id=f"{page}: {line}", marks=[] if quick else [pytest.mark.slow]))
    return found


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, warm: Path) -> Shell:
    """A copy of the checkout with prices beside it, in which both phases are trained, phase 2 as a small sweep too."""
    place = tmp_path_factory.mktemp("reader")
    for name in ("benchmarks", "docs", "experiments"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "README.md", "constraints.txt", "mkdocs.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, place)
    prices(place)
    shutil.copy(place / "prices.csv", place / "my prices (1).csv")
    (place / "held.csv").write_text("ticker,shares\nT00,10\nCASH,1000\n")
    held = pd.read_csv(place / "prices.csv", index_col="date")
    (held * 0 + 1 / held.shape[1]).to_csv(place / "weights.csv")
    held.T00.pct_change().fillna(0).to_csv(place / "returns.csv")
    (place / "signals").mkdir()
    shutil.copy(place / "prices.csv", place / "signals/level.csv")
    names = [*held.columns, *SOURCES["sp500"](load("look", ["env=sp500"]).env, None).tickers]
    (place / "sectors.csv").write_text("ticker,sector\n" + "".join(f"{n},{'AB'[i % 2]}\n" for i, n in enumerate(names)))
    python_of(place, warm)
    shell = Shell(place, ROOT)
    for line in (
        "python experiments/pretrain.py",
        "python experiments/finetune.py -m seed=0,1",
        "python experiments/sweep.py",
        "python experiments/finetune.py",
    ):
        run(shell, shlex.split(line))
    return shell


def filled(place: Path, words: Sequence[str]) -> list[str]:
    """The words with real folders and names where a page has placeholders; where it lists several runs, two."""
    text = shlex.join(words)
    if "DIR" in text:
        sweep, pretrained = (
            next(place.glob(f"outputs/{where}")) for where in ("finetune/*/sweep-*", "pretrain/*/*-s0")
        )
        jobs = [str(path.parent.relative_to(place)) for path in sorted(sweep.glob("*/summary.json"))]
        text = re.sub(r"\[DIR(,DIR)+\]", f"[{','.join(jobs)}]", text).replace("run=DIR", f"run={jobs[0]}")
        text = text.replace("experiment=DIR/", f"experiment={sweep}/")
        text = re.sub(r"outputs/pretrain/[\w-]+/DIR", str(pretrained.relative_to(place)), text)
    real = shlex.split(
        text.replace("/data/finflow", "data").replace("AAPL,KO,XOM", "T00,T01,T02").replace("ticker=KO", "ticker=T00")
    )
    return [str(max(place.glob(word))) if "/*/" in word else word for word in real]


def jobs_of(words: Sequence[str]) -> int:
    """How many jobs a command of a training stage starts."""
    typed = expanded([word for word in words[2:] if word != "-m"])
    stage = str(stage_of(words))
    params = params_of(stage, typed, "-m" in words)
    return 1 if params is None else len(plan_of(stage, typed, params).jobs)


def run(shell: Shell, words: Sequence[str]) -> None:
    """Run a command; what needs a judged run, where a page has none before it, names the evaluation to run first."""
    words = filled(shell.folder, words)
    if stage_of(words) in ("pretrain", "finetune") and "--help" not in words and jobs_of(words) > MOST_JOBS:
        words = [*words, *([] if "sweep.dry_run=true" in words else ["sweep.dry_run=true"])]
    line = shlex.join(small(words, PRICES))
    if "resume=true" in words:  # a run that was killed at its very end
        folder = re.search(r"Run folder: (.*)", shell.run(line.replace(" resume=true", "")).stdout)
        assert folder is not None
        (shell.folder / folder[1] / "summary.json").unlink()
    done = shell.run(line)
    first = re.search(r"run: (python experiments/evaluate\.py .*)", done.stderr)
    if done.returncode == 2 and first is not None:
        before = shell.run(first[1])
        assert before.returncode == 0, f"{first[1]}\n{before.stderr[-3000:]}"
        done = shell.run(line)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("words", cases())
def test_a_command_runs(words: list[str], shell: Shell) -> None:
    run(shell, words)


def test_what_is_left_out_stands_on_a_page_and_the_tests_named_for_it_are_there() -> None:
    found = {reason(words) for commands in typed().values() for words in commands}
    assert {key for key, why in LEFT.items() if why not in found} == set(), "no page has such a command any more"
    named = re.findall(r"tests/[\w/.]+\w", " ".join(LEFT.values()))
    assert [path for path in named if not (ROOT / path).exists()] == []
