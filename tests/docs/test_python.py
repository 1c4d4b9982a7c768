"""The Python of README and docs runs, page by page, at small budgets."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
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


def test_quantstats_gets_series_by_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of the page on returns.csv, with a stand-in for QuantStats, which the tests do not install."""
    (block,) = [block for block in all_blocks() if "import quantstats" in block.text]
    config = load("judge", [*SMALL["judge"], f"output_root={tmp_path}"])
    judged = finflow.judge(lambda history: np.full(4, 0.25), config=config)
    given: list[pd.Series] = []

    def html(returns: pd.Series, benchmark: pd.Series, output: str) -> None:
        given.extend([returns, benchmark])

    monkeypatch.setitem(sys.modules, "quantstats", SimpleNamespace(reports=SimpleNamespace(html=html)))
    monkeypatch.chdir(judged.run_dir)
    exec(compile(_padded(block), block.page, "exec"), {})
    evaluation = judged.evaluation
    for series, track in zip(given, (evaluation.policy, evaluation.baselines["1/N monthly"]), strict=True):
        assert series.index.equals(pd.DatetimeIndex(track.dates))
        np.testing.assert_allclose(series, track.net, atol=1e-12)


def _padded(block: Block) -> str:
    return "\n" * block.line + block.text
