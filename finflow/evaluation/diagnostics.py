"""Diagnostics of gate and experts, in plain units."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

CHANGE = "_change"
"""Suffix of the change of a diagnostic since the phase-1 parent."""


@dataclass(frozen=True)
class Reading:
    """Display of a diagnostic: `shown` converts its value to the unit of `label`."""

    label: str
    unit: str
    decimals: int
    shown: Callable[[float], float]


READINGS = {
    "gate_entropy": Reading("Experts in use", "effective number", 2, math.exp),
    "expert_distance": Reading("What two experts hold otherwise", "% of wealth, mean over pairs", 1, lambda d: 100 * d),
}
"""The effective number of experts is exp(entropy of the gate): from 1 (a single one) to K (equal shares)."""


def readings(found: Mapping[str, float | None]) -> list[tuple[Reading, float, float | None]]:
    """Each diagnostic, its value, and its change since phase 1 (None where there was none) in the unit shown."""
    shown: list[tuple[Reading, float, float | None]] = []
    for key, value in found.items():
        if value is None or (key.endswith(CHANGE) and key.removesuffix(CHANGE) in found):
            continue
        reading = READINGS.get(key, Reading(key.replace("_", " ").capitalize(), "", 4, float))
        now, change = reading.shown(value), found.get(key + CHANGE)
        shown.append((reading, now, None if change is None else now - reading.shown(value - change)))
    return shown


def diagnostics_says(found: Mapping[str, float | None]) -> str:
    """All of them in one line: `experts in use 3.71 (-1.24 since phase 1), ...`."""
    parts: list[str] = []
    for reading, now, change in readings(found):
        since = "" if change is None else f" ({change:+.{reading.decimals}f} since phase 1)"
        percent = " %" if reading.unit.startswith("%") else ""
        label = reading.label[0].lower() + reading.label[1:]
        parts.append(f"{label} {now:.{reading.decimals}f}{percent}{since}")
    return ", ".join(parts)
