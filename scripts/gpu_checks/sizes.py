"""Sizes of the questions."""

from dataclasses import dataclass
from typing import Any

import torch

Row = dict[str, Any]
"""Row of a table: the case, then values by name; units are part of the names."""


@dataclass(frozen=True)
class Sizes:
    """Device and sizes. The defaults are those of one 80 GB card; `small` returns those of a test."""

    device_name: str = "cuda"
    """Device of all questions."""
    tiny_models: bool = False
    """Replace all model shapes by one of two layers."""
    repeats: int = 3
    """Measurements of each case, after one that is not counted."""
    matmul: int = 8192
    """Rows and columns of the matrix product that measures the highest rate."""
    copy_bytes: int = 2**32
    """Bytes of the copy that measures the bandwidth."""
    heads: tuple[int, int, int] = (32, 8, 128)
    """Query heads, key-value heads and head size of the attention."""
    attention_lengths: tuple[int, ...] = (4096, 16384)
    """Tokens of a row of the attention; all kernels are tried on the first."""
    head_tokens: int = 18432
    """Tokens at the output layer."""
    head_width: int = 2560
    """Hidden size at the output layer."""
    vocabulary: int = 151_936
    """Outputs of the output layer."""
    chunk_logits: tuple[int, ...] = (2**25, 2**27, 2**29)
    """Values of `model.chunk_logits`."""
    reference_tokens: int = 1024
    """Tokens of the comparison with float32."""
    update_shapes: tuple[tuple[int, int], ...] = ((1, 18432), (4, 4608), (9, 2048))
    """Rows and tokens per row of the micro-batches of an update."""
    scoring_shapes: tuple[tuple[int, int], ...] = ((2, 16384), (16, 2048))
    """The same for scoring."""
    sharded_layers: int = 8
    """Layers of the model whose gradients are compared."""
    sharded_shape: tuple[int, int] = (4, 512)
    """Rows and tokens per row of that comparison."""
    embedded_rows: int = 64
    """Rows of a step of the embedded run."""
    embedded_steps: int = 6
    """Steps of the embedded run, an even number: it is resumed after half of them."""
    embedded_response: int = 64
    """Maximum response length of the embedded run, tokens."""
    decoding_rows: int = 64
    """Rows that are decoded together."""
    decoding_tokens: int = 128
    """Tokens of each response."""
    diagnostics_shape: tuple[int, int] = (1024, 16384)
    """Rows and tokens per row of the batch whose diagnostics are measured."""
    rounding_rows: int = 24
    """Rows that are scored in different micro-batches."""
    rounding_tokens: int = 1024
    """Longest of these rows, tokens."""

    @classmethod
    def small(cls, device_name: str) -> "Sizes":
        """Return the smallest sizes that run all questions; the numbers are meaningless."""
        return cls(
            device_name=device_name,
            tiny_models=True,
            repeats=1,
            matmul=64,
            copy_bytes=2**16,
            heads=(4, 2, 16),
            attention_lengths=(32, 48),
            head_tokens=48,
            head_width=16,
            vocabulary=200,
            chunk_logits=(2**10, 2**12),
            reference_tokens=24,
            update_shapes=((1, 32), (2, 16)),
            scoring_shapes=((2, 16),),
            sharded_layers=2,
            sharded_shape=(2, 12),
            embedded_rows=8,
            embedded_steps=2,
            embedded_response=16,
            decoding_rows=3,
            decoding_tokens=6,
            diagnostics_shape=(12, 24),
            rounding_rows=6,
            rounding_tokens=24,
        )

    @property
    def device(self) -> torch.device:
        """Device of all questions."""
        return torch.device(self.device_name)

    @property
    def on_gpu(self) -> bool:
        """True if the device is a GPU."""
        return self.device_name.startswith("cuda")
