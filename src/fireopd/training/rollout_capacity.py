"""Key-value cache of vLLM: how many tokens fit the memory of its GPUs."""

from fireopd.engines.vllm.engine import VLLMEngine
from fireopd.models.loading import load_config
from fireopd.models.model_size import count_parameters, dtype_size
from fireopd.training.memory_estimate import cache_per_token
from fireopd.training.run_plan import RunPlan

__all__ = ["cache_tokens"]

WORKSPACE = int(1.5 * 2**30)
"""Activations of a prefill and CUDA graphs of vLLM; assumed."""


def cache_tokens(plan: RunPlan, memory: int) -> int:
    """Return the tokens in the cache of one vLLM engine, with all of its GPUs; at least 0.

    Args:
        plan: a run with `VLLMEngine`.
        memory: memory of a GPU, bytes.
    """
    engine = plan.data.engine
    assert isinstance(engine, VLLMEngine)
    config, width = load_config(plan.student, "model.student"), dtype_size(engine.dtype)
    size = engine.tensor_parallel_size
    if engine.kv_cache_gib is None:
        weights = count_parameters(config) * width // size
        free = int(engine.memory_fraction * memory) - weights - WORKSPACE
    else:
        free = int(engine.kv_cache_gib * 2**30)
    return max(0, free * size // (cache_per_token(config) * width))
