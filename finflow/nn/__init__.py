"""Networks: actor with experts and gate, critics, and the policy's distribution over portfolios."""
