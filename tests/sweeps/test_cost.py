"""What a sweep will take: in proportion to its budgets, from an earlier run where one tells."""

import json
from pathlib import Path

import pytest

from finflow.cli.sweep import near, weighed
from finflow.config import load, to_yaml
from finflow.sweeps.cost import ESTIMATE, TRANSITION, measured, told, work
from finflow.sweeps.plan import plan_of


def earlier_run(root: Path, *overrides: str) -> None:
    place = root / "finetune" / "x" / "run"
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(to_yaml(load("finetune", overrides)))
    (place / "run.json").write_text(
        json.dumps({"seconds": {"prepare": 1.0, "updates": 150.0, "environment": 30.0, "validation": 20.0}})
    )
    (place / "weights.safetensors").write_bytes(bytes(5_000_000))
    (place / "checkpoints").mkdir()
    (place / "checkpoints" / "00001-episode-16.safetensors").write_bytes(bytes(2_000_000 + 16 * 252 * int(TRANSITION)))
    (place / "summary.json").write_text(json.dumps({"finished": "2024-01-01T00:00:00+00:00"}))


def size_of_text(root: Path) -> int:
    """Bytes of the files beside weights and checkpoints."""
    (place,) = root.glob("finetune/x/run")
    return sum(path.stat().st_size for path in place.iterdir() if path.suffix in (".json", ".yaml"))


def test_work_counts_what_is_learnt_from() -> None:
    few = ["budget.updates_per_epoch=7", "budget.epochs=3", "budget.crossfit_updates=10", "confidence=none"]
    path = ["algo.actors=2", "algo.walkers=6", "algo.horizon=5"]
    assert work(load("pretrain", [*few, *path, "algo.batch_size=64"])) == 7 * 3 * (64 + 2 * 6 * 5)
    fitted = work(load("pretrain", [*few, *path, "algo.batch_size=64", "confidence=crossfit"]))
    assert fitted == 7 * 3 * (64 + 2 * 6 * 5) + 10 * 4 * 6 * 5
    assert work(load("pretrain", [*few, *path, "algo=direct"])) == 7 * 3 * 2 * 6 * 5
    assert work(load("pretrain", [*few, *path, "algo.batch_size=64", "algo.extraction=awr"])) == 7 * 3 * 64
    whole = ["algo.extraction=awr", "budget.epochs=3", "budget.collect_episodes=10", "budget.updates_per_epoch=null"]
    assert work(load("pretrain", whole)) == 3 * 10 * 252
    tune = ["budget.episodes=17", "env.num_envs=16", "budget.critic_warmup_updates=100", "algo.batch_size=64",
            "algo.update_interval=3"]  # fmt: skip
    assert work(load("finetune", [*tune, *path])) == 100 * 64 + 2 * 252 / 3 * (64 + 2 * 6 * 5)
    assert work(load("finetune", [*tune, "algo.horizon=0"])) == (100 + 2 * 252 / 3) * 64


def test_an_earlier_run_tells_what_later_ones_take(tmp_path: Path) -> None:
    small = ["budget.episodes=16", "budget.critic_warmup_updates=0", f"output_root={tmp_path}"]
    config = load("finetune", ["budget.episodes=160", "budget.critic_warmup_updates=0", f"output_root={tmp_path}"])
    assert measured(config) == ESTIMATE["finetune"]
    earlier_run(tmp_path, *small)
    assert measured(config).seconds(config) == pytest.approx(2000 + ESTIMATE["finetune"].rest)
    assert measured(config).bytes(config) == 5_000_000 + size_of_text(tmp_path) + 3 * (2_000_000 + 40_320 * TRANSITION)
    said = told([(config, 250)])
    minutes = (2000 + ESTIMATE["finetune"].rest) / 60
    hours, size = 250 * minutes / 60, 250 * measured(config).bytes(config) / 1e9
    start = f"250 jobs to run, about {hours:.1f} hours of one core and {size:.2f} GB"
    assert said.startswith(f"{start} ({minutes:.1f} min and {size * 4:.1f} MB each; measured on {tmp_path}")
    other = load("finetune", [*small, "algo.network.hidden_dim=16"])
    assert measured(other) == ESTIMATE["finetune"]
    record = tmp_path / "finetune" / "x" / "run" / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"resumed": [{"from": None, "changed": {}}]}))
    assert measured(config) == ESTIMATE["finetune"]


def test_every_job_counts_with_its_own_work(tmp_path: Path) -> None:
    line = [
        "algo.update_interval=1",
        "algo.horizon=0",
        "budget.critic_warmup_updates=0",
        "env.episode_days=100",
        "env.num_envs=16",
        f"output_root='{tmp_path}'",
    ]
    swept = ["algo.batch_size=100,300", "budget.episodes=16,64", "algo.lr=1e-4,1e-3", "seed=range(5)"]
    plan = plan_of("finetune", [*line, *swept])
    configs = [load("finetune", job.overrides) for job in near(plan)]
    left = [job.name for job in plan.jobs if job.values["seed"] != "3"]
    kinds = weighed("finetune", plan, configs, left)
    # rows learnt from: 1 or 4 rounds of 100 days, 100 or 300 rows each
    assert sorted((work(config), count) for config, count in kinds) == [
        (10_000, 8), (30_000, 8), (40_000, 8), (120_000, 8),
    ]  # fmt: skip
    cost = ESTIMATE["finetune"]
    hours = (32 * cost.rest + 8 * 200_000 * cost.train / cost.work) / 3600
    assert told(kinds).startswith(f"32 jobs to run, about {60 * hours:.1f} min of one core and ")
