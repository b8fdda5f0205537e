"""Training: data module, checks, step, update, metrics, checkpoints."""
