"""What phase 2's loop needs of its run: hand-over, experience, validation, checkpoints and figures."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from finflow.agents.learner import OnlineLearner
from finflow.envs.simulator import Simulator, State
from finflow.evaluation.result import Floats
from finflow.nn.layers import Decision
from finflow.seeding import torch_stream
from finflow.stages.run import Run, show_networks, walkers_of
from finflow.stages.validation import Selection, summarise_episode
from finflow.training.online import Experience, OnlinePlan, OnlineState
from finflow.training.refit import RefitState, refit
from finflow.training.replay_buffer import Batcher, ReplayBuffer
from finflow.training.rules import Figures
from finflow.training.session import Checkpointer, Stop


class FinetuneSession:
    """One run of phase 2, from its hand-over on.

    Parameters
    ----------
    memory : offline data.
    refit_updates : of the values at the hand-over; None where the reward is the parent's.
    made_of : hashes of what the run is made of, by name, for its checkpoints.
    """

    keeper: Checkpointer

    def __init__(
        self,
        run: Run,
        agent: OnlineLearner,
        memory: ReplayBuffer,
        plan: OnlinePlan,
        refit_updates: int | None,
        made_of: Mapping[str, Any],
    ) -> None:
        self.run, self.agent, self.memory, self.plan, self.tracker = run, agent, memory, plan, run.tracker
        self.refit_updates, self.made_of = refit_updates, made_of
        config, prepared, networks = run.config, run.prepared, agent.networks
        device = prepared.world.device
        simulator = Simulator(prepared.market, prepared.accounting, prepared.world.reward)
        lived = ReplayBuffer(agent.config.buffer_size, prepared.market.n, device)
        self.state, self.refitted = OnlineState.start(simulator, lived, plan), RefitState()
        self.selection = Selection(networks, config.evaluation.objective)
        self.generator = torch_stream(config.seed, "finetune/batches", device)
        self.validate = run.validator(networks)
        algo = agent.config
        noise = algo.network.state_noise
        batcher = Batcher(prepared.world, algo.relabel_fraction, noise, algo.gamma, self.generator, self.act)
        walkers = walkers_of(config, prepared, algo, "finetune/walkers") if algo.horizon else None
        self.experience = Experience(memory, batcher, walkers)
        self.monitor = run.monitor(agent, "episode", conservative=agent.cql_alpha > 0)

    def act(self, observed: State) -> Decision:
        """One draw of the policy as it stands, with which samples are relabelled."""
        return self.agent.act(observed, self.agent.acting)

    def checkpoint(self, stop: Stop) -> None:
        """Save from now on, and go on from the checkpoint that was found."""
        parts = {
            "agent": self.agent,
            "state": self.state,
            "refit": self.refitted,
            "monitor": self.monitor,
            "selection": self.selection,
            "generator": self.generator,
        }
        walkers = self.experience.walkers
        parts |= {} if walkers is None else {"walkers": walkers}
        self.keeper = self.run.checkpointer(stop, parts, self.made_of, self.monitor.check)

    def hand_over(self) -> None:
        """Fit the values to a changed reward; then the hand-over is the first candidate, and the first checkpoint."""
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
        keeper.save("episode", 0)

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
