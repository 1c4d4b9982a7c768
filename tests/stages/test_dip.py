"""Phase 2 keeps what phase 1 has learnt: validation after the hand-over, day by day against the hand-over's own."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import finflow
from benchmarks.learning import gains_over_first, validations
from finflow.tracking.sink import METRICS

MARKET = [
    "env=synthetic", "env.synthetic.assets=10", "env.synthetic.days=3500", "env.synthetic.ic=0.1",
    "algo.network.hidden_dim=64", "algo.network.embed_dim=16", "algo.network.n_quantiles=16", "algo.batch_size=128",
    "algo.network.state_noise=0.6", "algo.lr=1e-3", "algo.gamma=0.9", "tracking=none",
    "evaluation.objective=active_ir", "budget.collect_episodes=100", "budget.crossfit_updates=2",
    "budget.epochs=3", "budget.updates_per_epoch=200",
]  # fmt: skip
TUNE = [
    "budget.episodes=96", "budget.warmup_episodes=4", "budget.critic_warmup_updates=150",
    "evaluation.every_episodes=16", "algo.risk_weight=0.5", "algo.entropy.target_sigma=[0.2,0.05]",
    "algo.prior_kl_coef=[0.3,0.0]", "algo.gate.lr_ratio=1.0", "algo.gate.load_balance_coef=[0.0,0.0]",
]  # fmt: skip
EMBEDDED = ["experiment=demo", "tracking=none"]
TINY = [
    "env=synthetic", "env.synthetic.assets=3", "env.synthetic.days=2000", "env.episode_days=21", "env.num_envs=4",
    "algo.network.hidden_dim=8", "algo.network.embed_dim=8", "algo.batch_size=16", "tracking=none", "init.weights=null",
    "budget.collect_episodes=6", "budget.episodes=4", "budget.warmup_episodes=0", "budget.critic_warmup_updates=1",
    "evaluation.every_episodes=2", "confidence=validation",
]  # fmt: skip


def test_each_validation_is_counted_once_and_what_confidence_measures_is_not(tmp_path: Path) -> None:
    with validations() as nets:
        run = finflow.finetune(finflow.load("finetune", [*TINY, f"output_root={tmp_path}"])).run_dir
    rows = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    sharpes = [row["validation_sharpe"] for row in rows if row.get("validation_sharpe") is not None]
    assert len(sharpes) == 2
    _, *found = [net.mean() / net.std(ddof=1) * np.sqrt(252) for net in nets]  # the first is the hand-over's
    assert found == pytest.approx(sharpes, abs=1e-9)


@pytest.mark.slow
def test_planted_alpha_never_dips_below_phase_one_and_ends_above(tmp_path: Path) -> None:
    gains = _gains(MARKET, TUNE, tmp_path)
    assert len(gains) == 6
    assert gains.min() > -1
    assert gains[-1] > 0


@pytest.mark.slow
def test_the_embedded_market_never_dips_below_phase_one(tmp_path: Path) -> None:
    """Learners as they come, with the demo's budgets: 472 updates of phase 2, the actor's in the last 372 of them."""
    gains = _gains(EMBEDDED, [], tmp_path)
    assert len(gains) == 4
    assert gains.min() > -1


def _gains(market: list[str], tune: list[str], root: Path) -> NDArray[np.float64]:
    """Each later validation over the hand-over's own, in paired standard errors."""
    finflow.pretrain(finflow.load("pretrain", [*market, f"output_root={root}"]))
    with validations() as nets:
        finflow.finetune(finflow.load("finetune", [*market, *tune, f"output_root={root}"]))
    gains = np.array(gains_over_first(nets))
    print(gains)
    return gains
