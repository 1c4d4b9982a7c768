"""Named inputs of an explanation: features of each asset and of the market, the regime, and the prior portfolios.

The path scalars and the weights held are not among them, own drawdown apart: an explanation asks why this was done
*with what was held*. "Average day" is the reference: scaled features 0 (their mean on train rows), the regimes in the
shares they have on train rows, no own drawdown, and each prior portfolio at its mean over train rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from finflow.allocators.priors import EXPERTS
from finflow.data.market_features import REGIME_PREFIX
from finflow.envs.simulator import PATH_SCALARS, State
from finflow.explanations.decision_trace import Subject

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
