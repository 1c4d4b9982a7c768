"""A thousand damaged files: each is refused by name, or survived by what was good before it; none is believed."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import finflow
from finflow.artifacts.checkpoints import FOLDER, MANIFEST, Checkpoints
from finflow.data.build import load_prices
from finflow.data.snapshot import freeze, thaw
from finflow.envs.collect import dataset_bytes, load_dataset
from finflow.errors import ConfigError, DataError, StorageError
from finflow.io.weights import cached_arrays, content_hash, load_weights, save_weights
from finflow.stages.prepare import collected, dataset_facts, fit, load_market

from .conftest import TINY, Tiny, forked
from .test_kill import events, kill

TIMES = 150
PAGE = 512  # small, so that it fits several times into files that are quick to read
NAMES = ["00001-episode-2.safetensors", "00002-episode-4.safetensors", "00003-episode-6.safetensors"]


@dataclass(frozen=True)
class Victim:
    """A file, how it is read, and another file of its kind.

    Attributes
    ----------
    use : reads it, and returns what it takes for the file's content.
    good : what it may return: the content, or what was good before it.
    named : what a refusal names, where that is not the file itself.
    """

    path: Path
    other: bytes
    use: Callable[[], object]
    good: list[object]
    named: str = ""


def state_of(number: int) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(number)
    return {"weights": torch.randn(12, 16, generator=draw), "step": number, "days": np.arange(number + 40.0)}


def plain(state: dict[str, Any]) -> object:
    return state["step"], state["weights"].numpy().tobytes(), state["days"].tobytes()


def checkpoints(folder: Path, shift: int = 0) -> Callable[[], object]:
    """Three of them under `folder`; returns what reads the newest that is whole."""
    store = Checkpoints(folder, keep=3)
    for number in (1, 2, 3):
        store.save("episode", 2 * number, state_of(number + shift), {"progress": number}, best=number == 2)
    assert sorted(path.name for path in store.folder.iterdir()) == [*NAMES, MANIFEST]

    def newest() -> object:
        found = Checkpoints(folder, keep=3).newest()
        assert found is not None
        for line in found.refused:
            warnings.warn(line, stacklevel=1)
        return plain(found.state)

    return newest


def checkpoint(folder: Path) -> Victim:
    checkpoints(folder / "other", shift=10)
    use = checkpoints(folder / "run")
    path = folder / "run" / FOLDER / NAMES[-1]
    other = (folder / "other" / FOLDER / NAMES[-1]).read_bytes()
    return Victim(path, other, use, [plain(state_of(2)), plain(state_of(3))])


def swapped_within(folder: Path) -> Victim:
    use = checkpoints(folder / "run")
    place = folder / "run" / FOLDER
    return Victim(place / NAMES[-1], (place / NAMES[0]).read_bytes(), use, [plain(state_of(2)), plain(state_of(3))])


def manifest(folder: Path) -> Victim:
    checkpoints(folder / "other", shift=10)
    use = checkpoints(folder / "run")
    other = (folder / "other" / FOLDER / MANIFEST).read_bytes()
    # That of another run lists these very names, under hashes which are not theirs.
    return Victim(folder / "run" / FOLDER / MANIFEST, other, use, [plain(state_of(3))], named=f"/run/{FOLDER}/")


def weights(folder: Path) -> Victim:
    state = {"a.weight": torch.randn(30, 20), "b": torch.arange(5)}
    path, other = folder / "weights.safetensors", folder / "other.safetensors"
    sha256 = save_weights(path, state, {"facts": {"seed": 1}})
    save_weights(other, {**state, "b": torch.zeros(5)}, {"facts": {"seed": 1}})

    def use() -> object:
        tensors, metadata = load_weights(path, sha256)
        return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, metadata

    return Victim(path, other.read_bytes(), use, [use()])


def weights_alone(folder: Path) -> Victim:
    """A file that nothing but itself vouches for; another whole one is as good, a pickle is not."""
    found = weights(folder)

    def use() -> object:
        tensors, metadata = load_weights(found.path)
        return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, metadata

    torch.save({"a": torch.zeros(3)}, folder / "pickle.pt")
    return Victim(found.path, (folder / "pickle.pt").read_bytes(), use, found.good)


def cache(folder: Path) -> Victim:
    """A damaged cache is built anew, and said so."""
    arrays = {"features": np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32), "live": np.ones(40, bool)}
    other = {"features": np.zeros((40, 6), np.float32), "live": np.ones(40, bool)}
    cached_arrays(folder, "other", lambda: other)

    def use() -> object:
        return content_hash(cached_arrays(folder, "key", lambda: arrays))

    use()
    return Victim(folder / "key.safetensors", (folder / "other.safetensors").read_bytes(), use, [content_hash(arrays)])


def dataset(folder: Path) -> Victim:
    config = finflow.load("pretrain", [*TINY, "env.synthetic.assets=3"])
    prepared = fit(config, load_market(config), torch.device("cpu"))
    elsewhere = config.model_copy(update={"env": config.env.model_copy(update={"cost_rate": 0.002})})
    other = dataset_bytes(collected(elsewhere, fit(elsewhere, load_market(elsewhere), torch.device("cpu")), 2))
    path = folder / "dataset.npz"
    path.write_bytes(dataset_bytes(collected(config, prepared, 2)))

    def use() -> object:
        wanted = dataset_facts(config, prepared)
        return content_hash(load_dataset(path, wanted).arrays())

    return Victim(path, other, use, [use()])


def snapshot(folder: Path) -> Victim:
    env, elsewhere = (finflow.load("pretrain", [*TINY, f"env.synthetic.seed={seed}"]).env for seed in (0, 1))
    path = folder / "snapshot.safetensors"
    freeze(path, load_prices(elsewhere), elsewhere)
    other = path.read_bytes()
    freeze(path, load_prices(env), env)

    def use() -> object:
        prices = thaw(path, env)
        return prices.tickers, prices.dates.tobytes(), prices.close.tobytes()

    return Victim(path, other, use, [use()])


def damaged(good: bytes, other: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """`good` after one of four accidents, and which."""
    data = np.frombuffer(good, dtype=np.uint8).copy()
    kind = ("bit flips", "truncation", "zeroed page", "swapped file")[rng.choice(4, p=[0.5, 0.2, 0.25, 0.05])]
    if kind == "bit flips":
        for at in rng.integers(len(data), size=rng.integers(1, 5)):
            data[at] ^= 1 << rng.integers(8)
    elif kind == "truncation":
        data = data[: rng.integers(len(data))]
    elif kind == "zeroed page":
        start = PAGE * rng.integers(-(-len(data) // PAGE))
        data[start : start + PAGE] = 0
    return kind, other if kind == "swapped file" else data.tobytes()


def used(victim: Victim) -> tuple[str | None, object, list[str]]:
    """Why the file is refused, or else what is read, with the warnings that were given."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            found = victim.use()
        except (StorageError, DataError, ConfigError) as error:
            return str(error), None, []
    return None, found, [str(each.message) for each in heard]


VICTIMS = (checkpoint, swapped_within, manifest, weights, weights_alone, cache, dataset, snapshot)


@pytest.mark.parametrize("make", VICTIMS, ids=lambda make: make.__name__)
def test_no_damage_is_believed(make: Callable[[Path], Victim], tmp_path: Path) -> None:
    victim = make(tmp_path)
    rng, before = np.random.default_rng(VICTIMS.index(make)), victim.path.read_bytes()
    assert victim.use() in victim.good
    named = victim.named or victim.path.name
    tried = survived = 0
    for _ in range(TIMES):
        kind, content = damaged(before, victim.other, rng)
        if content == before:
            continue
        tried += 1
        victim.path.write_bytes(content)
        refusal, found, said = used(victim)
        if refusal is not None:
            assert named in refusal, (kind, refusal)
            assert "\n" not in refusal
            assert "; " in refusal, (kind, refusal)  # the remedy
        else:
            survived += 1
            assert found in victim.good, kind
            # A zip says nothing of a flip in a time stamp, and gives what was written.
            assert make is dataset or any(named in line for line in said), (kind, said)
        victim.path.write_bytes(before)
        assert victim.use() in victim.good
    assert tried >= 1000 / len(VICTIMS)
    assert make is dataset or (survived > 0) == (make in (checkpoint, swapped_within, manifest, cache))


def test_nothing_is_left_when_every_checkpoint_is_damaged(tmp_path: Path) -> None:
    use = checkpoints(tmp_path)
    for name in NAMES:
        path = tmp_path / FOLDER / name
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StorageError, match=f"{NAMES[-1]}.*no valid checkpoint before it: start a new run"):
        use()


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    tiny: Tiny, wanted: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """It says so in one line, and its results are those of a run to which nothing happened."""
    found = events(tiny, "finetune", tmp_path / "dry")
    folder, last = tmp_path / "run", max(number for _, number in found)
    kill(tiny, "finetune", folder, min(k for k, (_, number) in enumerate(found) if number == last))
    newest = max((folder / FOLDER).glob("*.safetensors"))
    content = bytearray(newest.read_bytes())
    content[-9] ^= 4
    newest.write_bytes(content)
    ended = forked(lambda: tiny.train("finetune", folder, resume=True))
    assert ended.code == 0, ended.said
    assert sum(str(newest) in line for line in ended.said.splitlines()) == 1
    assert tiny.results(folder) == wanted["finetune"]
