"""Confidence: the part of a policy's tilt that is deployed, by shrinkage (cf. Thomas et al. 2015).

The policy's active return is estimated with an error. Of its tilt away from the benchmark's portfolio the part
kappa = max(0, 1 - 1 / t^2) is deployed (positive-part James-Stein of one mean, Efron & Morris 1973), 0 where t <= 1.
t is the paired t statistic of the daily net return over that of holding e at the same trading rate, on days outside
the policy's training.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np

from finflow.evaluation.result import Floats

Mode = Literal["validation", "crossfit"]


@dataclass(frozen=True)
class Confidence:
    """Estimate of a policy's net active return out of sample, and the deployed part that follows from it.

    Attributes
    ----------
    mode : validation: the policy itself on validation days; crossfit: these, and blocks of train days, each run by
        actors that were trained without it.
    kappa : part of the tilt that is deployed, 0 to 1.
    t : of the mean daily active return; None where it never differs from 0.
    active_return : of that mean, a year. years : of the days behind it.
    parts : by block of days, its mean active return a year.
    """

    mode: Mode
    kappa: float
    t: float | None
    active_return: float
    years: float
    parts: dict[str, float]

    def line(self) -> str:
        """One sentence for people."""
        how = "out of fold" if self.mode == "crossfit" else "on validation days"
        t = "t undefined" if self.t is None else f"t {self.t:.1f}"
        found = f"{how} {100 * self.active_return:+.1f} % a year over the benchmark, {t}, over {self.years:.0f} years"
        if self.kappa == 0.0:
            return f"abstains: holds the benchmark's portfolio ({found})"
        return f"deployed at {self.kappa:.2f} of its tilt ({found})"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, stored with the weights."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        return cls(**stored)


def confidence_of(mode: Mode, blocks: dict[str, Floats], year: int) -> Confidence:
    """Pool the net active returns of `blocks`, name -> [R], of which `year` rows are a year."""
    named = dict(sorted(blocks.items()))  # a fixed order gives the sum the same bits
    active = np.concatenate(list(named.values()))
    t = t_statistic(active)
    parts = {name: float(block.mean()) * year for name, block in named.items()}
    return Confidence(mode, shrinkage(t), t, float(active.mean()) * year, len(active) / year, parts)


def t_statistic(active: Floats) -> float | None:
    """Mean of [R] over its standard error; None for fewer than two days or where nothing varies."""
    if len(active) < 2 or np.ptp(active) == 0.0:
        return None
    return float(active.mean() / active.std(ddof=1) * np.sqrt(len(active)))


def shrinkage(t: float | None) -> float:
    """kappa = 1 - 1 / t^2 where t > 1, else 0."""
    return 1.0 - 1.0 / t**2 if t is not None and t > 1.0 else 0.0


def paired_gain(candidate: Floats, incumbent: Floats) -> float:
    """How far the ratio mean / std of one series [R] is above another's on the same days, in standard errors.

    Each series is divided by its own standard deviation, so that a candidate does not gain by taking more risk. Both
    standard deviations count as known. 0 where the two do not differ; a series that never varies counts as 0.
    """
    scaled = [each / each.std(ddof=1) if np.ptp(each) > 0 else np.zeros_like(each) for each in (candidate, incumbent)]
    difference = scaled[0] - scaled[1]
    spread = difference.std(ddof=1)
    return float(difference.mean() / spread * np.sqrt(len(difference))) if spread > 0 else 0.0
