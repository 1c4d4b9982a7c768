"""The first study and every page of docs/extending, typed as they stand into a copy of the checkout.

A block with a title is a file. `diff` blocks change one that is there: lines with a blank before them must follow each
other in it just once, lines with a minus go, lines with a plus come. A bash block with a title is left out.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finflow.refusals import parse_override
from finflow.schema import READS

from .pages import ROOT, WALKED, Block, blocks, stage_of

FILES = {"csv", "diff", "python", "yaml"}
SMALL = {
    "env.episode_days": "42",
    "env.parallel": "4",
    "budget.collect_episodes": "48",
    "budget.epochs": "1",
    "budget.updates_per_epoch": "4",
    "budget.episodes": "4",
    "budget.frozen_episodes": "1",
    "budget.critic_updates": "2",
    "budget.refit_updates": "2",
    "algo.batch_size": "16",
    "algo.network.hidden_dim": "16",
    "algo.network.embed_dim": "8",
    "evaluation.every_episodes": "4",
    "evaluation.bootstrap_samples": "100",
}
"""Added to the commands of a page, where the stage reads the key and it is not typed."""


def small(words: list[str]) -> list[str]:
    """A command of a page at a small budget, for this interpreter."""
    stage = stage_of(words)
    if stage is not None:
        typed = {parse_override(word).key_or_group for word in words[2:] if word != "-m"}
        reads = READS[stage]
        words = words + [
            f"{key}={value}"
            for key, value in SMALL.items()
            if key not in typed and any(key == read or key.startswith(read + ".") for read in reads)
        ]
    return [sys.executable if word == "python" else word for word in words[:1]] + words[1:]


def put(checkout: Path, block: Block) -> None:
    """Write or change the file that a block names."""
    path = checkout / block.title
    if block.language != "diff":
        assert not path.exists(), f"{block.place}: {block.title} is there already"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        return
    text = path.read_text()
    lines = block.text.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    assert text.count(before) == 1, f"{block.place}: stands {text.count(before)} times in {block.title}:\n{before}"
    path.write_text(text.replace(before, after))


def prices(folder: Path) -> None:
    """`prices.csv` and `long.csv`: six names on 1500 days, as a reader of the pages would have them."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(5)
    days = pd.bdate_range("2015-01-05", periods=1500).strftime("%Y-%m-%d")
    moves = rng.normal(0.0004, 0.009, (1500, 1)) + rng.normal(0, 0.01, (1500, 6))
    wide = pd.DataFrame(
        50 * np.exp(moves.cumsum(0)), index=pd.Index(days, name="date"), columns=[f"T{i:02d}" for i in range(6)]
    )
    wide.to_csv(folder / "prices.csv")
    wide.melt(ignore_index=False, var_name="ticker", value_name="close").to_csv(folder / "long.csv")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the checkout with prices beside it."""
    for name in ("conf", "experiments", "finflow"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/conftest.py", "tests/agents/conftest.py", "tests/agents/test_contract.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    prices(tmp_path)
    return tmp_path


def walk(checkout: Path, page: Path) -> None:
    """Put every file in place, in the page's order, and run every command."""
    for block in blocks(page):
        if block.title and block.language in FILES:
            put(checkout, block)
        elif block.language == "bash" and not block.title:
            for words in block.commands():
                environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
                line = small(words) if words[0] == "python" else ["bash", "-c", " ".join(words)]
                done = subprocess.run(
                    line, cwd=checkout, env=environment, capture_output=True, text=True, timeout=600, check=False
                )
                said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
                assert done.returncode == 0, f"{block.place}: {' '.join(line)}\n{said}"


@pytest.mark.parametrize("page", WALKED, ids=lambda path: path.stem)
def test_a_page_works_as_it_stands(page: Path, checkout: Path) -> None:
    walk(checkout, page)


def test_a_page_that_has_gone_stale_is_found(checkout: Path) -> None:
    block = Block("page.md", 1, "diff", "conf/env/csv.yaml", "-source: long\n+source: short\n")
    with pytest.raises(AssertionError, match=r"page.md:1: stands 0 times in conf/env/csv.yaml"):
        put(checkout, block)
