"""The way from a command to the first loss and to the weights, which a reader has to follow, and a traceback shows."""

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

import finflow
from finflow.agents import bcell, iql
from finflow.cli.main import launch
from finflow.stages.run import Run
from finflow.training.online import Experience

PACKAGE = Path(finflow.__file__).parent
BEFORE = 2
"""`experiments/STAGE.py` and `main`, which end the process and are not run here."""
SMALL = [
    "env=synthetic", "env.synthetic.assets=4", "env.synthetic.days=1500", "env.episode_days=42", "tracking=none",
    "algo.network.hidden_dim=16", "algo.network.embed_dim=8", "algo.batch_size=32", "budget.collect_episodes=12",
]  # fmt: skip
TUNE = [
    "init.weights=null", "confidence=none", "budget.episodes=4", "budget.warmup_episodes=1",
    "budget.critic_warmup_updates=1",
]  # fmt: skip


class Reached(Exception):
    """The first loss is."""


@pytest.mark.parametrize(("stage", "learner", "words"), [("pretrain", iql, []), ("finetune", bcell, TUNE)])
def test_at_most_ten_frames_lie_between_a_command_and_its_first_loss(
    stage: str, learner: ModuleType, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []

    def loss(*_: object) -> None:
        stack = traceback.extract_stack()[:-1]
        found.extend(frame.name for frame in stack if PACKAGE in Path(frame.filename).parents)
        raise Reached

    monkeypatch.setattr(learner, "quantile_loss", loss)
    with pytest.raises(Reached):
        launch(stage, [*SMALL, *words, f"output_root={tmp_path}"])
    assert found[0] == "launch"
    assert BEFORE + len(found) + 1 <= 10, found


def test_the_loop_its_updates_and_its_weights_are_in_at_most_forty_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files on the stack at an update, and those with a function that a batch, an update or saving the weights calls.

    Preparation, validation, figures and checkpoints, which a reader can skip, are not counted.
    """
    found: set[Path] = set()

    def note(frame: FrameType | None, event: str = "call", _: object = None) -> None:
        path = Path(frame.f_code.co_filename) if frame is not None and event == "call" else PACKAGE
        if PACKAGE in path.parents:
            found.add(path.relative_to(PACKAGE))

    def followed(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **more: Any) -> Any:
            for frame, _ in traceback.walk_stack(None):
                note(frame)
            sys.setprofile(note)
            try:
                return call(*args, **more)
            finally:
                sys.setprofile(None)

        return run

    for owner, name in ((bcell.BCell, "update"), (Experience, "batch"), (Run, "save")):
        monkeypatch.setattr(owner, name, followed(getattr(owner, name)))
    launch("finetune", [*SMALL, *TUNE, f"output_root={tmp_path}"])
    assert {"cli/main.py", "training/online.py", "losses.py", "io/weights.py"} <= {str(path) for path in found}
    assert len(found) <= 40, "\n".join(sorted(map(str, found)))
