"""The way from a command to the first loss, which a reader has to follow, and a traceback shows."""

import traceback
from pathlib import Path
from types import ModuleType

import pytest

import finflow
from finflow.agents import bcell, iql
from finflow.cli.main import launch

PACKAGE = Path(finflow.__file__).parent
BEFORE = 2
"""`experiments/STAGE.py` and `main`, which end the process and are not run here."""
SMALL = [
    "env=synthetic", "env.synthetic.assets=4", "env.synthetic.days=1500", "env.episode_days=42", "tracking=none",
    "algo.network.hidden_dim=16", "algo.network.embed_dim=8", "algo.batch_size=32", "budget.collect_episodes=12",
]  # fmt: skip
TUNE = ["init.weights=null", "budget.episodes=4", "budget.warmup_episodes=1", "budget.critic_warmup_updates=1"]


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
