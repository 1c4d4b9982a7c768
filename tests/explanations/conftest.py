"""A small market, a policy whose every parameter is away from its start, and its validation window as lived."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from finflow.agents.learner import GreedyPolicy
from finflow.config.compose import load
from finflow.envs.ledger import Accounting
from finflow.envs.simulator import State
from finflow.evaluation.backtest import backtest
from finflow.explanations.decision_trace import DecisionTrace, Subject, make_scene
from finflow.nn.actor import Decision
from finflow.nn.networks import Networks, build_networks
from finflow.schema.sections import Network
from finflow.stages.prepare import Prepared, fit, load_market

MakeSubject = Callable[..., Subject]
MakeScene = Callable[..., DecisionTrace]
CPU = torch.device("cpu")
MARKET = ["env=synthetic", "env.synthetic.days=1700", "env.synthetic.assets=8"]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    place = tmp_path_factory.mktemp("market")
    config = load("finetune", [*MARKET, f"output_root={place}"])
    return fit(config, load_market(config), CPU)


def scattered(prepared: Prepared, seed: int) -> Networks:
    """Networks drawn from `seed`, heads that begin at zero included."""
    shape = Network.model_construct(**{**load("finetune").algo.network.model_dump(), "embed_dim": 8, "hidden_dim": 16})
    networks = build_networks(prepared.spec, shape, seed, CPU)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        networks.actor.rate[-1].bias.fill_(-2.0)
    return networks


@pytest.fixture(scope="session")
def make_subject(prepared: Prepared) -> MakeSubject:
    def make(seed: int = 0, **rules: float) -> Subject:
        """A subject whose networks stem from `seed`, under a desk's rules."""
        networks = scattered(prepared, seed)
        world = replace(prepared.world, accounting=replace(prepared.accounting, **rules))
        policy = GreedyPolicy(networks.actor, world, prepared.fold.entries)
        return Subject(prepared.market, prepared.fold, world, prepared.spec, policy, (networks.critic,), 0.99)

    return make


@pytest.fixture(scope="session")
def make_track_scene(make_subject: MakeSubject) -> MakeScene:
    def make(subject: Subject | None = None, window: str = "validation") -> DecisionTrace:
        subject = subject or make_subject()
        span = getattr(subject.fold, window)
        accounting: Accounting = subject.world.accounting
        track = backtest(subject.market, span, accounting, {"policy": subject.policy.act})["policy"]
        return make_scene(subject, span, track)

    return make


@pytest.fixture(scope="session")
def subject(make_subject: MakeSubject) -> Subject:
    return make_subject()


@pytest.fixture(scope="session")
def scene(make_track_scene: MakeScene, subject: Subject) -> DecisionTrace:
    return make_track_scene(subject)


@dataclass
class Linear:
    """Stands for an actor whose gate scores and first weight are linear in the inputs: all answers are known."""

    assets: torch.Tensor
    market: torch.Tensor
    priors: torch.Tensor
    training: bool = False
    kink: bool = False

    def eval(self) -> "Linear":
        return self

    def train(self, mode: bool = True) -> "Linear":
        return self

    def __call__(self, state: State) -> Decision:
        score = (
            (state.assets * self.assets).sum((1, 2)) + (state.market * self.market).sum(1)
            + (state.priors * self.priors).sum((1, 2))
        )  # fmt: skip
        score = torch.relu(score) if self.kink else score
        gate = torch.softmax(torch.stack([score, torch.zeros_like(score)], 1), 1)
        mean = score[:, None].expand(-1, state.assets.shape[1])
        return Decision(mean, mean, gate, state.priors, score, mean[:, 1:], state.tradable)


@pytest.fixture
def linear(subject: Subject, scene: DecisionTrace) -> Callable[..., Linear]:
    def make(entries: Sequence[tuple[str, tuple[int, ...], float]], *, kink: bool = False) -> Linear:
        """Coefficients, each (tensor, index, value); the others are 0."""
        state = scene.state_at(5)
        parts = {name: torch.zeros_like(getattr(state, name)[0]) for name in ("assets", "market", "priors")}
        for name, index, value in entries:
            parts[name][index] = value
        return Linear(**parts, kink=kink)

    return make


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def spread_places(scene: DecisionTrace, count: int) -> list[int]:
    """Places of `count` decisions, evenly spaced, the first purchase left out."""
    return np.linspace(1, len(scene.rows) - 1, count).astype(int).tolist()
