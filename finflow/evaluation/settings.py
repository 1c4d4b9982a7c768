"""Settings side by side, each with several seeds: which are the same strategy, and how far each is from the first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from finflow.evaluation.backtest import Bootstrap
from finflow.evaluation.metrics import sharpe_ratio
from finflow.evaluation.result import Comparison, Track
from finflow.evaluation.robustness import compare
from finflow.evaluation.seeds import summarise_seeds
from finflow.evaluation.study import Middle

SAME = 1e-9
"""Returns of a day that differ by less are the same but for rounding: policies are computed in float32."""


def same_as(tracks: Mapping[str, Track]) -> dict[str, str]:
    """For each strategy the first one before it with the same net returns on every day; empty where there is none."""
    found: dict[str, str] = {}
    for name, track in tracks.items():
        first = (other for other in found if not found[other])
        found[name] = next((o for o in first if np.allclose(tracks[o].net, track.net, rtol=0.0, atol=SAME)), "")
    return found


def against_reference(name: str, tracks: Mapping[str, Track], bootstrap: Bootstrap) -> Comparison | None:
    """A setting's averaged strategy compared with that of the first, day by day; None of the first itself."""
    reference = next(iter(tracks))
    return None if name == reference else compare(tracks[name], replace(tracks[reference], name=reference), bootstrap)


def over_seeds(seeds: Mapping[int, Track], bootstrap: Bootstrap) -> tuple[Middle | None, bool]:
    """Interquartile mean of the Sharpe ratios of `seeds` with its interval, None if undefined; whether they are few."""
    return _summary([_sharpe(track) for track in seeds.values()], bootstrap)


def seed_by_seed(
    seeds: Mapping[int, Track], reference: Mapping[int, Track], bootstrap: Bootstrap
) -> Middle | None:  # fmt: skip
    """Interquartile mean of Sharpe ratios minus those of the same seed of the reference; None where seeds differ."""
    if seeds.keys() != reference.keys():
        return None
    return _summary([_sharpe(track) - _sharpe(reference[seed]) for seed, track in seeds.items()], bootstrap)[0]


def _summary(scores: Sequence[float], bootstrap: Bootstrap) -> tuple[Middle | None, bool]:
    found = summarise_seeds(np.array(scores), samples=bootstrap.samples, rng=bootstrap.rng("seeds"))
    middle = (found.middle, found.low, found.high)
    return None if np.isnan(middle).any() else middle, found.underpowered


def _sharpe(track: Track) -> float:
    found = sharpe_ratio(track.net, track.year)
    return math.nan if found is None else found
