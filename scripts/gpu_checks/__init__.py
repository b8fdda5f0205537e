"""Questions of scripts/check_gpu.py, one per module. `ask(sizes)` of a module yields the rows of its table."""
