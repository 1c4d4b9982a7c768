"""Counterfactuals: the smallest change of inputs that changes a decision, in standard deviations of the train rows.

Two questions a day: when would another expert lead the gate, and when would the largest trade have turned round? Two
answers each, both found on the network and evaluated again: the smallest move of one input alone, searched along the
axes with the steepest slopes, and the shortest move of all together, by steps along the gradient (DeepFool,
Moosavi-Dezfooli et al. 2016) and bisection. Only features of assets and of the market move, but for the regime label,
which has a question of its own; holdings and prior portfolios stay. A scaled feature stays within its bounds of +-5.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from finflow.data.features import CLIP, REGIME_PREFIX
from finflow.data.market import REGIMES
from finflow.envs.simulator import State
from finflow.explanations.attribution import OWN_DRAWDOWN, REGIME, Input, named_inputs, path_state
from finflow.explanations.decision_trace import Subject
from finflow.nn.actor import Decision

Margin = Callable[[Decision], Tensor]
"""B decisions -> [B], positive as long as the decision is unchanged."""

STEEPEST = 48
"""Inputs that are tried alone, those with the largest slope of the margin."""
GRID, BISECTIONS, WALK = 41, 20, 40
OVERSHOOT = 1.02
BEYOND = -1e-6
"""Margin from which a decision counts as flipped: clear of float32, so that it is flipped when evaluated again."""


@dataclass(frozen=True)
class Move:
    """One input: what it was and where it has to go, in train standard deviations from the train mean."""

    label: str
    before: float
    after: float

    @property
    def size(self) -> float:
        """Absolute move, train standard deviations."""
        return abs(self.after - self.before)


@dataclass(frozen=True)
class Flip:
    """The smallest changes that flip one property of a decision.

    question : what changes; single : the smallest move of one input, None where none within bounds does it;
    joint : length of the shortest move found of all inputs together, None likewise; parts : its largest components.
    """

    question: str
    single: Move | None
    joint: float | None
    parts: tuple[Move, ...]


class Search:
    """Moves of one state's features (B = 1) through an actor."""

    def __init__(self, subject: Subject, state: State) -> None:
        fixed = (REGIME, OWN_DRAWDOWN)
        tradable = state.tradable[0].tolist()
        self.inputs: list[Input] = [
            one
            for one in named_inputs(subject)
            if not one.is_prior and one.name not in fixed and (one.asset is None or tradable[one.place])
        ]
        self._actor, self._state = subject.actor, state
        self.start = torch.tensor([one.value(state) for one in self.inputs], device=state.assets.device)

    def margin(self, points: Tensor, margin: Margin) -> Tensor:
        """Margin at points [B, P]."""
        state = self._state
        market = state.market.expand(len(points), -1).clone()
        assets = state.assets.expand(len(points), -1, -1).clone()
        of_market = [p for p, one in enumerate(self.inputs) if one.asset is None]
        of_assets = [p for p, one in enumerate(self.inputs) if one.asset is not None]
        market[:, [self.inputs[p].columns[0] for p in of_market]] = points[:, of_market]
        places = [self.inputs[p].place for p in of_assets]
        assets[:, places, [self.inputs[p].columns[0] for p in of_assets]] = points[:, of_assets]
        return margin(self._actor(path_state(state, assets, market, state.priors.expand(len(points), -1, -1))))

    def slope(self, point: Tensor, margin: Margin) -> tuple[float, Tensor]:
        """Margin at one point [P] and its gradient [P]."""
        moved = point[None].clone().requires_grad_()
        with torch.enable_grad():
            value = self.margin(moved, margin).sum()
        return float(value.detach()), torch.autograd.grad(value, moved)[0][0]

    @torch.no_grad()
    def flip(self, question: str, margin: Margin) -> Flip:
        """The smallest moves that make the margin negative."""
        joint = self._walk(margin)
        if joint is None:
            return Flip(question, self._single(margin), None, ())
        change = joint - self.start
        order = torch.argsort(-change.abs(), stable=True)[:5].tolist()
        parts = tuple(self._move(p, float(joint[p])) for p in order if float(change[p]) != 0.0)
        return Flip(question, self._single(margin), float(change.norm()), parts)

    def _move(self, place: int, after: float) -> Move:
        return Move(self.inputs[place].label, float(self.start[place]), after)

    def _single(self, margin: Margin) -> Move | None:
        _, slope = self.slope(self.start, margin)
        chosen = torch.argsort(-slope.abs(), stable=True)[: min(STEEPEST, len(self.inputs))]
        grid = torch.linspace(-CLIP, CLIP, GRID, device=self.start.device)
        points = self.start.repeat(len(chosen), GRID, 1)
        points.scatter_(2, chosen.view(-1, 1, 1).expand(-1, GRID, 1), grid.view(1, -1, 1).expand(len(chosen), -1, 1))
        flipped = self.margin(points.view(-1, len(self.inputs)), margin).view(len(chosen), GRID) < BEYOND
        sizes = torch.where(flipped, (grid - self.start[chosen][:, None]).abs(), torch.inf)
        nearest = sizes.argmin(1)
        found = torch.isfinite(sizes.gather(1, nearest[:, None])[:, 0])
        if not bool(found.any()):
            return None
        chosen, goal = chosen[found], points[found, nearest[found]]
        ends = self._bisect(self.start.expand_as(goal), goal, margin)
        size = (ends - self.start).abs().gather(1, chosen[:, None])[:, 0]
        best = int(size.argmin())
        return self._move(int(chosen[best]), float(ends[best, chosen[best]]))

    def _walk(self, margin: Margin) -> Tensor | None:
        """A point beyond the boundary by steps along the gradient, brought back to it along the straight line."""
        point = self.start.clone()
        for _ in range(WALK):
            value, slope = self.slope(point, margin)
            if value < BEYOND:
                return self._bisect(self.start[None], point[None], margin)[0]
            steep = float(slope.square().sum())
            if steep < 1e-16:
                return None
            point = (point - OVERSHOOT * (value - 2 * BEYOND) / steep * slope).clamp(-CLIP, CLIP)
        return None

    def _bisect(self, inside: Tensor, outside: Tensor, margin: Margin) -> Tensor:
        """Points just beyond the boundary between [B, P] on either side of it."""
        low, high = torch.zeros(len(outside), 1), torch.ones(len(outside), 1)
        low, high = low.to(outside), high.to(outside)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            beyond = self.margin(torch.lerp(inside, outside, middle), margin)[:, None] < BEYOND
            low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
        return torch.lerp(inside, outside, high)


def leader_margin(leader: int) -> Margin:
    """Lead of one expert over the next in the gate, as a log ratio."""

    def margin(decision: Decision) -> Tensor:
        scores = torch.log(decision.gate.clamp_min(1e-12))
        others = scores.clone()
        others[:, leader] = -torch.inf
        return scores[:, leader] - others.amax(-1)

    return margin


def trade_margin(asset: int, held: float, bought: bool) -> Margin:
    """How far the aim lies beyond the weight held, in the direction of the trade; fraction of net asset value.

    The trade is the rate times this gap and the rate is positive, so both turn round together; the gap alone does not
    fade where the rate does.
    """
    sign = 1.0 if bought else -1.0

    def margin(decision: Decision) -> Tensor:
        return sign * (decision.aim[:, asset] - held)

    return margin


@torch.no_grad()
def leaders_by_regime(subject: Subject, state: State) -> dict[str, str]:
    """Leading expert of the gate under each regime label, all else equal."""
    columns = [subject.spec.market_features.index(f"{REGIME_PREFIX}{name}") for name in REGIMES]
    market = state.market.repeat(len(REGIMES), 1)
    market[:, columns] = torch.eye(len(REGIMES), device=market.device)
    count = len(market)
    moved = path_state(state, state.assets.expand(count, -1, -1), market, state.priors.expand(count, -1, -1))
    leaders = subject.actor(moved).gate.argmax(-1).tolist()
    return {name: subject.spec.experts[leader] for name, leader in zip(REGIMES, leaders, strict=True)}
