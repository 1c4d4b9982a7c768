"""The Python of README and docs runs, page by page, at small budgets."""

from pathlib import Path
from typing import Any

import pytest

import finflow
from finflow.config.compose import load
from finflow.schema import Config

from .pages import Block, all_blocks

SMALL = {
    "pretrain": ["env=synthetic", "env.synthetic.days=1500", "env.synthetic.assets=3", "env.episode_days=42",
                 "budget.collect_episodes=6",
                 "budget.crossfit_updates=2", "budget.epochs=1", "budget.updates_per_epoch=4", "algo.batch_size=16",
                 "algo.network.hidden_dim=16", "tracking=none"],
    "judge": ["env=synthetic", "env.synthetic.days=1500", "env.synthetic.assets=3", "env.episode_days=42",
              "evaluation.bootstrap_samples=100"],
}  # fmt: skip
AGENT = "import PPO"
"""The agent of Stable-Baselines3, which takes fewer steps in `test_agents.py`."""
BLOCKS = [b for b in all_blocks() if b.language == "python" and not b.title and AGENT not in b.text]
"""A block with a title is a file, which its own page's test puts in place."""


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS}))
def test_the_python_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(stage: str, overrides: Any = ()) -> Config:
        return load(stage, [*overrides, *SMALL[stage]])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finflow, "load", small, raising=False)
    names: dict[str, Any] = {}
    for block in BLOCKS:
        if block.page == page:
            exec(compile(_padded(block), block.page, "exec"), names)  # a traceback names the page's own line


def _padded(block: Block) -> str:
    return "\n" * block.line + block.text
