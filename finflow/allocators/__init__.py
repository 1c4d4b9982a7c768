"""Classical portfolios: the experts' priors and the baselines."""
