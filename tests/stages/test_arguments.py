"""A wrong argument of the API is refused in one line that names it and what is accepted, and nothing is written."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import finflow
from finflow.errors import ConfigError

STAGES = ("pretrain", "finetune", "evaluate", "collect", "decide", "explain", "export", "look")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


def refused(line: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(line)}$"):
        call(*args, **kwargs)


@pytest.mark.parametrize(
    "overrides", ["env=csv", {"env": "csv"}, ["env=synthetic", 3]], ids=["text", "mapping", "number"]
)
def test_overrides_are_a_list_of_texts(overrides: Any) -> None:
    line = f'overrides={overrides!r}: should be a list of texts, for example ["env=csv", "seed=1"]'
    refused(line, finflow.load, "pretrain", overrides)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_takes_a_configuration_of_its_own(stage: str) -> None:
    function, take = getattr(finflow, stage), f'take finflow.load("{stage}", [...])'
    other = "judge" if stage != "judge" else "look"
    refused(f"config='{stage}': no configuration; {take}", function, stage)
    refused(f"config: made for {other}; {take}", function, config=finflow.load(other))


def test_an_audit_a_judgement_and_an_environment_take_theirs() -> None:
    refused('config: made for look; take finflow.load("evaluate", [...])', finflow.audit, finflow.load("look"))
    refused('config=3: no configuration; take finflow.load("judge", [...])', finflow.judge, len, config=3)
    refused('config=3: no configuration; take finflow.load("pretrain", [...])', finflow.make_env, 3)
    refused('config=3: no configuration; take finflow.load("pretrain", [...])', finflow.make_vector_env, 3)
    line = "num_envs=4: at least one portfolio is needed; leave it out for env.num_envs"
    refused(line, finflow.make_vector_env, finflow.load("pretrain"), "4")


def test_a_folder_is_a_path() -> None:
    refused("run_dir=3: no path; name a new folder", finflow.pretrain, finflow.load("pretrain"), 3)
