"""A key is added in one place, its field, and has a value in conf/: all that is made of its role then follows."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from pydantic import create_model

from finflow.artifacts.provenance import find_parent, parent_facts, publish_parent
from finflow.artifacts.runs import CONFIG, command_for
from finflow.config import compose
from finflow.config.compose import CONF_DIR, load, to_yaml
from finflow.data.build import build_market
from finflow.errors import ConfigError, ParentError, StorageError
from finflow.io.weights import sha256_of
from finflow.schema import MARKS, READS, STAGES, Config
from finflow.schema.fields import Count, Discount, NonNegative, ReadBy, Role, keys_where, marks_of
from finflow.schema.sections import IQLConfig, TD3BCConfig
from finflow.stages.explaining import provenance_of
from finflow.stages.parents import pin
from finflow.stages.run import placed, resumed_folder, start_of
from finflow.stages.run_groups import Group, kind_of
from finflow.sweeps.folder import preset_of
from finflow.sweeps.plan import plan_of

ADDED: Mapping[str, tuple[Any, str]] = {
    "env.halts": (Annotated[NonNegative, Role.MARKET], "shared/accounting.yaml"),
    "env.fee": (Annotated[NonNegative, Role.ENVIRONMENT], "shared/accounting.yaml"),
    "budget.rounds": (Annotated[NonNegative, Role.PRETRAINED], "base.yaml"),
    "reward.lambda_calm": (NonNegative, "base.yaml"),  # METHOD, as its section
    "checkpoint.spare": (NonNegative, "base.yaml"),  # SAVING
    "hardware.cores": (NonNegative, "hardware/auto.yaml"),  # HOST
    "wish": (Annotated[NonNegative, Role.REQUEST, ReadBy("explain")], "base.yaml"),
}
"""Key -> its annotation, and the file of `conf/` that gives it the value 0."""
SMALL = ["env=synthetic", "env.synthetic.days=1300", "env.synthetic.assets=2"]


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A copy of schema and `conf/` with the keys of `ADDED`."""
    conf = tmp_path / "conf"
    shutil.copytree(CONF_DIR, conf)
    inside: dict[str, dict[str, Any]] = {}
    for key, (hint, file) in ADDED.items():
        section, _, name = key.rpartition(".")
        inside.setdefault(section, {})[name] = (hint, ...)
        text = (conf / file).read_text()
        below = f"{section}:\n" if f"\n{section}:\n" in text else ""
        line = f"{'  ' if below else ''}{name}: 0.0\n"
        (conf / file).write_text(text.replace(f"\n{below}", f"\n{below}{line}", 1) if below else f"{text}{line}")
    fields = inside.pop("")
    for section, own in inside.items():
        info = Config.model_fields[section]
        assert info.annotation is not None
        cls = create_model(info.annotation.__name__, __base__=info.annotation, **own)
        fields[section] = (Annotated[(cls, *info.metadata)], ...)  # type: ignore[valid-type]
    root = create_model("Config", __base__=Config, **fields)
    monkeypatch.setattr(compose, "Config", root)
    monkeypatch.setattr(compose, "CONF_DIR", conf)
    for key, mark in marks_of(root).items():
        monkeypatch.setitem(MARKS, key, mark)  # type: ignore[arg-type]
    for stage in STAGES:
        monkeypatch.setitem(READS, stage, keys_where(MARKS, lambda mark, stage=stage: stage in mark.read_by))  # type: ignore[arg-type]


pytestmark = pytest.mark.usefixtures("added")


def changed(key: str, *more: str, stage: str = "finetune") -> Config:
    return load(stage, [f"{key}=0.5", *more])


def trained(config: Config) -> Any:
    fold = SimpleNamespace(name="2018", test=(1, 2))
    market = SimpleNamespace(dates=["2000-01-03", "2018-01-02"], fingerprint="same")
    prepared = SimpleNamespace(market=market, fold=fold)
    return SimpleNamespace(config=config, prepared=prepared, folder=Path(f"runs/{id(config)}"), summary={})


SETTINGS = ("env.halts", "env.fee", "budget.rounds", "reward.lambda_calm", "checkpoint.spare")


@pytest.mark.parametrize("key", [key for key in ADDED if key != "wish"])
def test_the_hash_of_settings_holds_what_a_run_is(key: str) -> None:
    hashes = [provenance_of(Group((trained(config),)))["config_hash"] for config in (load("finetune"), changed(key))]
    assert (hashes[0] != hashes[1]) is (key in SETTINGS)


@pytest.mark.parametrize("key", [key for key in ADDED if key != "wish"])
def test_a_run_is_resumed_with_another_machine_and_other_checkpoints_alone(key: str, tmp_path: Path) -> None:
    folder = tmp_path / "out/finetune/any/one"
    folder.mkdir(parents=True)
    more = (f"output_root='{tmp_path / 'out'}'", "resume=true")
    (folder / CONFIG).write_text(to_yaml(load("finetune", more)))
    if key in ("checkpoint.spare", "hardware.cores"):
        assert resumed_folder(changed(key, *more), None) == folder
    else:
        with pytest.raises(ConfigError, match="no unfinished run of these settings"):
            resumed_folder(changed(key, *more), None)
        named = (more[0], f"resume='{folder}'")
        with (
            pytest.raises(ConfigError, match=rf"{folder} has {key}=0.0 \(here 0.5\)"),
            placed(changed(key, *named), None),
        ):
            pass


@pytest.mark.parametrize("key", ["env.halts", "budget.rounds", "env.fee", "reward.lambda_calm", "hardware.cores"])
def test_pretrained_weights_are_matched_by_what_shapes_them(key: str, tmp_path: Path) -> None:
    def facts(config: Config) -> dict[str, Any]:
        dates = {"name": "2018", "train": ["2000", "2001"], "validation": ["2002", "2003"], "test": ["2004", "2005"]}
        return parent_facts(config, build_market(config.env).fingerprint, {}, dates)

    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"")
    publish_parent(tmp_path, weights, sha256_of(weights), facts(load("pretrain", SMALL)))
    with pytest.raises((ParentError, StorageError)) as refused:
        find_parent(tmp_path, "latest", facts(changed(key, *SMALL)))
    named = f"no pretrained weights with {key}=0.5 (newest has 0.0)" in str(refused.value)
    assert named is (key in ("env.halts", "budget.rounds"))
    assert named or "no pretrained weights" not in str(refused.value)


@pytest.mark.parametrize("key", ["env.halts", "budget.rounds", "env.fee", "reward.lambda_calm", "hardware.cores"])
def test_trials_of_one_pretraining_publish_nothing(key: str) -> None:
    pins = pin("pretrain", plan_of("pretrain", [f"{key}=0.0,0.5"]))
    assert (pins == {}) is (key in ("env.halts", "budget.rounds"))


@pytest.mark.parametrize("key", [key for key in ADDED if key != "wish"])
def test_printed_commands_carry_what_stages_share(key: str) -> None:
    command = command_for("pretrain", changed(key))
    carried = key in ("env.halts", "env.fee", "budget.rounds", "hardware.cores")
    assert command == "python experiments/pretrain.py" + f" {key}=0.5" * carried


@pytest.mark.parametrize("key", [key for key in ADDED if key != "wish"])
def test_runs_of_other_seeds_are_averaged_where_nothing_else_shapes_them(key: str) -> None:
    alike = key in ("checkpoint.spare", "hardware.cores")
    assert kind_of([trained(load("finetune")), trained(changed(key, "seed=1"))]) == ("seeds" if alike else "comparison")


def test_presets_and_trackers_take_their_share() -> None:
    config = load("finetune", [f"{key}=0.5" for key in ADDED if key != "wish"])
    values = preset_of(config, [])["values"]
    kept = {f"{section}.{name}" for section, inside in values.items() for name in inside}
    assert kept == {*SETTINGS, "hardware.cores"} - {"checkpoint.spare"}
    settings = start_of(config, Path("run"), {}).settings
    assert all(settings[key.split(".")[0]][key.split(".")[1]] == 0.5 for key in ADDED if key != "wish")


@pytest.mark.parametrize(("key", "stage", "readers"), [
    ("env.halts", "evaluate", "pretrain, finetune, collect, judge, look"),
    ("reward.lambda_calm", "collect", "pretrain, finetune"),
    ("wish", "finetune", "explain"),
])  # fmt: skip
def test_a_stage_that_does_not_read_a_key_refuses_it(key: str, stage: str, readers: str) -> None:
    assert load(readers.split(", ")[0], [f"{key}=0.5"])
    with pytest.raises(ConfigError, match=rf"{stage} does not read {key} \(read by {readers}\); leave it out"):
        load(stage, [f"{key}=0.5"])


def test_a_key_without_role_or_reader_and_one_marked_twice_are_found() -> None:
    with pytest.raises(TypeError, match="orphan: has no role"):
        marks_of(create_model("Config", __base__=Config, orphan=(Count, ...)))
    with pytest.raises(TypeError, match="orphan: has no reader"):
        marks_of(create_model("Config", __base__=Config, orphan=(Annotated[Count, Role.DATA], ...)))
    other = create_model("Other", __base__=IQLConfig, gamma=(Annotated[Discount, Role.DATA], ...))
    algo = Annotated[(TD3BCConfig | other, *Config.model_fields["algo"].metadata)]  # type: ignore[valid-type]
    with pytest.raises(TypeError, match=r"algo\.gamma: Other marks it otherwise"):
        marks_of(create_model("Config", __base__=Config, algo=(algo, ...)))
