"""Schedules as functions of progress; agents see only the current values."""

import math
from collections.abc import Sequence


def linear(ends: Sequence[float], progress: float) -> float:
    """From ends[0] to ends[1] as progress goes from 0 to 1."""
    start, end = ends
    return start + (end - start) * min(max(progress, 0.0), 1.0)


def cosine(progress: float) -> float:
    """From 1 to 0 along half a cosine (phase 1's learning rate)."""
    return 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
