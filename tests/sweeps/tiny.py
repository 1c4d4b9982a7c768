"""Runs of a second, for sweeps whose jobs are real."""

MARKET = ["env=synthetic", "env.synthetic.days=1500", "env.synthetic.assets=4", "env.episode_days=42", "env.num_envs=4"]
SMALL = [
    *MARKET,
    "budget.collect_episodes=8",
    "confidence=none",
    "budget.epochs=2",
    "budget.updates_per_epoch=4",
    "algo.network.hidden_dim=16",
    "algo.network.embed_dim=8",
    "hardware.threads=1",
    "tracking=none",
]
TUNE = [
    "budget.episodes=4",
    "budget.warmup_episodes=1",
    "budget.critic_warmup_updates=2",
    "budget.refit_updates=2",
    "evaluation.every_episodes=2",
]
