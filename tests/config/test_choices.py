"""Every option of every group composes and parses for each stage that reads it, with the guide's values."""

import pytest

from finflow.config.compose import CONF_DIR, from_yaml, group_choices, load, to_yaml
from finflow.errors import ConfigError
from finflow.schema import ALGORITHMS, READS, STAGES, Config
from finflow.schema.fields import Schema
from finflow.schema.sections import BCellConfig

NEEDS = {"env=csv": ["env.path=prices.csv"]}
CHOICES = [(s, g, c) for s in STAGES for g, choices in group_choices(s).items() for c in choices]


@pytest.mark.parametrize(("stage", "group", "choice"), CHOICES)
def test_every_choice_parses(stage: str, group: str, choice: str) -> None:
    option = f"{group}={choice}"
    assert load(stage, [option, *NEEDS.get(option, [])]).stage == stage


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("env", [["env=sp500"], ["env=csv", "env.path=p.csv"], ["env=synthetic"]])
def test_demo_is_smaller_for_every_stage_and_env(stage: str, env: list[str]) -> None:
    env = env if "env" in group_choices(stage) else []
    full, demo = load(stage, env), load(stage, [*env, "experiment=demo"])
    assert demo.budget.epochs < full.budget.epochs
    assert demo.budget.episodes < full.budget.episodes
    assert demo.env.source == full.env.source


def test_every_option_is_offered_by_some_stage() -> None:
    written = {(p.parent.name, p.stem) for p in CONF_DIR.glob("*/*.yaml") if p.parent.name != "shared"}
    assert written == {(group, choice) for _, group, choice in CHOICES}


@pytest.mark.parametrize(
    ("regime", "alpha_init", "cql_alpha", "lambda_cvar", "lambda_turn"),
    [
        ("all", 0.75, 5.0, 5.0, 0.1),
        ("stable", 0.5, 5.0, 5.0, 0.1),
        ("normal", 0.75, 5.0, 5.0, 0.1),
        ("volatile", 1.0, 10.0, 10.0, 0.5),
        ("crisis", 1.0, 10.0, 10.0, 0.5),
    ],
)
def test_regime_sets_the_values_of_the_training_guide(
    regime: str, alpha_init: float, cql_alpha: float, lambda_cvar: float, lambda_turn: float
) -> None:
    config = load("finetune", [f"market_regime={regime}"])
    assert isinstance(config.algo, BCellConfig)
    assert (config.algo.alpha_init, config.algo.cql.alpha) == (alpha_init, cql_alpha)
    assert (config.reward.lambda_cvar, config.reward.lambda_turn) == (lambda_cvar, lambda_turn)
    assert config.market_regime.name == regime
    assert load("pretrain", [f"market_regime={regime}"]).reward.lambda_cvar == lambda_cvar


@pytest.mark.parametrize("order", [1, -1])
def test_a_typed_value_wins_over_the_regime_and_the_preset(order: int) -> None:
    typed = [
        "market_regime=volatile",
        "experiment=demo",
        "algo.cql.alpha=3",
        "reward.lambda_turn=0.7",
        "budget.episodes=7",
    ]
    config = load("finetune", typed[::order])
    assert isinstance(config.algo, BCellConfig)
    assert config.algo.cql.alpha == 3.0
    assert config.algo.alpha_init == 1.0
    assert config.reward.lambda_turn == 0.7
    assert config.budget.episodes == 7


def test_one_learning_rate_moves_both_and_each_can_be_set() -> None:
    algo = load("finetune", ["algo.lr=1e-4", "algo.critic_lr=2e-4"]).algo
    assert (algo.lr, algo.actor_lr, algo.critic_lr) == (1e-4, 1e-4, 2e-4)


def test_numbers_typed_where_text_is_read() -> None:
    config = load("finetune", ["fold=2008", "name=7", "init.weights=null"])
    assert (config.fold, config.name, config.init.weights) == ("2008", "7", None)


def test_a_saved_configuration_reads_back_equal(tmp_path) -> None:
    config = load("finetune", ["market_regime=crisis", "env=csv", "env.path='a (b)=c.csv'", "seed=3"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert from_yaml(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "", "seed: 1\n", "\x00"])
def test_a_file_that_is_no_configuration_is_named(tmp_path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        from_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_configuration_cannot_be_written_to() -> None:
    config = load("pretrain")
    with pytest.raises(ValueError, match="frozen"):
        config.env.cost_bps = 0.0  # pyright: ignore[reportAttributeAccessIssue]


def _keys(schema: Schema, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name in type(schema).model_fields:
        value = getattr(schema, name)
        found |= _keys(value, f"{prefix}{name}.") if isinstance(value, Schema) else {f"{prefix}{name}"}
    return found


def _all_keys() -> set[str]:
    configs: list[Config] = [load(s, [f"algo={a}"]) for s, algos in ALGORITHMS.items() for a in algos]
    return {key for config in [*configs, load("finetune", ["env=synthetic"])] for key in _keys(config)}


def test_every_key_is_read_by_some_stage_and_every_entry_of_reads_is_a_key() -> None:
    keys, entries = _all_keys(), {entry for reads in READS.values() for entry in reads}
    covered = {key for key in keys for e in entries if key == e or key.startswith(f"{e}.")}
    assert keys - covered == set()
    assert {e for e in entries if not any(k == e or k.startswith(f"{e}.") for k in keys)} == set()
