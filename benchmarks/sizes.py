"""The work that every contender does: the same sizes, float32, one thread."""

STATE, ACTION, HIDDEN, BATCH, ATOMS, CQL_ACTIONS = 292, 21, 256, 256, 32, 10
"""Numbers in a state (as many as FinFlow has of 20 names), of an action, hidden width (two layers), transitions a
batch, quantiles, CQL's draws of each of its three kinds."""
MEMORY = 20_000  # transitions to draw batches from
