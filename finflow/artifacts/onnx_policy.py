"""A trained policy as ONNX, with the scaling of its features inside; it needs the extra `export`.

Its inputs are what the policy knows at a close, unscaled. B decisions, d risky assets, n = d + 1 assets with cash last,
F features, M market features, K priors.
"""

import json
import logging
import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finflow.allocators.priors import EXPERTS
from finflow.data.features import CLIP, FeatureScaling
from finflow.data.market import ABSENT, TRADABLE, Market
from finflow.envs.simulator import View, joined
from finflow.errors import ConfigError
from finflow.nn.actor import Actor

Arrays = Mapping[str, NDArray[Any]]

LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
OUTPUTS = {
    "target": "[B, n] weights that the policy wants after the decision; the limits are applied to them afterwards",
    "aim": "[B, n] weights that it moves towards; a portfolio that is entered from cash alone takes them at once",
}
INPUTS = {
    "features": "[B, d, F] float32, unscaled, in the order of assets and features; NaN where a name has no price",
    "market_features": "[B, M] float32, unscaled, in the order of market_features",
    "held": "[B, n] float32, weights just before the decision, cash last, summing to 1",
    "drawdown": "[B] float32, ln(peak / net asset value), at least 0",
    "tradable": "[B, n] bool, whether the asset can be traded at this close; cash always can",
    "decision_day": "[B] bool, whether the portfolio may be changed at this close",
    "priors": "[B, K, n] float32, the experts' prior portfolios at this close, in the order of priors",
}


class UnscaledPolicy(nn.Module):
    """The greedy policy of `INPUTS`, scaling included: gives `OUTPUTS`."""

    mean: Tensor
    std: Tensor
    market_mean: Tensor
    market_std: Tensor
    cash: Tensor

    def __init__(self, actor: Actor, scaling: FeatureScaling) -> None:
        super().__init__()
        self.actor = actor
        for name, array in scaling.to_arrays().items():
            self.register_buffer(name, torch.from_numpy(array.astype(np.float32)))
        self.register_buffer("cash", torch.eye(len(scaling.mean) + 1)[-1:])
        self.eval()

    def forward(
        self,
        features: Tensor,
        market_features: Tensor,
        held: Tensor,
        drawdown: Tensor,
        tradable: Tensor,
        decision_day: Tensor,
        priors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Target and aim, [B, n] each."""
        scaled = ((features - self.mean) / self.std).clamp(-CLIP, CLIP)
        scaled = torch.where(features.isnan(), 0.0, scaled)
        risky = nn.functional.pad(scaled, (0, 1))
        assets = torch.cat([risky, self.cash.expand(risky.shape[0], 1, -1)], 1)
        market = ((market_features - self.market_mean) / self.market_std).clamp(-CLIP, CLIP)
        view = View(torch.zeros_like(tradable[:, 0]), assets, market, tradable, decision_day, priors)
        decision = self.actor(joined(view, held, drawdown))
        return decision.mean, decision.aim


def inputs_of(
    market: Market, priors: NDArray[np.float64], rows: NDArray[np.int64], held: NDArray[Any], drawdown: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """`INPUTS` at `rows` [B] of a market, holding `held` [B, n], with own log drawdown `drawdown` [B]."""
    status = market.status[rows]
    features = np.where((status[:, :-1] == ABSENT)[..., None], np.float32(np.nan), market.features[rows])
    found = (
        features, market.market_features[rows], held.astype(np.float32), drawdown.astype(np.float32),
        status == TRADABLE, market.decision[rows], priors[rows].astype(np.float32),
    )  # fmt: skip
    return dict(zip(INPUTS, found, strict=True))


def require_libraries() -> None:
    """Raise a `ConfigError` where the extra is missing, with the command that installs it."""
    for name in LIBRARIES:
        try:
            import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"export needs {name} ({error}); pip install -c constraints.txt -e '.[export]'"
            ) from error


def onnx_bytes(policy: UnscaledPolicy, example: Arrays, metadata: Mapping[str, Any]) -> bytes:
    """The ONNX file of a policy; B is free, every other dimension is that of `example`.

    Parameters
    ----------
    example : `INPUTS` of at least two decisions.
    metadata : plain data, of which texts are kept as they are and the rest as JSON.
    """
    onnx: Any = import_module("onnx")
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own deprecated calls
            program: Any = torch.onnx.export(
                policy,
                tuple(torch.from_numpy(np.ascontiguousarray(example[name][:2])) for name in INPUTS),
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                dynamic_shapes=tuple({0: torch.export.Dim("decisions")} for _ in INPUTS),
                dynamo=True,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # traces of the source, with its paths
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(model, texts)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def answers(file: bytes, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
    """`OUTPUTS` of an ONNX file for these inputs, by onnxruntime on the CPU."""
    runtime: Any = import_module("onnxruntime")
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    feed = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), feed), strict=True))


def names_of(market: Market) -> dict[str, list[str]]:
    """Names along the dimensions of the inputs, in their order."""
    return {
        "assets": list(market.assets),
        "features": list(market.feature_names),
        "market_features": list(market.market_feature_names),
        "priors": list(EXPERTS),
    }
