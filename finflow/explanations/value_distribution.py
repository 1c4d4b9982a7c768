"""The critic's forecast for a decision, and its calibration: 21 days of realised reward against its forecasts.

A critic's atoms z(s_t) describe the discounted active reward of the whole future. After h = 21 days a part of it is
known:
    P_t = sum_{k<h} gamma^k r_{t+k}.
If the critic is right, z(s_t) has the distribution of P_t + gamma^h Z(s_{t+h}), so with F_t the distribution of the
atoms at t, the values u_tj = F_t(P_t + gamma^h z_j(s_{t+h})), over all days t and atoms j, are uniform on [0, 1]: that
is the probability integral transform, and its cumulative share the calibration curve. With gamma .99 the 21 days hold
about a third of the variance; for the rest the test only compares the critic with itself. The surprise
    D_t = P_t + gamma^h q(s_{t+h}) - q(s_t)
is sharper: its mean should be 0 (bias), and its variance that which the critic loses over these days,
    E[D^2] = E[Var z(s_t) - gamma^(2h) Var z(s_{t+h})].
The spread ratio is the square root of left over right: above 1 the critic was overconfident.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finflow.envs.simulator import State
from finflow.evaluation.result import Floats
from finflow.evaluation.sharpe_test import circular_sums
from finflow.explanations.decision_trace import DecisionTrace, Subject
from finflow.losses import lower_mean

QUANTILES = (0.05, 0.5, 0.95)


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
    levels = np.quantile(atoms, QUANTILES, method="hazen")  # atom j stands at (j - 1/2) / N_q, as it was trained
    named = {f"{100 * level:g} %": float(value) for level, value in zip(QUANTILES, levels, strict=True)}
    reward = scene.subject.world.reward
    return ValueDistribution(float(atoms.mean()), named, tuple(atoms.tolist()), reward.scale, scene.subject.gamma)


HORIZON = 21
"""Trading days after which a forecast is judged."""
LEVELS = np.round(np.arange(0.05, 1.0, 0.05), 2)
SAMPLES = 1000


@dataclass(frozen=True)
class Calibration:
    """Figures of one window; undefined ones are None.

    Attributes
    ----------
    levels, curve, low, high : nominal levels, share of u at or below each, and its 95 % interval from a circular
        block bootstrap of days (blocks of twice the horizon).
    coverage : share of u between .05 and .95, which should be .90.
    bias, bias_low, bias_high : mean of D with its 95 % interval, units of the reward.
    spread_ratio : see above; None where the critic expects no variance.
    histogram : share of u in ten equal bins, each .10 where calibrated.
    days : decisions judged; their 21 days overlap, so about days / 21 of them are independent.
    """

    levels: tuple[float, ...]
    curve: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    coverage: float
    bias: float
    bias_low: float
    bias_high: float
    spread_ratio: float | None
    histogram: tuple[float, ...]
    days: int
    horizon: int


def calibrate(scene: DecisionTrace, rng: np.random.Generator) -> Calibration | None:
    """Calibration over a scene's window; None where it is shorter than twice the horizon."""
    horizon = scene.subject.market.calendar.rows(HORIZON)
    if len(scene.rows) < 2 * horizon:
        return None
    subject, track = scene.subject, scene.track
    atoms = critic_atoms(subject, scene.state, track.weights)
    benchmark = np.log1p(subject.market.benchmark[scene.rows + 1])
    terms, _ = subject.world.reward.components(track.net, track.turnover, benchmark, track.drawdown_before)
    return judge_atoms(atoms, np.sum(list(terms.values()), axis=0), subject.gamma, rng, horizon)


def judge_atoms(
    atoms: Floats, reward: Floats, gamma: float, rng: np.random.Generator, horizon: int = HORIZON
) -> Calibration:
    """Judge increasing atoms [R, N_q] by the rewards [R] that followed, `horizon` of them."""
    days = len(reward) - horizon
    discount = gamma ** np.arange(horizon)
    partial = np.lib.stride_tricks.sliding_window_view(reward, horizon)[:days] @ discount
    before, after = atoms[:days], atoms[horizon:]
    reached = partial[:, None] + gamma**horizon * after
    u = np.stack([distribution(b, r) for b, r in zip(before, reached, strict=True)])
    shares = (u[:, :, None] <= LEVELS).mean(1)
    surprise = reached.mean(1) - before.mean(1)
    expected = float((before.var(1) - gamma ** (2 * horizon) * after.var(1)).mean())
    drawn = np.concatenate([shares, surprise[:, None]], 1)
    low, high = _interval(drawn, 2 * horizon, rng)
    return Calibration(
        levels=tuple(LEVELS.tolist()),
        curve=tuple(shares.mean(0).tolist()),
        low=tuple(low[:-1].tolist()),
        high=tuple(high[:-1].tolist()),
        coverage=float(((u > 0.05) & (u <= 0.95)).mean()),
        bias=float(surprise.mean()),
        bias_low=float(low[-1]),
        bias_high=float(high[-1]),
        spread_ratio=float(np.sqrt((surprise**2).mean() / expected)) if expected > 0 else None,
        histogram=tuple((np.histogram(u, np.linspace(0, 1, 11))[0] / u.size).tolist()),
        days=days,
        horizon=horizon,
    )


def distribution(atoms: Floats, values: Floats) -> Floats:
    """F(values) of increasing atoms [N] at levels (j - 1/2) / N, linear between them; half an atom lies outside."""
    count = len(atoms)
    outside = 0.5 / count / 2
    return np.interp(values, atoms, (np.arange(count) + 0.5) / count, left=outside, right=1 - outside)


def _interval(daily: Floats, block: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """95 % interval of the mean of daily rows [R, P], by circular blocks."""
    days = len(daily)
    block = min(block, days)
    count = -(-days // block)
    starts = rng.integers(0, days, (SAMPLES, count))
    means = circular_sums(daily, block)[starts].sum(1) / (count * block)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return low, high
