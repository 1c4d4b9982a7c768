"""Which jobs a command line stands for."""

import pytest

from finflow.errors import ConfigError
from finflow.sweeps.plan import plan_of


def test_a_grid_has_every_combination_once() -> None:
    plan = plan_of("finetune", ["seed=range(3)", "algo.lr=1e-4,3e-4", "budget.episodes=5"])
    assert plan.swept == {"algo.lr": ("0.0001", "0.0003"), "seed": ("0", "1", "2")}
    assert plan.fixed == ("budget.episodes=5",)
    assert [tuple(job.values.values()) for job in plan.jobs] == [(lr, s) for lr in ("0.0001", "0.0003") for s in "012"]
    assert plan.jobs[4].overrides == ("budget.episodes=5", "algo.lr=0.0003", "seed=1")
    assert len({job.name.split("-")[1] for job in plan.jobs}) == 6


def test_the_same_command_in_any_order_and_by_any_launcher_is_the_same_sweep() -> None:
    one = plan_of("finetune", ["seed=0,1", "algo.lr=1e-4,3e-4", "market_regime=stable"])
    other = plan_of(
        "finetune",
        ["hydra/launcher=joblib", "market_regime=stable", "algo.lr=1e-4,3e-4", "hydra.launcher.n_jobs=2", "seed=0,1"],
    )
    assert one == other
    elsewhere = plan_of("finetune", ["seed=0,1", "algo.lr=1e-4,3e-4", "market_regime=stable", "output_root=x"])
    assert (elsewhere.id, [job.name for job in elsewhere.jobs]) == (one.id, [job.name for job in one.jobs])
    assert elsewhere.jobs[0].overrides[-3] == "output_root=x"
    again = plan_of("finetune", ["seed=0,1", "algo.lr=1e-4,3e-4", "market_regime=stable", "resume=true"])
    assert again == one


@pytest.mark.parametrize(
    "changed",
    [
        ["seed=0,2", "algo.lr=1e-4"],
        ["seed=0,1", "algo.lr=2e-4"],
        ["seed=0,1"],
        ["seed=0,1", "algo.lr=1e-4", "fold=2008"],
    ],
)
def test_another_command_is_another_sweep(changed: list[str]) -> None:
    assert plan_of("finetune", changed).id != plan_of("finetune", ["seed=0,1", "algo.lr=1e-4"]).id
    assert plan_of("pretrain", ["seed=0,1"]).id != plan_of("finetune", ["seed=0,1"]).id


def test_typed_values_take_the_place_of_the_presets() -> None:
    params = {"algo.lr": "1e-4,3e-4", "seed": "range(2)"}
    assert len(plan_of("finetune", [], params).jobs) == 4
    plan = plan_of("finetune", ["algo.lr=5e-4"], params)
    assert plan.fixed == ("algo.lr=5e-4",)
    assert [job.values for job in plan.jobs] == [{"seed": "0"}, {"seed": "1"}]


def test_a_glob_of_a_group_is_its_options_that_the_stage_reads() -> None:
    plan = plan_of("finetune", ["market_regime=glob([s*,v*])"])
    assert plan.swept == {"market_regime": ("stable", "volatile")}


def test_a_name_stays_short_whatever_is_typed() -> None:
    tickers = ",".join(f"'folder of prices/T{i:03d} (daily)=x.csv'" for i in range(40))
    plan = plan_of("finetune", ["env=csv", f"env.path={tickers}"])
    assert max(len(job.name) for job in plan.jobs) == 11
    assert all(set(job.name) <= set("0123456789abcdef-") for job in plan.jobs)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("algo.lr=interval(0,1)", "a grid needs values"),
        ("output_root=a,b", "a whole sweep shares one"),
        ("experiment=demo,null", "a whole sweep shares one"),
        ("market_regime=glob(x*)", "no value"),
        ("resume=outputs/finetune/x", "each job of a sweep goes on by itself"),
        ("resume=true,null", "each job of a sweep goes on by itself"),
    ],
)
def test_what_makes_no_grid_is_refused(typed: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan_of("finetune", [typed])
