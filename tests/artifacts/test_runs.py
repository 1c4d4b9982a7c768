import json
import os
import shlex
from pathlib import Path

import pytest

from finflow.artifacts.runs import (
    HEAD,
    JUDGED,
    named_runs,
    newest_run,
    noted_heads,
    opened_by,
    resolve_run,
)
from finflow.config.compose import load
from finflow.errors import ConfigError
from finflow.io.files import atomic_json


def make_run(root: Path, place: str, finished: str | None, done: bool = True) -> Path:
    folder = root / place
    atomic_json(folder / "run.json", {"finished": finished})
    if done:
        atomic_json(folder / "summary.json", {})
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_run(tmp_path, "finetune/b/2024-01-01-s0", "2024-01-01T10:00:00+00:00")
    make_run(tmp_path, "finetune/a/2024-01-03-s0", "2024-01-04T10:00:00+00:00")
    make_run(tmp_path, "finetune/a/2024-09-09-s0", "2024-09-09T10:00:00+00:00", done=False)
    make_run(tmp_path, "pretrain/p/2024-05-05-s0", "2024-05-05T10:00:00+00:00")
    return tmp_path


def test_newest_finished_of_a_stage(root: Path) -> None:
    assert newest_run(root, "finetune") == root / "finetune/a/2024-01-03-s0"
    assert newest_run(str(root), "finetune", "pretrain") == root / "pretrain/p/2024-05-05-s0"


def test_a_run_takes_the_time_it_finished_whatever_touched_it_since(root: Path) -> None:
    for path in (root / "finetune/b/2024-01-01-s0").iterdir():
        os.utime(path, (4e9, 4e9))
    assert newest_run(root, "finetune") == root / "finetune/a/2024-01-03-s0"


def test_sweep_jobs_count(root: Path) -> None:
    job = make_run(root, "finetune/a/sweep-1f/0-ab", "2025-01-01T00:00:00+00:00")
    assert newest_run(root, "finetune") == job


def test_a_run_without_a_readable_run_json_comes_before_every_other(root: Path) -> None:
    (make_run(root, "finetune/c/x", "2099-01-01") / "run.json").unlink()
    assert newest_run(root, "finetune") == root / "finetune/a/2024-01-03-s0"


def test_nothing_finished_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        newest_run(tmp_path, "finetune")
    assert str(error.value) == (
        f"run=latest: no finished run under {tmp_path / 'finetune'}; run: python experiments/finetune.py"
        f" {shlex.quote(f'output_root={tmp_path}')}"
    )
    odd = tmp_path / "my dir (1)"
    with pytest.raises(ConfigError) as error:
        newest_run(odd, "finetune")
    words = shlex.split(str(error.value).split("; run: python ")[1])
    assert load("finetune", words[1:]).output_root == str(odd)


def test_resolve(root: Path) -> None:
    named = root / "finetune/b/2024-01-01-s0"
    assert resolve_run(root, str(named)) == named
    assert resolve_run(root, "latest") == root / "pretrain/p/2024-05-05-s0"
    assert resolve_run(root, "latest", "finetune") == root / "finetune/a/2024-01-03-s0"
    with pytest.raises(ConfigError, match=r"not a finished run .*python experiments/finetune.py"):
        resolve_run(root, str(root / "finetune/a/2024-09-09-s0"))
    with pytest.raises(ConfigError, match="no such folder"):
        resolve_run(root, str(root / "nowhere"))


def test_heads_that_evaluations_noted(tmp_path: Path) -> None:
    atomic_json(tmp_path / "evaluate/a/1/run.json", {"test_ledger_head": "aa"})
    atomic_json(tmp_path / "evaluate/sweep/x/0/run.json", {"test_ledger_head": "bb"})
    atomic_json(tmp_path / "evaluate/a/2/run.json", {"audit": "audit.json"})
    (tmp_path / "evaluate/a/3").mkdir()
    (tmp_path / "evaluate/a/3/run.json").write_text("{")
    noted = noted_heads(tmp_path, ("evaluate",), HEAD)
    assert noted == {str(tmp_path / "evaluate/a/1"): "aa", str(tmp_path / "evaluate/sweep/x/0"): "bb"}


def evaluation(root: Path, name: str, finished: str, **record: object) -> Path:
    folder = root / "evaluate" / "x" / name
    fold = {"name": "2018", "test": ["2018-01-02", "2022-12-28"]}
    for place in (folder, folder / "fold-2018"):
        place.mkdir(parents=True)
        (place / "weights.csv").touch()
    kept = {"kind": "single", JUDGED: ["aa"], "fold": fold, "finished": finished, **record}
    (folder / "run.json").write_text(json.dumps(kept))
    (folder / "summary.json").write_text("{}")
    return folder


def test_the_newest_evaluation_of_one_run_alone_is_found(tmp_path: Path) -> None:
    test = ["2018-01-02", "2022-12-28"]
    assert opened_by(tmp_path, ["aa"], "2018", test) is None
    evaluation(tmp_path, "averaged", "2026-09", kind="seeds", **{JUDGED: ["aa", "bb"]})
    evaluation(tmp_path, "second", "2026-08", kind="comparison", **{JUDGED: ["bb"]})
    evaluation(tmp_path, "other window", "2026-07", fold={"name": "2018", "test": ["2018-01-02", "2021-01-01"]})
    evaluation(tmp_path, "written before weights were noted", "2026-06", **{JUDGED: None})
    assert opened_by(tmp_path, ["aa"], "2018", test) is None
    older = evaluation(tmp_path, "older", "2026-01")
    assert opened_by(tmp_path, ["aa"], "2018", test) == older
    first = evaluation(tmp_path, "first of two", "2026-02", kind="comparison", **{JUDGED: ["aa"]})
    assert opened_by(tmp_path, ["aa"], "2018", test) == first
    folds = evaluation(tmp_path, "folds", "2026-03", kind="folds", fold={"name": "2008"}, **{JUDGED: ["cc", "aa"]})
    assert opened_by(tmp_path, ["aa"], "2018", test) == folds / "fold-2018"
    (folds / "summary.json").unlink()
    (first / "run.json").write_text("damaged")
    assert opened_by(tmp_path, ["aa"], "2018", test) == older


def test_the_folder_of_a_sweep_stands_for_its_jobs(root: Path) -> None:
    sweep = root / "finetune/a/sweep-1f"
    jobs = [make_run(root, f"finetune/a/sweep-1f/{k}-ab", "2025-01-01T00:00:00+00:00") for k in (0, 1)]
    (sweep / "sweep.json").write_text(json.dumps({"jobs": [{"name": "0-ab"}, {"name": "1-ab"}]}))
    alone = str(root / "finetune/b/2024-01-01-s0")
    assert named_runs(str(sweep)) == [str(job) for job in jobs]
    assert named_runs([alone, str(sweep)]) == [alone, *map(str, jobs)]
    assert named_runs("latest") == ["latest"]
    (jobs[1] / "summary.json").unlink()
    with pytest.raises(ConfigError, match="1 of its 2 jobs not finished; type its command again"):
        named_runs(str(sweep))
