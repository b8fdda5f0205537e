"""Rollout engines, which sample responses from their own copy of the student. Entry-point group: `fireopd.engines`."""

from fireopd.engines.base import NO_WEIGHTS, MemoryPart, RolloutEngine, RowRequest
from fireopd.engines.hf.engine import HFEngine
from fireopd.engines.vllm.engine import VLLMEngine
from fireopd.engines.vllm.server_engine import VLLMServerEngine

__all__ = ["NO_WEIGHTS", "HFEngine", "MemoryPart", "RolloutEngine", "RowRequest", "VLLMEngine", "VLLMServerEngine"]
