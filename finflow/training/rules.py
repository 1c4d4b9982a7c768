"""Rules of the stability monitor: pure functions of the figures that updates, episodes and validation produce.

A rule returns a `Finding` or None; without its figure, or with a null limit, it returns None.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from finflow.schema.sections import MonitorConfig

Figures = Mapping[str, float | None]
Remedy = Literal["lower_lr", "raise_cql", "roll_back"]

CRITIC_LOSS = ("critic_loss", "q_loss")
ACTOR_LOSS = ("actor_loss", "policy_loss")
GRAD_NORMS = ("critic_grad_norm", "actor_grad_norm")
"""Names of a rule's figures among an update's metrics: in fine-tuning, then in pretraining."""

ADVICE: Mapping[Remedy | None, str] = {
    "lower_lr": "lower algo.lr",
    "raise_cql": "raise algo.cql.alpha or lower algo.lr",
    "roll_back": "lower algo.lr or raise algo.batch_size",
    None: "look at the data of these days",
}
MIN_EPISODES = 16  # fewest episodes for a mean Sharpe ratio
MIN_REWARDS = 10_000  # fewest rewards before one is called an outlier


class Finding(NamedTuple):
    """A rule that fired: its key under `monitor`, what is wrong, and the measure that `monitor=act` would take."""

    rule: str
    wrong: str
    remedy: Remedy | None

    def line(self) -> str:
        """The problem and its remedy, for people."""
        return f"{self.wrong}; {ADVICE[self.remedy]}"


class Moments(NamedTuple):
    """Count, mean, and sum of squared deviations of numbers."""

    total: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def merged(self, other: "Moments") -> "Moments":
        """Both together (Chan, Golub & LeVeque 1979)."""
        total = self.total + other.total
        if total == 0:
            return self
        apart = other.mean - self.mean
        mean = self.mean + apart * other.total / total
        squares = self.squares + other.squares + apart**2 * self.total * other.total / total
        return Moments(total, mean, squares)

    @property
    def std(self) -> float:
        """Standard deviation; 0 without numbers."""
        return math.sqrt(self.squares / self.total) if self.total else 0.0


def after_updates(figures: Figures, limits: MonitorConfig) -> list[Finding]:
    """Rules on the means of a look's updates: values, losses and gradients that explode, a policy in one name."""
    found = [
        _beyond("q_value", figures, ("q_mean",), limits.q_value, "raise_cql"),
        _beyond("critic_loss", figures, CRITIC_LOSS, limits.critic_loss, "lower_lr"),
        _beyond("actor_loss", figures, ACTOR_LOSS, limits.actor_loss, "lower_lr"),
        _beyond("grad_norm", figures, GRAD_NORMS, limits.grad_norm, "lower_lr"),
        too_few_assets("effective_assets", figures, limits),
    ]
    return [finding for finding in found if finding is not None]


def after_validation(score: Figures, handover: float | None, limits: MonitorConfig) -> list[Finding]:
    """Rules on a validation score; `handover` is phase 1's Sharpe ratio on the same days."""
    found = [
        validation_sharpe(score, limits),
        dip(score, handover, limits),
        _beyond("turnover", score, ("validation_turnover",), limits.turnover, "raise_cql"),
        too_few_assets("validation_effective_assets", score, limits),
    ]
    return [finding for finding in found if finding is not None]


def _beyond(rule: str, figures: Figures, names: Sequence[str], limit: float | None, remedy: Remedy) -> Finding | None:
    """The first of the named figures whose size is beyond `limit`."""
    for name in names:
        value = figures.get(name)
        if value is not None and limit is not None and abs(value) > limit:
            return Finding(rule, f"{name} {value:.4g}, beyond monitor.{rule}={limit:g}", remedy)
    return None


def too_few_assets(name: str, figures: Figures, limits: MonitorConfig) -> Finding | None:
    """A portfolio of about one name, usually because the critic overestimates a corner of the simplex."""
    value, limit = figures.get(name), limits.effective_assets
    if value is None or limit is None or value >= limit:
        return None
    return Finding("effective_assets", f"{name} {value:.3g}, under monitor.effective_assets={limit:g}", "raise_cql")


def entropy_per_name(figures: Figures, names: int) -> tuple[float, float] | None:
    """Differential entropy of y and its target, in nats a risky name; None in a look without the policy."""
    entropy, target = figures.get("entropy"), figures.get("entropy_target")
    return None if entropy is None or target is None else (entropy / names, target / names)


def entropy(now: tuple[float, float], before: tuple[float, float] | None, limits: MonitorConfig) -> Finding | None:
    """Entropy that collapses: far under its target, or falling within one look by more than its target does.

    The guide's "warning under 0.01" cannot hold: ln pi_y is a density, and the entropy of a healthy policy, whose
    sigma is annealed to .147, is -0.5 nats a name.

    Parameters
    ----------
    now, before : entropy and target a name, in this look and the one before.
    """
    value, target = now
    if limits.entropy_gap is not None and target - value > limits.entropy_gap:
        wrong = f"entropy {value:.3g} nats a name, under its target {target:.3g} by more than"
        return Finding("entropy_gap", f"{wrong} monitor.entropy_gap={limits.entropy_gap:g}", "lower_lr")
    if limits.entropy_fall is not None and before is not None:
        fall = (before[0] - value) - max(before[1] - target, 0.0)
        if value < target and fall > limits.entropy_fall:
            wrong = f"entropy {value:.3g} nats a name, {before[0]:.3g} one look before: a fall of more than"
            return Finding("entropy_fall", f"{wrong} monitor.entropy_fall={limits.entropy_fall:g}", "lower_lr")
    return None


def reward_outlier(low: float, high: float, past: Moments, limits: MonitorConfig) -> Finding | None:
    """The smallest or largest reward of a look, far from all rewards before it."""
    limit = limits.reward_sigmas
    if limit is None or past.total < MIN_REWARDS or past.std == 0.0:
        return None
    worst = max(low, high, key=lambda reward: abs(reward - past.mean))
    sigmas = abs(worst - past.mean) / past.std
    if sigmas <= limit:
        return None
    wrong = f"reward {worst:.4g} is {sigmas:.3g} standard deviations off, beyond monitor.reward_sigmas={limit:g}"
    return Finding("reward_sigmas", wrong, None)


def sharpe(episodes: Sequence[float], limits: MonitorConfig) -> Finding | None:
    """Mean Sharpe ratio of the latest episodes, two standard errors below the limit.

    One episode says nothing: over half a year the standard error of a Sharpe ratio is 1.4.
    """
    limit, count = limits.sharpe, len(episodes)
    if limit is None or count < MIN_EPISODES:
        return None
    mean = math.fsum(episodes) / count
    error = math.sqrt(math.fsum((x - mean) ** 2 for x in episodes) / (count - 1) / count)
    if mean + 2 * error >= limit:
        return None
    wrong = f"Sharpe ratio of the last {count} episodes {mean:.3g} +- {error:.2g}, under monitor.sharpe={limit:g}"
    return Finding("sharpe", wrong, None)


def validation_sharpe(score: Figures, limits: MonitorConfig) -> Finding | None:
    """Validation Sharpe ratio under the limit, and under 1/N's: a falling market alone is no fault of the policy."""
    value, active = score.get("validation_sharpe"), score.get("validation_active_information_ratio")
    limit = limits.validation_sharpe
    if value is None or limit is None or value >= limit or active is None or active >= 0:
        return None
    wrong = f"validation_sharpe {value:.3g}, under monitor.validation_sharpe={limit:g} and under 1/N's"
    return Finding("validation_sharpe", wrong, "roll_back")


def dip(score: Figures, handover: float | None, limits: MonitorConfig) -> Finding | None:
    """Validation Sharpe ratio that has fallen below what phase 1 handed over."""
    value, limit = score.get("validation_sharpe"), limits.dip
    if value is None or handover is None or limit is None or handover - value <= limit:
        return None
    wrong = f"validation_sharpe {value:.3g}, below phase 1's {handover:.3g} by more than monitor.dip={limit:g}"
    return Finding("dip", wrong, "roll_back")
