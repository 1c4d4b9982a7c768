"""What plugins add is chosen by name, refused where it is not known, and carried by a run's configuration."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import finflow
from finflow.artifacts.runs import command_for
from finflow.config.compose import CONF_DIR, from_yaml, group_choices, to_yaml
from finflow.data.build import build_market
from finflow.errors import ConfigError
from finflow.plugins import code_of
from finflow.schema import Config, role_of
from finflow.schema.fields import Role
from finflow.sweeps.folder import preset_of

CHOSEN = [
    "algo=pushed", "algo.network.kind=wide", "env.features=[jump]", "env.source=walk", "tracking.sinks=[note]",
]  # fmt: skip


def words(folder: Path, *more: str, plugin: str = "whole") -> list[str]:
    return [f"hydra.searchpath=['{folder}']", f"plugins=[{plugin}]", "env=csv", "env.source=walk", *more]


def loaded(folder: Path, *more: str) -> Config:
    return finflow.load("pretrain", words(folder, *CHOSEN, *more))


def module(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(f"from finflow.plugins import Plugin\n{text}\n")


def test_each_kind_is_chosen_by_its_name(mine: Path) -> None:
    config = loaded(mine, "algo.push=0.75")
    assert (config.algo.name, type(config.algo).__name__, config.algo.push) == ("pushed", "PushedConfig", 0.75)  # type: ignore[union-attr]
    assert build_market(config.env).feature_names[-1] == "jump"
    assert (role_of("algo.push"), role_of("algo.pull")) == (Role.METHOD, None)


def test_a_stored_configuration_loads_its_plugins(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = loaded(mine)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert from_yaml(tmp_path / "config.yaml") == config
    monkeypatch.setattr("finflow.plugins._LOADED", {})
    monkeypatch.setattr("sys.path", [place for place in sys.path if place != str(mine)])
    del sys.modules["whole"]
    with pytest.raises(ConfigError, match=r"config.yaml: plugins=\[whole\]: no module of this name on PYTHONPATH"):
        from_yaml(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("algo.name=other", "iql, td3bc, direct, pushed, bcell, sac"),
        ("algo.network.kind=other", "portfolio, mlp, wide"),
        ("env.source=other", "sp500, yahoo, csv, synthetic, walk"),
        ("env.features=[other]", "jump"),
        ("tracking.sinks=[other]", "note"),
    ],
)
def test_what_is_unknown_is_refused_with_what_is_known(word: str, known: str, mine: Path) -> None:
    key, _, value = word.replace("[", "").replace("]", "").partition("=")
    line = f"{key}={value}: no such choice; choose one of {known}, or name the plugin that has it: plugins=[MODULE]"
    with pytest.raises(ConfigError, match=f"^{re.escape(line)}$"):
        finflow.load("pretrain", words(mine, word))


def test_what_another_configuration_loaded_is_not_known_without_its_plugin(mine: Path) -> None:
    loaded(mine)
    with pytest.raises(ConfigError, match=r"env.features=jump: no such choice; name the plugin that has it"):
        finflow.load("pretrain", ["env.features=[jump]"])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("algo.pull=1", r"unknown key; known here: .*, push, "),
        ("algo.push=2.0", r"algo.push=2.0: should be less than or equal to 1"),
        ("algo.push=x", r"algo.push=x: should be a valid number"),
        ("algo=bcell", r"algo=bcell: not an algorithm of pretrain; choose one of iql, td3bc, direct, pushed"),
    ],
)
def test_the_keys_of_an_algorithm_are_checked_by_its_own_settings(word: str, said: str, mine: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        finflow.load("pretrain", words(mine, *(["algo=pushed"] if word != "algo=bcell" else []), word))


def test_a_preset_names_its_plugins(mine: Path) -> None:
    (mine / "experiment").mkdir()
    (mine / "experiment/own.yaml").write_text("# @package _global_\nplugins: [whole]\n")
    found = finflow.load("pretrain", [f"hydra.searchpath=['{mine}']", "experiment=own", "algo=pushed", "algo.push=0.5"])
    assert (found.plugins, found.algo.push) == (["whole"], 0.5)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nowhere", r"cannot be imported \(ModuleNotFoundError: No module named 'nowhere', .*odd.py:2\)"),
        ("1 / 0", r"cannot be imported \(ZeroDivisionError: division by zero, .*odd.py:2\)"),
        ("plugins = 1", r"odd has no `plugin`; write plugin = finflow.plugins.Plugin\(...\) in it"),
        ("plugin = Plugin(sources={'walk': print})", r"walk is of whole too; give one another name"),
        ("plugin = Plugin(sources={'csv': print})", r"csv of sources is FinFlow's own; give it another name"),
        ("plugin = Plugin(algorithms={'odd': (int, int)})", r"odd: derive the class of its settings from one of Off"),
    ],
)
def test_a_module_that_is_no_plugin_is_refused_in_one_line(text: str, said: str, mine: Path) -> None:
    module(mine, "odd", text)
    with pytest.raises(ConfigError, match=said) as refused:
        finflow.load("pretrain", words(mine, plugin="whole,odd"))
    assert str(refused.value).startswith("plugins")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["antigravity", "this", "os.path", "__main__", "sys"])
def test_what_is_no_plugin_is_not_even_imported(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run folder from somebody else may name any module, and some do things when they are imported."""
    (tmp_path / "config.yaml").write_text(to_yaml(finflow.load("pretrain").model_copy(update={"plugins": [name]})))
    before = set(sys.modules)
    with pytest.raises(ConfigError, match=r"plugins=\[.*\]: no (plugin, since it imports nothing|module of this name)"):
        from_yaml(tmp_path / "config.yaml")
    assert set(sys.modules) == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lambda history: history.index", r"env.features=odd: the plugin gives \[1500\]; should be \[1500, 4\]"),
        ("lambda history: history.close.tolist()", None),
    ],
)
def test_a_feature_is_an_array_of_days_and_names(text: str, said: str | None, mine: Path) -> None:
    module(mine, "odd", f"plugin = Plugin(features={{'odd': {text}, 'macd': {text}}})")
    config = finflow.load("pretrain", words(mine, "env.features=[odd]", plugin="whole,odd"))
    if said is None:
        market = build_market(config.env)
        np.testing.assert_array_equal(market.features[300:, :, -1], market.close[300:].astype(np.float32))
        return
    with pytest.raises(ConfigError, match=said):
        build_market(config.env)
    with pytest.raises(ConfigError, match=r"env.features=macd: a name of FinFlow's own"):
        build_market(config.env.model_copy(update={"features": ["macd"]}))


def test_the_values_of_a_feature_are_of_the_fingerprint(mine: Path) -> None:
    def market(slope: int) -> str:
        name = f"odd{slope}"
        module(mine, name, f"plugin = Plugin(features={{'f{slope}': lambda history: {slope} * history.close}})")
        env = finflow.load("pretrain", words(mine, f"env.features=[f{slope}]", plugin=f"whole,{name}")).env
        return build_market(env).fingerprint

    plain = build_market(finflow.load("pretrain", words(mine)).env).fingerprint
    assert len({plain, market(1), market(2)}) == 3


def test_an_installed_plugin_is_named_by_its_entry_point(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with options of its own, as pip leaves it, on the path."""
    site = mine.parent / "site"
    package, facts = site / "finflow_whole", site / "finflow_whole-1.0.dist-info"
    package.mkdir(parents=True)
    facts.mkdir()
    (mine / "whole.py").rename(package / "whole.py")
    (mine / "algo").rename(package / "algo")
    (package / "__init__.py").write_text(
        "from dataclasses import replace\nfrom pathlib import Path\nfrom finflow_whole.whole import plugin as one\n"
        "own = replace(one, conf=Path(__file__).parent)\n"
    )
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: finflow-whole\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[finflow.plugins]\nwhole = finflow_whole:own\n")
    monkeypatch.syspath_prepend(site)
    config = finflow.load("pretrain", ["plugins=whole", "env=csv", *CHOSEN])
    assert (config.plugins, config.algo.name) == (["whole"], "pushed")
    with pytest.raises(ConfigError, match=r"no installed plugin \(installed: whole\)"):
        finflow.load("pretrain", ["plugins=[hole]"])


def test_printed_commands_and_presets_carry_what_is_needed(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine.parent)
    config = loaded(mine)
    assert command_for("finetune", config) == (
        "python experiments/finetune.py --config-dir mine 'plugins=[whole]' env=csv env.source=walk"
        " 'env.features=[jump]' algo.network.kind=wide"
    )
    assert command_for("evaluate", config) == "python experiments/evaluate.py --config-dir mine"
    preset = preset_of(config, words(mine, *CHOSEN))
    assert (preset["groups"]["algo"], preset["values"]["plugins"]) == ("pushed", ["whole"])


def test_the_code_of_a_plugin_is_told_apart(mine: Path) -> None:
    loaded(mine)
    before = code_of(["whole"])
    assert code_of(["whole"]) == before
    (mine / "whole.py").write_text((mine / "whole.py").read_text() + "\n")
    assert code_of(["whole"]) != before


def test_only_folders_with_options_are_groups(mine: Path) -> None:
    loaded(mine)
    (mine / "__pycache__").mkdir(exist_ok=True)
    (mine / "tables").mkdir()
    own = group_choices("pretrain")
    assert set(group_choices("pretrain", [CONF_DIR, mine])) == set(own)
