"""What a sweep will take: in proportion to its budgets, from an earlier run where one tells."""

import json
from pathlib import Path

import numpy as np
import pytest

from finflow.cli.sweep import weighed
from finflow.config.compose import load, to_yaml
from finflow.data.build import build_market
from finflow.data.features import stretches
from finflow.data.market import make_fold
from finflow.sweeps.cost import BATCH_ROW, ESTIMATE, REFIT_ROW, TRANSITION, Work, measured, told, work
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
    batch = BATCH_ROW * 64
    assert work(load("pretrain", [*few, *path, "algo.batch_size=64"])) == (7 * 3 * (batch + 2 * 6 * 5), 0, 1)
    fitted = work(load("pretrain", [*few, *path, "algo.batch_size=64", "confidence=crossfit"]))
    assert fitted.rows == 7 * 3 * (batch + 2 * 6 * 5) + 10 * 4 * 6 * 5
    assert work(load("pretrain", [*few, *path, "algo=direct"])).rows == 7 * 3 * 2 * 6 * 5
    assert work(load("pretrain", [*few, path[0], "algo.batch_size=64", "algo.extraction=awr"])).rows == 7 * 3 * batch
    whole = ["algo.extraction=awr", "budget.epochs=6", "budget.collect_episodes=10", "budget.updates_per_epoch=null"]
    assert work(load("pretrain", whole)) == (6 * 10 * 252 * BATCH_ROW, 0, 2)
    tune = ["budget.episodes=17", "env.num_envs=16", "budget.critic_warmup_updates=100", "algo.batch_size=64",
            "algo.update_interval=3", "budget.warmup_episodes=0", "evaluation.every_episodes=5"]  # fmt: skip
    updates = 2 * 252 / 3
    expected = Work(updates * batch + (updates - 100) * 2 * 6 * 5, 2 * 252, 5)
    assert work(load("finetune", [*tune, *path])) == expected
    assert work(load("finetune", [*tune, "algo.horizon=0"])).rows == updates * batch
    frozen = work(load("finetune", [*tune, *path, "budget.warmup_episodes=8"]))  # 126 days of 16 episodes side by side
    assert frozen == expected._replace(rows=expected.rows - 126 / 3 * (batch + 2 * 6 * 5))
    other = work(load("finetune", [*tune, *path, "reward.lambda_cvar=9", "budget.refit_updates=30"]))
    assert other == expected._replace(rows=expected.rows + 30 * 64 * REFIT_ROW + 600 * 4 * 6 * 5)


def test_a_regime_is_learnt_from_as_long_as_its_stretches_are(tmp_path: Path) -> None:
    """Volatile days come in stretches of a month or two: an estimate from whole years said six times too much."""
    config = load("finetune", ["market_regime=volatile", "budget.episodes=1600", "budget.warmup_episodes=0"])
    market = build_market(config.env)
    train = make_fold(market, config.env, config.fold).train
    lasting: list[int] = []
    for first, last in stretches(market.regime, train.decisions, "volatile"):
        lasting += [min(last - day, 252) for day in range(first, last - 21 + 1)]
    mean = sum(lasting) / len(lasting)
    assert 30 < mean < 60
    found = work(config)
    assert found.steps == pytest.approx(100 * mean)
    updates, batch, path = 100 * mean / 8, BATCH_ROW * 256, 4 * 32 * 16
    refit = 2000 * 256 * REFIT_ROW  # the parent's reward is that of all days
    crossfit = 600 * path  # and its confidence is that of all days
    assert found.rows == pytest.approx(updates * batch + (updates - 200) * path + refit + crossfit)
    parent = tmp_path / "parent"
    parent.mkdir()
    (parent / "config.yaml").write_text(to_yaml(load("pretrain", ["market_regime=volatile"])))
    own = work(load("finetune", ["market_regime=volatile", "budget.episodes=1600", f"init.weights={parent}",
                                 "budget.warmup_episodes=0"]))  # fmt: skip
    assert own.rows == pytest.approx(found.rows - refit)


def test_the_estimate_of_a_regime_is_what_its_parts_took(tmp_path: Path) -> None:
    """CPU seconds a part, measured once: the sum of a whole run's parts, and the estimate, agree within 30 %."""
    update, critic_alone, refitted, crossfitted, step, validation = 0.174, 0.057, 0.026, 0.14, 0.00224, 0.9
    for regime, mean in (("all", 252.0), ("volatile", 43.0)):
        config = load("finetune", [f"market_regime={regime}", f"output_root={tmp_path}"])
        steps = 63 * mean
        updates = (steps - 79) / 8
        took = 200 * critic_alone + (updates - 200) * update + steps * step + 11 * validation
        took += 2000 * refitted + 600 * crossfitted if regime == "volatile" else 0.0
        assert ESTIMATE["finetune"].seconds(config) == pytest.approx(took, rel=0.3)


def test_a_cross_fitting_counts_with_the_first_job_that_needs_it() -> None:
    """Jobs that differ in CQL share one in the cache; those of another seed have their own."""
    plan = plan_of("finetune", ["market_regime=volatile", "algo.cql.alpha=5,10", "seed=range(3)"])
    configs = [load("finetune", job.overrides) for job in plan.near]
    kinds = weighed("finetune", plan, configs, [job.name for job in plan.jobs], {})
    *first, (less, later) = sorted(((work(config).rows, count) for config, count in kinds), reverse=True)
    (more,) = {rows for rows, _ in first}
    assert ([count for _, count in first], later) == ([1, 1, 1], 3)
    assert more - less == pytest.approx(600 * 4 * 32 * 16)
    again = weighed(
        "finetune", plan, configs, [job.name for job in plan.jobs if job.values["algo.cql.alpha"] == "10"], {}
    )
    assert [(work(config).rows, count) for config, count in again] == [(less, 3)]


def test_weeks_are_counted_as_weeks(tmp_path: Path) -> None:
    prices = tmp_path / "weekly.csv"
    rng = np.random.default_rng(0)
    table = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, (800, 3)), axis=0))
    days = np.datetime64("2005-01-07") + 7 * np.arange(800)
    rows = [f"{day},{','.join(f'{close:.4f}' for close in line)}" for day, line in zip(days, table, strict=True)]
    prices.write_text("\n".join(["Date,A,B,C", *rows]) + "\n")
    config = load("finetune", ["env=csv", f"env.path={prices}", "budget.episodes=16"])
    assert work(config).steps == 52


def test_an_earlier_run_tells_what_later_ones_take(tmp_path: Path) -> None:
    none = ["budget.critic_warmup_updates=0", "budget.warmup_episodes=0", f"output_root={tmp_path}"]
    small = ["budget.episodes=16", "evaluation.every_episodes=16", *none]  # 2 validations, the first included
    config = load("finetune", ["budget.episodes=160", "evaluation.every_episodes=16", *none])  # 11 of them
    assert measured(config) == ESTIMATE["finetune"]
    earlier_run(tmp_path, *small)
    seconds = 10 * 180 + 11 / 2 * 20 + ESTIMATE["finetune"].rest
    assert measured(config).seconds(config) == pytest.approx(seconds)
    assert measured(config).bytes(config) == 5_000_000 + size_of_text(tmp_path) + 3 * (2_000_000 + 40_320 * TRANSITION)
    said = told([(config, 250)])
    minutes = seconds / 60
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
        "budget.warmup_episodes=0",
        "evaluation.every_episodes=64",
        "env.episode_days=100",
        "env.num_envs=16",
        f"output_root='{tmp_path}'",
    ]
    swept = ["algo.batch_size=100,300", "budget.episodes=16,64", "algo.lr=1e-4,1e-3", "seed=range(5)"]
    plan = plan_of("finetune", [*line, *swept])
    configs = [load("finetune", job.overrides) for job in plan.near]
    left = [job.name for job in plan.jobs if job.values["seed"] != "3"]
    kinds = weighed("finetune", plan, configs, left, {})
    # rows learnt from: 1 or 4 rounds of 100 days, 100 or 300 rows each
    assert sorted((work(config).rows, count) for config, count in kinds) == [
        (BATCH_ROW * rows, 8) for rows in (10_000, 30_000, 40_000, 120_000)
    ]
    cost = ESTIMATE["finetune"]
    done = (8 * 200_000 * BATCH_ROW, 16 * 100 + 16 * 400, 32 * 2)
    seconds = 32 * cost.rest + sum(s * a / own for s, a, own in zip(cost.train, done, cost.work, strict=True))
    hours = seconds / 3600
    assert told(kinds).startswith(f"32 jobs to run, about {60 * hours:.1f} min of one core and ")
