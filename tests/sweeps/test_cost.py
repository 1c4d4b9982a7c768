"""What a sweep will take: in proportion to its budgets, from an earlier run where one tells."""

import json
from pathlib import Path

import pytest

from finflow.config import load, to_yaml
from finflow.sweeps.cost import ESTIMATE, measured, told, work


def earlier_run(root: Path, *overrides: str) -> None:
    place = root / "finetune" / "x" / "run"
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(to_yaml(load("finetune", overrides)))
    (place / "run.json").write_text(json.dumps({"seconds": {"prepare": 1.0, "train": 200.0}}))
    (place / "weights.safetensors").write_bytes(bytes(5_000_000))
    (place / "summary.json").write_text(json.dumps({"finished": "2024-01-01T00:00:00+00:00"}))


def test_work_counts_what_is_learnt_from() -> None:
    assert work(load("pretrain", ["budget.updates_per_epoch=7", "budget.epochs=3", "algo.batch_size=64"])) == 7 * 3 * 64
    assert work(load("pretrain", ["budget.epochs=3", "budget.collect_episodes=10"])) == 3 * 10 * 252
    tune = ["budget.episodes=17", "env.parallel=16", "budget.critic_updates=100", "algo.batch_size=64"]
    assert work(load("finetune", tune)) == (100 + 2 * 252) * 64


def test_an_earlier_run_tells_what_later_ones_take(tmp_path: Path) -> None:
    small = ["budget.episodes=16", "budget.critic_updates=0", f"output_root={tmp_path}"]
    config = load("finetune", ["budget.episodes=160", "budget.critic_updates=0", f"output_root={tmp_path}"])
    assert measured(config) == ESTIMATE["finetune"]
    earlier_run(tmp_path, *small)
    assert measured(config).seconds(config) == pytest.approx(2000 + ESTIMATE["finetune"].rest)
    said = told([config, config], 100)
    assert said.startswith(
        "100 jobs to run, about 55.7 hours of one core and 0.50 GB (33.4 min and 5.0 MB each; measured"
    )
    other = load("finetune", [*small, "algo.network.hidden_dim=16"])
    assert measured(other) == ESTIMATE["finetune"]
