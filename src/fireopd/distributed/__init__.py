"""Multi-process execution: collectives, all-gather of batches, FSDP2, sharded checkpoints."""

__all__ = ["collectives", "fsdp", "gather", "gradient_clipping", "sharded_checkpoints"]
