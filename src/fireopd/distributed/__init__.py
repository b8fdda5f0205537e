"""Several processes: collectives, all-gather, FSDP2, sharded checkpoints."""
