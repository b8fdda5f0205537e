"""Bytes and floating-point operations of log-probabilities and entropies on a GPU, forward and backward, by formula.

Every operation reads its operands and writes its result once; caches are not counted, nor are values per token, such as
the log-probabilities. Hidden states and weight are in half precision, logits in float32; no bias, no soft-cap,
temperature 1. `tests/scripts/test_output_layer_traffic.py` counts the operations of the program and compares.

    python scripts/benchmarks/output_layer_traffic.py
"""

from dataclasses import dataclass

from fireopd.models.fused_logprobs import backward_columns, forward_tile

HALF, SINGLE = 2, 4
"""Bytes of a value."""
CHUNKED_FORWARD = SINGLE * (1 + 1 + 2 + 2 + 1 + 2 + 1)
"""Bytes per logit: product, maximum, subtraction, exponential, sum, entropy terms and their sum."""
CHUNKED_BACKWARD = SINGLE * (1 + 2 + 2 + 2 + 2 + 2 + 2 + 3 + 2) + (SINGLE + HALF) + 2 * HALF
"""Bytes per logit: product, eight operations of the gradient, its conversion, and two products that read it."""
FUSED_FORWARD = SINGLE * (1 + 1)
"""Bytes per logit: the product writes it, and a kernel reads it."""
FUSED_BACKWARD = SINGLE * (1 + 1) + HALF + 2 * HALF
"""Bytes per logit: product, a kernel that writes the gradient in half precision, and two products that read it."""


@dataclass(frozen=True)
class Shape:
    """Sizes at the output layer."""

    tokens: int
    """Tokens of a micro-batch."""
    width: int
    """Hidden size."""
    vocabulary: int
    """Outputs."""
    chunk_logits: int
    """Setting `model.chunk_logits`."""

    @property
    def logits(self) -> int:
        """Number of logits of a micro-batch."""
        return self.tokens * self.vocabulary

    @property
    def flops(self) -> tuple[int, int]:
        """Forward: one product. Backward: the same again, and two products for the gradients."""
        product = 2 * self.logits * self.width
        return product, 3 * product

    @property
    def chunked(self) -> tuple[int, int]:
        """Bytes of `chunked_logprobs`, forward and backward."""
        rows = min(self.tokens, max(1, self.chunk_logits // self.vocabulary))
        columns = min(self.vocabulary, max(1, self.chunk_logits // max(self.tokens, self.width)))
        forward = CHUNKED_FORWARD * self.logits + self._read(rows, self.vocabulary)
        return forward, CHUNKED_BACKWARD * self.logits + self._backward(columns)

    @property
    def fused(self) -> tuple[int, int]:
        """Bytes of `fused_logprobs`, forward and backward."""
        columns = min(self.vocabulary, backward_columns(self.tokens, self.chunk_logits))
        tile = forward_tile(self.tokens, self.vocabulary, self.chunk_logits)
        forward = FUSED_FORWARD * self.logits + self._read(*tile)
        return forward, FUSED_BACKWARD * self.logits + self._backward(columns)

    def _read(self, rows: int, columns: int) -> int:
        """Each tile of rows reads the whole weight, and each tile of columns all hidden states."""
        down, across = -(-self.tokens // rows), -(-self.vocabulary // columns)
        return HALF * self.width * (down * self.vocabulary + across * self.tokens)

    def _backward(self, columns: int) -> int:
        """Three products per chunk of the vocabulary; the gradient of the hidden states is summed in float32."""
        chunks, states, weight = -(-self.vocabulary // columns), self.tokens * self.width, self.vocabulary * self.width
        sums = chunks * 2 * SINGLE * states + SINGLE * states + (SINGLE + HALF) * states  # with zeros, and conversion
        return chunks * 2 * HALF * states + 3 * HALF * weight + sums


def table(shapes: list[Shape]) -> str:
    """Return a table in Markdown: MB and GFLOP per token."""
    lines = [
        "| `chunk_logits` | path | forward, MB | backward, MB | together, MB | of which logits | GFLOP |",
        "|---|---|---|---|---|---|---|",
    ]
    for shape in shapes:
        kinds = {
            "chunked": (shape.chunked, CHUNKED_FORWARD + CHUNKED_BACKWARD),
            "fused": (shape.fused, FUSED_FORWARD + FUSED_BACKWARD),
        }
        for name, (parts, of_logits) in kinds.items():
            cells = [part / shape.tokens / 1e6 for part in (*parts, sum(parts), of_logits * shape.logits)]
            texts = (*(f"{cell:.1f}" for cell in cells), f"{sum(shape.flops) / shape.tokens / 1e9:.1f}")
            lines.append(f"| 2^{shape.chunk_logits.bit_length() - 1} | {name} | {' | '.join(texts)} |")
    return "\n".join(lines)


DOCUMENTED = [Shape(18432, 2560, 151_936, size) for size in (2**25, 2**27)]
"""Shapes of the table in `docs/performance.md`."""

if __name__ == "__main__":
    print(table(DOCUMENTED))
