"""Hydra's flags and its own keys, on every stage: they print or act as they do in other programs of Hydra."""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from hydra.core.hydra_config import HydraConfig

from finflow.cli.commands import COMMANDS, Command
from finflow.cli.main import launch
from finflow.config.compose import load
from finflow.errors import ConfigError
from finflow.schema import STAGES, Config
from finflow.sweeps.plan import plan_of

Typed = Callable[..., "subprocess.CompletedProcess[str]"]
Said = Callable[[str, Sequence[str]], str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    """What a command prints, typed in an empty folder, which stays so."""
    monkeypatch.chdir(tmp_path)

    def run(stage: str, words: Sequence[str]) -> str:
        assert launch(stage, words) == 0
        assert list(tmp_path.iterdir()) == []
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("stage", STAGES)
def test_cfg_prints_the_configuration(stage: str, said: Said) -> None:
    job = yaml.safe_load(said(stage, ["output_root=here", "--cfg", "job"]))
    assert (job["stage"], job["output_root"]) == (stage, "here")
    assert "hydra" not in job
    hydra = yaml.safe_load(said(stage, ["-c", "hydra"]))["hydra"]
    assert hydra["job"]["name"] == stage
    both = yaml.safe_load(said(stage, ["--cfg=all"]))
    assert {"hydra", "stage"} < set(both)


@pytest.mark.parametrize("stage", STAGES)
def test_cfg_can_be_resolved_and_cut_to_a_package(stage: str, said: Said) -> None:
    text = said(stage, ["--cfg", "job", "--package", "reward", "--resolve"])
    reward = load(stage).reward
    assert text.startswith("# @package reward\n")
    assert yaml.safe_load(text)["lambda_cvar"] == reward.lambda_cvar
    assert "${market_regime.lambda_cvar}" in said(stage, ["-c", "job", "-p", "reward"])


@pytest.mark.parametrize("stage", STAGES)
def test_info_says_what_a_configuration_is_made_of(stage: str, said: Said) -> None:
    assert f"{stage}:\n" in said(stage, ["--info", "defaults-tree"])
    assert "Config search path" in said(stage, ["--info", "output_root=here"])  # alone it says all
    assert "Installed Hydra Plugins" in said(stage, ["-i", "plugins"])


@pytest.mark.parametrize("stage", STAGES)
def test_hydra_help_lists_the_flags(stage: str, said: Said) -> None:
    assert "--config-dir" in said(stage, ["--hydra-help"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_shell_completes(stage: str, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "complete -o nospace" in said(stage, ["--shell-completion", "install=bash"])
    monkeypatch.setenv("COMP_LINE", f"python experiments/{stage}.py output_r")
    assert said(stage, ["-sc", "query=bash"]) == "output_root=\n"


def test_a_key_of_the_version_before_is_printed_by_its_new_name(said: Said) -> None:
    assert "num_envs: 3" in said("pretrain", ["--cfg", "job", "env.parallel=3"])


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in ("pretrain", "finetune")])
def test_what_does_not_train_is_not_swept(stage: str) -> None:
    with pytest.raises(ConfigError, match=f"-m: {stage} runs once; only pretrain and finetune can be swept"):
        launch(stage, ["-m"])


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["--cfg", "nope"], "argument --cfg/-c: invalid choice: 'nope'"),
        (["--cfg", "job", "--info"], "--cfg and --info: do not go together"),
        (["--cfg", "job", "-m"], "--cfg and --multirun: do not go together"),
        (["--cfg", "job", "-p", "nope"], "--package=nope: no such part"),
        (["-p", "algo"], "--package=algo: read with --cfg alone"),
        (["--resolve"], "--resolve: read with --cfg alone"),
        (["-sc", "install=tcsh"], "No completion plugin for 'tcsh'"),
        (["--config-dir=nope"], "--config-dir=nope: no such folder"),
        (["hydra.searchpath=[nope]"], "hydra.searchpath: nope: no such folder"),
        (["--config-name=nope"], "--config-name=nope: no such configuration"),
        (["--config-name=finetune"], "--config-name=finetune: a configuration of finetune; name one of pretrain"),
        (["--config-path=x"], "--config-path: the configurations of FinFlow are always read"),
        (["--experimental-rerun=x"], "--experimental-rerun: reads a pickle"),
        (["--cfg", "job", "algo.typo=1"], "algo.typo=1: unknown key"),
        (["hydra.output_subdir=meta"], "hydra.output_subdir=meta: not a hidden folder; write .meta"),
        (
            ["hydra/job_logging=default", "hydra.job_logging.handlers.file.filename=/proc/x.log"],
            "hydra.job_logging: ",
        ),
        (["hydra.job.chdir=true"], "hydra.job.chdir=true: paths are read from where you type"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(words: list[str], fragment: str) -> None:
    with pytest.raises(ConfigError) as caught:
        launch("pretrain", words)
    assert str(caught.value).startswith(fragment)
    assert "\n" not in str(caught.value)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with an option of a group, a preset, a group of its own, and a configuration."""
    files = {
        "env/desk.yaml": "defaults:\n  - csv\n  - _self_\npath: desk.csv\n",
        "experiment/mine.yaml": "# @package _global_\nseed: 7\n",
        "desk/small.yaml": "# @package _global_\nalgo:\n  batch_size: 16\n",
        "short.yaml": "defaults:\n  - pretrain\n  - _self_\nbudget:\n  epochs: 3\n",
    }
    for name, text in files.items():
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "conf"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Config]:
    """Configurations with which pretrain was run; nothing is trained."""
    found: list[Config] = []

    def run(config: Config, folder: Path) -> None:
        found.append(config)

    monkeypatch.setitem(COMMANDS, "pretrain", Command("", run, {}))
    monkeypatch.chdir(tmp_path)
    return found


@pytest.mark.parametrize("flag", ["--config-dir=", "-cd "])
def test_a_folder_of_ones_own_adds_options_presets_and_groups(flag: str, own: Path, seen: list[Config]) -> None:
    words = [*f"{flag}{own}".split(" "), "env=desk", "experiment=mine", "+desk=small"]
    launch("pretrain", words)
    (config,) = seen
    assert (config.env.path, config.seed, config.algo.batch_size) == ("desk.csv", 7, 16)
    with pytest.raises(ConfigError, match="env=desk: no such option"):
        launch("pretrain", ["env=desk"])
    with pytest.raises(ConfigError, match=r"desk=small: a group of your own; write \+desk=small"):
        launch("pretrain", [*words[:-1], "desk=small"])


@pytest.mark.parametrize("flag", ["--config-name=", "-cn "])
def test_another_configuration_takes_the_stages_place(flag: str, own: Path, seen: list[Config]) -> None:
    launch("pretrain", [f"--config-dir={own}", *f"{flag}short".split(" ")])
    assert seen[0].budget.epochs == 3 != load("pretrain").budget.epochs


def test_the_jobs_of_a_sweep_have_the_folder_and_the_name_too(own: Path) -> None:
    words = [f"hydra.searchpath=['{own}']", "hydra.job.config_name=short", "env=desk", "seed=1,2", "hydra.verbose=true"]
    plan = plan_of("pretrain", words)
    assert [(c.seed, c.budget.epochs, c.env.path) for c in (load("pretrain", job.overrides) for job in plan.jobs)] == [
        (1, 3, "desk.csv"), (2, 3, "desk.csv"),
    ]  # fmt: skip
    assert plan.id == plan_of("pretrain", [*words[1:4], f"hydra.searchpath=['{own}/.']"]).id
    assert plan.id != plan_of("pretrain", words[2:4]).id


CALLBACK = """from hydra.experimental.callback import Callback
class Noted(Callback):
    def on_job_start(self, config, **_):
        print('begins', config.hydra.runtime.output_dir, flush=True)
    def on_job_end(self, config, job_return, **_):
        print('ends', job_return.status.name, flush=True)
"""


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_hydras_own_keys_act(ends: str, stub: Typed, tmp_path: Path) -> None:
    (tmp_path.with_name("noted_callback.py")).write_text(CALLBACK)
    callbacks = tmp_path / "conf" / "hydra" / "callbacks" / "noted.yaml"
    callbacks.parent.mkdir(parents=True)
    callbacks.write_text("# @package hydra.callbacks\nnoted:\n  _target_: noted_callback.Noted\n")
    body = """import logging, os
folder.mkdir(parents=True, exist_ok=True)
logging.getLogger('mine').debug('quietly')
(folder / 'x').write_text(os.environ['MINE'])
if config.seed: raise DataError('a: b')"""
    done = stub(
        body, "--config-dir=conf", "hydra/callbacks=noted", "+hydra.job.env_set.MINE=yes",
        "hydra/job_logging=default", "hydra.verbose=mine", "hydra.output_subdir=.hydra", "hydra.run.dir=run",
        f"seed={int(ends == 'badly')}",
    )  # fmt: skip
    assert done.returncode == (2 if ends == "badly" else 0), done.stderr
    assert f"begins {tmp_path / 'run'}\n" in done.stdout
    assert f"ends {'FAILED' if ends == 'badly' else 'COMPLETED'}\n" in done.stdout
    run = tmp_path / "run"
    assert (run / "x").read_text() == "yes"
    assert "quietly" in (run / "pretrain.log").read_text()
    assert yaml.safe_load((run / ".hydra" / "config.yaml").read_text())["stage"] == "pretrain"
    assert yaml.safe_load((run / ".hydra" / "hydra.yaml").read_text())["hydra"]["verbose"] == "mine"
    assert f"seed={int(ends == 'badly')}" in yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text())


def test_a_stage_knows_hydras_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known: list[str] = []

    def run(config: Config, folder: Path) -> None:
        known.extend([HydraConfig.get().runtime.output_dir, os.path.abspath(folder)])

    monkeypatch.setitem(COMMANDS, "look", Command("", run, {}))
    monkeypatch.chdir(tmp_path)
    launch("look", ["hydra.run.dir=there"])
    assert known == [str(tmp_path / "there")] * 2
    assert list(tmp_path.iterdir()) == []
