"""Micro-batches of the global batch, dealt to ranks that compute in lockstep.

Ranks with a sharded model meet at every layer, so a micro-batch takes as long as the largest of the micro-batches that
the other ranks compute at the same time. Those of one round therefore have about the same number of tokens.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from fireopd.models.token_budget import MICRO_BATCH_TOKENS, by_token_budget

__all__ = ["deal_micro_batches"]

ROUND_FACTORS = (1.0, 1.15, 1.35, 1.6)
"""Numbers of rounds that are tried, as multiples of the smallest number."""
EXTRA_ROUNDS = 3
"""Numbers of rounds above the smallest that are tried as well; they matter if there are few rounds."""
BISECTIONS = 8
"""Steps of the search for the smallest capacities that hold all rows."""

Block = tuple[int, int, int]
"""Round, first row in order of decreasing length, and number of rows of a micro-batch."""


def deal_micro_batches(lengths: Tensor, budget: int, ranks: int) -> list[list[Tensor]]:
    """Cut rows into micro-batches, and deal them to ranks in rounds of equal work.

    The rounds have capacities that fall geometrically from the longest row, or the budget, to a value which is found by
    bisection. In order of decreasing length, each micro-batch goes to the round whose capacity a whole number of such
    rows fills best. The number of rounds with the lowest cost is taken: the sum of the largest micro-batches, padding
    included, plus `MICRO_BATCH_TOKENS` per round.

    Args:
        lengths: int64 [B]. Tokens per row without padding.
        budget: tokens per micro-batch, padding included. A longer row forms its own micro-batch.
        ranks: number of processes.

    Returns:
        Rounds, the largest micro-batches first. A round has int64 row indices for each rank, none for a rank without
        work. Each row occurs exactly once. For one rank, the micro-batches of `by_token_budget`.
    """
    if ranks == 1:
        return [[rows] for rows in by_token_budget(lengths, budget)]
    order = lengths.argsort(descending=True, stable=True)
    longest = [max(1, length) for length in lengths[order].tolist()]
    rounds: dict[int, list[Tensor]] = {}
    for number, start, rows in _cheapest(longest, budget, ranks):
        rounds.setdefault(number, []).append(order[start : start + rows])
    idle = [order[:0]] * ranks
    return [[*rounds[number], *idle][:ranks] for number in sorted(rounds)]


def _cheapest(longest: Sequence[int], budget: int, ranks: int) -> list[Block]:
    """Return the micro-batches with the lowest cost of all tried capacities; `longest` is in decreasing order."""
    if not longest:
        return []
    # More than the longest row and the mean work of a rank is of no use.
    capacity = max(longest[0], min(budget, longest[0] + math.ceil(sum(longest) / ranks)))
    in_turn = _fill(longest, [capacity] * len(longest), budget, 1)
    assert in_turn is not None  # a round for each row
    fewest = math.ceil(len(in_turn) / ranks)
    best, cheapest = in_turn, math.inf
    counts = {*range(fewest, fewest + EXTRA_ROUNDS + 1), *(math.ceil(fewest * factor) for factor in ROUND_FACTORS)}
    for count in sorted(counts):
        for highest in sorted({capacity, longest[0]}):
            blocks = _smallest(longest, highest, count, budget, ranks)
            if blocks is not None and _cost(longest, blocks) < cheapest:
                best, cheapest = blocks, _cost(longest, blocks)
    return best


def _smallest(longest: Sequence[int], highest: int, count: int, budget: int, ranks: int) -> list[Block] | None:
    """Return the micro-batches of the smallest capacities with this number of rounds; None if none hold all rows."""
    best = _fill(longest, [highest] * count, budget, ranks)
    low, high = 1, highest
    for _ in range(BISECTIONS if best is not None else 0):
        middle = (low + high) // 2
        exponents = [place / (count - 1) for place in range(count)] if count > 1 else [1.0]
        capacities = [int(highest * (middle / highest) ** exponent) for exponent in exponents]
        blocks = _fill(longest, capacities, budget, ranks)
        if blocks is None:
            low = middle
        else:
            best, high = blocks, middle
    return best


def _fill(longest: Sequence[int], capacities: Sequence[int], budget: int, ranks: int) -> list[Block] | None:
    """Return micro-batches, at most one per rank and round, within decreasing capacities; None if rows are left."""
    free, blocks, start = [ranks] * len(capacities), list[Block](), 0
    while start < len(longest):
        length, left = longest[start], len(longest) - start
        best, waste, taken = -1, math.inf, 0
        for number, capacity in enumerate(capacities):
            if capacity < length:
                break
            rows = min(left, max(1, min(capacity, budget) // length))
            if free[number] and capacity - rows * length < waste:
                best, waste, taken = number, capacity - rows * length, rows
        if best < 0:
            return None
        free[best] -= 1
        blocks.append((best, start, taken))
        start += taken
    return blocks


def _cost(longest: Sequence[int], blocks: Sequence[Block]) -> int:
    """Return the sum of the largest micro-batches of all rounds, tokens, with the fixed cost of each round."""
    largest: dict[int, int] = {}
    for number, start, rows in blocks:
        largest[number] = max(largest.get(number, 0), rows * longest[start])
    return sum(largest.values()) + MICRO_BATCH_TOKENS * len(largest)
