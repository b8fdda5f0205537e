"""Training: data module, checks, step, update, metrics, checkpoints."""

__all__: list[str] = []
