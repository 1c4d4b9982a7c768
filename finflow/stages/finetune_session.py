"""Hand-over and training of phase 2, from their start or from a checkpoint."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from finflow.agents.learner import OnlineLearner
from finflow.envs.simulator import Simulator
from finflow.evaluation.result import Floats
from finflow.seeding import torch_stream
from finflow.stages.run import Run, walkers_of
from finflow.stages.tracking_events import show_networks
from finflow.stages.validation import Selection, summarise_episode
from finflow.tracking.sink import Tracker
from finflow.training.batches import Batcher
from finflow.training.interrupts import stop_when_asked
from finflow.training.online import Experience, OnlinePlan, OnlineState, train_online
from finflow.training.refit import RefitState, refit
from finflow.training.replay_buffer import ReplayBuffer
from finflow.training.rules import Figures


class Tuning:
    """Hand-over and training of one run, from its start or from a checkpoint.

    Parameters
    ----------
    refit_updates : of the values at the hand-over; None where the reward is the parent's.
    """

    def __init__(
        self, run: Run, agent: OnlineLearner, memory: ReplayBuffer, plan: OnlinePlan, refit_updates: int | None
    ) -> None:
        self.run, self.agent, self.memory, self.plan, self.refit_updates = run, agent, memory, plan, refit_updates
        config, prepared, networks = run.config, run.prepared, agent.networks
        device = prepared.world.device
        simulator = Simulator(prepared.market, prepared.accounting, prepared.world.reward)
        lived = ReplayBuffer(agent.config.buffer_size, prepared.market.n, device)
        self.state, self.refitted = OnlineState.start(simulator, lived, plan), RefitState()
        self.selection = Selection(networks, config.evaluation.objective)
        self.generator = torch_stream(config.seed, "finetune/batches", device)
        self.validate = run.validator(networks)
        algo = agent.config
        self.walkers = walkers_of(config, prepared, algo, "finetune/walkers") if algo.horizon else None
        self.monitor = run.monitor(agent, "episode", conservative=agent.cql_alpha > 0)

    def run_through(self, made_of: Mapping[str, Any]) -> dict[str, float | None]:
        """Train from the current state to the end; returns the last episode's row.

        Parameters
        ----------
        made_of : hashes of what the run is made of, by name, for its checkpoints.
        """
        parts = {
            "agent": self.agent,
            "state": self.state,
            "refit": self.refitted,
            "monitor": self.monitor,
            "selection": self.selection,
            "generator": self.generator,
        }
        parts |= {} if self.walkers is None else {"walkers": self.walkers}
        with stop_when_asked() as stop:
            keeper = self.keeper = self.run.checkpointer(stop, parts, made_of, self.monitor.check)
            if self.selection.at is None:
                self.hand_over()
                keeper.save("episode", 0)
            with self.run.stopwatch.phase("updates"):
                last = self.train()
            keeper.finish("episode", self.state.finished)
        return last

    def hand_over(self) -> None:
        """Fit the values to a changed reward; then the hand-over is the first candidate."""
        run, keeper, refitted = self.run, self.keeper, self.refitted
        if self.refit_updates is not None:
            with run.stopwatch.phase("refit"):
                refit(
                    self.agent, self.memory, run.prepared.world, run.tracker, self.refit_updates, refitted,
                    pause=lambda: keeper.pause("refit", refitted.updates, regular=False), generator=self.generator,
                )  # fmt: skip
            self.measure_scales()
            self.agent.hand_over()
        score = self.evaluate(0)
        if self.run.config.init.weights is not None:
            self.monitor.handed_over(score)

    def train(self) -> dict[str, float | None]:
        """The loop of phase 2."""
        run, agent, algo = self.run, self.agent, self.agent.config
        batcher = Batcher(
            run.prepared.world,
            algo.relabel_fraction,
            algo.network.state_noise,
            algo.gamma,
            self.generator,
            lambda observed: agent.act(observed, agent.acting),
        )
        return train_online(agent, self.plan, self.state, Experience(self.memory, batcher, self.walkers), self)

    @property
    def tracker(self) -> Tracker:
        """The run's."""
        return self.run.tracker

    def pause(self) -> None:
        """Save a checkpoint where one is due, and stop where that was asked for."""
        self.keeper.pause("episode", self.state.finished)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Count the seconds of a named phase of the run."""
        return self.run.stopwatch.phase(name)

    def summarise(self, net: Floats, turnover: Floats) -> Figures:
        """Figures of an episode, annualised by the market's calendar."""
        return summarise_episode(net, turnover, year=self.run.prepared.market.calendar.year)

    def evaluate(self, episode: int) -> dict[str, float | None]:
        """Validate the agent, and keep it if it is the best so far."""
        run = self.run
        with run.stopwatch.phase("validation"):
            score = self.validate()
            show_networks(run.tracker, "episode", episode, self.agent.networks, run.gate(self.validate))
            if self.selection.consider(episode, score, self.validate.series(run.config.evaluation.objective)):
                run.save(self.selection.weights, self.agent.scales)
                self.keeper.found_best()
        return score

    def before_cql(self) -> None:
        """Measure the scale of CQL where no parent brought one."""
        if self.agent.scales is None:
            self.measure_scales()

    def measure_scales(self) -> None:
        """The scale of CQL, on the critic as it stands."""
        self.agent.scales = self.run.measure_scales(self.agent.networks, self.memory)
