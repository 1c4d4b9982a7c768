"""Phase 2: online fine-tuning of the B-Cell, from the weights of phase 1."""

from pathlib import Path

import entry
from finflow.schema import Config

EXAMPLES = {
    "experiment=demo": "small budgets: a result in a minute",
    "seed=1": "another seed",
    "market_regime=volatile": "train on days with that label, with the guide's values for them",
    "env=csv env.path=prices.csv": "your own daily prices",
    "init.weights=null": "from scratch: the ablation",
    "init.weights=DIR": "from one pretraining run (default: the newest that fits)",
    "budget.episodes=200": "episodes to train on",
    "algo.cql.alpha=10": "how conservative the critic is",
    "algo.alpha_init=0.5": "first entropy coefficient",
    "algo.lr=1e-4": "learning rate",
    "env.limits.max_weight=0.2": "most that one name may hold",
    "output_root=DIR": "where everything is written (default outputs)",
}


def run(config: Config, folder: Path) -> entry.Result:
    """Fine-tune in `folder`."""
    from finflow.evaluation.diagnostics import diagnostics_says
    from finflow.stages.finetune import finetune  # alone: the pipeline loads every stage

    result = finetune(config, folder)
    print(entry.timing(result.run_dir))
    print(f"Kept from episode {result.selected_episode} (0 is the hand-over), by validation")
    print(f"Experts and gate, kept: {diagnostics_says(result.diagnostics)}")
    print(f"Experts and gate, at the end of training: {diagnostics_says(result.diagnostics_at_end)}")
    if result.confidence is not None:
        print(f"Confidence: {result.confidence.line()}")
    return result


if __name__ == "__main__":
    entry.main("finetune", "Fine-tune five experts under a gate online (distributional SAC with CQL).", EXAMPLES, run)
