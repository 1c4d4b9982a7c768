"""Names of the files in a run folder."""

CHECKPOINTS = "checkpoints"
VALIDATION = "validation.csv"
CONFIG, RUN, SUMMARY, WEIGHTS = "config.yaml", "run.json", "summary.json", "weights.safetensors"
SWEEP = "sweep.json"
"""In the folder of a sweep: what its jobs are."""
