"""Rollout engine on a Hugging Face model in this process."""
