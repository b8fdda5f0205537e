"""Models with random weights and published shapes, created on the device."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3MoeConfig
from transformers.modeling_utils import PreTrainedModel

from fireopd.models.grouped_query_attention import use_grouped_query_attention
from gpu_checks.sizes import Sizes

DENSE: dict[str, dict[str, Any]] = {
    "Qwen3-4B": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
    "Qwen3-1.7B": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
    "Qwen3-0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
}
"""Shapes of dense models; all have eight key-value heads of size 128 and tied embeddings."""
SPARSE: dict[str, dict[str, Any]] = {
    "Qwen3-30B-A3B": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "num_experts": 128,
        "num_experts_per_tok": 8,
    }
}
"""Shapes of mixtures of experts."""
TINY: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
"""Shape that replaces all others in a test."""


@dataclass(frozen=True)
class Shape:
    """Model with its number of parameters."""

    model: PreTrainedModel
    """The model, with gradients required."""
    active: int
    """Parameters that a token uses, with the output layer, without a separate input embedding."""


def config_of(name: str, sizes: Sizes, layers: int | None = None) -> Any:
    """Return the configuration of a shape, with fewer layers on request."""
    common = {"vocab_size": 151_936, "head_dim": 128, "max_position_embeddings": 40_960, "rms_norm_eps": 1e-6}
    if name in SPARSE:
        values = common | SPARSE[name] | {"norm_topk_prob": True, "tie_word_embeddings": False}
        if sizes.tiny_models:
            values |= TINY | {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
    else:
        values = common | {"num_key_value_heads": 8, "tie_word_embeddings": True} | DENSE[name]
        values |= TINY if sizes.tiny_models else {}
    if sizes.tiny_models:
        values |= {"vocab_size": 200, "head_dim": 16, "num_key_value_heads": 1}
    if layers is not None:
        values["num_hidden_layers"] = layers
    return (Qwen3MoeConfig if name in SPARSE else Qwen3Config)(**values)


def random_model(name: str, sizes: Sizes, dtype: torch.dtype, layers: int | None = None) -> Shape:
    """Return a random model on the device, the same for all calls with equal arguments."""
    config = config_of(name, sizes, layers)
    torch.manual_seed(0)
    with sizes.device:
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model = model.to(device=sizes.device, dtype=dtype).train()
    use_grouped_query_attention()
    return Shape(model, active_parameters(model))


def active_parameters(model: PreTrainedModel) -> int:
    """Return the parameters that a token uses: of experts the chosen ones, without a separate input embedding."""
    config: Any = model.config
    total = sum(parameter.numel() for parameter in model.parameters())
    if not config.tie_word_embeddings:
        total -= model.get_input_embeddings().weight.numel()
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    if experts:
        total -= experts - experts * config.num_experts_per_tok // config.num_experts
    return total


def random_rows(sizes: Sizes, vocabulary: int, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random tokens, int64 [rows, length], and a response mask without the first quarter of each row."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, vocabulary, (rows, length), generator=generator).to(sizes.device)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:, : max(1, length // 4)] = False
    return tokens, mask
