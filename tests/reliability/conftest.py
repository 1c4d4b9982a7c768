"""Tiny runs of both phases in forks of one process that has imported everything, so that each costs little."""

import hashlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest

import finflow
from finflow.cli.commands import COMMANDS
from finflow.cli.errors import exit_code
from finflow.cli.main import launch
from finflow.io.files import LOCK
from finflow.schema import Config
from finflow.stages import finetune as finetune_stage
from finflow.stages import pretrain as pretrain_stage
from finflow.training.session import Checkpointer

TINY = [
    "env=synthetic", "env.synthetic.days=1300", "env.synthetic.assets=4", "env.episode_days=21", "env.num_envs=3",
    "budget.collect_episodes=12", "budget.crossfit_updates=2",
    "budget.epochs=3", "budget.updates_per_epoch=4", "algo.batch_size=16",
    "algo.network.hidden_dim=16", "algo.network.embed_dim=8", "algo.network.n_quantiles=8", "tracking=none",
    "algo.network.dropout=0.1", "checkpoint.max_checkpoints=2",
]  # fmt: skip
PRETRAIN = ["checkpoint.interval=1", "evaluation.every_epochs=2"]
FINETUNE = [
    "budget.episodes=6", "budget.warmup_episodes=1", "budget.critic_warmup_updates=3", "budget.refit_updates=6",
    "evaluation.every_episodes=3", "algo.cql.n_actions=3", "algo.buffer_size=60", "checkpoint.interval=2",
    "reward.lambda_turn=0.5",  # not the parent's, so that the hand-over refits
]  # fmt: skip
RESULTS = ("weights.safetensors", "metrics.jsonl", "summary.json", "validation.csv")
STAGES: dict[str, Callable[[Config, Path | None], object]] = {
    "pretrain": finflow.pretrain,
    "finetune": finflow.finetune,
}


class Ended(NamedTuple):
    """How a fork ended: exit code, negative for the signal that killed it, and what it said on stderr."""

    code: int
    said: str


def code_of(work: Callable[[], object]) -> int:
    """Exit code of a command that does `work`."""
    try:
        work()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (whatever a command ends with)
        return exit_code(error)
    return 0


def launched(stage: str, *words: str) -> None:
    """A command line, up to where its stage would begin."""

    def never(*_: object) -> None:
        raise AssertionError("reached the stage")

    with patch.dict(COMMANDS, {stage: replace(COMMANDS[stage], run=never)}):
        launch(stage, words)


def forked(work: Callable[[], object], *, wait: Callable[[int], None] = lambda _: None) -> Ended:
    """Do `work` in a fork, behind the entry points' own handling of failures; `wait` gets the child's pid meanwhile."""
    with tempfile.TemporaryFile("w+") as heard:
        pid = os.fork()
        if pid == 0:
            code = 71
            try:
                os.dup2(heard.fileno(), 2)
                sys.stderr = os.fdopen(2, "w", closefd=False)
                code = code_of(work)
                sys.stderr.flush()
            finally:
                os._exit(code)
        wait(pid)
        _, status = os.waitpid(pid, 0)
        heard.seek(0)
        return Ended(os.waitstatus_to_exitcode(status), heard.read())


def killed_after(seconds: float) -> Callable[[int], None]:
    """Kill a fork this many seconds after its start, however it stands."""

    def kill(pid: int) -> None:
        import time

        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)  # not yet waited for, so the number is still its own

    return kill


def at_pause(unit: str, progress: int, do: Callable[[], object], *, before: bool = False) -> None:
    """In a fork: `do` at the first pause of the loop that counts `unit`s from `progress` on, `before` or after it."""
    pause, done = Checkpointer.pause, list[int]()

    def watched(keeper: Checkpointer, this: str, here: int, *, regular: bool = True) -> None:
        due = this == unit and here >= progress and not done
        if due and before:
            done.append(here)
            do()
        pause(keeper, this, here, regular=regular)
        if due and not before:
            done.append(here)
            do()

    Checkpointer.pause = watched  # type: ignore[method-assign]


def tree_hash(*folders: Path) -> str:
    """Hash of names and contents of all under `folders`, links as such.

    Left out are what a lock says, which is who looked last, and the cache, where good prices leave their features
    whatever is refused later.
    """
    digest = hashlib.sha256()
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        if "cache" in path.parts or list(path.glob("*")) == [path / "cache"]:
            continue
        if path.is_symlink():
            content = os.readlink(path).encode()
        else:
            content = path.read_bytes() if path.is_file() and path.name != LOCK else b""
        digest.update(repr((str(path), path.is_dir(), content)).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Tiny:
    """An output root with a pretrained parent, and the configuration of each stage."""

    root: Path
    configs: dict[str, Config]

    def train(self, stage: str, folder: Path | None, **changes: object) -> object:
        """Run a stage in `folder`, or where its configuration says, in this process."""
        with pytest.MonkeyPatch.context() as quick:
            # Composing the next command takes as long as the run itself.
            for module in (pretrain_stage, finetune_stage):
                quick.setattr(module, "command_for", lambda *_: "next")
            return STAGES[stage](self.configs[stage].model_copy(update=changes), folder)

    def results(self, folder: Path) -> dict[str, bytes]:
        """What must not depend on how a run came to its end."""
        return {name: (folder / name).read_bytes() for name in RESULTS}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    root = tmp_path_factory.mktemp("reliability")
    lines = {"pretrain": [*TINY, *PRETRAIN], "finetune": [*TINY, *FINETUNE]}
    configs = {stage: finflow.load(stage, [*line, f"output_root={root}"]) for stage, line in lines.items()}
    return Tiny(root, configs)


@pytest.fixture(scope="session")
def wanted(tiny: Tiny) -> dict[str, dict[str, bytes]]:
    """Results of each stage, uninterrupted."""
    found: dict[str, dict[str, bytes]] = {}
    for stage in STAGES:
        folder = tiny.root / stage / "whole" / "run"
        tiny.train(stage, folder)
        found[stage] = tiny.results(folder)
    return found


@pytest.fixture(scope="session")
def cut(tiny: Tiny, wanted: dict[str, dict[str, bytes]]) -> dict[str, Path]:
    """Folder of a run of each stage that was killed on its way, with a checkpoint to go on from; to be copied."""
    found: dict[str, Path] = {}
    for stage, (unit, progress) in {"pretrain": ("epoch", 2), "finetune": ("episode", 3)}.items():
        folder = tiny.root / stage / "cut" / "run"

        def work(stage: str = stage, unit: str = unit, progress: int = progress, folder: Path = folder) -> None:
            at_pause(unit, progress, lambda: os.kill(os.getpid(), signal.SIGKILL))
            tiny.train(stage, folder)

        ended = forked(work)
        assert ended.code == -signal.SIGKILL, ended.said
        assert (folder / "checkpoints" / "manifest.json").exists()
        found[stage] = folder
    return found
