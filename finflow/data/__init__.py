"""From prices to arrays: sources, checks, causal features, regimes, and train, validation and test windows."""
