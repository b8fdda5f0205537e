"""Rollout engine on a Hugging Face model in the training process."""

from fireopd.engines.hf.engine import HFEngine

__all__ = ["HFEngine"]
