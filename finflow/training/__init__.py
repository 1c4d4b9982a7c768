"""The offline and the online training loop: replay buffer, schedules, checkpoints, stability monitor."""
