"""Groups of charts for dashboards, the most important first; TensorBoard and W&B show the same ones."""

from collections.abc import Mapping

STEPS = ("epoch", "episode")
"""Steps of phase 1 and of phase 2."""
VALIDATION = "validation_"
"""Prefix of the figures of a validation."""
_LIVED = ("return", "sharpe", "cvar", "turnover", "reward", "days", "updates")
"""Figures of an episode itself; the others are means of the updates since the one before."""
_VALIDATION = ("validation_sharpe", "validation_active_information_ratio", "validation_cvar95", "validation_turnover",
               "validation_effective_assets")  # fmt: skip
_GATE = ("validation_gate_entropy", "validation_expert_distance", "validation_gate_regime_information")
SECTIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Training health": {
        "epoch": ("v_loss", "q_loss", "policy_loss", "critic_grad_norm", "actor_grad_norm"),
        "episode": (
            "critic_loss", "actor_loss", "q_mean", "alpha", "entropy", "critic_grad_norm", "actor_grad_norm",
        ),
    },
    "Risk and return against 1/N": {
        "epoch": _VALIDATION,
        "episode": (*_VALIDATION, "return", "sharpe", "cvar", "turnover"),
    },
    "Gate and experts": {"epoch": _GATE, "episode": _GATE},
}  # fmt: skip
"""By section and step; figures of validation are net of costs, the information ratio is that of the return over 1/N."""
_TITLES = {
    "validation_active_information_ratio": "validation: information ratio against 1/N",
    "validation_cvar95": "validation: CVaR 95 %, a day",
}


def tag(step: str, figure: str) -> str:
    """`GROUP/FIGURE`, in groups that fit a screen: of validation, of the updates of phase 2, and of the step itself."""
    if figure.startswith(VALIDATION):
        return f"{step}_validation/{figure.removeprefix(VALIDATION)}"
    return f"{step}_updates/{figure}" if step == "episode" and figure not in _LIVED else f"{step}/{figure}"


def title(figure: str) -> str:
    """What a chart of `figure` is called."""
    return _TITLES.get(figure) or figure.replace("validation_", "validation: ").replace("_", " ")
