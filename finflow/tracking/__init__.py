"""Where training curves go: `metrics.jsonl`, TensorBoard, Weights & Biases, the terminal."""
