"""Micro-batches of similar length within a token budget."""

from torch import Tensor

__all__ = ["MICRO_BATCH_TOKENS", "by_token_budget"]

MICRO_BATCH_TOKENS = 128
"""Fixed cost of a micro-batch in tokens of computation: measured as about 100 for a small model on a CPU, estimated to
be similar for a model of four billion parameters on a GPU."""


def by_token_budget(lengths: Tensor, budget: int) -> list[Tensor]:
    """Split rows into micro-batches of similar length such that rows x longest row stays within the budget.

    Dynamic programming over the rows in order of decreasing length minimizes the cost: padded tokens plus
    `MICRO_BATCH_TOKENS` per micro-batch. The longest rows come first.

    Args:
        lengths: int64 [B]. Tokens per row without padding.
        budget: tokens per micro-batch, padding included. A longer row forms its own micro-batch.

    Returns:
        int64 row indices per micro-batch. Each row occurs exactly once.
    """
    order = lengths.argsort(descending=True, stable=True)
    longest = lengths[order].tolist()
    # costs[i]: lowest cost of the rows from i on; sizes[i]: size of the first micro-batch of that solution.
    costs, sizes = [0] * (len(longest) + 1), [0] * len(longest)
    for start in reversed(range(len(longest))):
        largest = max(1, min(len(longest) - start, budget // max(1, longest[start])))
        costs[start], sizes[start] = min(
            (MICRO_BATCH_TOKENS + rows * longest[start] + costs[start + rows], rows) for rows in range(1, largest + 1)
        )
    batches, start = [], 0
    while start < len(longest):
        batches.append(order[start : start + sizes[start]])
        start += sizes[start]
    return batches
