"""Rollout engines on vLLM, in the training process or on servers."""

from fireopd.engines.vllm.engine import VLLMEngine
from fireopd.engines.vllm.server_engine import VLLMServerEngine

__all__ = ["VLLMEngine", "VLLMServerEngine"]
