"""The critic's forecast for a decision: the distribution of its discounted active reward."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finflow.envs.simulator import State
from finflow.evaluation.result import Floats
from finflow.explanations.decision_trace import DecisionTrace, Subject
from finflow.losses import lower_mean

LEVELS = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class ValueDistribution:
    """The twin with the lower mean, for the executed weights.

    mean, quantiles : in units of the reward; `scale` (c) such units are an active log return of 1.
    atoms : [N_q] increasing, quantiles at (j - 1/2) / N_q.
    """

    mean: float
    quantiles: dict[str, float]
    atoms: tuple[float, ...]
    scale: float
    gamma: float


def critic_atoms(subject: Subject, state: State, weights: Floats) -> Floats:
    """Increasing quantiles [B, N_q] of the discounted reward of weights [B, n] in B states."""
    return many_atoms(subject, state, weights[:, None])[:, 0]


@torch.no_grad()
def many_atoms(subject: Subject, state: State, weights: Floats) -> Floats:
    """The same for A portfolios a state, [B, A, n] -> [B, A, N_q]; of several critics the mean of each quantile."""
    actions: Tensor = torch.as_tensor(weights, dtype=torch.float32, device=subject.world.device)
    found = [lower_mean(critic.atoms(critic.embed(state), actions)) for critic in subject.critics]
    return np.mean([atoms.sort(-1).values.double().cpu().numpy() for atoms in found], axis=0)


def value_distribution(scene: DecisionTrace, place: int) -> ValueDistribution:
    """That of one decision of a scene."""
    atoms = critic_atoms(scene.subject, scene.state_at(place), scene.track.weights[place : place + 1])[0]
    levels = np.quantile(atoms, LEVELS, method="hazen")  # atom j stands at (j - 1/2) / N_q, as it was trained
    named = {f"{100 * level:g} %": float(value) for level, value in zip(LEVELS, levels, strict=True)}
    reward = scene.subject.world.reward
    return ValueDistribution(float(atoms.mean()), named, tuple(atoms.tolist()), reward.scale, scene.subject.gamma)
