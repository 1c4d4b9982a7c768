"""`make profile`: what an update of each phase is made of, for both algorithms and any setting."""

import json
from pathlib import Path

import pytest

from benchmarks import profiler

TINY = [
    "env=synthetic", "env.synthetic.days=2000", "env.synthetic.assets=3", "algo.network.hidden_dim=8",
    "algo.network.embed_dim=8", "algo.batch_size=16",
]  # fmt: skip


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_trace_and_a_table_tell_batch_from_update(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiler, "WARM", 1)
    monkeypatch.setattr(profiler, "UPDATES", 1)
    monkeypatch.setattr(profiler, "EPISODES", 2)
    table = profiler.profiled(stage, [*TINY, f"output_root='{tmp_path}'"], tmp_path)
    assert "aten::bmm" in table
    assert "Peak memory of the process: " in table
    names = {event.get("name") for event in json.loads((tmp_path / f"{stage}.json").read_text())["traceEvents"]}
    assert {"batch", "update", "Optimizer.step#Adam.step"} <= names


def test_a_setting_that_is_refused_ends_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert profiler.main(["algo.typo=1"]) == 2
    assert capsys.readouterr().err.startswith("error: algo.typo=1")
    assert list(tmp_path.iterdir()) == []
