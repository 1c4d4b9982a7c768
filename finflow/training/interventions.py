"""Interventions of `monitor=act`: lower the learning rate, raise CQL, or go back to the last good state."""

import copy
from typing import Any

from finflow.agents.base import Stateful
from finflow.agents.learner import Learner
from finflow.errors import DivergedError
from finflow.schema.monitor import Act
from finflow.training.rules import ADVICE, Finding


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
        """Answer a finding at this update (`where` is its text for people) and return a description of the measure.

        Raises
        ------
        DivergedError
            Once `act.max_interventions` measures have not been enough.
        """
        if self.taken >= self.config.max_interventions:
            raise DivergedError(
                f"{where}: {finding.wrong}, after {self.taken} measures of monitor=act; {ADVICE[finding.remedy]}"
            )
        tried = self._tried.get(finding.rule, 0)
        self._tried[finding.rule] = tried + 1
        self.taken += 1
        self._last = update
        said = self._gentle(finding) if tried < self.config.patience else self._roll_back()
        return f"{said} (measure {self.taken} of {self.config.max_interventions})"

    def _gentle(self, finding: Finding) -> str:
        if finding.remedy == "roll_back":
            return self._roll_back()
        if finding.remedy == "raise_cql":
            self.cql_factor *= self.config.cql_factor
            return f"CQL raised to {self.cql_factor:g} times its schedule"
        return self._lower_lr()

    def _lower_lr(self) -> str:
        self.lr_factor *= self.config.lr_factor
        return f"learning rate lowered to {self.lr_factor:g} times its schedule"

    def _roll_back(self) -> str:
        # Copied, because an optimiser keeps the tensors it loads and would overwrite the stored state.
        self.agent.load_state_dict(copy.deepcopy(self._good))
        return f"back to {self._good_at}, {self._lower_lr()}"
