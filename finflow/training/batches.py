"""From stored indices to complete batches: relabelled actions, rewards and next states from the exact world model."""

from collections.abc import Callable

import torch
from torch import Tensor

from finflow.agents.base import Batch
from finflow.envs.collect import behave, draw_personas
from finflow.envs.simulator import State, World, joined
from finflow.nn.layers import Decision
from finflow.training.replay_buffer import Transitions

WIDE_NOISE = 0.6  # standard deviation, in log weight, of the wide noise around the policy's mean


class Batcher:
    """Completes recorded transitions to a batch.

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

    def complete(self, logged: Transitions) -> Batch:
        """Relabel a share of the rows, drawn at random, then book every row by the ledger."""
        world, count = self.world, len(logged.row)
        state = world.observe(logged.row, logged.drifted, logged.drawdown)
        chosen = torch.randperm(count, generator=self.generator, device=world.device)
        chosen = chosen[: round(self.relabel_fraction * count)]
        asked = _rows(state, chosen)
        proposal = self._behave(asked) if self.act is None else self._propose(asked)
        executed = logged.executed.index_copy(0, chosen, world.execute(proposal, asked))
        outcome = world.outcome(executed, state)
        next_state = world.observe(logged.next_row, outcome.drifted, outcome.drawdown)
        next_weights, has_next = logged.next_executed, logged.has_next.index_fill(0, chosen, self.act is None)
        if self.act is None:  # in phase 2 the next action is the policy's own
            following = _rows(next_state, chosen)
            fresh = world.execute(self._behave(following), following)
            next_weights = next_weights.index_copy(0, chosen, fresh)
        return Batch(
            self._blur(state),
            executed.float(),
            outcome.reward.float(),
            torch.where(outcome.ruined, 0.0, self.gamma).float(),
            self._blur(next_state),
            next_weights.float(),
            has_next,
        )

    def _behave(self, state: State) -> Tensor:
        personas = draw_personas(len(state.row), state.priors.shape[1], self.generator)
        return behave(personas, state, self.generator)

    def _propose(self, state: State) -> Tensor:
        """A third each: behaviours, samples of the policy, wide log-normal noise around its sample."""
        assert self.act is not None
        count = len(state.row)
        third, two_thirds = round(count / 3), round(2 * count / 3)
        behaved = self._behave(_rows(state, slice(0, third)))
        if count == 0:  # nothing to relabel: several actors cannot decide in zero states
            return behaved
        sampled = self.act(_rows(state, slice(third, count))).mean
        wide = sampled[two_thirds - third :]
        shock = torch.randn(wide.shape, generator=self.generator, device=self.world.device)
        wide = wide * torch.exp(WIDE_NOISE * shock)
        return torch.cat([behaved, sampled[: two_thirds - third].double(), wide.double()])

    def _blur(self, state: State) -> State:
        if self.state_noise == 0:
            return state
        return joined(self.world.look(state.row, self.state_noise, self.generator), state.drifted, state.drawdown)


def _rows(state: State, chosen: Tensor | slice) -> State:
    return State(*(part[chosen] for part in state))
