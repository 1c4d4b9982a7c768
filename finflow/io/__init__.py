"""Files: atomic writes, locks, hashes, and tensors on disk without pickle."""
