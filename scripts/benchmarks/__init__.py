"""What `scripts/bench.py` measures, one kind of measurement a file."""
