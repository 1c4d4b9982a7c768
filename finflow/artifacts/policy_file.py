"""A trained policy as one file: networks, feature scaling, and the facts of their training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from finflow.agents.base import Scales
from finflow.data.market_features import FeatureScaling
from finflow.envs.ledger import RewardModel
from finflow.errors import StorageError
from finflow.nn.networks import Networks, ObservationSpec, build_networks
from finflow.schema.algo import Network

_SCALING = "scaling."
_NETWORKS = "networks."


@dataclass(frozen=True)
class StoredPolicy:
    """What a weights file holds beside the networks: scaling, reward, spec, shape, scales of CQL.

    confidence : evidence behind the part of the tilt that is deployed, its `kappa` (`evaluation.confidence`).
    """

    networks: Mapping[str, Tensor]
    scaling: FeatureScaling
    reward: RewardModel
    spec: ObservationSpec
    shape: Network
    scales: Scales | None
    reward_facts: Mapping[str, Any]
    confidence: Mapping[str, Any] | None

    def build(self, device: torch.device) -> Networks:
        """Networks with these weights, to the bit, as they are deployed: at their confidence."""
        networks = build_networks(self.spec, self.shape, 0, device)
        networks.load_state_dict(self.networks, strict=True)
        if self.confidence is not None:
            networks.actor.confidence = float(self.confidence["kappa"])
        return networks


def to_tensors(networks: Mapping[str, Tensor], scaling: FeatureScaling) -> dict[str, Tensor]:
    """Tensors of a weights file."""
    stored = {f"{_NETWORKS}{name}": tensor.detach().cpu() for name, tensor in networks.items()}
    return stored | {f"{_SCALING}{name}": torch.from_numpy(array) for name, array in scaling.to_arrays().items()}


def to_metadata(
    spec: ObservationSpec,
    shape: Network,
    reward_facts: Mapping[str, Any],
    scales: Scales | None,
    confidence: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Metadata of a weights file, beside the facts that a parent is matched by."""
    return {
        "spec": spec.to_dict(),
        "shape": shape.model_dump(),
        "reward_facts": dict(reward_facts),
        "scales": None if scales is None else list(scales),
        "confidence": None if confidence is None else dict(confidence),
    }


def read_policy(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> StoredPolicy:
    """Inverse of `to_tensors` and `to_metadata`.

    Raises
    ------
    StorageError
        If something that belongs to a policy is missing.
    """
    try:
        arrays = {k.removeprefix(_SCALING): v.numpy() for k, v in tensors.items() if k.startswith(_SCALING)}
        scales, confidence = metadata["scales"], metadata["confidence"]
        return StoredPolicy(
            networks={k.removeprefix(_NETWORKS): v for k, v in tensors.items() if k.startswith(_NETWORKS)},
            scaling=FeatureScaling.from_arrays(arrays),
            reward=RewardModel(**metadata["reward_facts"]["reward"]),
            spec=ObservationSpec(**{key: tuple(value) for key, value in metadata["spec"].items()}),
            shape=Network(**metadata["shape"]),
            scales=None if scales is None else Scales(float(scales[0]), float(scales[1])),
            reward_facts=metadata["reward_facts"],
            confidence=confidence,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"weights: not a policy of FinFlow ({error}); train it again") from error
