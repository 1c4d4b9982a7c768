"""`best.yaml`: the best setting as a preset, in a file or among the named ones."""

import shutil
from pathlib import Path

import pytest

from finflow.artifacts.runs import under
from finflow.config import compose
from finflow.config.compose import load
from finflow.errors import ConfigError
from finflow.io.files import flatten
from finflow.schema import READS, Config
from finflow.sweeps.folder import expanded, preset_of, write_preset

TRIED = [
    "env=synthetic",
    "env.synthetic.days=1500",
    "market_regime=volatile",
    "ablation=no_anchor",
    "experiment=demo",
    "algo.lr=1e-05",
    "algo.cql.alpha=2.5",
    "init.weights='my weights (1)/a=b'",
    "fold=2008",
    "seed=3",
]


def read(config: Config) -> dict[str, object]:
    """What finetune reads of a configuration."""
    return {key: value for key, value in flatten(config.model_dump()).items() if under(key, READS["finetune"])}


def test_a_preset_gives_the_configuration_it_was_made_from(tmp_path: Path) -> None:
    config = load("finetune", TRIED)
    path = tmp_path / "best of all.yaml"
    write_preset(path, preset_of(config, TRIED), ["a comment"])
    line = expanded([f"experiment='{path}'"])
    assert read(load("finetune", line)) == read(config)
    assert "ablation=no_anchor" not in line
    assert not any(word.startswith(("algo.actor_lr=", "reward.")) for word in line)  # these follow from others
    again = expanded(["seed=4", f"experiment='{path}'", "market_regime=stable"])
    assert read(load("finetune", again)) == read(load("finetune", [*TRIED, "seed=4", "market_regime=stable"]))


def test_copied_into_conf_it_is_a_preset_like_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load("finetune", TRIED)
    conf = tmp_path / "conf"
    shutil.copytree(compose.CONF_DIR, conf)
    write_preset(conf / "experiment" / "best.yaml", preset_of(config, TRIED), [])
    monkeypatch.setattr(compose, "CONF_DIR", conf)
    assert read(load("finetune", ["experiment=best"])) == read(config)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("a: [", "cannot be read"),
        ("- 1", "no preset"),
        ("hydra: {mode: MULTIRUN}", "a preset that sweeps is named"),
        ("defaults: [algo]", "write '- override /GROUP: OPTION'"),
    ],
)
def test_what_is_no_preset_is_refused(content: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=said):
        expanded([f"experiment={path}"])
