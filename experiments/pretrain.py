"""Phase 1: offline pretraining on the train days of one fold."""

from pathlib import Path

import entry
from finflow.schema import Config

EXAMPLES = {
    "experiment=demo": "small budgets: a result in a minute",
    "seed=1": "another seed",
    "env=csv env.path=prices.csv": "your own daily prices",
    "market_regime=volatile": "the training guide's values for volatile markets",
    "fold=2008": "another test window (2000, 2008, 2013, 2018)",
    "budget.epochs=20": "passes over the offline data",
    "budget.collect_episodes=1000": "episodes of offline data",
    "offline.dataset=dataset.npz": "offline data from collect.py",
    "algo.lr=1e-4": "learning rate",
    "algo.expectile=0.8": "expectile of the value loss",
    "output_root=DIR": "where everything is written (default outputs)",
}


def run(config: Config, folder: Path) -> entry.Result:
    """Pretrain in `folder`."""
    from finflow.stages.pretrain import pretrain  # alone: the pipeline loads every stage

    result = pretrain(config, folder)
    losses = {"v_loss": result.v_loss, "q_loss": result.q_loss, "policy_loss": result.policy_loss}
    print(entry.timing(result.run_dir))
    print(f"Last epoch: {entry.figures(losses)}")
    if result.confidence is not None:
        print(f"Confidence: {result.confidence.line()}")
    return result


if __name__ == "__main__":
    entry.main("pretrain", "Learn values and a policy offline (IQL) from collected episodes.", EXAMPLES, run)
