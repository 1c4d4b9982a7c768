"""Transfer of weights from phase 1 to phase 2: all of them, or all but the gate for a single expert."""

from collections.abc import Mapping

import torch
from torch import Tensor

from finflow.nn.actor import Actor, Experts, PortfolioActor
from finflow.nn.networks import MlpActor, Networks


@torch.no_grad()
def hand_over(parent: Networks, child: Networks) -> str | None:
    """Copy the parent's weights into the child; one line on what was not transferred, or None.

    Critics, targets, V, trading rate and width are equal to the bit. So are experts and gate where the child has
    them; a single expert starts at the mean of the parent's tilts.

    Raises
    ------
    RuntimeError
        If the networks do not fit in any other way.
    """
    weights: Mapping[str, Tensor] = parent.state_dict()
    if child.actor.gate is not None or parent.actor.gate is None:
        child.load_state_dict(weights, strict=True)
        return None
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("actor.gate.")}
    child.load_state_dict(
        kept | {f"actor.{name}": tensor for name, tensor in _merged(parent.actor).items()}, strict=True
    )
    return "the gate is not handed over: the single expert starts at the mean of the parent's, all alike"


def _merged(actor: Actor) -> dict[str, Tensor]:
    """Weights of one expert whose tilt is the mean of all of the actor's."""
    if isinstance(actor, PortfolioActor):
        return {f"experts.{name}": tensor for name, tensor in _side_by_side(actor.experts).items()}
    assert isinstance(actor, MlpActor)
    assets = actor.sigma.bias.shape[-1] + 1
    return {f"tilt.{name}": part.unflatten(-1, (-1, assets)).mean(-2) for name, part in actor.tilt.named_parameters()}


def _side_by_side(experts: Experts) -> dict[str, Tensor]:
    """K experts of H hidden units as one of K H, its tilt the mean of theirs; each unit still sees its own features."""
    seen = experts.weight * experts.groups.T[..., None]
    return {
        "weight": seen.flatten(2)[:, :, None],
        "out": experts.out.flatten(1)[:, None] / experts.out.shape[1],
    }
