"""Comparison of methods on recorded rollouts, or by training each of them with several seeds."""

__all__: list[str] = []
