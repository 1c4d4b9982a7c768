"""The way from a command to the first loss and to the weights, which a reader has to follow, and a traceback shows."""

import sys
import traceback
from importlib import import_module
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import FrameType, ModuleType

import pytest

import finflow
from finflow.agents import bcell, iql
from finflow.cli.main import launch

PACKAGE = Path(finflow.__file__).parent
BEFORE = 2
"""`experiments/STAGE.py` and `main`, which end the process and are not run here."""
FILES = 40
"""One room gives a few; the longest of them has about 640 lines."""
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


def test_a_finetune_is_in_few_files_from_the_command_to_its_weights(tmp_path: Path) -> None:
    """Files with a function that is called between the two, whatever for: preparation, validation, checkpoints too."""
    import_module("finflow.stages.finetune")  # what an import calls is not counted
    found: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & CO_OPTIMIZED and code.co_filename.startswith(f"{PACKAGE}/"):
            found.add(code.co_filename)

    sys.setprofile(note)
    try:
        launch("finetune", [*SMALL, *TUNE, f"output_root={tmp_path}"])
    finally:
        sys.setprofile(None)
    assert {f"{PACKAGE}/{name}.py" for name in ("cli/main", "training/online", "losses", "io/weights")} <= found
    assert len(found) <= FILES, "\n".join(sorted(found))
