"""Grouped-query attention by the kernels of PyTorch that need the least memory.

PyTorch 2.11 on an H100, 4,096 tokens, 32 query and 8 key-value heads, float32, forward and backward: the only kernel
for fewer key-value than query heads stores all attention probabilities (29 ms, 9.0 GB); with repeated keys and values
there is one that does not (14 ms, 0.7 GB). For one new token per row, no keys and values are repeated.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = ["decoding_mask", "grouped_query_attention", "use_grouped_query_attention"]

UNGROUPED = nn.Identity()
"""Attention layer without groups: transformers looks up in the layer whether to repeat keys and values."""


@cache
def use_grouped_query_attention() -> None:
    """Register `grouped_query_attention` as the attention `sdpa` of transformers, in the whole process.

    The name stays, since architectures with sparse attention build their masks for this name only. PyTorch takes no
    attention of cuDNN from then on: on Hopper it is the first choice, and builds a plan for each new shape, which takes
    longer than the attention, and most micro-batches have a shape of their own. Both are done once: what a program
    sets afterwards stays.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)
    AttentionInterface.register("sdpa", grouped_query_attention)
    AttentionMaskInterface.register("sdpa", decoding_mask)


def grouped_query_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Compute the same attention as the SDPA implementation of transformers.

    For a single new token, the query heads of a group are folded into the query dimension of their shared key-value
    head. This is exact, as a single new token attends to all earlier tokens and the queries need no causal order. For
    more tokens in float32 on a GPU, keys and values are repeated.

    Args:
        module: attention layer.
        query: float [B, H, Q, d].
        key: float [B, G, K, d]. Query heads n * H / G to (n + 1) * H / G - 1 share key-value head n.
        value: float [B, G, K, d].
        attention_mask: bool [B, 1, Q, K], True for visible tokens; None if all are visible.
        scaling: factor of the attention scores.
        position_bias: bias of the attention scores.
        settings: further arguments of the SDPA implementation.

    Returns:
        float [B, Q, H, d], and None in place of attention weights.
    """
    rows, heads, queries, width = query.shape
    per_head_mask = attention_mask is not None and attention_mask.shape[1] > 1
    other = position_bias is not None or settings.get("cache") is not None or settings.get("dropout")
    if queries > 1 or heads == key.shape[1] or per_head_mask or other:
        settings |= {"scaling": scaling, "position_bias": position_bias}
        if settings.get("cache") is None and stores_probabilities(query, key):
            key, value = (part.repeat_interleave(heads // key.shape[1], dim=1) for part in (key, value))
            if settings.get("is_causal") is None:
                settings["is_causal"] = getattr(module, "is_causal", True)
            module = UNGROUPED
        attended, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return attended, None
    folded = query.reshape(rows, key.shape[1], -1, width)
    attended = scaled_dot_product_attention(folded, key, value, attn_mask=attention_mask, scale=scaling)
    return attended.reshape(rows, 1, heads, -1), None


def stores_probabilities(query: Tensor, key: Tensor) -> bool:
    """Return whether PyTorch would store all attention probabilities of grouped queries [B, H, Q, d]."""
    grouped = query.is_cuda and query.dtype == torch.float32 and key.shape[1] != query.shape[1]
    return grouped and not torch.is_autocast_enabled("cuda")  # which converts to half precision later


def decoding_mask(
    *,
    q_length: int,
    kv_length: int,
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    **settings: Any,
) -> Tensor | None:
    """Return the mask of the SDPA implementation of transformers.

    For a mask that hides no token, transformers returns None instead. To find out, it waits for the device. The decoder
    gives a mask for a new token only where it hides tokens of some row.

    Args:
        q_length: new tokens of a row.
        kv_length: all tokens of a row.
        attention_mask: [B, kv_length], True for visible tokens; None if all are visible.
        allow_is_causal_skip: whether None may be returned.
        settings: further arguments of the SDPA implementation.

    Returns:
        bool [B, 1, q_length, kv_length], or None.
    """
    masked = attention_mask is not None and kv_length > q_length == 1
    skip = allow_is_causal_skip and not masked
    settings |= {"q_length": q_length, "kv_length": kv_length, "attention_mask": attention_mask}
    return sdpa_mask(**settings, allow_is_causal_skip=skip)
