"""Every option of every group runs a few steps, through both training stages; presets are swept in `tests/sweeps`.

Row k takes option k of every group, so that few rows cover them all.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import finflow
from finflow.config.compose import group_choices, load
from finflow.errors import ConfigError
from tests.sweeps.tiny import SMALL, TUNE
from tests.yahoo.conftest import LoopbackYahoo, market

__all__ = ["market"]  # the fixture: a loopback Yahoo
FIRST, LAST = "2012-01-03", "2019-12-31"
WORDS = {
    "env=csv": ["env.path='PLACE/prices.csv'"],
    "env=dow30": [f"env.start={FIRST}", f"env.end={LAST}", "env.tickers=[AAA,BBB,CCC,DDD]"],
    "env=etf": [f"env.start={FIRST}", f"env.end={LAST}", "env.tickers=[AAA,BBB,CCC,DDD]"],
    "env=sp500": ["env.start=2010-01-04", "env.tickers=[AAPL,BAC,CVX,GE]"],
    "env=synthetic": ["env.synthetic.days=2600", "env.synthetic.assets=4"],
}
"""What makes a market small."""
TINY = [word for word in SMALL if not word.startswith(("env=", "env.synthetic", "hardware", "tracking", "confidence"))]
TINY += ["budget.crossfit_updates=2"]
STAGES = ("pretrain", "finetune")
GROUPS = {stage: {g: c for g, c in group_choices(stage).items() if g != "experiment"} for stage in STAGES}
PLAIN = max(len(choices) for groups in GROUPS.values() for group, choices in groups.items() if group != "algo")
ROWS = PLAIN + max(len(groups["algo"]) for groups in GROUPS.values()) - 1
"""The default algorithms with every option of the other groups, then a row for each further algorithm."""


def options(stage: str, row: int) -> dict[str, str]:
    """Group -> the option that a row takes; what an ablation takes away, only the default algorithm may have."""
    groups, further = GROUPS[stage], max(row - PLAIN + 1, 0)
    chosen = {group: choices[row % len(choices)] for group, choices in groups.items()}
    algo = groups["algo"][min(further, len(groups["algo"]) - 1)]
    return chosen | {"algo": algo} | ({"ablation": "none"} if further and "ablation" in groups else {})


def line(stage: str, row: int, place: Path) -> list[str]:
    chosen = [f"{group}={option}" for group, option in options(stage, row).items()]
    own = [word.replace("PLACE", str(place)) for option in chosen for word in WORDS.get(option, [])]
    batch = [] if options(stage, row)["algo"] == "direct" else ["algo.batch_size=16"]  # it has no transitions
    return [*TINY, *chosen, *own, *batch, f"output_root='{place}/out'"]


@pytest.fixture
def place(market: LoopbackYahoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with prices of one's own, Yahoo within reach, and W&B kept from the network."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    days = pd.bdate_range(FIRST, LAST)
    wave = np.sin(2 * np.pi * np.arange(len(days)) / 500)[:, None]  # every regime lasts for weeks
    steps = 6e-4 - 3e-3 * wave + 0.008 * np.exp(wave) * np.random.default_rng(0).normal(0, 1, (len(days), 4))
    prices = pd.DataFrame(100 * np.exp(steps.cumsum(0)), days, ["AAA", "BBB", "CCC", "DDD"])
    prices.to_csv(tmp_path / "prices.csv", index_label="date")
    for ticker in prices:
        stock = market.list_stock(ticker, first=FIRST, last=LAST)
        stock.close = stock.adjusted = prices[ticker].to_numpy()
    return tmp_path


@pytest.mark.parametrize("row", range(ROWS))
def test_every_option_runs(row: int, place: Path) -> None:
    for stage in STAGES:
        chosen, words = options(stage, row), line(stage, row, place)
        if stage == "finetune":
            words += [*TUNE, *(["init.weights=null"] if row >= PLAIN else [])]
        run = finflow.pretrain if stage == "pretrain" else finflow.finetune
        if load(stage, words).hardware.device not in ("auto", "cpu") and not torch.cuda.is_available():
            with pytest.raises(ConfigError, match=r"hardware\.device=cuda"):
                run(load(stage, words))
            words.append("hardware=cpu")
        made = run(load(stage, words)).run_dir
        assert (made / "summary.json").exists()
        assert (made / "metrics.jsonl").exists()
        assert any(made.rglob("*.wandb")) is (chosen["tracking"] == "wandb")
        assert (made / "tensorboard").exists() is (chosen["tracking"] != "none")


def test_the_rows_cover_every_option() -> None:
    for stage, groups in GROUPS.items():
        assert {"algo", "env", "hardware", "market_regime", "monitor", "tracking"} <= set(groups)
        taken = {(group, option) for row in range(ROWS) for group, option in options(stage, row).items()}
        assert taken == {(group, option) for group, choices in groups.items() for option in choices}
