"""Several trained actors as one policy: each decides in the same state, and the decisions are averaged."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from finflow.envs.world import State
from finflow.nn.actor import Actor
from finflow.nn.layers import averaged
from finflow.nn.logistic_normal import Decision


class ActorEnsemble(nn.Module):
    """Decisions of A actors as one `Decision` in float64, whose gate and experts stay exact (`layers.averaged`).

    Parameters
    ----------
    entries : rows at which a window is entered. Holding nothing but cash there, every actor buys its whole aim, so
        that the aims are averaged alike; elsewhere an actor counts by its trading rate.
    """

    entries: Tensor

    def __init__(self, actors: Sequence[Actor], entries: Iterable[int] = ()) -> None:
        super().__init__()
        self.actors = nn.ModuleList(actors)
        self._actors = list(actors)
        rows = torch.tensor(sorted(entries), dtype=torch.int64, device=next(actors[0].parameters()).device)
        self.register_buffer("entries", rows, persistent=False)

    @property
    def gate(self) -> nn.Module | None:
        """That of the first actor: all have one, or none has."""
        return self._actors[0].gate

    def whole(self) -> "ActorEnsemble":
        """See `Actor.whole`."""
        return ActorEnsemble([actor.whole() for actor in self._actors], self.entries.tolist())

    def forward(self, state: State, **settings: Any) -> Decision:
        """Decide in B states; `settings` are those of `Actor.forward`."""
        found = [actor(state, **settings) for actor in self._actors]
        many = Decision(*(_laid(parts) for parts in zip(*found, strict=True)))
        entered = torch.isin(state.row, self.entries) & (state.drifted[:, -1] >= 1.0)
        rate = torch.where(entered.repeat(len(found)), 1.0, many.rate)
        return averaged(many._replace(rate=rate), len(found))


def _laid(parts: Sequence[Tensor]) -> Tensor:
    """[B, ...] of each actor, laid flat, [A B, ...]; weights in float64, which sum to 1 within 1e-16."""
    flat = torch.cat(list(parts))
    return flat.double() if flat.is_floating_point() else flat
