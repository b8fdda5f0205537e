"""Memory of the passes through a model: forward passes that score, forward and backward passes that update."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import PreTrainedConfig

from fireopd.models.model_size import dtype_size, layer_sizes
from fireopd.training.layer_memory import LayerBytes, layer_bytes, scoring_bytes
from fireopd.training.memory_estimate import Part, optimizer_step_bytes
from fireopd.training.run_plan import RunPlan

__all__ = ["ModelPasses", "scoring_parts", "update_moments"]

LOGITS_COPIES = 2
"""Copies of a chunk's logits in float32 at once: the model's output, and the result computed from it."""
COMPARED_COPIES = 6
"""Copies where distributions are compared: those of both models and the intermediate results of the divergence."""
FORWARD_LAYERS = 3
"""Layers that FSDP2 holds in a forward pass: the current one, its all-gather buffer and that of the next."""
BACKWARD_LAYERS = 2
"""Layers that FSDP2 holds in a backward pass: the current one and the all-gather buffer of the next."""


@dataclass(frozen=True)
class ModelPasses:
    """A model, and how it computes."""

    config: PreTrainedConfig
    """Of the model."""
    dtype: str
    """Dtype of the parameters."""
    autocast: str | None
    """Dtype of autocast."""
    param_dtype: str | None
    """Dtype of gathered parameters under FSDP2; None if the model is not sharded."""
    tokens: int
    """Tokens of the largest micro-batch."""
    row: int
    """Tokens of its longest row."""
    gpu: bool
    """True if a GPU computes."""

    @cached_property
    def text(self) -> Any:
        """Configuration of the text model."""
        return self.config.get_text_config()

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return int(self.text.num_hidden_layers)

    @cached_property
    def counts(self) -> tuple[int, int]:
        """Parameters of the largest decoder layer, and of all that is not in a decoder layer."""
        return layer_sizes(self.config)

    @property
    def computed(self) -> int:
        """Bytes of a number in matrix products."""
        return dtype_size(self.autocast or self.param_dtype or self.dtype)

    @property
    def hidden(self) -> int:
        """Numbers of the hidden states of a micro-batch."""
        return self.tokens * int(self.text.hidden_size)

    @property
    def head(self) -> int:
        """Parameters of the output layer."""
        return int(self.text.vocab_size * self.text.hidden_size)

    @cached_property
    def layer(self) -> LayerBytes:
        """Measured bytes of a decoder layer in an update of the largest micro-batch."""
        return layer_bytes(self.config, *self._measured, gpu=self.gpu, autocast=self._autocast)

    @cached_property
    def scoring(self) -> int:
        """Measured bytes of a decoder layer in a forward pass without gradients of the largest micro-batch."""
        return scoring_bytes(self.config, *self._measured, gpu=self.gpu, autocast=self._autocast)

    @property
    def _measured(self) -> tuple[int, int, torch.dtype]:
        """Rows and length of the largest micro-batch, and the dtype of the parameters."""
        rows = max(1, self.tokens // self.row)
        return rows, self.tokens // rows, getattr(torch, self.param_dtype or self.dtype)

    @property
    def _autocast(self) -> torch.dtype | None:
        return None if self.autocast is None else getattr(torch, self.autocast)

    def chunk(self, chunk_logits: int) -> int:
        """Return the number of logits held at once."""
        return min(max(chunk_logits, self.text.vocab_size), self.tokens * self.text.vocab_size)

    def gathered(self, layers: int) -> list[Part]:
        """Return the gathered parameters under FSDP2: all that is not in a layer, and some layers."""
        if self.param_dtype is None:
            return []
        layer, other = self.counts
        width = self.computed
        shown = (
            f"({other / 1e6:.1f} M parameters outside layers + {layers} x {layer / 1e6:.1f} M of a layer) x {width} B"
        )
        return [Part("FSDP2: gathered parameters", (other + layers * layer) * width, shown)]


def scoring_parts(model: ModelPasses, chunk_logits: int) -> list[Part]:
    """Return the parts of a forward pass without gradients."""
    held, passed = model.chunk(chunk_logits), model.scoring + model.hidden * model.computed
    return [
        Part("activations", passed, f"{model.tokens} tokens x {passed // model.tokens} B of one layer and its output"),
        Part("logits", held * 4 * LOGITS_COPIES, f"{held} logits x 4 B x {LOGITS_COPIES} copies"),
        *model.gathered(FORWARD_LAYERS),
    ]


def update_moments(model: ModelPasses, plan: RunPlan, trained: int) -> Mapping[str, list[Part]]:
    """Return the parts of an update at its moments that can be the peak, without weights, gradients and their states.

    Args:
        model: the student.
        plan: the run.
        trained: number of trained parameters in this process.
    """
    everything = plan.adapter is None
    return {
        "output layer": _output_layer(model, plan, everything=everything),
        "decoder layer": _decoder_layer(model, plan, everything=everything),
        "end of the backward pass": _last_reduction(model, plan, everything=everything),
        "optimizer step": _optimizer_step(plan, trained),
    }


def _inputs(model: ModelPasses, plan: RunPlan, layers: int) -> Part:
    """Return the activations that layers have saved."""
    checkpointing = plan.budgets.gradient_checkpointing
    size = model.layer.boundary if checkpointing else model.layer.saved
    name = "activations: inputs of the layers" if checkpointing else "activations: saved by the layers"
    return Part(name, layers * size, f"{layers} layers x {model.tokens} tokens x {size // model.tokens} B")


def _output_layer(model: ModelPasses, plan: RunPlan, *, everything: bool) -> list[Part]:
    """Return what is held while log-probabilities are differentiated, after the forward pass of all layers."""
    width, mixed = model.computed, model.autocast is not None
    held = model.chunk(plan.budgets.chunk_logits)
    copies = COMPARED_COPIES if plan.distributions else LOGITS_COPIES
    states = model.layer.norm + model.layer.boundary + model.hidden * (width + 4)
    weight = model.head * width * (mixed + everything)
    logits = held * (4 * copies + width)
    if mixed and everything:  # the gradient of the copy in half precision becomes one in float32 after the chunks
        logits = max(logits, model.head * 4)
    return [
        _inputs(model, plan, model.layers),
        Part("output layer: hidden states", states, f"{model.tokens} tokens x {states // model.tokens} B"),
        Part("output layer: weight copy and gradient", weight, f"{model.head / 1e6:.1f} M parameters x {width} B each"),
        Part("output layer: logits", logits, f"{held} logits x 4 B x {copies}, or the float32 gradient"),
        *model.gathered(1),
    ]


def _decoder_layer(model: ModelPasses, plan: RunPlan, *, everything: bool) -> list[Part]:
    """Return what is held in the backward pass of the last layer, where the inputs of all layers are saved."""
    one = model.layer.backward
    parts = [
        _inputs(model, plan, model.layers - 1),
        Part("activations: one layer, backward", one, f"{model.tokens} tokens x {one // model.tokens} B, measured"),
        *model.gathered(BACKWARD_LAYERS),
    ]
    if model.param_dtype is not None and everything:
        layer = model.counts[0]
        size = model.head * model.computed + layer * (model.computed + dtype_size(plan.sharding.reduce_dtype))
        parts.append(Part("FSDP2: unsharded gradients", size, f"output layer, {layer / 1e6:.1f} M of a layer twice"))
    return parts


def _last_reduction(model: ModelPasses, plan: RunPlan, *, everything: bool) -> list[Part]:
    """Return what is held at the end of a backward pass: the gradients outside layers, and under FSDP2 their sum."""
    if not everything:
        return []
    other = model.counts[1]
    if model.param_dtype is None:
        return [Part("embeddings: gradient", model.head * 4, f"{model.head / 1e6:.1f} M parameters x 4 B")]
    width = model.computed + dtype_size(plan.sharding.reduce_dtype)
    size = other * width + model.head * model.computed
    return [
        Part("FSDP2: unsharded gradients", size, f"{other / 1e6:.1f} M parameters x {width} B, embeddings again"),
        *model.gathered(0),
    ]


def _optimizer_step(plan: RunPlan, trained: int) -> list[Part]:
    on_gpu = plan.processes.device.type == "cuda" and not plan.sharding.offload_student
    each = optimizer_step_bytes(plan.optimizer) if on_gpu else 0
    return [Part("optimizer step: intermediate results", trained * each, f"{trained / 1e6:.1f} M x {each} B")]
