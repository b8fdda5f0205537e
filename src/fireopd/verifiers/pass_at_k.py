"""What the responses to one problem say of a model: pass@k and maj@n, beside avg@n, which is their mean."""

from collections import Counter
from collections.abc import Hashable, Sequence
from math import comb
from statistics import fmean


def pass_at_k(rewards: Sequence[float], k: int) -> float:
    """Return pass@k: the chance that at least one of k responses is right, estimated without bias from n >= k.

    1 - C(n - c, k) / C(n, k) with c right ones (Chen et al., arXiv 2107.03374, Eq. 1); right is a reward of 1.

    Raises:
        ValueError: if there are fewer than k rewards.
    """
    n, right = len(rewards), sum(reward == 1 for reward in rewards)
    if k > n:
        raise ValueError(f"pass@{k} needs at least {k} responses to each prompt, got {n}")
    return 1 - comb(n - right, k) / comb(n, k)


def majority(rewards: Sequence[float], answers: Sequence[Hashable | None]) -> float:
    """Return maj@n: the mean reward of the final answer that most responses come to; where several tie, their mean.

    Args:
        rewards: of n responses.
        answers: their final answers; None has no vote, and without any vote the result is 0.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    most = max(votes.values(), default=0)
    winners = [
        fmean([reward for reward, answer in zip(rewards, answers, strict=True) if answer == winner])
        for winner, count in votes.items()
        if count == most
    ]
    return fmean(winners) if winners else 0.0
