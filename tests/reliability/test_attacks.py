"""Hostile files and command lines: nothing in them is executed, nothing leaves the run folder, nothing secret is told.

Names of tickers as markup: `tests/report`, `tests/explanations/test_card.py` and, in a whole run, `test_evaluation.py`.
"""

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import finflow
from finflow.artifacts.checkpoints import FOLDER, MANIFEST
from finflow.io.weights import save_weights, sha256_of
from finflow.schema.fields import digest

from .conftest import STAGES, Tiny, code_of, launched, tree_hash
from .test_resuming import changed

SECRET = "hunter2-key-of-a-user"
Work = Callable[[], object]


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@dataclass(frozen=True)
class Ground:
    """A run that was cut off, in `run`, and `outside`, which nobody may touch."""

    folder: Path
    tiny: Tiny

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def outside(self) -> Path:
        return self.folder / "outside"

    @property
    def newest(self) -> Path:
        return max((self.run / FOLDER).glob("*.safetensors"))

    @property
    def pickled(self) -> bytes:
        return pickle.dumps(Evil(self.outside / "owned"))

    def put(self, name: str, content: bytes | str) -> str:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    @property
    def preset(self) -> Path:
        """A folder of configurations with a preset that names a class."""
        return Path(self.put("experiment/evil.yaml", "# @package _global_\nalgo:\n  _target_: os.mkdir\n")).parents[1]

    def stage(self, stage: str, **values: object) -> Work:
        config = self.tiny.configs[stage]
        for key, value in values.items():
            config = changed(config, key.replace("__", "."), value)
        return lambda: STAGES[stage](config, None)

    def resume(self, path: Path | None = None) -> Work:
        return self.stage("finetune", resume=str(path or self.run))

    def typed(self, *words: str, stage: str = "pretrain") -> Work:
        return lambda: launched(stage, *words, f"output_root={self.folder / 'out'}")

    def config(self, change: Callable[[str], str]) -> Work:
        """The configuration of a finished run, changed; then that run is judged."""
        run = self.folder / "judged"
        shutil.copytree(self.tiny.root / "finetune" / "whole" / "run", run)
        path = run / "config.yaml"
        path.write_text(change(path.read_text()))
        config = finflow.load("evaluate", [f"output_root={self.folder / 'out'}"])
        return lambda: finflow.evaluate(changed(config, "run", str(run)))


def linked(ground: Ground, name: str) -> Work:
    """A file of the run is a link to one outside."""
    path = ground.run / name
    if path.exists():
        path.unlink()
    path.symlink_to(ground.outside / "precious")
    return ground.resume()


def linked_checkpoint(ground: Ground) -> Work:
    """The newest checkpoint lies outside, whole, and is linked to."""
    path = ground.newest
    shutil.copy(path, ground.outside / path.name)
    path.unlink()
    path.symlink_to(ground.outside / path.name)
    return ground.resume(path)


def linked_folder(ground: Ground) -> Work:
    shutil.move(ground.run / FOLDER, ground.outside / FOLDER)
    (ground.run / FOLDER).symlink_to(ground.outside / FOLDER)
    return ground.resume()


def listed(ground: Ground, name: str) -> Work:
    """A manifest with a hash of its own lists a file outside."""
    shutil.copy(ground.newest, ground.outside / "00009-episode-9.safetensors")
    sha256 = sha256_of(ground.outside / "00009-episode-9.safetensors")
    entries = [{"name": name.format(outside=ground.outside), "sha256": sha256, "best": True}]
    content = {"format": 1, "checkpoints": entries, "sha256": digest({"format": 1, "checkpoints": entries})}
    (ground.run / FOLDER / MANIFEST).write_text(json.dumps(content))
    for path in (ground.run / FOLDER).glob("*.safetensors"):
        path.unlink()
    return ground.resume()


def checkpoint_of(ground: Ground, content: bytes) -> Work:
    """Every checkpoint replaced, under a manifest that says so."""
    entries = []
    for path in sorted((ground.run / FOLDER).glob("*.safetensors")):
        path.write_bytes(content)
        entries.append({"name": path.name, "sha256": sha256_of(path), "best": False})
    content_ = {"format": 1, "checkpoints": entries, "sha256": digest({"format": 1, "checkpoints": entries})}
    (ground.run / FOLDER / MANIFEST).write_text(json.dumps(content_))
    return ground.resume()


def torch_pickle(ground: Ground) -> bytes:
    file = io.BytesIO()
    torch.save({"x": Evil(ground.outside / "owned")}, file)
    return file.getvalue()


def tensors(header: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def weights(ground: Ground, content: bytes) -> Work:
    return ground.stage("finetune", init__weights=ground.put("evil/weights.safetensors", content))


def dataset(ground: Ground, **arrays: Any) -> Work:
    file = io.BytesIO()
    fields = dict.fromkeys(("row", "next_row", "drifted", "executed", "drawdown", "previous"), np.zeros(3))
    np.savez(file, allow_pickle=True, **{"facts": np.array("{}"), **fields, **arrays})
    return ground.stage("pretrain", offline__dataset=ground.put("data.npz", file.getvalue()))


def claimed_shape(ground: Ground) -> Work:
    """An array that claims a terabyte."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (1 << 37,)})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("facts", "row", "next_row", "drifted", "executed", "drawdown", "previous"):
            archive.writestr(f"{name}.npy", head.getvalue())
    return ground.stage("pretrain", offline__dataset=ground.put("data.npz", file.getvalue()))


def published(ground: Ground) -> Work:
    """The record of published weights names a file of the system."""
    root = ground.folder / "root"
    shutil.copytree(ground.tiny.root / "pretrain" / "latest", root / "pretrain" / "latest")
    shutil.copytree(ground.tiny.root / "cache", root / "cache")
    for path in (root / "pretrain" / "latest").glob("*.json"):
        record = json.loads(path.read_text()) | {"weights": str(ground.outside / "precious")}
        path.write_text(json.dumps(record))
    return ground.stage("finetune", output_root=str(root))


def parent(ground: Ground) -> Work:
    """The run's record says that it began with a pickle."""
    path = ground.run / "run.json"
    record = json.loads(path.read_text())
    evil = ground.put("evil/weights.safetensors", ground.pickled)
    record["parent"] |= {"weights": evil, "path": evil, "sha256": sha256_of(Path(evil))}
    path.write_text(json.dumps(record))
    return ground.resume()


def snapshot(ground: Ground) -> Work:
    path = ground.put("snapshot.safetensors", ground.pickled)
    return ground.stage("pretrain", env__snapshot=path)


def nested_summary(ground: Ground) -> Work:
    work = ground.config(lambda text: text)
    (ground.folder / "judged" / "summary.json").write_text("[" * 100_000)
    return work


def nothing_of_a_policy(ground: Ground) -> Work:
    """Whole weights, under a hash of their own, that hold no policy."""
    path = ground.folder / "weights.safetensors"
    save_weights(path, {"x": torch.zeros(3)}, {"facts": {"data_fingerprint": "x"}})
    return ground.stage("finetune", init__weights=str(path))


def escape_codes(ground: Ground) -> Work:
    text = "Date,\x1b]0;owned\x07AA,BB\n2010-01-04,x,1\n"
    config = changed(changed(ground.tiny.configs["pretrain"], "env.source", "csv"), "env.synthetic", None)
    config = changed(config, "env.path", ground.put("prices.csv", text))
    return lambda: finflow.pretrain(config)


CODE = "!!python/object/apply:os.mkdir ['{}']"
ATTACKS: dict[str, Callable[[Ground], Work]] = {
    "a class path as a key": lambda g: g.typed("+algo._target_=os.mkdir"),
    "a class path as a value": lambda g: g.typed("env={_target_:os.mkdir}"),
    "a class path for the launcher": lambda g: g.typed("-m", "seed=0,1", "hydra.launcher._target_=os.mkdir"),
    "a class path for the sweeper": lambda g: g.typed("hydra.sweeper._target_=os.mkdir"),
    "a class path from elsewhere": lambda g: g.typed(f"hydra.searchpath=['{g.preset}']", "experiment=evil"),
    "a class path in a folder of configurations": lambda g: g.typed(f"--config-dir={g.preset}", "experiment=evil"),
    "an option outside its group": lambda g: g.typed(f"env=../../{g.outside}/precious"),
    "callbacks": lambda g: g.typed("+hydra.callbacks.x._target_=os.mkdir"),
    "a name that climbs": lambda g: g.typed("name=../../outside/owned"),
    "a secret as a name": lambda g: g.typed("name=${oc.env:FINFLOW_SECRET}"),
    "a secret that is refused": lambda g: g.typed("seed=${oc.env:FINFLOW_SECRET}"),
    "a secret in a folder's name": lambda g: g.typed("hydra.run.dir=${oc.env:FINFLOW_SECRET}"),
    "a secret, decoded": lambda g: g.typed("fold=${oc.decode:${oc.env:FINFLOW_SECRET}}"),
    "a secret in a sweep": lambda g: g.typed("-m", "seed=0,1", "name=${oc.env:FINFLOW_SECRET}"),
    "a secret in a run's configuration": lambda g: g.config(
        lambda text: text.replace("objective: active_ir", "objective: ${oc.env:FINFLOW_SECRET}")
    ),
    "a class path in a run's configuration": lambda g: g.config(lambda text: text + "_target_: os.mkdir\n"),
    "a tag that calls": lambda g: g.config(lambda text: text + f"x: {CODE.format(g.outside / 'owned')}\n"),
    "a tag that names": lambda g: g.config(lambda text: text + "x: !!python/name:os.system\n"),
    "a tag that makes": lambda g: g.config(lambda text: text + "x: !!python/object/new:os.system [ls]\n"),
    "a summary nested without end": nested_summary,
    "a linked checkpoint": linked_checkpoint,
    "a linked folder of checkpoints": linked_folder,
    "a checkpoint above its folder": lambda g: g.resume(g.run / FOLDER / ".." / ".." / "outside" / g.newest.name),
    "a manifest that climbs": lambda g: listed(g, "../../outside/00009-episode-9.safetensors"),
    "a manifest that starts at the root": lambda g: listed(g, "{outside}/00009-episode-9.safetensors"),
    "a linked lock": lambda g: linked(g, ".lock"),
    "a pickle as a checkpoint": lambda g: checkpoint_of(g, g.pickled),
    "torch's pickle as a checkpoint": lambda g: checkpoint_of(g, torch_pickle(g)),
    "a pickle as weights": lambda g: weights(g, g.pickled),
    "torch's pickle as weights": lambda g: weights(g, torch_pickle(g)),
    "a header of exabytes": lambda g: weights(g, struct.pack("<Q", 1 << 62) + b"{"),
    "a header nested without end": lambda g: weights(g, struct.pack("<Q", 100_000) + b'{"a":' * 20_000),
    "a huge shape": lambda g: weights(
        g, tensors({"x": {"dtype": "F64", "shape": [1 << 40], "data_offsets": [0, 8 << 40]}})
    ),
    "a shape that overflows": lambda g: weights(
        g, tensors({"x": {"dtype": "F64", "shape": [1 << 62, 8], "data_offsets": [0, 8]}}, bytes(8))
    ),
    "weights of no policy": nothing_of_a_policy,
    "a record that points elsewhere": published,
    "a parent that is a pickle": parent,
    "a pickle as a snapshot": snapshot,
    "a data set of objects": lambda g: dataset(g, row=np.array([Evil(g.outside / "owned")], dtype=object)),
    "facts that are an object": lambda g: dataset(g, facts=np.array(Evil(g.outside / "owned"), dtype=object)),
    "a pickle as a data set": lambda g: g.stage("pretrain", offline__dataset=g.put("data.npz", g.pickled)),
    "torch's pickle as a data set": lambda g: g.stage("pretrain", offline__dataset=g.put("d.npz", torch_pickle(g))),
    "an array of a terabyte": claimed_shape,
    "escape codes in a ticker": escape_codes,
}


@pytest.fixture
def ground(tmp_path: Path, tiny: Tiny, cut: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.setenv("FINFLOW_SECRET", SECRET)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(cut["finetune"], tmp_path / "run")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text(SECRET)
    return Ground(tmp_path, tiny)


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_executed_written_outside_or_told(
    name: str, ground: Ground, capfd: pytest.CaptureFixture[str]
) -> None:
    work = ATTACKS[name](ground)
    capfd.readouterr()
    before, elsewhere = tree_hash(ground.outside), tree_hash(ground.tiny.root)
    code = code_of(work)
    heard = capfd.readouterr()
    assert code in (2, 3), heard.err
    assert "Traceback" not in heard.err
    assert heard.err.splitlines()[-1].startswith("error: ")
    assert len(heard.err) < 2000
    assert "\x1b" not in heard.err
    assert SECRET not in heard.err + heard.out
    assert not (ground.outside / "owned").exists()
    assert tree_hash(ground.outside) == before
    assert tree_hash(ground.tiny.root) == elsewhere
    for path in ground.folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and ground.outside not in path.parents:
            assert SECRET.encode() not in path.read_bytes(), path


def test_there_are_enough_and_the_pickle_bites(ground: Ground) -> None:
    assert len(ATTACKS) >= 25
    pickle.loads(ground.pickled)
    assert (ground.outside / "owned").exists()
