"""A command line that cannot be meant is refused in one line that names the key, the value and the remedy."""

from pathlib import Path

import pytest

from finflow.config.compose import load
from finflow.errors import ConfigError
from finflow.schema import READS, STAGES

PRETRAIN: list[tuple[list[str], str, str]] = [
    (["-"], "-", "write key=value"),
    (["seed"], "seed", "write key=value"),
    (["=3"], "=3", "write key=value"),
    (["seed==3"], "seed==3", "quote"),
    (["algo.lr=["], "algo.lr=[", "quote"),
    (["algo.lr=]"], "algo.lr=]", "quote"),
    (["algo.lr={a"], "algo.lr={a", "quote"),
    (["algo.lr=(1"], "algo.lr=(1", "quote"),
    (["algo.lr='1"], "algo.lr='1", "quote"),
    (["output_root=/tmp/a (b)"], "output_root=/tmp/a (b)", "quote"),
    (["offline.dataset=a=b.npz"], "offline.dataset=a=b.npz", "quote"),
    (["+typo=1"], "+typo=1", "known here: algo, budget"),
    (["++typo=1"], "++typo=1", "known here: algo, budget"),
    (["typo=1"], "typo=1", "known here: algo, budget"),
    (["algo.typo=1"], "algo.typo=1", "known here: actor_lr"),
    (["+algo.typo=1"], "+algo.typo=1", "expectile"),
    (["algo.network.typo=1"], "algo.network.typo=1", "embed_dim"),
    (["budget.epochs.x=3"], "budget.epochs.x=3", "collect_episodes"),
    (["foo/bar=1"], "foo/bar=1", "known here"),
    (["shared/network=x"], "shared/network=x", "known here"),
    (["~algo"], "~algo", "another value"),
    (["~seed"], "~seed", "another value"),
    (["seed="], "seed=''", "valid integer"),
    (["seed=null"], "seed=null", "valid integer"),
    (["seed=true"], "seed=true", "valid integer"),
    (["seed=1.5"], "seed=1.5", "valid integer"),
    (["seed=[1,2]"], "seed=[1, 2]", "valid integer"),
    (["seed=-1"], "seed=-1", "greater than or equal to 0"),
    (["seed=99999999999999999999999"], "seed=99999999999999999999999", "less than"),
    (["seed=1,2"], "seed=1,2", "-m"),
    (["seed=range(3)"], "seed=range(3)", "-m"),
    (["env=csv,sp500"], "env=csv,sp500", "-m"),
    (["algo.lr=nan"], "algo.lr=nan", "finite"),
    (["algo.lr=inf"], "algo.lr=inf", "finite"),
    (["algo.lr=0"], "algo.lr=0", "greater than 0"),
    (["algo.lr=abc"], "algo.lr=abc", "valid number"),
    (["algo.lr=???"], "algo.lr", "Missing"),
    (["algo.lr=${nope}"], "algo.lr", "nope"),
    (["algo.gamma=1"], "algo.gamma=1", "less than 1"),
    (["algo=nope"], "algo=nope", "choose one of iql"),
    (["algo=bcell"], "algo=bcell", "not an algorithm of pretrain"),
    (["algo="], "algo=", "choose one of iql"),
    (["algo=null"], "algo=null", "choose one of iql"),
    (["algo=[iql]"], "algo=[iql]", "choose one of iql"),
    (["algo@foo=iql"], "algo@foo=iql", "choose one of iql"),
    (["algo.name=nope"], "algo.name=nope", "choose one of iql"),
    (["algo.cql.alpha=3"], "algo.cql.alpha=3", "known here: actor_lr"),
    (["experiment=nope"], "experiment=nope", "choose one of ablation"),
    (["experiment=null"], "experiment=null", "choose one of ablation"),
    (["+experiment=demo"], "+experiment=demo", "write experiment="),
    (["experiment=seeds", "experiment=[demo]"], "experiment=[demo]", "write 'experiment=[seeds,demo]' for both"),
    (["env=nope"], "env=nope", "choose one of csv, dow30, etf, sp500, synthetic"),
    (["env={path:x}"], "env={path:x}", "choose one of csv"),
    (["env=csv"], "env.path", "write env.path=prices.csv"),
    (["env=synthetic", "env.format.separator=semicolon"], "env.format", "add env=csv or leave it out"),
    (["env=csv", "env.path=null"], "env.path", "write env.path=prices.csv"),
    (["env=csv", "env.path="], "env.path=''", "empty"),
    (["env.path=x.csv"], "env.path=x.csv", "add env=csv"),
    (["env=synthetic", "env.path=x.csv"], "env.path=x.csv", "add env=csv"),
    (["env.synthetic.days=2000"], "env.synthetic.days=2000", "belongs to env=synthetic alone"),
    (["env=synthetic", "env.synthetic=null"], "env.synthetic", "env=synthetic"),
    (["env=synthetic", "env.synthetic.days=100"], "env.synthetic.days=100", "1300"),
    (["env=dow30", "env.tickers=null"], "env.tickers=null", "leave it out or give"),
    (["env=etf", "env.start=null"], "env.start=null", "leave it out or give"),
    (["env=dow30", "env.path=x.csv"], "env.path=x.csv", "add env=csv"),
    (["env.tickers=[AAPL]"], "env.tickers=['AAPL']", "at least 2"),
    (["env.tickers=AAPL"], "env.tickers=AAPL", "list"),
    (["env.tickers=[AAPL,aapl]"], "env.tickers=['AAPL', 'aapl']", "aapl stands twice; keep one"),
    (["env.signals=s.csv", "env.signals_lag=-1"], "env.signals_lag=-1", "greater than or equal to 0"),
    (["env.signals="], "env.signals=''", "empty"),
    (["env.snapshot="], "env.snapshot=''", "empty"),
    (["env.end=2020-02-30"], "env.end=2020-02-30", "YYYY-MM-DD"),
    (["env.start=2020-01-02", "env.end=2020-01-02"], "env.start=2020-01-02", "not before env.end=2020-01-02"),
    (["env.start=2000-13-45"], "env.start=2000-13-45", "YYYY-MM-DD"),
    (["env.start=2000-1-1"], "env.start=2000-1-1", "YYYY-MM-DD"),
    (["env.rebalance=hourly"], "env.rebalance=hourly", "choose one of daily, weekly, monthly"),
    (["env.cash_yield=nan"], "env.cash_yield=nan", "finite"),
    (["env.cash_yield="], "env.cash_yield=''", "number"),
    (["env.cash_yield=true"], "env.cash_yield=true", "number"),
    (["env.benchmark=5"], "env.benchmark=5", "equal_weight or the path of a CSV"),
    (["env.benchmark=0.5"], "env.benchmark=0.5", "equal_weight or the path of a CSV"),
    (["env.benchmark=null"], "env.benchmark=null", "equal_weight or the path of a CSV"),
    (["env.benchmark="], "env.benchmark=''", "empty"),
    (["env.limits.max_weight=2"], "env.limits.max_weight=2", "less than or equal to 1"),
    (["market_regime=bull"], "market_regime=bull", "choose one of all, crisis, normal, stable, volatile"),
    (["hardware=tpu"], "hardware=tpu", "choose one of auto, cpu"),
    (["hardware.threads=0"], "hardware.threads=0", "greater than or equal to 1"),
    (["tracking=neptune"], "tracking=neptune", "choose one of local, none, wandb"),
    (["tracking.wandb.mode=online"], "tracking.wandb.mode=online", "belongs to tracking=wandb alone"),
    (["tracking=wandb", "tracking.wandb.mode=live"], "tracking.wandb.mode=live", "choose one of offline, online"),
    (["tracking.close_timeout=0"], "tracking.close_timeout=0", "greater than 0"),
    (["tracking.tensorboard=yes"], "tracking.tensorboard=yes", "boolean"),
    (["budget=3"], "budget=3", "set one of budget.collect_episodes"),
    (["budget.epochs=1e3"], "budget.epochs=1000.0", "integer"),
    (["output_root="], "output_root=''", "empty"),
    (["name="], "name=''", "letters"),
    (["name=../x"], "name=../x", "letters"),
    (["fold=null"], "fold=null", "string"),
    (["stage=finetune"], "stage=finetune", "experiments/finetune.py"),
    (["hydra.foo=1"], "hydra.foo=1", "no such key of Hydra"),
    (["hydra.job.chdir=true"], "hydra.job.chdir=true", "hydra.run.dir"),
    (["hydra/launcher=nope"], "hydra/launcher=nope", "choose one of basic"),
    (["algo.beta=3"], "algo.beta=3", "read with algo.extraction=awr alone; add that, or leave it out"),
    (["algo.extraction=q_gradient", "algo.max_weight=3"], "algo.max_weight=3", "algo.extraction=awr alone"),
    (["algo.extraction=awr", "algo.horizon=3"], "algo.horizon=3", "algo.extraction=value_gradient alone"),
    (["algo.extraction=awr", "algo.prior_kl_coef=1"], "algo.prior_kl_coef=1", "or algo.extraction=q_gradient alone"),
    (["algo.name=td3bc"], "algo.name=td3bc", "the option of algo sets it; write algo=td3bc"),
    (["env.signals_lag=5"], "env.signals_lag=5", "read with env.signals=VALUE alone; add that, or leave it out"),
    (["env=etf", "env.lost_rows=0.2"], "env.lost_rows=0.2", "read with env.calendar=common alone"),
    (["monitor.act.patience=0"], "monitor.act.patience=0", "read with monitor.mode=act alone"),
    (["market_regime.cql_alpha=20"], "market_regime.cql_alpha=20", "pretrain does not read market_regime.cql_alpha"),
]
OTHERS: list[tuple[str, list[str], str, str]] = [
    ("finetune", ["algo=iql"], "algo=iql", "choose one of bcell"),
    ("finetune", ["algo.beta=3"], "algo.beta=3", "known here: actor_lr"),
    ("finetune", ["algo.mixing_ratio=[2,0]"], "algo.mixing_ratio=[2, 0]", ": 2: should be less than or equal to 1"),
    ("finetune", ["algo.cql.anneal=[1]"], "algo.cql.anneal=[1]", "at least 2"),
    ("finetune", ["algo.cql.anneal=[1,x]"], "algo.cql.anneal=[1, 'x']", ": x: should be a valid number"),
    ("evaluate", ["baselines=[foo]"], "baselines=['foo']", ": foo: no such choice; choose one of eg"),
    ("finetune", ["ablation=no_cql", "algo=sac"], "ablation=no_cql", "algo=sac has no algo.cql; leave out one of"),
    ("finetune", ["algo=sac", "algo.cql.alpha=1"], "algo.cql.alpha=1", "belongs to algo=bcell alone"),
    ("finetune", ["algo=sac", "algo.gate.lr_ratio=1"], "algo.gate.lr_ratio=1", "belongs to algo=bcell alone"),
    ("finetune", ["algo.cql.anneal=1"], "algo.cql.anneal=1", "list"),
    (
        "finetune",
        ["algo.gate.lr_ratio=2", "algo.gate=null"],
        "algo.gate.lr_ratio=2",
        "algo.gate is null; leave out one",
    ),
    ("finetune", ["algo.name=sac"], "algo.name=sac", "write algo=sac"),
    ("finetune", ["algo.risk_level=0.1"], "algo.risk_level=0.1", "read with algo.risk_weight=VALUE alone"),
    ("finetune", ["algo=sac", "algo.walkers=8"], "algo.walkers=8", "read with algo.horizon=VALUE alone"),
    ("decide", ["lot=100"], "lot=100", "read with capital=VALUE or holdings=VALUE alone"),
    ("finetune", ["init.weights="], "init.weights=''", "empty"),
    ("evaluate", ["run="], "run=''", "empty"),
    ("evaluate", ["run=a,b"], "run=a,b", "run=[a,b]"),
    ("evaluate", ["evaluation.bootstrap_samples=1"], "evaluation.bootstrap_samples=1", "100"),
    ("nope", [], "stage=nope", "choose one of pretrain"),
]


def refusal(stage: str, overrides: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(stage, overrides)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


@pytest.mark.parametrize(
    ("overrides", "key", "fragment"), PRETRAIN, ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_pretrain_refuses(overrides: list[str], key: str, fragment: str) -> None:
    text = refusal("pretrain", overrides)
    assert text.startswith(f"{key}:")
    assert fragment in text.removeprefix(key)


@pytest.mark.parametrize(("stage", "overrides", "key", "fragment"), OTHERS)
def test_other_stages_refuse(stage: str, overrides: list[str], key: str, fragment: str) -> None:
    text = refusal(stage, overrides)
    assert text.startswith(f"{key}:")
    assert fragment in text


@pytest.mark.parametrize(
    ("stage", "override", "readers"),
    [
        ("pretrain", "init.weights=latest", "finetune"),
        ("pretrain", "budget.episodes=3", "finetune"),
        ("pretrain", "run=latest", "evaluate, decide, explain, export"),
        ("finetune", "evaluation.every_epochs=3", "pretrain"),
        ("pretrain", "evaluation.bootstrap_samples=200", "evaluate, judge"),
        ("finetune", "out=x.npz", "collect, export"),
        ("evaluate", "env=csv", "pretrain, finetune, collect, judge, look"),
        ("evaluate", "market_regime=volatile", "pretrain, finetune"),
        ("evaluate", "tracking=none", "pretrain, finetune, dashboard"),
        ("decide", "algo.lr=1", "pretrain, finetune"),
        ("decide", "fold=2008", "pretrain, finetune, collect, judge, look"),
        ("collect", "reward.lambda_cvar=1", "pretrain, finetune"),
        ("collect", "run=latest", "evaluate, decide, explain, export"),
    ],
)
def test_a_key_that_the_stage_would_ignore_is_refused(stage: str, override: str, readers: str) -> None:
    text = refusal(stage, [override])
    assert text.startswith(f"{override}: {stage} does not read")
    assert f"(read by {readers})" in text


@pytest.mark.parametrize("stage", STAGES)
def test_a_key_is_refused_exactly_where_reads_leaves_it_out(stage: str) -> None:
    for key, value in {"episodes": "3", "out": "x.npz", "init.weights": "x", "fold": "2008", "run": "x"}.items():
        if key in READS[stage] or key.split(".")[0] in READS[stage]:
            load(stage, [f"{key}={value}"])
        else:
            assert "does not read" in refusal(stage, [f"{key}={value}"])


def test_a_preset_may_set_what_a_stage_does_not_read() -> None:
    assert load("evaluate", ["experiment=demo"]).budget.episodes < load("evaluate").budget.episodes


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        ("defaults:\n  - override /env: nope\n", "env=nope: no such option; choose one of csv, dow30"),
        ("defaults:\n  - override /nope: x\n", "Could not override 'nope'"),
        ("seed: [\n", "own.yaml"),
    ],
)
def test_a_preset_that_does_not_compose_is_refused_in_one_line(preset: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text(f"# @package _global_\n{preset}")
    assert said in refusal("pretrain", [f"hydra.searchpath=['{tmp_path}']", "experiment=own"])


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        (["ablation=from_scratch", "init.weights=there"], "init.weights=there: ablation=from_scratch sets it to null"),
        (["ablation=no_cql", "algo.cql.alpha=5"], "algo.cql.alpha=5: ablation=no_cql sets it to 0.0"),
        (["ablation=no_anchor", "algo.prior_kl_coef=[1,0]"], "algo.prior_kl_coef=[1, 0]: ablation=no_anchor sets"),
    ],
)
def test_a_key_that_undoes_the_ablation_is_refused(overrides: list[str], refused: str) -> None:
    with pytest.raises(ConfigError) as error:
        load("finetune", overrides)
    assert str(error.value).startswith(refused)


def test_a_preset_that_undoes_the_ablation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text("# @package _global_\nalgo: {relabel_fraction: 0.5}\n")
    line = ["ablation=no_relabelling", "experiment=own", f"hydra.searchpath=[{tmp_path}]"]
    with pytest.raises(ConfigError, match=r"algo\.relabel_fraction=0\.5: ablation=no_relabelling sets it to 0\.0"):
        load("finetune", line)


def test_a_key_that_repeats_the_ablation_is_taken() -> None:
    line = ["ablation=from_scratch", "init.weights=null", "algo.cql.alpha=5"]
    assert load("finetune", line).init.weights is None
