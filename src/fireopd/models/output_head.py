"""Output layer of a causal language model: logits in float32, with the scale and the soft-cap of the architecture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear
from transformers import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

from fireopd.distributed import collectives

__all__ = [
    "LogitTransform",
    "OutputHead",
    "add_product",
    "aligned",
    "backbone",
    "cast_for_autocast",
    "log_distribution",
    "logit_dtype",
    "product",
]

FACTORS = ("logit_scale", "lm_head_multiplier", "output_multiplier")
"""Settings that multiply the logits: Cohere, Falcon-H1, MuseGlimmer."""
DIVISORS = ("logits_scaling",)
"""Settings that divide the logits: Granite."""
MULTIPLYING_TYPES = ("hyperclovax",)
"""Model types whose `DIVISORS` multiply."""
SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Settings c of a soft-cap c tanh(z / c): Gemma 2 to 4, RecurrentGemma, xLSTM."""
BLOCK = 2**25
"""Number of weights that are converted to float32 at a time on a CPU."""
ALIGNMENT = 128
"""Tokens of the vocabulary that the width of a chunk is a multiple of: unaligned rows make matrix products slow."""


@dataclass(frozen=True, slots=True)
class LogitTransform:
    """Transformation of the output layer's values z into logits: scale x z, then cap x tanh(scale x z / cap)."""

    scale: float = 1.0
    """Factor."""
    cap: float | None = None
    """Bound of the absolute value; None for no soft-cap."""

    @classmethod
    def from_config(cls, config: PreTrainedConfig) -> LogitTransform:
        """Return the transformation that the settings of a model define.

        Settings of unknown architectures may be missed; `check_scorer` compares with the model's own logits.
        """
        text = config.get_text_config()
        scale, cap = 1.0, None
        for name in (*FACTORS, *DIVISORS):
            value = getattr(text, name, None)
            if isinstance(value, int | float):
                divides = name in DIVISORS and not text.model_type.startswith(MULTIPLYING_TYPES)
                scale *= 1 / value if divides else value
        for name in SOFT_CAPS:
            cap = getattr(text, name, None) or cap
        return cls(scale, cap)

    def __call__(self, values: Tensor) -> Tensor:
        """Return the logits, differentiable."""
        if self.scale != 1:
            values = values * self.scale
        return values if self.cap is None else (values / self.cap).tanh() * self.cap

    def apply_(self, values: Tensor) -> Tensor:
        """Return the logits, computed in place."""
        if self.scale != 1:
            values.mul_(self.scale)
        return values if self.cap is None else values.div_(self.cap).tanh_().mul_(self.cap)

    def slope(self, logits: Tensor) -> Tensor | float:
        """Return the derivative of the logits with respect to the values."""
        return self.scale if self.cap is None else (logits / self.cap).square_().neg_().add_(1).mul_(self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class OutputHead:
    """Output layer of a model."""

    weight: Tensor
    """[V, d], in the dtype of the hidden states."""
    bias: Tensor | None
    """[V], in the same dtype."""
    transform: LogitTransform = LogitTransform()
    """Transformation of the values."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> OutputHead:
        """Return the output layer of a model with the model's own parameters, so that gradients reach them."""
        layer: Any = model.get_output_embeddings()
        return cls(layer.weight, getattr(layer, "bias", None), LogitTransform.from_config(model.config))

    @classmethod
    def from_model(cls, model: PreTrainedModel, dtype: torch.dtype, device: torch.device) -> OutputHead:
        """Return a frozen copy of the head of a model. Every process must call, since each may hold a shard of it."""
        own = cls.of(model)
        weight, bias = (
            None if tensor is None else collectives.full_tensor(tensor.detach().to(device)).to(dtype)
            for tensor in (own.weight, own.bias)
        )
        assert weight is not None
        return replace(own, weight=weight, bias=bias)

    @property
    def size(self) -> int:
        """Number of tokens of its vocabulary."""
        return len(self.weight)

    @property
    def width(self) -> int:
        """Size d of the hidden states."""
        return self.weight.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the hidden states."""
        return self.weight.dtype

    def first(self, size: int) -> OutputHead:
        """Return the head of the first `size` tokens of the vocabulary."""
        if size >= len(self.weight):
            return self
        return replace(self, weight=self.weight[:size], bias=None if self.bias is None else self.bias[:size])

    def __call__(self, hidden_states: Tensor) -> Tensor:
        """Return logits [..., V] of hidden states [..., d], differentiable, in the dtype of `logit_dtype`."""
        hidden_states, weight, bias = cast_for_autocast(hidden_states, self.weight, self.bias)
        if hidden_states.dtype == logit_dtype(hidden_states):
            return self.transform(linear(hidden_states, weight, bias))
        values = _Product.apply(hidden_states.flatten(0, -2), weight, bias)
        return self.transform(values.unflatten(0, hidden_states.shape[:-1]))

    def log_distribution(self, hidden_states: Tensor, temperature: float) -> Tensor:
        """Return log-probabilities [T, V] of hidden states [T, d]."""
        return log_distribution(self(hidden_states), temperature)


def log_distribution(logits: Tensor, temperature: float) -> Tensor:
    """Return log-probabilities [T, V] of logits [T, V], in float32 or the higher precision of the logits."""
    return (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(-1)


def backbone(model: PreTrainedModel) -> nn.Module:
    """Return the part of a causal language model that computes its last hidden states."""
    # The prefix of Llama4ForCausalLM is a submodule of its multimodal form; without it, it is its own base model.
    return model.get_submodule("model") if model.base_model is model else model.base_model


def logit_dtype(hidden_states: Tensor) -> torch.dtype:
    """Return the dtype of logits: float32, or the higher precision of the hidden states."""
    return torch.promote_types(hidden_states.dtype, torch.float32)


def cast_for_autocast(
    hidden_states: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the operands of a matrix product in the dtype that autocast prescribes, if it is enabled."""
    if not torch.is_autocast_enabled(hidden_states.device.type):
        return hidden_states, weight, bias
    dtype = torch.get_autocast_dtype(hidden_states.device.type)
    return hidden_states.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def aligned(columns: int) -> int:
    """Return the largest multiple of `ALIGNMENT` up to a number of columns; a smaller number, at least 1, as it is."""
    return max(1, columns if columns < ALIGNMENT else columns // ALIGNMENT * ALIGNMENT)


def product(hidden_states: Tensor, weight: Tensor, bias: Tensor | None, block: int = BLOCK) -> Tensor:
    """Return hidden states [T, d] times weight [V, d], plus bias, [T, V], in the dtype of `logit_dtype`.

    The sums are not rounded to the dtype of the operands, as those of `torch.nn.functional.linear` are. On a GPU, the
    operands stay in half precision. Elsewhere, at most `block` weights are converted at a time. Not differentiable.
    """
    dtype = logit_dtype(hidden_states)
    if hidden_states.dtype == dtype:
        return linear(hidden_states, weight, bias)
    if hidden_states.is_cuda:
        values = torch.mm(hidden_states, weight.t(), out_dtype=dtype)
    else:
        values = hidden_states.new_empty(len(hidden_states), len(weight), dtype=dtype)
        hidden_states, rows = hidden_states.to(dtype), max(1, block // weight.shape[1])
        for start in range(0, len(weight), rows):
            part = slice(start, start + rows)
            torch.mm(hidden_states, weight[part].to(dtype).t(), out=values[:, part])
    return values if bias is None else values.add_(bias)


def add_product(accumulator: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a [T, v] times b [v, d] to an accumulator [T, d] of the same or a higher precision, without rounding."""
    if a.dtype == accumulator.dtype:
        accumulator.addmm_(a, b)
    elif a.is_cuda:
        torch.addmm(accumulator, a, b, out_dtype=accumulator.dtype, out=accumulator)
    else:
        accumulator.addmm_(a.to(accumulator.dtype), b.to(accumulator.dtype))


class _Product(torch.autograd.Function):
    """Differentiable `product`."""

    @staticmethod
    def forward(ctx: Any, hidden_states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply without rounding the sums."""
        ctx.save_for_backward(hidden_states, weight)
        return product(hidden_states, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Round the gradient to the dtype of the operands, as `linear` does."""
        hidden_states, weight = ctx.saved_tensors
        gradient = gradient.to(hidden_states.dtype)
        return (
            gradient @ weight if ctx.needs_input_grad[0] else None,
            gradient.t() @ hidden_states if ctx.needs_input_grad[1] else None,
            gradient.sum(0) if ctx.needs_input_grad[2] else None,
        )
