"""Analysis of runs and recorded rollouts: evaluation, comparison and views of trajectories."""

__all__: list[str] = []
