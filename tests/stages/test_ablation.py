"""An ablation from its sweep to its one table: settings by name, seeds averaged, the same policy never ranked."""

import json
from pathlib import Path

import numpy as np
import pytest

import finflow
from finflow.artifacts.runs import JUDGED
from finflow.cli.main import launch
from finflow.evaluation.files import STORED, read_stored
from finflow.evaluation.metrics import sharpe_ratio
from finflow.evaluation.study import Setting, Study
from finflow.stages.run_groups import load_runs, settings_of
from tests.sweeps.made import made_sweep

from .conftest import TINY, TUNE, move_actor

LINE = ["env=synthetic", "env.synthetic.days=1500", "env.synthetic.assets=4", *TINY, *TUNE, "tracking=none",
        "budget.episodes=4", "init.weights=null", "algo.lr=1e-12"]  # fmt: skip
SWEPT = ["ablation=none,no_cql,no_anchor", "seed=0,1"]
FEW = "evaluation.bootstrap_samples=100"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ablation")


@pytest.fixture(scope="module")
def jobs(root: Path) -> list[Path]:
    """Jobs of an ablation: so small a step leaves them where they start; those of no_anchor are moved, each its way."""
    folder = made_sweep(root / "sweep", [*LINE, *SWEPT, f"output_root='{root}'"])
    found = [folder.run_dir(job.name) for job in folder.manifest().jobs]
    for job, place in zip(folder.manifest().jobs, found, strict=True):
        finflow.finetune(finflow.load("finetune", job.overrides), place)
        if job.values["ablation"] == "no_anchor":
            move_actor(place, int(job.values["seed"]), selected_episode=4)
    return found


def evaluated(root: Path, runs: str) -> Path:
    """Folder of an evaluation by its command."""
    before = set(root.glob("evaluate/*/*"))
    assert launch("evaluate", [f"output_root='{root}'", f"run={runs}", FEW]) == 0
    (made,) = set(root.glob("evaluate/*/*")) - before
    return made


def read(made: Path) -> tuple[Study, dict[str, Setting]]:
    study = read_stored(made / STORED).study
    assert study is not None
    return study, {member.label: member.setting for member in study.members if member.setting}


def openings(root: Path) -> list[str]:
    return [json.loads(line)["run"] for line in (root / "test_ledger.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def made(root: Path, jobs: list[Path]) -> Path:
    return evaluated(root, f"'{root / 'sweep'}'")


def test_settings_are_called_by_their_option_and_their_seeds_are_averaged(root: Path, made: Path) -> None:
    study, settings = read(made)
    assert study.kind == "comparison"
    assert list(settings) == ["none", "no_cql", "no_anchor"]
    assert {setting.seeds for setting in settings.values()} == {(0, 1)}
    assert study.underpowered
    runs, _ = load_runs(finflow.load("evaluate", [f"output_root='{root}'", f"run='{root / 'sweep'}'"]))
    group = settings_of(runs)["no_anchor"]
    window = group.prepared.fold.test
    own = [run.prepared.track(window, run.policy.act) for run in group.runs]
    ratios = [sharpe_ratio(track.net, track.year) or 0 for track in own]
    assert ratios[0] != pytest.approx(ratios[1])
    together = group.prepared.track(window, group.policy.act)
    moved = study.members[2]
    assert moved.metrics.sharpe == pytest.approx(sharpe_ratio(together.net, together.year))
    assert settings["no_anchor"].middle is not None
    assert settings["no_anchor"].middle[0] == pytest.approx(np.mean(ratios))
    against, paired, start = settings["no_anchor"].against, settings["no_anchor"].paired, settings["none"].middle
    assert against is not None
    assert against.opponent == "none"
    assert against.difference == pytest.approx((moved.metrics.sharpe or 0) - (study.members[0].metrics.sharpe or 0))
    assert against.low < against.difference < against.high
    assert paired is not None
    assert start is not None
    assert paired[0] == pytest.approx(np.mean(ratios) - start[0])


def test_one_opening_is_counted_for_each_strategy(root: Path, made: Path, jobs: list[Path]) -> None:
    names = [f"sweep/{job.name}" for job in jobs]
    assert openings(root)[:3] == [", ".join(names[at : at + 2]) for at in (0, 2, 4)]
    assert json.loads((made / "run.json").read_text())["window_opened"] == 3
    before = len(openings(root))
    again = evaluated(root, f"'{root / 'sweep'}'")
    assert len(openings(root)) == before
    assert read(again) == read(made)
    evaluated(root, f"['{jobs[0]}','{jobs[1]}']")  # seeds averaged are one strategy
    assert len(openings(root)) == before + 1


def test_a_setting_that_kept_the_hand_over_is_the_reference_and_not_ranked(made: Path) -> None:
    study, settings = read(made)
    assert [settings[name].same_as for name in ("none", "no_cql", "no_anchor")] == ["", "none", ""]
    assert [settings[name].handed_over for name in ("none", "no_cql", "no_anchor")] == [2, 2, 0]
    assert study.selection is not None
    assert study.selection.trials == 2
    page = (made / "report.html").read_text()
    told = "no_cql is the same policy as none, with identical returns on every day, since each of the 2 runs kept the"
    assert told in page
    assert "IDENTICAL TO none" in page
    assert "algo.cql.alpha=0" not in page.split('id="s-study"')[1].split("</section>")[0]


def test_runs_that_all_kept_the_hand_over_are_identical_and_none_is_best(
    root: Path, made: Path, jobs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    same = evaluated(root, "[" + ",".join(f"'{job}'" for job in jobs[:4]) + "]")
    study, settings = read(same)
    assert list(settings) == ["none", "no_cql"]
    assert study.selection is None
    told = (
        "All 2 settings are the same policy: their returns are identical on every day, since each of the 4 runs kept "
        "the hand-over, the policy of phase 1. There is nothing to rank."
    )
    said, section = capsys.readouterr().out, (same / "report.html").read_text().split('id="s-study"')[1]
    assert told in said
    assert told in section
    for claim in ("Best against", "overfits", "luckiest"):
        assert claim not in said
        assert claim not in section.split("</section>")[0]


def test_the_reference_of_an_ablation_is_what_is_traded(root: Path, made: Path, jobs: list[Path]) -> None:
    record = json.loads((made / "run.json").read_text())
    weights = [json.loads((job / "summary.json").read_text())["weights_sha256"] for job in jobs[:2]]
    assert record[JUDGED] == weights
    named = f"['{jobs[0]}','{jobs[1]}']"
    decided = finflow.decide(finflow.load("decide", [f"output_root='{root}'", f"run={named}"]))
    assert decided.verdict is not None


def test_settings_of_runs_alone_are_called_by_the_keys_that_differ(root: Path, jobs: list[Path]) -> None:
    for job, name in ((jobs[0], "a"), (jobs[2], "b")):
        (root / "alone").mkdir(exist_ok=True)
        (root / "alone" / name).symlink_to(job)
    named = f"['{root}/alone/a','{root}/alone/b']"
    runs, kind = load_runs(finflow.load("evaluate", [f"output_root='{root}'", f"run={named}"]))
    assert kind == "comparison"
    assert list(settings_of(runs)) == ["algo.cql.alpha=5.0", "algo.cql.alpha=0.0"]
