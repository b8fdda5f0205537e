"""Rollout engines on vLLM, in this process or behind servers."""
