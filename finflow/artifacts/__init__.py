"""Files of a run: weights, checkpoints, provenance, and the pretrained weights that phase 2 finds."""
