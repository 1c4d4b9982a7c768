"""Integrated gradients (Sundararajan et al. 2017): attributes a decision to its inputs, relative to an average day.

The share of an input is (x - x0) times the mean gradient on the straight line from the average day x0 to the day x.
Shares sum to f(x) - f(x0) exactly; what the numerical integral leaves is the completeness residual, which is shown.

Inputs are the features of each asset and of the market, the regime, and the prior portfolios. The path scalars and the
weights held are not among them, own drawdown apart: an explanation asks why this was done *with what was held*. On the
"average day" scaled features are 0 (their mean on train rows), the regimes have the shares that they have on train
rows, there is no own drawdown, and each prior portfolio is at its mean over train rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor, nn

from finflow.allocators.priors import EXPERTS
from finflow.data.features import REGIME_PREFIX
from finflow.envs.simulator import PATH_SCALARS, State
from finflow.evaluation.result import Floats
from finflow.explanations.decision_trace import DecisionTrace, Subject
from finflow.nn.actor import Decision

REGIME, OWN_DRAWDOWN, PRIOR = "regime", PATH_SCALARS[0], "prior"


@dataclass(frozen=True)
class Input:
    """One named input.

    Attributes
    ----------
    name : the feature's, `regime`, `own_drawdown`, or `prior:EXPERT`.
    asset : the name whose feature it is; None for inputs of the whole market.
    place : index into the assets (or -1), and the columns of the tensor that it covers.
    """

    name: str
    asset: str | None
    place: int
    columns: tuple[int, ...]

    @property
    def label(self) -> str:
        """Name with its asset, as shown."""
        return self.name if self.asset is None else f"{self.asset} {self.name}"

    def value(self, state: State) -> float | None:
        """What it is in the first of B states, in train standard deviations; None where it is no single number."""
        if len(self.columns) != 1 or self.name == OWN_DRAWDOWN:  # a prior has none
            return None
        one = state.market[0] if self.asset is None else state.assets[0, self.place]
        return float(one[self.columns[0]])

    @property
    def is_prior(self) -> bool:
        """Whether it is an expert's whole prior portfolio."""
        return self.name.startswith(f"{PRIOR}:")


def named_inputs(subject: Subject) -> tuple[Input, ...]:
    """All inputs of a subject, in a fixed order: assets' features, market features, regime, drawdown, priors."""
    spec = subject.spec
    found = [
        Input(name, asset, i, (f,))
        for i, asset in enumerate(subject.assets[:-1])
        for f, name in enumerate(spec.features)
    ]
    labels = [m for m, name in enumerate(spec.market_features) if name.startswith(REGIME_PREFIX)]
    found += [Input(name, None, -1, (m,)) for m, name in enumerate(spec.market_features) if m not in labels]
    found += [Input(REGIME, None, -1, tuple(labels))] if labels else []
    found.append(Input(OWN_DRAWDOWN, None, -1, (len(spec.market_features),)))
    return (*found, *(Input(f"{PRIOR}:{name}", None, k, ()) for k, name in enumerate(EXPERTS)))


def average_day(subject: Subject, state: State) -> State:
    """B states with every named input at its average over train rows; what is held, and the masks, stay."""
    assets, market = state.assets.clone(), state.market.clone()
    assets[..., : len(subject.spec.features)] = 0.0
    market[:, : len(subject.spec.market_features) + 1] = 0.0
    for m, name in enumerate(subject.spec.market_features):
        if name.startswith(REGIME_PREFIX):
            market[:, m] = subject.average_market[m]
    priors = subject.average_priors * state.tradable[:, None]
    return state._replace(assets=assets, market=market, priors=priors / priors.sum(-1, keepdim=True))


def gather(inputs: Sequence[Input], assets: Tensor, market: Tensor, priors: Tensor) -> Tensor:
    """Sum over each input's own entries, of [B, n, F + 2], [B, M + 2] and [B, K, n] -> [B, P]."""
    columns: list[Tensor] = []
    for one in inputs:
        if one.is_prior:
            columns.append(priors[:, one.place].sum(-1))
        elif one.asset is None:
            columns.append(market[:, list(one.columns)].sum(-1))
        else:
            columns.append(assets[:, one.place, one.columns[0]])
    return torch.stack(columns, -1)


Target = Callable[[Decision], Tensor]
"""B decisions -> [B], the explained quantity."""

TOLERANCE, MOST, ROUNDING = 1e-3, 5e-5, 2e-8
"""Residual at which the integral is fine enough: a share of the sum of |shares|, at most half a basis point of wealth,
and never less than what float32 leaves of a weight."""
MOVED = ("assets", "market", "priors")
STEPS = (32, 64, 128, 256, 512, 1024, 2048)
CHUNK = 256


@dataclass(frozen=True)
class Attribution:
    """f(x) = `average` + sum of `shares` [P] + `residual`, f(x) = `value`; `steps` points of the integral were used."""

    inputs: tuple[Input, ...]
    shares: Floats
    value: float
    average: float
    residual: float
    steps: int


def integrated_gradients(
    actor: nn.Module, subject: Subject, state: State, target: Target, tolerance: float = TOLERANCE
) -> Attribution:
    """Shares of every named input in `target` of one state (B = 1), against the average day.

    Parameters
    ----------
    actor : the subject's, or another one with the same inputs; its dropout is off.
    tolerance : see `TOLERANCE`.
    """
    average = average_day(subject, state)
    training = actor.training
    actor.eval()
    with torch.no_grad():
        value, start = (float(target(actor(one))) for one in (state, average))
    inputs = named_inputs(subject)
    shares, residual, steps = np.zeros(len(inputs)), value - start, 0
    for steps in STEPS:
        shares = _integrate(actor, state, average, target, inputs, steps)
        residual = value - start - float(shares.sum())
        if abs(residual) <= max(min(tolerance * float(np.abs(shares).sum()), MOST), ROUNDING):
            break
    actor.train(training)
    return Attribution(inputs, shares, value, start, residual, steps)


def _integrate(
    actor: nn.Module, state: State, average: State, target: Target, inputs: tuple[Input, ...], steps: int
) -> Floats:
    """Gauss-Legendre on [0, 1]: exact for smooth paths with few points, and kinks are met by more of them."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    at, weight = torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
    total = torch.zeros(len(inputs), dtype=torch.float64)
    for chunk in range(0, steps, CHUNK):
        part = at[chunk : chunk + CHUNK].to(state.assets)
        moved = [
            torch.lerp(start.expand(len(part), *start.shape[1:]), end, part.view(-1, *[1] * (start.dim() - 1)))
            for start, end in ((getattr(average, name), getattr(state, name)) for name in MOVED)
        ]
        with torch.enable_grad():
            found = target(actor(path_state(state, *(m.requires_grad_() for m in moved)))).sum()
        slopes = torch.autograd.grad(found, moved, materialize_grads=True)
        ends = (getattr(state, name) - getattr(average, name) for name in MOVED)
        shares = gather(inputs, *(slope * end for slope, end in zip(slopes, ends, strict=True)))
        total += (shares.double().cpu() * weight[chunk : chunk + CHUNK, None]).sum(0)
    return total.numpy()


def path_state(state: State, assets: Tensor, market: Tensor, priors: Tensor) -> State:
    """One state (B = 1) with other inputs, repeated to their B."""
    count = len(assets)
    repeated = State(*(part.expand(count, *part.shape[1:]) for part in state))
    return repeated._replace(assets=assets, market=market, priors=priors)


DAYS = 24


@dataclass(frozen=True)
class Importance:
    """Shares of the inputs by name, over assets and days; each run's sum to 1.

    share : mean over runs. low, high : 95 % t-interval of that mean, cut at 0 and 1; None for a single run. days : of
    each run's window that were looked at, evenly spaced; the target is the weight of the day's largest trade.
    """

    names: tuple[str, ...]
    share: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    runs: int
    days: int


def importance(scenes: Sequence[DecisionTrace]) -> Importance:
    """Importance of each named input; one scene a run."""
    found = [_shares(scene) for scene in scenes]
    names = tuple(found[0])
    shares = np.array([[one.get(name, 0.0) for name in names] for one in found])
    middle = shares.mean(0)
    order = np.argsort(-middle, kind="stable")
    count = len(shares)
    low = high = None
    if count > 1:
        half = student.ppf(0.975, count - 1) * shares.std(0, ddof=1) / count**0.5
        low, high = (tuple(np.clip(middle + side * half, 0.0, 1.0)[order].tolist()) for side in (-1, 1))
    days = min(DAYS, *(int(scene.decided.sum()) for scene in scenes))
    return Importance(tuple(names[i] for i in order), tuple(middle[order].tolist()), low, high, count, days)


def _shares(scene: DecisionTrace) -> dict[str, float]:
    places = np.flatnonzero(scene.decided)[1:] if scene.decided.sum() > 1 else np.flatnonzero(scene.decided)
    chosen = places[np.unique(np.linspace(0, len(places) - 1, min(DAYS, len(places))).astype(np.int64))]
    total: dict[str, float] = {}
    for place in chosen.tolist():
        focus = int(np.abs(scene.target[place] - scene.track.drifted[place])[:-1].argmax())
        state, actor = scene.state_at(place), scene.subject.actor
        found = integrated_gradients(actor, scene.subject, state, lambda d, i=focus: d.mean[:, i], tolerance=0.01)
        size = float(np.abs(found.shares).sum()) or 1.0
        for one, share in zip(found.inputs, found.shares.tolist(), strict=True):
            total[one.name] = total.get(one.name, 0.0) + abs(share) / size / len(chosen)
    return total
