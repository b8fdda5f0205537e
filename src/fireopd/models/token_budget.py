"""Micro-batches of similar length within a token budget."""

from torch import Tensor

MICRO_BATCH_TOKENS = 128
"""What launching a micro-batch costs, as the number of tokens that could be computed meanwhile: measured as about 100
for a small model on a CPU, estimated as much for one of four billion parameters on a GPU."""


def by_token_budget(lengths: Tensor, budget: int) -> list[Tensor]:
    """Cut rows into micro-batches of like length, so that rows x longest row stays within the budget.

    Of all cuts of the rows in the order of their lengths, it is the cheapest: padding costs what tokens cost, and each
    micro-batch costs `MICRO_BATCH_TOKENS` more. The longest rows come first.

    Args:
        lengths: int64 [B]. Tokens of each row, padding left out.
        budget: tokens a micro-batch, padding included; a row that is longer than that goes alone.

    Returns:
        int64 indices: each row is in exactly one of them.
    """
    order = lengths.argsort(descending=True, stable=True)
    longest = lengths[order].tolist()
    costs, sizes = [0] * (len(longest) + 1), [0] * len(longest)
    for start in reversed(range(len(longest))):  # what it costs to cut the rows from here on, and where to cut first
        most = max(1, min(len(longest) - start, budget // max(1, longest[start])))
        costs[start], sizes[start] = min(
            (MICRO_BATCH_TOKENS + rows * longest[start] + costs[start + rows], rows) for rows in range(1, most + 1)
        )
    batches, start = [], 0
    while start < len(longest):
        batches.append(order[start : start + sizes[start]])
        start += sizes[start]
    return batches
