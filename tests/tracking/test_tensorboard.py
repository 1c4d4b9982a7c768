"""Event files of real runs, read back by TensorBoard's own reader."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

from finflow.allocators.priors import PRIORS
from finflow.config.compose import load
from finflow.io.weights import load_weights
from finflow.stages.run import start_of
from finflow.tracking.tensorboard import SECTIONS, STEPS, tag
from tests.sweeps.made import made_sweep

from .conftest import truth


@pytest.fixture(scope="module")
def events(trained: dict[str, Path]) -> dict[str, EventAccumulator]:
    everything = {"scalars": 0, "histograms": 0, "tensors": 0}
    read = {step: EventAccumulator(str(folder / "tensorboard"), everything) for step, folder in trained.items()}
    return {step: found.Reload() for step, found in read.items()}


@pytest.mark.parametrize("step", STEPS)
def test_scalars_are_the_truth(step: str, events: dict[str, EventAccumulator], trained: dict[str, Path]) -> None:
    rows = truth(trained[step] / "metrics.jsonl")
    names = {name for row in rows for name in row} - {step}
    assert {name for name in events[step].Tags()["scalars"] if name.startswith(step)} == {tag(step, n) for n in names}
    for name in names:
        shown = [(event.step, event.value) for event in events[step].Scalars(tag(step, name))]
        assert shown == [(row[step], float(np.float32(row[name]))) for row in rows if name in row]


@pytest.mark.parametrize("step", STEPS)
def test_groups_fit_a_screen(step: str, events: dict[str, EventAccumulator]) -> None:
    groups = Counter(name.split("/")[0] for name in events[step].Tags()["scalars"])
    updates = {"episode_updates"} if step == "episode" else set[str]()
    assert set(groups) == {step, f"{step}_validation", "result", *updates}
    assert max(groups.values()) <= 18


@pytest.mark.parametrize("step", STEPS)
def test_histograms_of_weights_and_gate_at_every_validation(
    step: str, events: dict[str, EventAccumulator], trained: dict[str, Path]
) -> None:
    tags = set(events[step].Tags()["histograms"])
    assert {f"{step}_gate/{name}" for name in PRIORS} <= tags
    validated = [row[step] for row in truth(trained[step] / "metrics.jsonl") if "validation_sharpe" in row]
    for name in PRIORS:
        found = events[step].Histograms(f"{step}_gate/{name}")
        assert set(validated) <= {event.step for event in found}
        assert 0 <= found[-1].histogram_value.min <= found[-1].histogram_value.max <= 1
    counted = {
        whole: sum(events[step].Histograms(one)[-1].histogram_value.num for one in tags if f"_weights/{whole}." in one)
        for whole in ("actor", "critic")
    }
    tensors, _ = load_weights(trained[step] / "weights.safetensors")
    for whole, numbers in counted.items():
        assert numbers == sum(value.numel() for name, value in tensors.items() if name.startswith(f"networks.{whole}."))


@pytest.mark.parametrize("step", STEPS)
def test_what_is_varied_stands_beside_results(
    step: str, events: dict[str, EventAccumulator], trained: dict[str, Path]
) -> None:
    content = events[step].SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    told = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert set(told) == {"algo.name", "seed"}
    assert told["algo.name"].string_value == {"epoch": "iql", "episode": "bcell"}[step]
    assert told["seed"].number_value == 0
    summary: dict[str, Any] = json.loads((trained[step] / "summary.json").read_text())
    figures = summary["metrics"] if step == "epoch" else summary["selected"]
    (shown,) = events[step].Scalars("result/validation_sharpe")
    assert shown.value == float(np.float32(figures["validation_sharpe"]))


def test_every_alert_is_a_text(events: dict[str, EventAccumulator], trained: dict[str, Path]) -> None:
    alerts = [json.loads(line) for line in (trained["episode"] / "alerts.jsonl").read_text().splitlines()]
    found = events["episode"].Tensors("episode/alert/text_summary")
    texts = [tensor_util.make_ndarray(event.tensor_proto)[0].decode() for event in found]
    assert len(alerts) >= 2
    assert list(zip([e.step for e in found], texts, strict=True)) == [(a["episode"], a["message"]) for a in alerts]


@pytest.mark.parametrize("step", STEPS)
def test_the_layout_groups_figures_that_there_are(step: str, events: dict[str, EventAccumulator]) -> None:
    (event,) = events[step].Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tensor_util.make_ndarray(event.tensor_proto).item())
    assert [category.title for category in layout.category] == list(SECTIONS)
    patterns = [one for category in layout.category for chart in category.chart for one in chart.multiline.tag]
    ours = [pattern.strip("^$") for pattern in patterns if pattern.startswith(f"^{step}")]
    assert len(ours) > 10
    assert set(ours) <= set(events[step].Tags()["scalars"])


def test_a_job_says_what_its_sweep_varied(tmp_path: Path) -> None:
    folder = made_sweep(tmp_path / "s", ["env=synthetic", "ablation=none,no_cql", "seed=0,1"])
    job = folder.manifest().jobs[3]
    start = start_of(load("finetune", job.overrides), folder.run_dir(job.name), {})
    assert (start.group, start.swept) == ("s", {"ablation": "no_cql", "seed": "1"})
    alone = start_of(load("finetune", job.overrides), tmp_path / "run", {})
    assert (alone.group, alone.swept) == (None, {})
