"""Composing, checking and reading configurations with Hydra and OmegaConf."""
