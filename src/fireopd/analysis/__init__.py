"""Analysis of runs and recorded rollouts."""
