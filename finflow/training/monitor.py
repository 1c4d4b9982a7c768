"""The stability monitor: its rules read updates and validations; it reports problems, and with `act` intervenes.

A rule is a pure function of the figures that updates, episodes and validation produce. It returns a `Finding` or None;
without its figure, or with a null limit, it returns None. Interventions lower the learning rate, raise CQL, or go back
to the last good state.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from finflow.agents.base import Stateful
from finflow.agents.learner import Learner
from finflow.errors import DataError, DivergedError
from finflow.nn.actor import Decision
from finflow.schema.sections import Act, MonitorConfig
from finflow.tracking.sink import Tracker, warn

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
    sigma is annealed to .147, is -0.5 nats a name. `now` and `before` are entropy and target a name, in this look and
    the one before.
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


class Measures(Stateful):
    """Intervenes, at most `act.max_interventions` times in a run, and holds the factors on the loop's coefficients.

    The first `act.patience` findings of a rule get the rule's own gentle measure, those after them a rollback. A
    rollback also lowers the learning rate: the same steps would lead to the same place.
    """

    STATE = ("lr_factor", "cql_factor", "taken", "_tried", "_last", "_good", "_good_at")

    def __init__(self, config: Act, agent: Learner) -> None:
        self.config, self.agent = config, agent
        self.lr_factor = self.cql_factor = 1.0
        self.taken = 0
        self._tried: dict[str, int] = {}
        self._last: int | None = None
        self._good: dict[str, Any] = {}
        self._good_at = ""

    def keep(self, where: str) -> None:
        """Store the agent's state, to which a rollback returns."""
        self._good, self._good_at = copy.deepcopy(self.agent.state_dict()), where

    def settling(self, update: int) -> bool:
        """Whether the latest measure is still given time to take effect."""
        return self._last is not None and update - self._last < self.config.cooldown

    def take(self, finding: Finding, update: int, where: str) -> str:
        """Answer a finding at this update (`where` is its text for people) and return a description of the measure."""
        if self.taken >= self.config.max_interventions:
            told = finding._replace(wrong=f"{finding.wrong}, after {self.taken} measures of monitor=act")
            raise DivergedError(f"{where}: {told.line()}")
        tried = self._tried.get(finding.rule, 0)
        self._tried[finding.rule] = tried + 1
        self.taken += 1
        self._last = update
        remedy = finding.remedy if tried < self.config.patience else "roll_back"
        if remedy == "raise_cql":
            self.cql_factor *= self.config.cql_factor
            said = f"CQL raised to {self.cql_factor:g} times its schedule"
        else:
            self.lr_factor *= self.config.lr_factor
            said = f"learning rate lowered to {self.lr_factor:g} times its schedule"
        if remedy == "roll_back":
            # Copied, because an optimiser keeps the tensors it loads and would overwrite the stored state.
            self.agent.load_state_dict(copy.deepcopy(self._good))
            said = f"back to {self._good_at}, {said}"
        return f"{said} (measure {self.taken} of {self.config.max_interventions})"


EPISODES = 64  # latest episodes whose Sharpe ratios are averaged
UNREAD = 10  # updates whose metrics may stay on the device unread; where the monitor acts, none
REWARD = ("reward mean", "reward variance", "reward minimum", "reward maximum")
NOTHING = (math.inf, -math.inf)


class Monitor(Stateful):
    """Watches one training run; with `mode` off it does nothing but stop at a NaN or infinity.

    The loop hands it every update and every validation, and multiplies its coefficients by the factors of `measures`,
    which stay at 1 unless it acts: `warn` and `off` change no result. What is not finite raises a `DivergedError` that
    names the update and the loss, gradient, weight or action; where the monitor acts, it does so once acting has not
    helped.

    Parameters
    ----------
    step_name : what the loop counts, "epoch" or "episode".
    names : risky names, the dimension of the policy's density.
    conservative : whether there is a CQL term that can be raised.
    """

    STATE = (
        "_step", "_updates", "_handover", "_window", "_entropy", "_past", "_rewards", "_extremes", "_sharpes", "_spoke",
        "_clean", "measures",
    )  # fmt: skip

    def __init__(
        self, config: MonitorConfig, agent: Learner, tracker: Tracker, *, step_name: str, names: int, conservative: bool
    ) -> None:
        self.config, self.agent, self.tracker = config, agent, tracker
        self.step_name, self.names, self.conservative = step_name, names, conservative
        self.measures, self.acts = Measures(config.act, agent), config.mode == "act"
        self._handover: float | None = None
        self._step = self._updates = 0
        self._unread: list[tuple[int, int, tuple[str, ...], Tensor]] = []
        self._window: dict[str, tuple[float, int]] = {}
        self._entropy: tuple[float, float] | None = None
        self._past, self._rewards, self._extremes = Moments(), Moments(), NOTHING
        self._sharpes: list[float] = []
        self._spoke: dict[str, int] = {}
        self._clean = True
        if self.acts:
            self.measures.keep("the start")

    def sound(self, decide: Callable[[], Decision]) -> Decision:
        """Result of `decide`, which is finite, so that no environment receives a NaN."""
        decision = decide()
        while not bool(torch.isfinite(decision.mean).all()):
            if self.read():  # otherwise the faulty update was found and undone
                self._diverged(self._updates, "the policy's action")
            decision = decide()
        return decision

    def add(self, metrics: Mapping[str, Tensor], reward: Tensor | None) -> bool:
        """Take one update's metrics and its batch's rewards [B], if it had any; False where that update was undone."""
        self._updates += 1
        figures = dict(metrics)
        if reward is not None:
            spread = (reward.mean(), reward.var(correction=0), reward.min(), reward.max())
            figures |= zip(REWARD, spread, strict=True)
        row = torch.stack([value.float() for value in figures.values()])
        self._unread.append((self._updates, 0 if reward is None else len(reward), tuple(figures), row))
        due = self._updates % self.config.every == 0
        if (due or self.acts or len(self._unread) >= UNREAD) and not self.read():
            return False
        if due and self.config.mode != "off":
            self._look()
        return True

    def read(self) -> bool:
        """Read the metrics still on the device; False if an update was not finite and was undone."""
        unread, self._unread = self._unread, []
        for names, group in groupby(unread, key=lambda update: update[2]):
            updates = list(group)
            rows = torch.stack([row for *_, row in updates]).double().cpu()
            bad = (~torch.isfinite(rows)).nonzero()
            if len(bad):
                first, name = (int(index) for index in bad[0])
                self._diverged(updates[first][0], names[name])
                return False
            for (_, batch, _, _), row in zip(updates, rows.tolist(), strict=True):
                figures = dict(zip(names, row, strict=True))
                if batch:
                    mean, variance, low, high = (figures.pop(name) for name in REWARD)
                    self._rewards = self._rewards.merged(Moments(batch, mean, variance * batch))
                    self._extremes = (min(low, self._extremes[0]), max(high, self._extremes[1]))
                for key, value in figures.items():
                    total, count = self._window.get(key, (0.0, 0))
                    self._window[key] = (total + value, count + 1)
        return True

    def ended(self, step: int, sharpe_ratio: float | None = None) -> None:
        """An epoch or episode has ended, the latter with this Sharpe ratio."""
        self.read()
        self._step = step
        if sharpe_ratio is None or self.config.mode == "off":
            return
        self._sharpes = [*self._sharpes, sharpe_ratio][-EPISODES:]
        self._report([sharpe(self._sharpes, self.config)])

    def handed_over(self, score: Figures) -> None:
        """Set phase 1's validation score, from which a dip is measured."""
        self._handover = score.get("validation_sharpe")
        if self.acts:
            self.measures.keep("the hand-over")

    def validate(self, evaluate: Callable[[int], Figures], step: int) -> dict[str, float | None]:
        """Validation figures after `step`, all weights being finite; what they show is reported."""
        self.check()
        score = None
        while score is None:
            try:
                score = dict(evaluate(step))
            except DataError:  # finite weights may be so large that the policy's action is not finite
                if self.read():
                    self._diverged(self._updates, "the policy's action")
        if self.config.mode == "off":
            return score
        self._report(after_validation(score, self._handover, self.config))
        if self.acts:
            if self._clean:
                self.measures.keep(f"{self.step_name} {step}")
            score |= {"lr_factor": self.measures.lr_factor, "cql_factor": self.measures.cql_factor}
        self._clean = True
        return score

    def check(self) -> None:
        """Check every weight before the agent is validated or stored."""
        if self.read() and (weight := self.agent.networks.unsound()) is not None:
            self._diverged(self._updates, weight)

    def _look(self) -> None:
        """Apply the rules to the updates since the last look."""
        figures = {name: total / count for name, (total, count) in self._window.items()}
        found: list[Finding | None] = [*after_updates(figures, self.config)]
        now = entropy_per_name(figures, self.names)
        if now is not None:
            found.append(entropy(now, self._entropy, self.config))
        found.append(reward_outlier(*self._extremes, self._past, self.config))
        self._entropy, self._past = now, self._past.merged(self._rewards)
        self._begin_look()
        self._report(found)

    def _begin_look(self) -> None:
        self._window, self._rewards, self._extremes = {}, Moments(), NOTHING

    def _report(self, found: Sequence[Finding | None]) -> None:
        """Report findings, each rule once in `repeat` updates, and answer the first that has a measure."""
        findings = [finding for finding in found if finding is not None]
        if not self.conservative:  # there is no CQL term to raise
            findings = [f._replace(remedy="lower_lr") if f.remedy == "raise_cql" else f for f in findings]
        curable = [finding for finding in findings if finding.remedy is not None]
        self._clean = self._clean and not curable
        if self.acts and curable and not self.measures.settling(self._updates):
            self._answer(curable[0])
            findings.remove(curable[0])
        for finding in findings:
            last = self._spoke.get(finding.rule)
            if last is None or self._updates - last >= self.config.repeat:
                self._spoke[finding.rule] = self._updates
                self._say(finding.line())

    def _answer(self, finding: Finding) -> None:
        done = self.measures.take(finding, self._updates, self._where(self._updates))
        self._spoke[finding.rule] = self._updates
        self._begin_look()
        self._entropy = None
        self._say(f"{finding.wrong}: {done}")

    def _diverged(self, update: int, name: str) -> None:
        """Stop at what is not finite or, where the monitor acts, go back to the last good state."""
        weight = self.agent.networks.unsound()
        wrong = f"{name} is not finite" if weight in (None, name) else f"{name} is not finite, nor is {weight}"
        if not self.acts:
            raise DivergedError(f"{self._where(update)}: {wrong}; {ADVICE['roll_back']}")
        self._unread = []
        self._answer(Finding("finite", wrong, "roll_back"))

    def _where(self, update: int) -> str:
        return f"{self.step_name} {self._step + 1}, update {update}"

    def _say(self, text: str) -> None:
        self.tracker.alert(self.step_name, self._step, f"monitor: {text} (update {self._updates})")
        warn(f"{self._where(self._updates)}: {text}")

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: plain numbers, and the agent's state to which a rollback returns."""
        self.read()
        return super().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self._past, self._rewards = Moments(*self._past), Moments(*self._rewards)  # read back as plain tuples
