"""Through the entry points: prices of the test window have no say in what both phases learn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import finflow
from finflow.artifacts.checkpoints import read_policy
from finflow.config.compose import from_yaml
from finflow.data.build import build_market
from finflow.data.market import Fold, make_fold
from finflow.io.weights import load_weights
from finflow.stages.results import FinetuneResult

from .conftest import TINY, TUNE, random_close, write_prices

Trained = tuple[dict[str, Tensor], dict[str, Tensor], FinetuneResult]


def trained(folder: Path, close: np.ndarray) -> Trained:
    """Tensors of both phases, scaling included, trained on `close` alone in `folder`."""
    folder.mkdir()
    write_prices(folder / "prices.csv", close)
    data = ["env=csv", f"env.path={folder}/prices.csv", f"output_root={folder}/out", *TINY]
    first = finflow.pretrain(finflow.load("pretrain", data))
    second = finflow.finetune(finflow.load("finetune", [*data, *TUNE]))
    tensors = [dict(load_weights(result.weights)[0]) for result in (first, second)]
    return tensors[0], tensors[1], second


@pytest.fixture(scope="module")
def close() -> np.ndarray:
    return random_close()


@pytest.fixture(scope="module")
def original(close: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("original") / "run", close)


def windows(result: FinetuneResult) -> Fold:
    config = from_yaml(result.run_dir / "config.yaml")
    return make_fold(build_market(config.env), config.env, "auto")


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_noise_in_the_test_window_leaves_the_weights_alone_to_the_bit(
    close: np.ndarray, original: Trained, tmp_path: Path
) -> None:
    fold = windows(original[2])
    changed = close.copy()
    rows = slice(fold.validation.stop, None)
    noise = np.random.default_rng(3).normal(0, 0.03, changed[rows].shape)
    changed[rows] = np.round(20 * np.exp(np.cumsum(noise, axis=0)), 4)
    pretrained, tuned, result = trained(tmp_path / "run", changed)
    assert windows(result) == fold
    assert same(original[0], pretrained)
    assert same(original[1], tuned)
    assert result.figures == original[2].figures, "nor do they move what validation measures"


def test_the_last_train_day_does_matter(close: np.ndarray, original: Trained, tmp_path: Path) -> None:
    """The comparison is not blind: one price at the end of train is enough."""
    changed = close.copy()
    changed[windows(original[2]).train.stop - 1, 0] *= 1.5
    pretrained, tuned, _ = trained(tmp_path / "run", changed)
    assert not same(original[0], pretrained)
    assert not same(original[1], tuned)


def test_weights_that_are_compared_hold_networks_and_scaling(original: Trained) -> None:
    names = {name.split(".")[0] for name in original[1]}
    assert names == {"networks", "scaling"}
    assert not same(original[0], original[1]) or original[2].selected_episode == 0
    assert read_policy(*load_weights(original[2].weights)).scaling is not None
