"""From stored indices to complete batches: relabelled actions, rewards and next states from the exact world model."""

from collections.abc import Callable

import torch
from torch import Tensor

from finflow.agents.batch import Batch
from finflow.envs.behaviours import behave, draw_personas
from finflow.envs.world import PATH_SCALARS, State, World
from finflow.nn.policy import Decision
from finflow.replay import Logged

WIDE_NOISE = 0.6  # standard deviation, in log weight, of the wide noise around the policy's mean


class Batcher:
    """Completes logged transitions.

    Parameters
    ----------
    relabel_fraction : share of a batch whose action is replaced and booked anew.
    state_noise : standard deviation of noise on the features of assets and market (augmentation); 0 is none.
    gamma : discount.
    act : phase 2's stochastic policy, State -> Decision; None where relabelling draws behaviours alone.
    """

    def __init__(
        self,
        world: World,
        relabel_fraction: float,
        state_noise: float,
        gamma: float,
        generator: torch.Generator,
        act: Callable[[State], Decision] | None = None,
    ) -> None:
        self.world, self.relabel_fraction, self.state_noise = world, relabel_fraction, state_noise
        self.gamma, self.generator, self.act = gamma, generator, act

    def complete(self, logged: Logged) -> Batch:
        """Relabel a share of the rows, then book every row by the ledger."""
        world, count = self.world, len(logged.row)
        state = world.observe(logged.row, logged.drifted, logged.drawdown)
        relabelled = self._uniform(count) < self.relabel_fraction
        proposal = self._behave(state) if self.act is None else self._propose(state)
        executed = torch.where(relabelled[:, None], world.execute(proposal, state), logged.executed)
        outcome = world.outcome(executed, state)
        next_state = world.observe(logged.next_row, outcome.drifted, outcome.drawdown)
        next_weights, has_next = logged.next_executed, logged.has_next & ~relabelled
        if self.act is None:  # phase 2 asks its policy for the next action, not a behaviour
            fresh = world.execute(self._behave(next_state), next_state)
            next_weights = torch.where(relabelled[:, None], fresh, next_weights)
            has_next = relabelled | logged.has_next
        return Batch(
            self._blur(state),
            executed.float(),
            outcome.reward.float(),
            torch.where(outcome.ruined, 0.0, self.gamma).float(),
            self._blur(next_state),
            next_weights.float(),
            has_next,
        )

    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, generator=self.generator, device=self.world.device)

    def _behave(self, state: State) -> Tensor:
        personas = draw_personas(len(state.row), state.priors.shape[1], self.generator)
        return behave(personas, state, self.generator)

    def _propose(self, state: State) -> Tensor:
        """A third each: behaviours, samples of the policy, wide log-normal noise around its sample."""
        assert self.act is not None
        sampled = self.act(state).mean
        shock = torch.randn(sampled.shape, generator=self.generator, device=self.world.device)
        wide = sampled * torch.exp(WIDE_NOISE * shock)
        kind = self._uniform(len(sampled))[:, None]
        return torch.where(kind < 1 / 3, self._behave(state), torch.where(kind < 2 / 3, sampled, wide).double())

    def _blur(self, state: State) -> State:
        if self.state_noise == 0:
            return state
        assets, market = state.assets.clone(), state.market.clone()
        # The market's too: else the critic knows every day by them, and learns its return by heart.
        for features in (assets[:, :-1, :-2], market[:, : -len(PATH_SCALARS)]):
            noise = torch.randn(features.shape, generator=self.generator, device=self.world.device)
            features += self.state_noise * noise
        return state._replace(assets=assets, market=market)
