"""Keys of the version before are read by their new names."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from finflow.config.compose import current_names, from_yaml, load
from finflow.errors import ConfigError
from finflow.schema import ADDED, MARKS, RENAMED


def test_a_typed_key_of_the_version_before_is_taken_with_a_line_that_names_the_new_one() -> None:
    with pytest.warns(DeprecationWarning, match="env.parallel: its name is env.num_envs now"):
        assert load("pretrain", ["env.parallel=4"]).env.num_envs == 4


def test_signs_values_and_other_keys_stay() -> None:
    typed = ["+env.parallel=3", "~algo.anchor", "algo.entropy.sigma=[0.1,0.1]", "monitor.act.patience=3", "env=sp500"]
    assert current_names(typed)[0] == [
        "+env.num_envs=3", "~algo.prior_kl_coef", "algo.entropy.target_sigma=[0.1,0.1]", "monitor.act.patience=3",
        "env=sp500",
    ]  # fmt: skip


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_run_folder_of_the_version_before_is_read(stage: str, tmp_path: Path) -> None:
    config, path = load(stage), tmp_path / "config.yaml"
    values = OmegaConf.create(config.model_dump())
    renamed = 0
    for old, new in RENAMED.items():
        section = OmegaConf.select(values, new.rpartition(".")[0])
        name = new.rpartition(".")[2]
        if section is not None and name in section:
            section[old.rpartition(".")[2]] = section.pop(name)
            renamed += 1
    assert renamed >= 7
    for key in ADDED:
        section = OmegaConf.select(values, key.rpartition(".")[0]) if "." in key else values
        del section[key.rpartition(".")[2]]
    OmegaConf.save(values, path)
    assert from_yaml(path) == config


def test_a_preset_with_a_name_of_the_version_before_is_refused_by_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\nenv:\n  parallel: 8\n")
    with pytest.raises(ConfigError, match=r"env\.parallel=8: its name is env.num_envs now; write that"):
        load("pretrain", [f"hydra.searchpath=['{tmp_path}']", "experiment=mine", "env.num_envs=32"])


def test_no_name_is_both_an_old_one_and_a_key() -> None:
    assert not RENAMED.keys() & MARKS.keys()
