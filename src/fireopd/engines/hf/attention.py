"""Attention of one new token a row, where several heads of queries share keys and values."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import PreTrainedModel

NAME = "fireopd_shared_heads"
"""What transformers knows it by."""


def share_heads(model: PreTrainedModel) -> None:
    """Have a model whose attention is PyTorch's decode without a copy of its keys and values for every head."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


def shared_heads_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers does with PyTorch's attention.

    The heads that share keys and values are several queries to one head: a single new token sees all that went before,
    so that no order among queries is lost.

    Args:
        module: a layer's attention.
        query: float [B, H, Q, d].
        key: float [B, G, K, d]; heads n * H / G to (n + 1) * H / G - 1 share number n.
        value: float [B, G, K, d].
        attention_mask: bool [B, 1, Q, K], True where a token is seen; None for all.
        scaling: of the scores.
        position_bias: added to the scores.
        settings: passed on.

    Returns:
        float [B, Q, H, d].
    """
    rows, heads, queries, width = query.shape
    per_head = attention_mask is not None and attention_mask.shape[1] > 1
    if queries > 1 or heads == key.shape[1] or per_head or position_bias is not None:
        settings |= {"scaling": scaling, "position_bias": position_bias}
        attended, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return attended, None
    folded = query.reshape(rows, key.shape[1], -1, width)
    attended = scaled_dot_product_attention(folded, key, value, attn_mask=attention_mask, scale=scaling)
    return attended.reshape(rows, 1, heads, -1), None


AttentionInterface.register(NAME, shared_heads_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
