import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from finflow.errors import StorageError
from finflow.io.weights import content_hash, load_weights, save_weights, sha256_of

METADATA = {"facts": {"fold": "2018", "c": 0.1 + 0.2, "names": ["é", 'q"']}, "scale": None, "seed": 3}


def make_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    twins = torch.randn(2, 3, 4, generator=generator)
    return {
        "z.weight": torch.randn(17, 5, generator=generator),
        "a.transposed": torch.randn(4, 6, generator=generator).T,
        "twin.0": twins[0],
        "twin.1": twins[1],
        "log_alpha": torch.tensor(-0.25),
        "count": torch.arange(3),
        "mask": torch.tensor([True, False]),
        "half": torch.randn(3, generator=generator).to(torch.bfloat16),
        "empty": torch.zeros(0, 4),
        "special": torch.tensor([float("nan"), -0.0, float("inf")]),
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_weights(path, make_tensors(), METADATA)
    return path


def bits(tensor: torch.Tensor) -> list[int]:
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


def refusal(path: Path, expected: str | None = None) -> str:
    with pytest.raises(StorageError) as error:
        load_weights(path, expected)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def test_round_trip_is_exact(saved: Path) -> None:
    tensors, metadata = load_weights(saved, sha256_of(saved))
    assert metadata == METADATA
    originals = make_tensors()
    assert set(tensors) == set(originals)
    for name, tensor in originals.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        assert bits(tensors[name]) == bits(tensor)


def test_same_content_same_bytes(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    shuffled = dict(reversed(make_tensors().items()))
    digest = save_weights(other, shuffled, dict(reversed(METADATA.items())))
    assert other.read_bytes() == saved.read_bytes()
    assert digest == sha256_of(saved)
    assert saved.stat().st_mode & 0o777 == 0o644


def test_content_hash_sees_names_types_shapes_and_values_only(tmp_path: Path) -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.ones(2)}
    same = {"b": torch.ones(2), "a": torch.zeros(3, 2).T}
    assert content_hash(base) == content_hash(same)
    changed = [
        {"a": torch.zeros(3, 2), "b": torch.ones(2)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(2)},
        {"a": torch.zeros(2, 3), "c": torch.ones(2)},
        {"a": torch.full((2, 3), -0.0), "b": torch.ones(2)},
    ]
    assert len({content_hash(t) for t in [base, *changed]}) == 5


def test_numeric_keys_of_metadata_do_not_break_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.ones(1)}, {"steps": {2: "two", 10: "ten"}, "pair": (1, 2)})
    assert load_weights(path)[1] == {"steps": {"2": "two", "10": "ten"}, "pair": [1, 2]}


def test_flipped_bits_never_load(saved: Path) -> None:
    data = saved.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    rng = np.random.default_rng(1)
    anywhere = rng.integers(0, len(data), 200)
    in_header = rng.integers(0, header, 200)
    in_tensors = rng.integers(header, len(data), 200)
    for offset in [*anywhere, *in_header, *in_tensors, *range(10)]:
        flipped = bytearray(data)
        flipped[offset] ^= 1 << int(rng.integers(8))
        saved.write_bytes(flipped)
        if bytes(flipped).replace(rb"\u00E9", rb"\u00e9") != data:  # the same letter
            refusal(saved)


def test_safetensors_alone_would_load_a_flipped_bit(saved: Path) -> None:
    # Why the file holds a hash: without it the test above has nothing to find.
    data = bytearray(saved.read_bytes())
    data[-1] ^= 1
    assert safetensors.torch.load(bytes(data))


def test_cut_short_at_any_length(saved: Path) -> None:
    data = saved.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for length in [0, 1, 7, 8, 9, 100, header - 1, header, header + 1, len(data) // 2, len(data) - 1]:
        saved.write_bytes(data[:length])
        refusal(saved)


def test_something_appended(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"\0")
    assert "damaged" in refusal(saved)


def test_pickle_is_never_opened(tmp_path: Path) -> None:
    path, touched = tmp_path / "weights.safetensors", tmp_path / "touched"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(touched),)

    torch.save({"a": Hostile()}, path)
    refusal(path)
    for protocol in range(6):
        path.write_bytes(pickle.dumps(Hostile(), protocol))
        refusal(path)
    assert not touched.exists()


def test_missing_and_folder(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.safetensors")
    assert "folder" in refusal(tmp_path)


def test_expected_hash(saved: Path) -> None:
    assert "SHA-256" in refusal(saved, "0" * 64)


def test_foreign_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"a": torch.ones(2)}, path, {"format": "pt"})
    assert "not a weights file of FinFlow" in refusal(path)


def test_changed_metadata_is_refused_even_where_json_stays_valid(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes().replace(rb"\"2018\"", rb"\"2013\""))
    assert "does not match the hash" in refusal(saved)


def test_a_swapped_tensor_is_refused_though_the_metadata_is_whole(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[-4:] = data[-8:-4]
    saved.write_bytes(data)
    assert "does not match the hash" in refusal(saved)


def test_metadata_must_be_finite(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        save_weights(tmp_path / "w", {}, {"a": float("nan")})
    assert os.listdir(tmp_path) == []
