"""Learners, each with one `update` from one batch: IQL, TD3+BC, value gradients, B-Cell and SAC."""
