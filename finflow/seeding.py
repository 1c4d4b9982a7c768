"""Named random streams: every random draw names the stream that it comes from.

A stream is a function of (seed, name) alone, so adding one never shifts another, and two runs with the same
seed draw the same numbers.
"""

import hashlib

import numpy as np
import torch


def stream_seed(seed: int, name: str) -> int:
    """A 63-bit seed for the stream `name` of run seed `seed`."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def numpy_stream(seed: int, name: str) -> np.random.Generator:
    """Independent numpy generator of the stream `name`."""
    return np.random.default_rng(stream_seed(seed, name))


def torch_stream(seed: int, name: str, device: str | torch.device = "cpu") -> torch.Generator:
    """Independent torch generator of the stream `name`, living on `device`."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, name))
