"""A run of an earlier version is refused with the command that trains it again."""

import re
import shlex
from pathlib import Path

import pytest

from finflow.artifacts.runs import stored_config
from finflow.config.compose import load, to_yaml
from finflow.errors import ConfigError


def earlier(folder: Path, *overrides: str, without: str) -> Path:
    text = to_yaml(load("pretrain", overrides))
    (folder / "config.yaml").write_text(re.sub(rf"^ *{without}:.*\n", "", text, flags=re.MULTILINE))
    return folder


@pytest.mark.parametrize("without", ["confidence", "walkers"])
def test_it_is_told_how_to_train_it_again_on_its_data(tmp_path: Path, without: str) -> None:
    folder = earlier(tmp_path, "env=synthetic", "env.synthetic.days=1500", "seed=3", without=without)
    with pytest.raises(ConfigError, match="made by an earlier version") as refused:
        stored_config(folder)
    words = shlex.split(str(refused.value).split("train it again: python ")[1])
    assert words[0] == "experiments/pretrain.py"
    again = load("pretrain", words[1:])
    assert (again.env.source, again.env.synthetic.days, again.seed) == ("synthetic", 1500, 3)
    assert "\n" not in str(refused.value)


def test_a_key_that_its_stage_does_not_read_may_be_missing(tmp_path: Path) -> None:
    """A run is not lost because `decide` has learnt to read another key."""
    assert stored_config(earlier(tmp_path, "seed=3", without="holdings")) == load("pretrain", ["seed=3"])


@pytest.mark.parametrize("stage", ["${nope}", "${oc.env:HOME}"])
def test_nothing_is_looked_up(tmp_path: Path, stage: str) -> None:
    folder = earlier(tmp_path, without="holdings")
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("stage: pretrain", f"stage: {stage}"))
    with pytest.raises(ConfigError) as refused:
        stored_config(folder)
    assert "\n" not in str(refused.value)


def test_one_of_today_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(load("pretrain", ["seed=3"])))
    assert stored_config(tmp_path) == load("pretrain", ["seed=3"])


def test_what_lacks_its_data_is_refused_without_a_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="source: missing") as refused:
        stored_config(earlier(tmp_path, without="source"))
    assert "again" not in str(refused.value)
