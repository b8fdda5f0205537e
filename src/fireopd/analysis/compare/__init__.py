"""Comparing methods: on recorded rollouts, and by training each of them with several seeds."""
